#!/usr/bin/env bash
# Everything that `make test` runs, one stage after the other, and one closing line.
#
# A stage that fails does not stop the others: the whole picture is worth more than the first stain.
# A stage is skipped only with a reason, which is printed.
set -uo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
logs=$target/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
started=$SECONDS

stage() { # NAME COMMAND...
    local name=$1 log="$logs/$1.log" began=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@" 2>&1 | tee "$log"; then
        passed=$((passed + 1))
        printf '== %s: passed in %s s\n' "$name" $((SECONDS - began))
    else
        failed=$((failed + 1))
        printf '== %s: FAILED after %s s (log: %s)\n' "$name" $((SECONDS - began)) "$log"
    fi
}

skip() { # NAME REASON
    skipped=$((skipped + 1))
    printf '\n== %s: skipped: %s\n' "$1" "$2"
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -E env "PATH=$PATH" "$@"; fi; }

lints() {
    cargo fmt --all --check &&
        if cargo clippy --version >/dev/null 2>&1; then
            cargo clippy --locked --workspace --all-targets -- -D warnings
        else
            echo "clippy: not run: this Rust (Debian's rustc-web) has no clippy package"
        fi
}

unit() { cargo test --locked --workspace --no-fail-fast; }

# Tests that make network namespaces, mounts or machines of their own are `#[ignore]`d for a plain
# `cargo test`; here they run, as root.
# Left out: what other tests start as a child, what only measures, and what writes a new format's fixture.
privileged() {
    local not=(holder_process write_until_killed write_and_say_so write_the_fixture levels_by_time_and_size)
    # shellcheck disable=SC2046 # one --skip for each
    as_root env CARGO_TARGET_DIR="$target" cargo test --locked --workspace --no-fail-fast -- \
        --ignored --test-threads=1 $(printf -- '--skip %s ' "${not[@]}")
}

build() { make --no-print-directory agent && cargo build --locked --bin kiln --bin kiln-demo; }

lab() {
    as_root "$target/debug/kiln-demo" --once --kiln "$target/debug/kiln" \
        --agent "$target/$(uname -m)-unknown-linux-gnu/agent/kiln-agent"
}

# Other ways of booting than the demo's, each in less than a minute; `make test-long` has them all.
boots() {
    as_root "$target/debug/kiln-demo" --kiln "$target/debug/kiln" --dir "$target/test-boots" \
        --agent "$target/$(uname -m)-unknown-linux-gnu/agent/kiln-agent" \
        scenario bios uefi-http uki uki-tftp discovery
}

stage tidy ./tests/tidy.sh
stage lints lints
if cargo deny --version >/dev/null 2>&1; then
    stage licences cargo deny --locked check bans licenses sources
else
    skip licences "cargo-deny is not here and takes minutes to build: cargo install --locked cargo-deny"
fi
stage unit unit
stage privileged privileged
stage tuf-peer ./tests/peers/tuf/run.sh
stage sbom-peer ./tests/peers/sbom/run.sh
stage oci-peer ./tests/peers/oci/run.sh
stage schema-peer ./tests/peers/schema/run.sh
stage build build
stage rebuild-peer as_root ./tests/peers/rebuild/run.sh
stage firmware-peer ./tests/peers/firmware/run.sh
stage offline-peer as_root ./tests/peers/offline/run.sh
stage lab lab
stage boots boots

printf '\n%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
printf 'in %s s\n' $((SECONDS - started)) >&2
[ "$failed" = 0 ]
