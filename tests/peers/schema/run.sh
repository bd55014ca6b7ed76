#!/usr/bin/env bash
# The JSON Schemas in images/schema are those of the types, and an independent validator accepts our specs.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
venv=$target/peers/schema-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v python3 >/dev/null || { echo "schema-peer: python3 is missing: run ./setup.sh test" >&2; exit 1; }
if ! cmp -s requirements.txt "$venv/installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$venv/installed"
fi
export PYTHONDONTWRITEBYTECODE=1
schemas() {
    (cd "$workspace" &&
        cargo run --quiet --locked -p kiln-builder --features schema --example write_schemas -- "$1")
}
# With --write the schemas are made anew.
if [ "${1:-}" = --write ]; then
    mkdir -p "$workspace/images/schema" && schemas "$workspace/images/schema"
fi
schemas "$work"
for file in image.schema.json function.schema.json; do
    cmp "$work/$file" "$workspace/images/schema/$file" || {
        echo "schema-peer: images/schema/$file is old: run tests/peers/schema/run.sh --write" >&2
        exit 1
    }
done
"$venv/bin/python" "$here/check.py" "$workspace/images"
