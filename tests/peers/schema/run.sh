#!/usr/bin/env bash
# The JSON Schemas in images/schema are those of the types, and an independent validator accepts our specs.
# With --write they are made anew.
set -euo pipefail
# shellcheck source=tests/peers/head.sh
. "$(dirname "$0")/../head.sh" schema

schemas() {
    (cd "$workspace" &&
        cargo run --quiet --locked -p kiln-builder --features schema --example write_schemas -- "$1")
}
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
"$python" "$here/check.py" "$workspace/images"
