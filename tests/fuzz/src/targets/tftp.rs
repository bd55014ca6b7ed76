//! What TFTP clients send, on both of their ports.

use std::time::Duration;

use tftp_server::negotiate::negotiate;
use tftp_server::packet::{Reaction, Rrq};
use tftp_server::transfer::{Action, Transfer};

use crate::Target;

/// Readers of TFTP packets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "tftp-request",
        reads: "a first packet, and what is agreed on",
        longest: 600,
        run: request,
        seeds: || {
            vec![
                b"\0\x01ipxe.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x0064\0timeout\x005\0"
                    .into(),
                b"\0\x02x\0octet\0".into(),
                b"\0\x01/x\0netascii\0".into(),
            ]
        },
    },
    Target {
        name: "tftp-transfer",
        reads: "a whole transfer: a request, then packets and silences in any order",
        longest: 2048,
        run: transfer,
        seeds: || vec![b"\0\x10\x02\x04\0\0\0\x04\0\x01\0\x04\0\x02\0\x05\0\0".into()],
    },
];

fn request(bytes: &[u8]) {
    let Ok(request) = Rrq::parse(bytes) else { return };
    assert!(!request.name.is_empty() && !request.name.contains('\0'));
    let agreed = negotiate(&request, 1_000_000, 1500, 1 << 20);
    assert!((8..=65_464).contains(&agreed.block) && (1..=64).contains(&agreed.window));
    assert!(request.block.is_none_or(|asked| agreed.block <= asked), "never more than was asked for");
}

/// The first bytes choose length and options; then each four bytes are a packet, or a silence.
fn transfer(bytes: &[u8]) {
    let Some((&[length, window, block, _], rest)) = bytes.split_first_chunk::<4>() else { return };
    let request = Rrq {
        name: "x".into(),
        block: (block > 0).then(|| 8 + u16::from(block)),
        window: (window > 0).then_some(window.into()),
        ..Rrq::default()
    };
    let length = u64::from(length) * 37;
    let agreed = negotiate(&request, length, 1500, 1 << 20);
    let last = length / u64::from(agreed.block) + 1;
    let mut transfer = Transfer::new(length, &agreed, Duration::from_secs(1), 5);
    let mut now = Duration::ZERO;
    let mut action = transfer.start(now);
    for packet in rest.chunks(4) {
        match action {
            Action::End(_) => return,
            Action::Blocks { first, count } => {
                assert!(first >= 1 && count >= 1 && count <= agreed.window, "{first} {count}");
                assert!(first + u64::from(count) - 1 <= last, "a block after the last one");
            }
            Action::Wait | Action::Oack => {}
        }
        let before = transfer.acknowledged();
        action = match Reaction::parse(packet) {
            Some(reaction) => transfer.on_reaction(&reaction, now),
            None => {
                now = now.max(transfer.deadline());
                transfer.on_timeout(now)
            }
        };
        assert!(transfer.acknowledged() >= before && transfer.acknowledged() <= length);
    }
}
