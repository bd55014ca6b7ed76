//! The whole product, driven through its command line as a person would.

fn main() {}
