//! OCI images as functions: a layout folder or a registry, read and verified in this process.
//!
//! ```text
//! reference ─▶ index (by platform) ─▶ manifest ─▶ config, layers ─▶ lock ─▶ tree
//! ```
//!
//! OCI image specification 1.1 and distribution specification 1.1. Everything is checked against the
//! digest that named it before it is read further. Layers come from strangers: what they unpack to is
//! limited, names and links that lead out of the tree and devices are refused.

mod document;
mod layer;
mod reference;
mod registry;
mod resolve;

pub use document::{Config, Descriptor, Index, Manifest, parse_config, parse_index, parse_manifest};
pub use layer::{Applied, Budget, Packing, apply};
pub use reference::{Reference, ReferenceError};
pub use resolve::{Place, fetch, pin};

use kiln_model::Sha256;

use crate::store::StoreError;
use crate::tree::{PathError, TreeError, TreePath};

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A file of a layout cannot be read.
    #[error("{file}: {source}", file = .file.display())]
    Io {
        /// Which.
        file: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No answer of a registry, or the wrong one.
    #[error("cannot fetch {url}: {why}")]
    Http {
        /// What was asked for.
        url: String,
        /// What came back.
        why: String,
    },
    /// A document that is not what it should be.
    #[error("{what} cannot be read: {why}")]
    Document {
        /// `the manifest`.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// More than anybody needs.
    #[error("{what} has {found} {unit}, and at most {limit} are read")]
    TooLarge {
        /// Of what.
        what: String,
        /// How many there are, or at least are.
        found: u64,
        /// Of what kind.
        unit: &'static str,
        /// How many may be.
        limit: u64,
    },
    /// Bytes that are not what was promised.
    #[error("{what} is {found}, and should be {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// Length and digest promised.
        expected: String,
        /// Length and digest found.
        found: String,
    },
    /// There is no such image.
    #[error("{place} has no image for {wanted}; it has: {there}")]
    Missing {
        /// Where it was looked for.
        place: String,
        /// Platform or tag.
        wanted: String,
        /// What there is.
        there: String,
    },
    /// A kind of blob that is not known.
    #[error("{what} is a `{found}`, which is not known; known are {known}")]
    MediaType {
        /// Of what.
        what: String,
        /// What it says it is.
        found: String,
        /// What could be read.
        known: String,
    },
    /// Damaged within.
    #[error("layer {layer} cannot be unpacked: {source}", layer = .layer.short())]
    Layer {
        /// Which.
        layer: Sha256,
        /// Why.
        source: LayerFault,
    },
    /// Nothing may be fetched, and it is not here.
    #[error("{what} is not in the store, and nothing may be fetched (`--offline`)")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// The archive is damaged or ends too early.
    #[error("{0}")]
    Data(std::io::Error),
    /// It unpacks to more than anything reasonable.
    #[error("it unpacks to more than {bytes} bytes or {entries} entries, which is taken for a bomb")]
    Bomb {
        /// The limit in bytes.
        bytes: u64,
        /// The limit in entries.
        entries: usize,
    },
    /// It is not what the config says it unpacks to.
    #[error("it unpacks to something with SHA-256 {found}, and the config says {expected}")]
    DiffId {
        /// What the config says.
        expected: String,
        /// What it is.
        found: Sha256,
    },
    /// A name that leads out of the image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A name that is no text.
    #[error("the name {0} is no UTF-8")]
    Name(String),
    /// A link that leads out of the image.
    #[error("the link `{path}` leads out of the image: `{target}`")]
    Link {
        /// Where.
        path: TreePath,
        /// Where to.
        target: String,
    },
    /// A hard link to nothing.
    #[error("the hard link `{path}` is to `{target}`, which is no file before it")]
    HardLink {
        /// Where.
        path: TreePath,
        /// Where to.
        target: TreePath,
    },
    /// Something that has no place in an image.
    #[error("`{path}` is a {kind}, which has no place in an image")]
    Kind {
        /// Where.
        path: TreePath,
        /// What it is.
        kind: &'static str,
    },
    /// Two things at one place.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

#[cfg(test)]
mod tests;
