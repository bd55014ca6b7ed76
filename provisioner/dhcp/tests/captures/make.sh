#!/bin/bash
# Makes captures again: runs the client program that a system uses, as that system configures it, on a wire of its
# own, and writes its first DISCOVER and first REQUEST as hex digits.
#
#   make.sh FOLDER CLIENT...      as root; clients: onie-network onie sonic cumulus ovmf-arm64
#
# dnsmasq answers: what a client sends does not depend on whose answer it is. Times and the transaction id differ
# from run to run, and nothing else does (tests/peers.rs compares).
set -euo pipefail

folder=$1
shift
mac=52:54:00:77:00:0b
serial=KILN0001
server=kiln-capture-server-$$
client=kiln-capture-client-$$
work=$(mktemp -d)
pids=()

over() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
    ip netns delete "$server" 2>/dev/null
    ip netns delete "$client" 2>/dev/null
    rm -rf "$work"
}
trap 'over || true' EXIT

# The wire, and somebody at its other end who gives 10.77.0.11 and what else $@ says.
wire() {
    ip netns add "$server"
    ip netns add "$client"
    ip -n "$server" link add wire type veth peer name wire address "$mac" netns "$client"
    ip -n "$server" address add 10.77.0.1/24 dev wire
    for end in "$server" "$client"; do
        ip -n "$end" link set lo up
        ip -n "$end" link set wire up
    done
    ip netns exec "$server" dnsmasq --conf-file=/dev/null -d --port=0 --interface=wire --bind-interfaces \
        --no-ping --leasefile-ro --user=root --dhcp-range=10.77.0.11,10.77.0.11,255.255.255.0,1h "$@" \
        >"$work/dnsmasq" 2>&1 &
    pids+=($!)
    ip netns exec "$server" tcpdump --immediate-mode -i wire -U -s 0 -w "$work/pcap" 'udp dst port 67' 2>"$work/tcpdump" &
    pids+=($!)
    until grep -q 'listening on' "$work/tcpdump" && grep -q started "$work/dnsmasq"; do sleep 0.1; done
}

unwire() {
    sleep 0.3
    for pid in "${pids[@]}"; do kill "$pid" && wait "$pid" || true; done 2>/dev/null
    pids=()
    ip netns delete "$server"
    ip netns delete "$client"
}

# The UDP payload of the first captured packet with this class and kind; 28 bytes of IP and UDP are before it.
packet() { # CLASS KIND, both in hex
    tcpdump -r "$work/pcap" -x 2>/dev/null |
        awk '/^[^\t]/ { if (hex) print hex; hex = ""; next }
             { for (i = 2; i <= NF; i++) hex = hex $i }
             END { print hex }' |
        cut -c57- | grep "63825363.*3501$2" | grep "$1" | sed -n 1p
}

keep() { # FILE CLASS KIND
    local digits
    digits=$(packet "$2" "$3") || { echo "make.sh: $1: no such packet was sent" >&2; exit 1; }
    echo "$digits" | fold -w 96 >"$folder/$1.hex"
}

here() { ip netns exec "$client" unshare -u sh -c "hostname $1; shift; exec \"\$@\"" - "$@"; }

hex() { printf %s "$1" | od -An -v -tx1 | tr -d ' \n'; }

