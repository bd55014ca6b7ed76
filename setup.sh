#!/bin/sh
# Installs what Kiln needs on Debian 12 and is not there yet. Usage: ./setup.sh demo|test|bench|arm64
#
# Only Debian packages; `sudo` where it is needed and nothing else is changed. A Rust from rustup is
# used when it is recent enough; otherwise Debian's own rustc-web and cargo-web. `arm64` besides unpacks,
# beside what is built, Debian's compiler and its standard library for that architecture.
set -eu

want=${1:-demo}
rust_needed=95 # of Rust 1.95

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages="gcc libc6-dev make qemu-system-x86 ovmf ipxe-qemu iproute2 ca-certificates debian-archive-keyring"
if [ "$want" = test ]; then
    packages="$packages squashfs-tools cryptsetup-bin cpio xz-utils zstd curl atftp tftp-hpa busybox-static
        systemd-boot-efi sbsigntool osslsigncode pesign binutils mtools gdisk dosfstools efibootmgr skopeo
        isc-dhcp-client udhcpc dhcpcd-base dnsmasq-base kea-admin tcpdump iputils-arping python3 python3-venv strace faketime gpg umoci"
fi
if [ "$want" = arm64 ]; then
    packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-system-arm qemu-efi-aarch64"
fi
if [ "$want" = bench ]; then
    packages="$packages kea-dhcp4-server kea-admin nginx-light dnsmasq-base atftpd
        mmdebstrap mkosi debootstrap systemd-container"
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
    (cd "$hpa" && apt-get download -qq -o APT::Sandbox::User=root tftpd-hpa && dpkg-deb -x tftpd-hpa_*.deb .) ||
        die "tftpd-hpa cannot be fetched: is there a network, and is /etc/apt right?"
}
# The compiler and the standard library must be of one version, and rustup has no library for arm64 unless it
# is asked: Debian's own of one version, for both architectures, from a state of apt's that is not the host's.
cross=${TARGET:-target}/cross-arm64
unpack_rust_arm64() {
    [ "$want" = arm64 ] && [ ! -x "$cross/rustc" ] || return 0
    say "unpacking Debian's Rust for arm64 in $cross"
    rm -rf "$cross"
    mkdir -p "$cross/apt/lists/partial" "$cross/apt/cache/archives/partial" "$cross/debs" "$cross/root"
    cross=$(cd "$cross" && pwd)
    : >"$cross/apt/status"
    apt="-qq -o Dir::State=$cross/apt -o Dir::State::status=$cross/apt/status -o Dir::Cache=$cross/apt/cache
        -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
        -o APT::Sandbox::User= -o Acquire::Languages=none"
    # shellcheck disable=SC2086 # a list of words
    (
        cd "$cross/debs" || exit 1
        apt-get $apt update || exit 1
        version=$(apt-cache $apt policy rustc-web:amd64 | sed -n 's/ *Candidate: //p')
        std=$(apt-cache $apt depends libstd-rust-web-dev:amd64 | sed -n 's/ *Depends: \(libstd-rust-web-[0-9.]*\)$/\1/p')
        llvm=$(apt-cache $apt depends "$std:amd64=$version" | sed -n 's/ *Depends: \(libllvm[0-9]*\)$/\1/p')
        apt-get $apt download "rustc-web:amd64=$version" "$std:amd64=$version" "$llvm:amd64" \
            "libstd-rust-web-dev:amd64=$version" "libstd-rust-web-dev:arm64=$version" || exit 1
        for deb in *.deb; do dpkg-deb -x "$deb" "$cross/root" || exit 1; done
    ) || die "Debian's Rust for arm64 cannot be fetched: is there a network, and is /etc/apt right?"
    rm -rf "$cross/apt" # tens of megabytes of lists; the packages stay, for the archive replaces versions
    cat >"$cross/rustc.new" <<EOF
#!/bin/sh
export LD_LIBRARY_PATH="$cross/root/usr/lib/x86_64-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$cross/root/usr/bin/rustc" --sysroot "$cross/root/usr" "\$@"
EOF
    chmod +x "$cross/rustc.new"
    "$cross/rustc.new" --version >/dev/null || die "Debian's Rust does not run from $cross"
    mv "$cross/rustc.new" "$cross/rustc"
}
if [ -z "$missing" ] && [ "$lists" = present ]; then
    unpack_tftpd_hpa
    unpack_rust_arm64
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
unpack_rust_arm64
