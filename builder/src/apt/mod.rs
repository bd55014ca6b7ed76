//! Debian's archive as the host's apt configuration names it, read and verified in this process.
//!
//! ```text
//! sources ─▶ InRelease (OpenPGP against Signed-By) ─▶ Packages.xz (digest, size) ─▶ Package
//! ```
//!
//! Only Debian's own archive is used. A source is Debian's when its `Signed-By` is one of the keyrings
//! of `debian-archive-keyring`, or when it has none and its URI ends in `/debian` or
//! `/debian-security`. Others are left out with a note and never contacted; one of Debian's that cannot
//! be fetched or verified is an error, because building without the security suite would be a silent
//! downgrade.
//!
//! A `Release` past its `Valid-Until` is refused (somebody may be holding back updates) unless apt was
//! told not to check, by `Check-Valid-Until: no` at the source: what frozen archives need.

pub mod archive;
pub mod index;
mod proxy;
pub mod relation;
pub mod release;
pub mod sources;
pub mod version;

pub use archive::{Archive, ArchiveError};
pub use index::Package;
pub use relation::{Operator, Relation};
pub use version::DebVersion;
