#!/bin/sh
# Kiln installer for ONIE: @IMAGE@
#
# Options:
#   --list            show what this would install, and where; write nothing
#   --disk DEVICE     install on this disk [default: the one that ONIE is on]
#   --force           take a disk that has another system on it
#   --trust DIR       check the signatures against DIR/root.json [default: the root in this file]
#   --any-machine     do not compare the machine's name (the architecture always counts)
#
# Exit codes: 0 installed, 1 refused or failed (nothing is written before every check has passed).
#
# To uninstall: choose "ONIE: Uninstall OS" in ONIE's boot menu. ONIE's own partitions are never touched.

image="@IMAGE@"
image_id="@ID@"
image_arch="@ARCH@"
image_machine="@MACHINE@"
head_blocks=@BLOCKS@
payload_sha256="@SHA256@"

say() { echo "kiln: $*"; }
die() {
    echo "kiln: NOT INSTALLED: $*" >&2
    exit 1
}

list=no
disk=""
any_machine=no
force=""
trust=""
while [ $# -gt 0 ]; do
    case "$1" in
        --list) list=yes ;;
        --any-machine) any_machine=yes ;;
        --force) force=--force ;;
        --trust)
            [ $# -gt 1 ] && [ -r "$2/root.json" ] || die "--trust wants a folder with a root.json in it"
            trust="$2"
            shift
            ;;
        --disk)
            [ $# -gt 1 ] || die "--disk wants a device, such as --disk /dev/sda"
            disk="$2"
            shift
            ;;
        *) break ;; # ONIE may pass words of its own
    esac
    shift
done

self="$0"
[ -r "$self" ] || die "cannot read $self; start this file by its path"

# What kind of machine this is. The file is ONIE's own and holds only assignments.
machine_conf="${KILN_MACHINE_CONF:-/etc/machine.conf}"
onie_arch=""
onie_machine=""
onie_platform=""
if [ -r "$machine_conf" ]; then
    . "$machine_conf"
else
    onie_arch=$(uname -m)
fi
case "$onie_arch" in
    aarch64) onie_arch=arm64 ;;
esac
[ "$onie_arch" = "$image_arch" ] ||
    die "$image is for $image_arch and this machine is ${onie_arch:-unknown}; take the image for ${onie_arch:-it}"
if [ -n "$image_machine" ] && [ "$any_machine" = no ] && [ "$onie_machine" != "$image_machine" ]; then
    die "$image is for $image_machine and this machine is ${onie_machine:-unknown}; take an image with its hardware profile, or add --any-machine"
fi

payload() { dd if="$self" bs=4096 skip="$head_blocks" 2>/dev/null; }

# Every byte has arrived. Who made them, the agent checks by the signatures.
if command -v sha256sum >/dev/null 2>&1; then
    say "checking $self"
    found=$(payload | sha256sum | cut -d' ' -f1)
    [ "$found" = "$payload_sha256" ] ||
        die "the file is damaged (SHA-256 $found, and $payload_sha256 is wanted); download it again"
fi

# The disk: the one that has ONIE's own partition, else the only one that is no USB stick.
onie_disk() {
    device=$(blkid 2>/dev/null | sed -n 's/^\(\/dev\/[^:]*\):.*LABEL="ONIE-BOOT".*/\1/p' | head -n 1)
    [ -n "$device" ] || return 0
    name=$(basename "$(dirname "$(readlink -f "/sys/class/block/$(basename "$device")")")")
    [ -b "/dev/$name" ] && echo "/dev/$name"
}
only_disk() {
    count=0
    for entry in /sys/block/*; do
        name=$(basename "$entry")
        case "$name" in loop* | ram* | dm-* | md* | sr* | zram* | mtdblock*) continue ;; esac
        [ "$(cat "$entry/removable" 2>/dev/null)" = 0 ] || continue
        count=$((count + 1))
        one="/dev/$name"
    done
    [ "$count" = 1 ] && echo "$one"
}
[ -n "$disk" ] || disk=$(onie_disk)
[ -n "$disk" ] || disk=$(only_disk)
[ -n "$disk" ] || die "there is no one disk to install on; name it with --disk, such as --disk /dev/sda"

say "$image ($image_id)"
say "machine ${onie_platform:-$onie_arch}, disk $disk"
if [ "$list" = yes ]; then
    say "nothing was written (--list)"
    exit 0
fi
[ -b "$disk" ] || die "$disk is no disk; name one with --disk"

work="${TMPDIR:-/tmp}/kiln-install.$$"
mkdir -p "$work" || die "cannot make $work"
trap 'rm -rf "$work"' EXIT
say "unpacking"
payload | (cd "$work" && tar xf -) || die "cannot unpack into $work: is the memory full? ($(df -k "$work" 2>/dev/null | tail -n 1))"
[ -x "$work/installer/kiln-agent" ] || die "the payload has no agent: this file is damaged; download it again"

# shellcheck disable=SC2086 # nothing or one word
"$work/installer/kiln-agent" install --bundle "$work/installer/image.kiln" --disk "$disk" --keep-onie $force \
    --trust "${trust:-$work/installer/trust}" ||
    die "the installer refused or failed; what it says is above"
say "installed; the machine starts $image at its next boot"
exit 0
