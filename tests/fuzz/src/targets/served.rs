//! What the server reads besides packets: heads of HTTP requests, and the desired state.

use std::path::Path;

use kiln_provisioner::{FleetState, http_head};

use super::text;
use crate::Target;

/// Readers of the server.
pub const TARGETS: &[Target] = &[
    Target {
        name: "http-head",
        reads: "the head of an HTTP request: nothing odd is repaired",
        longest: 4096,
        run: head,
        seeds: || {
            vec![
                b"GET /boot/ipxe?mac=52:54:00:00:00:01 HTTP/1.1\r\nHost: 10.77.0.1\r\nConnection: keep-alive\r\n\r\n".into(),
                b"POST /v1/boot/report HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\nAuthorization: Bearer 00\r\n\r\n{}".into(),
                b"HEAD /x HTTP/1.0\r\nRange: bytes=1-\r\n\r\n".into(),
            ]
        },
    },
    Target {
        name: "fleet-toml",
        reads: "fleet.toml, and everything that is checked of it",
        longest: 4096,
        run: |bytes| drop(FleetState::parse(Path::new("fleet.toml"), &text(bytes))),
        seeds: || vec![include_bytes!("../../../../cli/src/verbs/init/fleet-lab.toml").into()],
    },
];

/// What comes after a head does not change how the head is read.
fn head(bytes: &[u8]) {
    let Ok(Some(head)) = http_head::parse(bytes) else { return };
    assert!(head.length <= bytes.len() && head.length <= http_head::LONGEST);
    let alone = http_head::parse(&bytes[..head.length]).expect("read before").expect("whole");
    assert_eq!(
        (alone.length, alone.has_body, alone.keep_alive),
        (head.length, head.has_body, head.keep_alive)
    );
}
