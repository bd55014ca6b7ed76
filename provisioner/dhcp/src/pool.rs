//! Which address of a pool a client is offered.
