# The head of every peer's run.sh: sourced with the peer's name. Gives `here`, `workspace`, `work` (removed at the
# end) and `python`, a venv with the peer's requirements.txt.
#
# What cannot be set up (no python3, no venv, no package) is a failure and not a skip: a peer that did not run
# has agreed to nothing.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/$1" && pwd)
workspace=$(cd "$here/../../.." && pwd)
venv=$(realpath -m "${CARGO_TARGET_DIR:-$workspace/target}")/peers/$1-venv
python=$venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONDONTWRITEBYTECODE=1

command -v python3 >/dev/null || { echo "$1-peer: python3 is missing: run ./setup.sh test" >&2; exit 1; }
if ! cmp -s "$here/requirements.txt" "$venv/installed"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed"
fi
