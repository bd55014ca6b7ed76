//! DHCPv4 server core for network boot: packets and now in, packets out.
