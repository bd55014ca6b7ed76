#!/usr/bin/env bash
# Kiln and python-tuf, the reference implementation of TUF, read each other's repositories.
set -euo pipefail
# shellcheck source=tests/peers/head.sh
. "$(dirname "$0")/../head.sh" tuf

echo "python-tuf reads what Kiln published"
(cd "$workspace" && cargo run --quiet --locked -p kiln-signing --example publish_sample -- "$work/fleet")
"$python" "$here/check.py" "$work/fleet"

echo "Kiln reads what python-tuf wrote"
"$python" "$here/write_fixture.py" "$work/fixture"
diff -r "$here/fixture" "$work/fixture" || {
    echo "tuf-peer: python-tuf writes other bytes than the fixture: look why, then copy them" >&2
    exit 1
}
(cd "$workspace" && cargo test --quiet --locked -p kiln-signing --test python_tuf)
