//! image.toml to lock, tree, image set and bundle.
