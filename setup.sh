#!/bin/sh
# Installs what Kiln needs on Debian 12 and is not there yet. Usage: ./setup.sh demo|test|bench
#
# Only Debian packages; `sudo` where it is needed and nothing else is changed. A Rust from rustup is
# used when it is recent enough; otherwise Debian's own rustc-web and cargo-web.
set -eu

want=${1:-demo}
rust_needed=95 # of Rust 1.95

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages="gcc libc6-dev make qemu-system-x86 ovmf iproute2 ca-certificates debian-archive-keyring"
if [ "$want" = test ]; then
    packages="$packages squashfs-tools cryptsetup-bin cpio xz-utils curl atftp tftp-hpa busybox-static
        isc-dhcp-client udhcpc kea-admin tcpdump iputils-arping python3 python3-venv strace"
fi
if [ "$want" = bench ]; then
    packages="$packages kea-dhcp4-server kea-admin nginx-light dnsmasq-base atftpd"
fi

rust_minor() { cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\)\..*/\1/p'; }
minor=$(rust_minor)
if [ "${minor:-0}" -lt "$rust_needed" ]; then
    command -v rustup >/dev/null 2>&1 &&
        die "this rustup has Rust 1.${minor:-?}; Kiln needs 1.$rust_needed or newer: run \`rustup update stable\`"
    packages="$packages cargo-web rustc-web rustfmt-web"
fi

# A test reads what Debian really signed, from the lists that apt keeps.
lists=present
[ "$want" != test ] || ls /var/lib/apt/lists/*_bookworm_InRelease >/dev/null 2>&1 || lists=absent

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
# tftpd-hpa conflicts with atftpd, and is only measured: it is unpacked beside what is built.
hpa=${TARGET:-target}/bench/tftpd-hpa
unpack_tftpd_hpa() {
    [ "$want" = bench ] && [ ! -x "$hpa/usr/sbin/in.tftpd" ] || return 0
    say "unpacking tftpd-hpa in $hpa"
    mkdir -p "$hpa"
    (cd "$hpa" && apt-get download -qq tftpd-hpa && dpkg-deb -x tftpd-hpa_*.deb .) ||
        die "tftpd-hpa cannot be fetched: is there a network, and is /etc/apt right?"
}
if [ -z "$missing" ] && [ "$lists" = present ]; then
    unpack_tftpd_hpa
    say "everything for '$want' is installed"
    exit 0
fi

command -v apt-get >/dev/null 2>&1 || die "this is not a Debian: install by hand:$missing"
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "not root and no sudo; as root run: apt-get install$missing"
    sudo=sudo
fi
say "installing:${missing:- nothing, only reading the lists of packages}"
# The peers of the bench are started by it alone: for as long as they are installed no service may start.
if [ "$want" = bench ] && [ ! -e /usr/sbin/policy-rc.d ]; then
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod 755 /usr/sbin/policy-rc.d
fi
$sudo apt-get update -qq || die "apt-get update failed: is there a network, and is /etc/apt right?"
# shellcheck disable=SC2086 # a list of words
[ -z "$missing" ] ||
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    die "apt-get could not install:$missing"
if [ "$want" = bench ] && command -v systemctl >/dev/null 2>&1; then
    for service in kea-dhcp4-server nginx atftpd; do
        case " $missing " in *" $service"*) $sudo systemctl disable -q "$service" 2>/dev/null || : ;; esac
    done
fi
minor=$(rust_minor)
[ "${minor:-0}" -ge "$rust_needed" ] || die "Rust 1.$rust_needed is needed and 1.${minor:-?} is here"
unpack_tftpd_hpa
