//! libFuzzer's entry: one binary for all targets, chosen by `KILN_FUZZ_TARGET`.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<kiln_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("KILN_FUZZ_TARGET").unwrap_or_default();
    kiln_fuzz::target(&name).expect("KILN_FUZZ_TARGET: a name that `kiln-fuzz list` prints")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
