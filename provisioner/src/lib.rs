//! The server: DHCP, TFTP, HTTP and operator API over one store.
