//! What an image of a stranger can try.
