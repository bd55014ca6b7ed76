#!/usr/bin/env bash
# OCI layouts that umoci and skopeo make, with several layers, whiteouts, gzip and zstd: we read the same files.
set -euo pipefail
workspace=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for tool in umoci skopeo; do
    command -v $tool >/dev/null || { echo "oci-peer: $tool is missing: run ./setup.sh test" >&2; exit 1; }
done
cd "$work"

echo "umoci makes an image of three layers"
umoci init --layout one
umoci new --image one:1
layer() { # what is done to the files
    umoci unpack --rootless --image one:1 bundle
    (cd bundle/rootfs && "$@")
    umoci repack --image one:1 bundle
    rm -rf bundle
}
first() { mkdir -p usr/sbin etc/d var/old/deep && cp /bin/true usr/sbin/d && echo 1 >etc/d/one && echo 2 >etc/d/two &&
    echo 3 >var/old/deep/x && ln -s ../usr/sbin/d etc/link && ln etc/d/one etc/d/same; }
second() { rm -r etc/d/one var/old && echo new >etc/d/three && rm etc/link && mkdir etc/link && echo 4 >etc/link/x; }
third() { rm -r etc/d && mkdir etc/d && echo only >etc/d/four; }
layer first && layer second && layer third
umoci config --image one:1 --architecture amd64 --os linux \
    --config.entrypoint /usr/sbin/d --config.cmd -f --config.env MODE=fast

umoci unpack --rootless --image one:1 bundle
(cd bundle/rootfs && find . -type f -print0 | sort -z | xargs -0 sha256sum | sed 's|  \./| /|'
    find . -type l -printf '-> %l /%P\n') | LC_ALL=C sort >wanted

skopeo copy --quiet --dest-compress-format zstd --dest-force-compress-format oci:one:1 oci:two:1 2>/dev/null ||
    skopeo copy --quiet --dest-compress-format zstd oci:one:1 oci:two:1
skopeo copy --quiet --format v2s2 oci:one:1 oci:three:1
for layout in one two three; do
    (cd "$workspace" && cargo run --quiet --locked -p kiln-builder --example read_oci -- \
        "$work/store-$layout" "$work" "dir:$layout:1") 2>command | LC_ALL=C sort >found
    diff -u wanted found || { echo "oci-peer: $layout is read otherwise than by umoci" >&2; exit 1; }
    grep -q 'command: \["/usr/sbin/d", "-f"\]' command || { cat command >&2; exit 1; }
    kinds=$(grep -ho 'layer.v1.tar[+a-z]*\|rootfs.diff.tar[.a-z]*' "$layout"/blobs/sha256/* | sort -u | paste -sd' ')
    echo "$layout: the same $(wc -l <found) files ($kinds)"
done
