#!/usr/bin/env bash
# Kiln and python-tuf, the reference implementation of TUF, read each other's repositories.
#
# What cannot be set up (no python3, no venv, no package) is a failure and not a skip: a peer that did
# not run has agreed to nothing.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
venv=$target/peers/tuf-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v python3 >/dev/null || { echo "tuf-peer: python3 is missing: run ./setup.sh test" >&2; exit 1; }
if ! cmp -s requirements.txt "$venv/installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$venv/installed"
fi
export PYTHONDONTWRITEBYTECODE=1

echo "python-tuf reads what Kiln published"
(cd "$workspace" && cargo run --quiet --locked -p kiln-signing --example publish_sample -- "$work/fleet")
"$venv/bin/python" "$here/check.py" "$work/fleet"

echo "Kiln reads what python-tuf wrote"
"$venv/bin/python" "$here/write_fixture.py" "$work/fixture"
diff -r "$here/fixture" "$work/fixture" || {
    echo "tuf-peer: python-tuf writes other bytes than the fixture: look why, then copy them" >&2
    exit 1
}
(cd "$workspace" && cargo test --quiet --locked -p kiln-signing --test python_tuf)
