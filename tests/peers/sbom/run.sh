#!/usr/bin/env bash
# The bills of materials that a bake writes, judged by the validators of SPDX and CycloneDX.
set -euo pipefail
# shellcheck source=tests/peers/head.sh
. "$(dirname "$0")/../head.sh" sbom

echo "Third-party validators read our bills of materials"
# The second one has packages that are not free software, and says so.
for image in edge-router-server edge-router; do
    (cd "$workspace" &&
        cargo run --quiet --locked -p kiln-builder --example write_sboms -- "images/$image/image.lock" "$work")
    "$python" "$here/check.py" "$work"
done

echo "and refuse one that is not right"
sed -i 's/"SPDXRef-Image"/"SPDXRef-Im_age"/' "$work/sbom.spdx.json"
if "$python" "$here/check.py" "$work" 2>/dev/null; then
    echo "sbom-peer: a broken identifier was accepted: the validator does not look" >&2
    exit 1
fi
