#!/usr/bin/env bash
# An image for real servers, baked with Debian's full kernel and its firmware packages, read by others' tools.
#
# dpkg unpacks the same packages, and what the modules name (their `.modinfo`, read here once more) is looked up in
# them: base and initrd must have those files, byte for byte, and no other firmware. Usage: run.sh [KILN [AGENT]]
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
kiln=$(realpath "${1:-$target/debug/kiln}")
agent=$(realpath "${2:-$target/$(uname -m)-unknown-linux-gnu/agent/kiln-agent}")
for tool in dpkg-deb unsquashfs cpio zstd python3; do
    command -v $tool >/dev/null || { echo "firmware-peer: $tool is missing: run ./setup.sh test" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "firmware-peer: $*" >&2; exit 1; }
cache=${KILN_CACHE:-$HOME/.cache/kiln}

"$kiln" init "$work/fleet" >/dev/null
rm -rf "$work/fleet/images" && cp -r "$workspace/images" "$work/fleet/images"
echo "Firmware that is not free is taken only by an image that says so"
mkdir "$work/fleet/images/free"
grep -v components "$workspace/images/edge-router-server/image.toml" >"$work/fleet/images/free/image.toml"
if grep -rqs '^Components:.*non-free-firmware\|^deb .*non-free-firmware' /etc/apt/sources.list /etc/apt/sources.list.d; then
    echo "firmware-peer: this host's own apt has the component, so this is not looked at"
else
    if "$kiln" -C "$work/fleet" bake free --agent "$agent" --update >"$work/told" 2>&1; then fail "it was taken"; fi
    grep -q 'components = \["non-free-firmware"\]' "$work/told" || { cat "$work/told" >&2; fail "it did not say how"; }
fi

"$kiln" -C "$work/fleet" bake edge-router-server --agent "$agent" 2>"$work/notes" | tail -n 1
bundle=$(echo "$work"/fleet/bundles/*.kiln)
"$kiln" inspect "$bundle" >"$work/shown"
grep -q 'too large' "$work/shown" && { cat "$work/shown" >&2; fail "it does not fit into its profile's machines"; }

mkdir "$work/bundle" "$work/initrd" "$work/packages"
tar -C "$work/bundle" -xf "$bundle"
unsquashfs -quiet -no-progress -dest "$work/base" "$work/bundle/parts/base" >/dev/null
zstd -dcq "$work/bundle/parts/initrd" | cpio -idm --quiet --no-absolute-filenames -D "$work/initrd"
python3 "$here/packages.py" "$work/bundle/image.lock" firmware | while read -r digest; do
    dpkg-deb -x "$cache/sha256/$digest" "$work/packages"
done
python3 "$here/check.py" "$work/packages" "$work/base" "$work/initrd" "$work/bundle/parts/evidence"

echo "kiln why names the package, and who asked for it"
"$kiln" why "$bundle" /lib/firmware/bnx2x/bnx2x-e2-7.13.21.0.fw | tee "$work/why"
grep -q '^initrd .*package firmware-bnx2x .*firmware > firmware-bnx2x' "$work/why" || fail "it does not"
