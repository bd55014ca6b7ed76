#!/usr/bin/env bash
# The edge-router, baked and booted on a machine that never saw its packages.
#
# One machine bakes and writes what went in into one file. On the other there is no network (a namespace without
# links), no configuration and no list of apt's, and an empty cache: it takes that file, bakes, boots the bundle in
# the lab, and signs how that went. The first machine publishes the result, and only as it was signed.
# Usage: run.sh [KILN [AGENT]]
set -euo pipefail
cd "$(dirname "$0")"
workspace=$(cd ../../.. && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")
kiln=$(realpath "${1:-$target/debug/kiln}")
agent=$(realpath "${2:-$target/$(uname -m)-unknown-linux-gnu/agent/kiln-agent}")
[ "$(id -u)" = 0 ] || { echo "offline-peer: root is needed, to make the namespace and the lab" >&2; exit 1; }
for tool in unshare python3; do
    command -v $tool >/dev/null || { echo "offline-peer: $tool is missing: run ./setup.sh test" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "offline-peer: $*" >&2; exit 1; }

"$kiln" init --lab "$work/one" >/dev/null
rm -rf "$work/one/images" && cp -r "$workspace/images" "$work/one/images"
echo "The first machine bakes, and writes what went in into one file"
"$kiln" -C "$work/one" bake edge-router --agent "$agent" 2>/dev/null | tail -n 1
bundle=$(basename "$work"/one/bundles/*.kiln)
"$kiln" -C "$work/one" archive export edge-router "$work/inputs"

# The same fleet elsewhere, with neither a bundle nor a cache.
there=$work/there
mkdir "$there"
cp -r "$work/one" "$there/fleet"
rm "$there/fleet/bundles/$bundle"
mv "$work/inputs" "$there/inputs"
alone() {
    unshare --net --mount sh -c '
        for at in /etc/apt /var/lib/apt /var/cache/apt; do mount -t tmpfs none $at || exit 1; done
        exec "$@"' sh env -i PATH="$PATH" HOME="$there" TMPDIR="$there" "$@"
}

echo "The second machine never saw the packages, and asks nobody"
links=$(alone sh -c 'ls -A /etc/apt /var/lib/apt; cat /proc/net/dev' | grep -c -e '^ *[a-z0-9]*:' -e '\.list' -e sources || :)
[ "$links" = 1 ] || fail "it is not alone: $links links and files of apt, and lo is one"
if alone "$kiln" -C "$there/fleet" bake edge-router --agent "$agent" --offline >"$work/empty" 2>&1; then
    fail "a bake without inputs came to an end"
fi
grep -q 'kiln archive import' "$work/empty" || { cat "$work/empty" >&2; fail "it did not say what to do"; }
alone "$kiln" archive import "$there/inputs"
alone "$kiln" -C "$there/fleet" bake edge-router --agent "$agent" --offline 2>/dev/null | tail -n 1
cmp "$work/one/bundles/$bundle" "$there/fleet/bundles/$bundle"

echo "It boots the bundle and signs how that went"
alone "$kiln" -C "$there/fleet" test "$there/fleet/bundles/$bundle" 2>"$work/told" ||
    { tail -n 20 "$work/told" >&2; fail "the test did not pass"; }
result=$there/fleet/bundles/${bundle%.kiln}.test-result.json
python3 - "$result" "$there/fleet/bundles/$bundle" <<'PYTHON'
import base64, hashlib, json, sys
envelope = json.load(open(sys.argv[1]))
statement = json.loads(base64.b64decode(envelope["payload"]))
digests = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
predicate = statement["predicate"]
assert envelope["signatures"], "nobody signed it"
assert digests["bundle"] == hashlib.sha256(open(sys.argv[2], "rb").read()).hexdigest(), "it is about another bundle"
assert predicate["result"] == "PASSED" and not predicate["failedTests"], predicate
wanted = {f"{machine} {test}" for machine in ("r1", "r2") for test in ("boot", "fn/frr", "fn/chrony")}
assert wanted <= set(predicate["passedTests"]), predicate["passedTests"]
print("signed by", len(envelope["signatures"]), "key:", ", ".join(predicate["passedTests"]))
PYTHON

echo "The first machine publishes the result, and not with a letter changed"
cp "$result" "$work/one/bundles/"
signed=$work/one/bundles/$(basename "$result")
python3 - "$signed" <<'PYTHON'
import base64, json, sys
envelope = json.load(open(sys.argv[1]))
payload = base64.b64decode(envelope["payload"]).replace(b"r1 boot", b"r9 boot")
envelope["payload"] = base64.b64encode(payload).decode()
json.dump(envelope, open(sys.argv[1], "w"))
PYTHON
if "$kiln" -C "$work/one" publish "$work/one/bundles/$bundle" >"$work/told" 2>&1; then fail "a forged result is published"; fi
grep -q 'test-result.json' "$work/told" || { cat "$work/told" >&2; fail "it did not say what is wrong"; }
cp "$result" "$signed"
"$kiln" -C "$work/one" publish "$work/one/bundles/$bundle" 2>/dev/null
ls "$work"/one/repository/targets/edge-router/*/*/*.test-result.json >/dev/null || fail "the result is not in the repository"
