#!/usr/bin/env bash
# The bills of materials that a bake writes, judged by the validators of SPDX and CycloneDX.
#
# What cannot be set up (no python3, no venv, no package) is a failure and not a skip: a validator that did
# not run has accepted nothing.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
venv=$target/peers/sbom-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v python3 >/dev/null || { echo "sbom-peer: python3 is missing: run ./setup.sh test" >&2; exit 1; }
if ! cmp -s requirements.txt "$venv/installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$venv/installed"
fi
export PYTHONDONTWRITEBYTECODE=1

echo "Third-party validators read our bills of materials"
(cd "$workspace" &&
    cargo run --quiet --locked -p kiln-builder --example write_sboms -- images/edge-router/image.lock "$work")
"$venv/bin/python" "$here/check.py" "$work"

echo "and refuse one that is not right"
sed -i 's/"SPDXRef-Image"/"SPDXRef-Im_age"/' "$work/sbom.spdx.json"
if "$venv/bin/python" "$here/check.py" "$work" 2>/dev/null; then
    echo "sbom-peer: a broken identifier was accepted: the validator does not look" >&2
    exit 1
fi
