//! The lab: real firmware in QEMU on virtual networks inside a namespace of its own.
