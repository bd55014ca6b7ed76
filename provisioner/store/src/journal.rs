//! What makes changes durable.
