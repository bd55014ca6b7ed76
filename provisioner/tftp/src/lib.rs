//! Read-only TFTP server: sans-IO transfer core and a tokio driver.
