//! The transfer core against a client over a network that loses, doubles and reorders packets.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tftp_server::negotiate::{Agreed, negotiate};
use tftp_server::packet::{Reaction, Rrq};
use tftp_server::transfer::{Action, End, Transfer};

/// What travels to the client: the OACK, or a block by its wire number with its content.
#[derive(Debug, Clone)]
enum ToClient {
    Oack,
    Data(u16, Vec<u8>),
}

/// A client by RFC 7440: takes blocks in order, acknowledges full windows, the last block, and gaps.
struct Client {
    block: usize,
    window: u64,
    received: Vec<u8>,
    blocks: u64,
    since_ack: u64,
    opened: bool,
    done: bool,
}

impl Client {
    fn take(&mut self, packet: ToClient) -> Option<Reaction> {
        match packet {
            ToClient::Oack if self.blocks == 0 => {
                self.opened = true;
                Some(Reaction::Ack(0))
            }
            ToClient::Oack => None,
            ToClient::Data(number, data) if number == wire(self.blocks + 1) && !self.done => {
                self.opened = true;
                self.blocks += 1;
                self.since_ack += 1;
                self.done = data.len() < self.block;
                self.received.extend_from_slice(&data);
                if self.done || self.since_ack == self.window { self.ack() } else { None }
            }
            // A gap, or a block for the second time: say where we are.
            ToClient::Data(..) => self.ack(),
        }
    }

    fn ack(&mut self) -> Option<Reaction> {
        self.since_ack = 0;
        Some(Reaction::Ack(wire(self.blocks)))
    }
}

fn wire(block: u64) -> u16 {
    u16::try_from(block % 65536).expect("reduced")
}

/// Draws what happens to the packets. SplitMix64: good enough to shuffle a test.
struct Fate(u64);

impl Fate {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) % below
    }
}

/// Percentages of packets that are lost and doubled, and milliseconds they may be late.
#[derive(Debug, Clone, Copy)]
struct Weather {
    lost: u64,
    doubled: u64,
    late_ms: u64,
}

struct World {
    now: Duration,
    fate: Fate,
    weather: Weather,
    /// Packets under way, by arrival and a number that keeps them apart.
    under_way: BTreeMap<(Duration, u64), Packet>,
    count: u64,
    sent_blocks: u64,
}

enum Packet {
    Down(ToClient),
    Up(Reaction),
}

impl World {
    fn send(&mut self, make: impl Fn() -> Packet) {
        let copies = 1 + u64::from(self.fate.draw(100) < self.weather.doubled);
        for _ in 0..copies {
            if self.fate.draw(100) >= self.weather.lost {
                let late = Duration::from_micros(200 + self.fate.draw(self.weather.late_ms * 1000 + 1));
                self.count += 1;
                self.under_way.insert((self.now + late, self.count), make());
            }
        }
    }

    fn act(&mut self, transfer: &Transfer, file: &[u8], action: Action) -> Option<End> {
        match action {
            Action::Wait => {}
            Action::Oack => self.send(|| Packet::Down(ToClient::Oack)),
            Action::Blocks { first, count } => {
                for number in first..first + u64::from(count) {
                    let (start, length) = transfer.range(number);
                    let start = usize::try_from(start).expect("small");
                    self.sent_blocks += 1;
                    let data = &file[start..start + length];
                    self.send(|| Packet::Down(ToClient::Data(wire(number), data.to_vec())));
                }
            }
            Action::End(end) => return Some(end),
        }
        None
    }
}

/// Runs one transfer; what the client has, how the server ended, and how many blocks it sent.
fn run(file: &[u8], agreed: &Agreed, weather: Weather, seed: u64) -> (Client, End, u64) {
    let mut transfer = Transfer::new(file.len() as u64, agreed, Duration::from_secs(1), 5);
    let mut client = Client {
        block: usize::from(agreed.block),
        window: u64::from(agreed.window),
        received: Vec::new(),
        blocks: 0,
        since_ack: 0,
        opened: false,
        done: false,
    };
    let mut world = World {
        now: Duration::ZERO,
        fate: Fate(seed),
        weather,
        under_way: BTreeMap::new(),
        count: 0,
        sent_blocks: 0,
    };
    let action = transfer.start(world.now);
    let mut end = world.act(&transfer, file, action);
    // A client repeats its last ACK when it hears nothing, as RFC 1350 has it.
    let mut client_timer = Duration::from_secs(3);
    while end.is_none() {
        let next = world.under_way.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at);
        world.now = next.min(transfer.deadline()).min(client_timer);
        assert!(world.now < Duration::from_secs(4 * 3600), "no end in sight");
        let reaction = if world.now == next {
            match world.under_way.pop_first().expect("it has a first").1 {
                Packet::Down(packet) => {
                    client_timer = world.now + Duration::from_secs(3);
                    if let Some(answer) = client.take(packet) {
                        world.send(|| Packet::Up(answer.clone()));
                    }
                    continue;
                }
                Packet::Up(reaction) => Some(reaction),
            }
        } else if world.now == client_timer {
            client_timer = world.now + Duration::from_secs(3);
            if client.opened && !client.done {
                let answer = client.ack().expect("always");
                world.send(|| Packet::Up(answer.clone()));
            }
            continue;
        } else {
            None
        };
        let action = match reaction {
            Some(reaction) => transfer.on_reaction(&reaction, world.now),
            None => transfer.on_timeout(world.now),
        };
        end = world.act(&transfer, file, action);
    }
    (client, end.expect("it ended"), world.sent_blocks)
}

