//! Who goes first: salted, stratified canaries.

use kiln_model::manifest::ImageRef;

use crate::start::Candidate;

/// Every candidate in the order in which they go, canaries first.
pub(crate) fn in_order<'a>(
    image: &ImageRef,
    candidates: &[Candidate<'a>],
    canaries: u32,
) -> Vec<(Candidate<'a>, bool)> {
    let _ = (image, candidates, canaries);
    todo!()
}
