#!/usr/bin/env bash
# Coverage-guided fuzzing of every reader: `make fuzz MINUTES=10 JOBS=2 [TARGETS="deb tuf"]`.
#
# Each target runs for MINUTES of processor time (one.sh), JOBS at a time, starting from what the repository
# keeps. What was run is written down in `corpus/runs.tsv`, so that short runs add up. Any stable compiler does:
# coverage is asked of LLVM, and libFuzzer is built from its crate by the C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
triple=$(uname -m)-unknown-linux-gnu
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

cargo build --locked -p kiln-fuzz --bin kiln-fuzz
RUSTFLAGS="$coverage" cargo build --locked --profile fuzz --target "$triple" --target-dir "$target" \
    -p kiln-fuzz --features libfuzzer --bin kiln-libfuzzer

export KILN_FUZZ_WORK=$target KILN_FUZZ_SECONDS=$((${MINUTES:-10} * 60))
export KILN_FUZZ_TOOL=$target/../debug/kiln-fuzz KILN_FUZZ_FUZZER=$target/$triple/fuzz/kiln-libfuzzer
# shellcheck disable=SC2086 # a list of words
printf '%s\n' ${TARGETS:-$("$KILN_FUZZ_TOOL" list | awk '{print $1}')} |
    xargs -P "${JOBS:-$(nproc)}" -I '{}' ./tests/fuzz/one.sh '{}' ||
    { echo "fuzz: at least one target is broken, see above" >&2; exit 1; }