# ONIE (opencomputeproject/onie, rootconf/default/lib/onie/functions: udhcpc_args): BusyBox's client. Its serial
# number is the client id on every interface; option 125 carries machine (3), architecture (4), revision (5).
onie_arguments() {
    local own
    own=03$(printf %02x ${#onie_machine})$(hex $onie_machine)
    own+=04$(printf %02x ${#onie_arch})$(hex $onie_arch)
    own+=05$(printf %02x ${#onie_rev})$(hex $onie_rev)
    echo "-q -S -V onie_vendor:$onie_arch-$onie_machine-r$onie_rev -x 77:14$(hex onie_dhcp_user_class)" \
        "-x 61:00$(hex $serial) -x 125:0000a67f$(printf %02x $((${#own} / 2)))$own"
}
onie_machine=kvm_x86_64 onie_arch=x86_64 onie_rev=0

# networking.sh: the lease for the network.
client_onie-network() {
    here onie-host busybox udhcpc $(onie_arguments) -f -n -o -t 5 -T 3 -O subnet -O broadcast -O router -O domain \
        -O hostname -O ntpsrv -O dns -O 7 -O search -i wire -s /bin/true
}

# discover: the lease from which the installer's URLs are taken.
client_onie() {
    local asks=
    for option in 7 43 54 66 67 72 114 125; do asks+=" -O $option"; done
    here onie-host busybox udhcpc $(onie_arguments) -f -t 2 -T 2 -n $asks -i wire -s /bin/true
}

isc() { # NAME, dhclient.conf on stdin
    cat >"$work/dhclient.conf"
    here "$1" timeout 20 dhclient -4 -1 -cf "$work/dhclient.conf" -sf /bin/true -lf "$work/leases" -pf "$work/pid" wire
    kill "$(cat "$work/pid")"
    rm -f "$work/leases"
}

# SONiC (sonic-net/sonic-buildimage, files/dhcp/dhclient.conf.j2) while its first-boot setup is active: option 60 is
# the box's, option 77 is raw text, and the client id has no type byte.
client_sonic() {
    isc sonic <<CONF
option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
option snmp-community code 224 = text;
option minigraph-url code 225 = text;
option acl-url code 226 = text;
option tftp-server-name code 66 = text;
option bootfile-name code 67 = text;
option user-class code 77 = text;
option provisioning-script-url code 239 = text;
option vendor-class code 60 = text;
request subnet-mask, broadcast-address, time-offset, routers, domain-name, domain-name-servers, domain-search,
    host-name, interface-mtu, rfc3442-classless-static-routes, ntp-servers, log-servers, bootfile-name,
    provisioning-script-url, tftp-server-name, snmp-community, minigraph-url, acl-url;
send host-name = gethostname();
send user-class "SONiC-ZTP";
send dhcp-client-identifier "SONiC##x86_64-kvm_x86_64-r0##$serial";
send vendor-class "QEMU:x86_64-kvm_x86_64-r0";
retry 60;
CONF
}

# Cumulus Linux: the class has two blanks.
client_cumulus() {
    isc cumulus <<CONF
option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;
option cumulus-provision-url code 239 = text;
request subnet-mask, broadcast-address, time-offset, routers, domain-name, domain-name-servers, domain-search,
    host-name, netbios-name-servers, netbios-scope, interface-mtu, rfc3442-classless-static-routes, ntp-servers,
    cumulus-provision-url;
send host-name = gethostname();
send dhcp-lease-time 7200;
send vendor-class-identifier "cumulus-linux  x86_64";
timeout 30;
retry 30;
reboot 5;
CONF
}

# UEFI firmware of Debian's qemu-efi-aarch64 with nothing to boot but its network card: it tries PXE, is told a file
# that nobody has, and tries HTTP. In software that takes a minute or two.
client_ovmf-arm64() {
    ip -n "$client" link set wire address 52:54:00:77:00:01
    ip -n "$client" link add bridge type bridge
    ip -n "$client" link set wire master bridge
    ip -n "$client" link set bridge up
    ip -n "$client" tuntap add tap mode tap
    ip -n "$client" link set tap master bridge
    ip -n "$client" link set tap up
    ip netns exec "$client" qemu-system-aarch64 -machine virt -cpu cortex-a57 -m 512 -display none -nodefaults \
        -bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd -fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n \
        -netdev tap,id=n,ifname=tap,script=no,downscript=no -device virtio-net-pci,netdev=n,mac=$mac,romfile= &
    local machine=$!
    for _ in $(seq 300); do
        sleep 1
        if packet "$(hex HTTPClient)" 03; then break; fi
    done
    kill $machine
    wait $machine || true
}

case "${1:-}" in "") echo "make.sh FOLDER CLIENT...: see its head" >&2; exit 2 ;; esac
for name in "$@"; do
    case "$name" in
        ovmf-arm64) kept=("$name-pxe" "$name-http") classes=("$(hex PXEClient)" "$(hex HTTPClient)") ;;
        onie* | sonic | cumulus) kept=("$name") classes=("") ;;
        *) echo "make.sh: there is no client \`$name\`" >&2; exit 2 ;;
    esac
    wire --dhcp-vendorclass=set:http,HTTPClient --dhcp-option-force=tag:http,60,HTTPClient \
        --dhcp-boot=tag:http,http://10.77.0.1/boot.efi --dhcp-boot=tag:!http,boot.efi
    "client_$name" >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
    unwire
    for i in "${!kept[@]}"; do
        keep "${kept[i]}-discover" "${classes[i]}" 01
        keep "${kept[i]}-request" "${classes[i]}" 03
    done
done
