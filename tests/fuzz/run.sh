#!/usr/bin/env bash
# Coverage-guided fuzzing of every reader: `make fuzz MINUTES=10 [TARGET="deb tuf"]`.
#
# Each target runs for MINUTES of processor time, starting from what the repository keeps; then its corpus
# is made as small as it can be without losing coverage, and packed into `corpus/`. What breaks a target
# is written to `regressions/`, printed, and the run fails. Any stable compiler does: coverage is asked of
# LLVM, and libFuzzer is built from its crate by the C++ compiler.
set -euo pipefail
cd "$(dirname "$0")/../.."

minutes=${MINUTES:-10}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
triple=$(uname -m)-unknown-linux-gnu
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

cargo build --locked -p kiln-fuzz --bin kiln-fuzz
RUSTFLAGS="$coverage" cargo build --locked --profile fuzz --target "$triple" --target-dir "$target" \
    -p kiln-fuzz --features libfuzzer --bin kiln-libfuzzer
tool=$target/../debug/kiln-fuzz
fuzzer=$target/$triple/fuzz/kiln-libfuzzer

cpu_seconds() { # PID
    awk -v tick="$(getconf CLK_TCK)" '{print int(($14 + $15) / tick)}' "/proc/$1/stat" 2>/dev/null || echo 0
}

broken=0
for name in ${TARGET:-$("$tool" list | awk '{print $1}')}; do
    longest=$("$tool" list | awk -v name="$name" '$1 == name {print $2}')
    [ -n "$longest" ] || { echo "fuzz: there is no target \`$name\`: see \`$tool list\`" >&2; exit 2; }
    work=$target/corpus/$name found=$target/found/$name
    rm -rf "$work" "$found"
    mkdir -p "$found"
    "$tool" unpack "$name" "$work"
    export KILN_FUZZ_TARGET=$name
    limits=(-max_len="$longest" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512)
    "$fuzzer" "${limits[@]}" -artifact_prefix="$found/" -print_final_stats=1 "$work" >"$target/$name.log" 2>&1 &
    running=$!
    # What counts is processor time: a busy machine must not make a run shorter.
    while sleep 2 && kill -0 "$running" 2>/dev/null && [ "$(cpu_seconds "$running")" -lt $((minutes * 60)) ]; do :; done
    kill -USR1 "$running" 2>/dev/null || :
    if ! wait "$running"; then
        broken=$((broken + 1))
        mkdir -p "tests/fuzz/regressions/$name"
        cp "$found"/* "tests/fuzz/regressions/$name/" 2>/dev/null || :
        echo "fuzz: $name: BROKEN, see tests/fuzz/regressions/$name and $target/$name.log"
        continue
    fi
    rm -rf "$work.small" && mkdir "$work.small"
    "$fuzzer" "${limits[@]}" -merge=1 "$work.small" "$work" >>"$target/$name.log" 2>&1
    "$tool" pack "$name" "$work.small"
    runs=$(awk '/stat::number_of_executed_units/ {print $2}' "$target/$name.log" | head -1)
    echo "fuzz: $name: $runs runs, $(find "$work.small" -type f | wc -l) inputs kept"
done
[ "$broken" = 0 ] || { echo "fuzz: $broken targets broken"; exit 1; }