fn agreed(length: usize, block: Option<u16>, window: Option<u16>) -> Agreed {
    let request = Rrq { name: "x".into(), block, window, ..Rrq::default() };
    negotiate(&request, length as u64, 1500, 1 << 20)
}

fn file(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from((n * 31 + n / 251) % 256).expect("reduced")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_the_weather_the_client_has_the_right_bytes_or_an_end(
        length in 0usize..40_000, block in prop::option::of(8u16..1500),
        window in prop::option::of(1u16..100), seed in any::<u64>(),
        lost in 0u64..40, doubled in 0u64..30, late_ms in 0u64..1500,
    ) {
        let file = file(length);
        let (client, end, _) = run(&file, &agreed(length, block, window), Weather { lost, doubled, late_ms }, seed);
        prop_assert!(file.starts_with(&client.received), "wrong bytes");
        match end {
            End::Done => prop_assert_eq!(client.received.len(), length),
            End::TimedOut => prop_assert!(lost > 0 || late_ms > 0, "timed out in fine weather"),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn doubled_packets_do_not_double_a_lockstep_transfer(length in 0usize..40_000, seed in any::<u64>()) {
        let file = file(length);
        let weather = Weather { lost: 0, doubled: 100, late_ms: 0 };
        let (client, end, sent) = run(&file, &agreed(length, None, None), weather, seed);
        prop_assert_eq!((end, client.received.len()), (End::Done, length));
        prop_assert_eq!(sent, length as u64 / 512 + 1, "the sorcerer's apprentice is at work");
    }
}

#[test]
fn block_numbers_go_round_for_any_size() {
    // More than two rounds of 65536 blocks; nothing is special about the number 0.
    let length = 8 * 65536 * 2 + 12345;
    for (window, block) in [(1, 8), (64, 8)] {
        let file = file(length);
        let fine = Weather { lost: 0, doubled: 0, late_ms: 0 };
        let (client, end, _) = run(&file, &agreed(length, Some(block), Some(window)), fine, 7);
        assert_eq!(end, End::Done);
        assert!(client.received == file);
    }
}

#[test]
fn beyond_four_gibibytes_positions_and_numbers_are_right() {
    let length = (5_u64 << 30) + 100;
    let agreed = Agreed { block: 512, window: 1, timeout: None, oack: None };
    let mut transfer = Transfer::new(length, &agreed, Duration::from_secs(1), 5);
    let mut action = transfer.start(Duration::ZERO);
    for number in 1..=length / 512 + 1 {
        assert_eq!(action, Action::Blocks { first: number, count: 1 });
        let (start, size) = transfer.range(number);
        assert_eq!(start, (number - 1) * 512);
        assert_eq!(size as u64, 512.min(length - start));
        action = transfer.on_reaction(&Reaction::Ack(wire(number)), Duration::ZERO);
    }
    assert_eq!((action, transfer.acknowledged()), (Action::End(End::Done), length));
}

#[test]
fn silence_ends_a_transfer_after_five_more_tries() {
    for options in [None, Some(16)] {
        let mut transfer = Transfer::new(9000, &agreed(9000, None, options), Duration::from_secs(1), 5);
        let first = transfer.start(Duration::ZERO);
        let mut waits = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            waits.push((transfer.deadline() - now).as_secs());
            now = transfer.deadline();
            match transfer.on_timeout(now) {
                Action::End(end) => break assert_eq!(end, End::TimedOut),
                again => assert_eq!(again, first),
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
    }
}

#[test]
fn a_flood_of_equal_acks_brings_out_one_window_only() {
    let mut transfer = Transfer::new(1 << 20, &agreed(1 << 20, None, Some(8)), Duration::from_secs(1), 5);
    transfer.start(Duration::ZERO);
    transfer.on_reaction(&Reaction::Ack(0), Duration::ZERO);
    let again = transfer.on_reaction(&Reaction::Ack(0), Duration::ZERO);
    assert_eq!(again, Action::Blocks { first: 1, count: 8 });
    for _ in 0..1000 {
        assert_eq!(transfer.on_reaction(&Reaction::Ack(0), Duration::ZERO), Action::Wait);
    }
    for ahead in [9, 500, 65535] {
        assert_eq!(transfer.on_reaction(&Reaction::Ack(ahead), Duration::ZERO), Action::Wait);
    }
}
