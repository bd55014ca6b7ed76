#!/usr/bin/env bash
# The real edge-router, baked twice where everything else differs, and built again from its bundle alone.
#
# The second machine is one that never saw the packages: no network (a namespace without links), nothing in
# /etc/apt, nothing but what `kiln archive` carried over. There an ordinary user without any privilege bakes
# in another folder, on another day, in another time zone and language, with another umask, on one core, from
# files that were written in another order. Usage: run.sh [KILN [AGENT]]
set -euo pipefail
cd "$(dirname "$0")"
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
kiln=$(realpath "${1:-$target/debug/kiln}")
agent=$(realpath "${2:-$target/$(uname -m)-unknown-linux-gnu/agent/kiln-agent}")
[ "$(id -u)" = 0 ] || { echo "rebuild-peer: root is needed, to make the namespace and to become nobody" >&2; exit 1; }
for tool in faketime setpriv unshare taskset; do
    command -v $tool >/dev/null || { echo "rebuild-peer: $tool is missing: run ./setup.sh test" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

"$kiln" init "$work/one" >/dev/null
rm -rf "$work/one/images" && cp -r "$workspace/images" "$work/one/images"
"$kiln" -C "$work/one" key new rebuild >/dev/null

echo "The first machine bakes, and writes what went in into one file"
(
    cd / && umask 022
    TZ=UTC LC_ALL=C "$kiln" -C "$work/one" bake edge-router --agent "$agent"
) 2>/dev/null | tail -n 1
bundle=$(echo "$work"/one/bundles/*.kiln)
"$kiln" archive export "$bundle" "$work/inputs"

# The same fleet elsewhere, its files made in the opposite order.
there=$work/nobody/a/deeper/place
install -d -m 700 "$work/nobody" "$there"
(cd "$work/one" && find . -path ./bundles -prune -o -type f -print | sort -r) | while IFS= read -r file; do
    mkdir -p "$there/$(dirname "$file")" && cp "$work/one/$file" "$there/$file"
done
cp "$kiln" "$work/nobody/kiln" && cp "$agent" "$work/nobody/agent" && cp "$work/inputs" "$work/nobody/inputs"
chmod 600 "$there"/keys/*
chown -R nobody:nogroup "$work/nobody"

# Everything below runs as nobody, without a network and without a configuration of apt.
alone() {
    unshare --net --mount sh -c 'mount -t tmpfs none /etc/apt && mount -t tmpfs none /var/lib/apt && exec "$@"' sh \
        setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
        env -i PATH="$PATH" HOME="$work/nobody" TMPDIR="$work/nobody" TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 \
        sh -c 'umask 077; cd "$0"; exec "$@"' "$work/nobody" taskset -c 0 faketime '2031-03-04 05:06:07' "$@"
}

echo "The second machine has never seen the packages"
if alone ./kiln -C "$there" bake edge-router --agent ./agent --offline >"$work/empty" 2>&1; then
    echo "rebuild-peer: a bake without inputs came to an end" >&2
    exit 1
fi
grep -q 'kiln archive import' "$work/empty" || { cat "$work/empty" >&2; exit 1; }
alone ./kiln archive import inputs

echo "and bakes the same bytes"
alone ./kiln -C "$there" bake edge-router --agent ./agent --offline 2>/dev/null | tail -n 1
cmp "$bundle" "$there/bundles/$(basename "$bundle")"

echo "Built again from the bundle alone, it is the same, and somebody signs that"
alone ./kiln -C "$there" verify --rebuild "$there/bundles/$(basename "$bundle")" 2>/dev/null
grep -q '"payloadType": "application/vnd.in-toto+json"' "$there"/bundles/*.rebuild-*.dsse.json
