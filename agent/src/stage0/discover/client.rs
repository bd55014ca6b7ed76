//! The DHCP client's decisions: no socket, no clock, no dice. Bytes and `now` come in, bytes and when to be
//! woken go out.
//!
//! It asks for ever: a provisioner that is switched on tomorrow finds the box still asking. An address and the
//! provisioner's place may come from two servers (a ProxyDHCP beside the site's own); it then waits a moment for
//! both. Offers without a provisioner are of no use and are left alone.

use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_model::intent::Ipv4Cidr;

use super::message::{Answer, Identity, Kind, option, question};
use crate::cmdline::server_of_url;

/// The file that a provisioner names to a box that asks for its boot.
const PATH: &str = "/boot/agent";
/// Milliseconds between one question and the next; the last for ever after.
const PAUSES: [u64; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];
/// How often a request is repeated before everything begins anew.
const REQUESTS: usize = 4;
/// What a lease lasts when its server does not say.
const LEASE_S: u32 = 600;

/// Milliseconds since some moment.
pub type Millis = u64;

/// What was agreed with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The box's address.
    pub address: Ipv4Cidr,
    /// The way to other networks.
    pub gateway: Option<Ipv4Addr>,
    /// The provisioner.
    pub provisioner: SocketAddrV4,
    /// Seconds that it lasts.
    pub seconds: u32,
}

#[derive(Debug, Clone)]
enum State {
    /// Asked this often; the answers so far.
    Discovering { asked: usize, address: Option<Answer>, provisioner: Option<SocketAddrV4> },
    /// Wants what was offered.
    Requesting { asked: usize, offer: Answer, provisioner: SocketAddrV4 },
}

/// One interface's client.
#[derive(Debug, Clone)]
pub struct Client {
    identity: Identity,
    begun: Millis,
    xid: u32,
    wake: Millis,
    state: State,
}

impl Client {
    /// A client that asks as soon as its [`Self::timer`] is called.
    pub fn new(identity: Identity, now: Millis) -> Self {
        Self { identity, begun: now, xid: 0, wake: now, state: State::start() }
    }

    /// When [`Self::timer`] is to be called next.
    pub fn wake(&self) -> Millis {
        self.wake
    }

    /// Time has passed: what to send now. `random` is drawn anew for each call.
    pub fn timer(&mut self, now: Millis, random: u32) -> Option<Vec<u8>> {
        if now < self.wake {
            return None;
        }
        match &mut self.state {
            State::Discovering { address: Some(offer), provisioner: Some(provisioner), .. } => {
                // Two servers, and no one has said both: take them together.
                let (offer, provisioner) = (offer.clone(), *provisioner);
                self.state = State::Requesting { asked: 0, offer, provisioner };
                Some(self.request(now))
            }
            State::Requesting { asked, .. } if *asked < REQUESTS => Some(self.request(now)),
            State::Requesting { .. } => {
                self.state = State::start();
                Some(self.discover(now, random))
            }
            State::Discovering { .. } => Some(self.discover(now, random)),
        }
    }

    /// Something was received: what to send, or what was agreed.
    pub fn receive(&mut self, now: Millis, bytes: &[u8]) -> Option<Outcome> {
        let answer = Answer::read(bytes, self.xid, self.identity.mac)?;
        match (&mut self.state, answer.kind) {
            (State::Discovering { address, provisioner, .. }, Kind::Offer) => {
                let named = provisioner_of(&answer);
                if let (Some(_), Some(named)) = (answer.address, named) {
                    self.state = State::Requesting { asked: 0, offer: answer, provisioner: named };
                    return Some(Outcome::Send(self.request(now)));
                }
                *provisioner = provisioner.or(named);
                if answer.address.is_some() && address.is_none() {
                    *address = Some(answer);
                }
                None
            }
            (State::Requesting { offer, provisioner, .. }, Kind::Ack)
                if answer.ip(option::SERVER) == offer.ip(option::SERVER) =>
            {
                let provisioner = provisioner_of(&answer).unwrap_or(*provisioner);
                lease(&answer, offer, provisioner).map(Outcome::Bound)
            }
            (State::Requesting { offer, .. }, Kind::Nak)
                if answer.ip(option::SERVER) == offer.ip(option::SERVER) =>
            {
                self.state = State::start();
                self.wake = now + PAUSES[0];
                None
            }
            _ => None,
        }
    }

    fn discover(&mut self, now: Millis, random: u32) -> Vec<u8> {
        // A new question: answers to the one before that come late are for nobody.
        self.xid = random;
        let State::Discovering { asked, .. } = &mut self.state else { return Vec::new() };
        let pause = PAUSES[(*asked).min(PAUSES.len() - 1)];
        *asked += 1;
        // A tenth more or less, so that a rack that was switched on at once does not ask at once for ever.
        self.wake = now + pause - pause / 10 + u64::from(random) % (pause / 5);
        question(Kind::Discover, &self.identity, self.xid, self.secs(now), &[])
    }

    fn request(&mut self, now: Millis) -> Vec<u8> {
        self.wake = now + PAUSES[1];
        let secs = self.secs(now);
        let State::Requesting { asked, offer, .. } = &mut self.state else { return Vec::new() };
        *asked += 1;
        let octets = |address: Option<Ipv4Addr>| address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
        let (wanted, server) = (octets(offer.address), octets(offer.ip(option::SERVER)));
        let more: [(u8, &[u8]); 2] = [(option::REQUESTED, &wanted), (option::SERVER, &server)];
        question(Kind::Request, &self.identity, self.xid, secs, &more)
    }

    fn secs(&self, now: Millis) -> u16 {
        u16::try_from(now.saturating_sub(self.begun) / 1000).unwrap_or(u16::MAX)
    }
}

/// What came of something that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This is to be sent.
    Send(Vec<u8>),
    /// The box has an address and knows its provisioner.
    Bound(Lease),
}

impl State {
    const fn start() -> Self {
        Self::Discovering { asked: 0, address: None, provisioner: None }
    }
}

fn provisioner_of(answer: &Answer) -> Option<SocketAddrV4> {
    server_of_url(answer.file().strip_suffix(PATH)?).ok()
}

fn lease(ack: &Answer, offer: &Answer, provisioner: SocketAddrV4) -> Option<Lease> {
    let mask = u32::from(ack.ip(option::MASK).or_else(|| offer.ip(option::MASK))?);
    let prefix = mask.leading_ones();
    if mask.checked_shl(prefix).unwrap_or(0) != 0 {
        return None;
    }
    Some(Lease {
        address: Ipv4Cidr { address: ack.address?, prefix: u8::try_from(prefix).ok()? },
        gateway: ack.ip(option::ROUTER).filter(|router| !router.is_unspecified()),
        provisioner,
        seconds: ack.lease_s().unwrap_or(LEASE_S).max(60),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::tests::{identity, reply};
    use super::*;

    const SERVER: (u8, &[u8]) = (option::SERVER, &[10, 77, 0, 1]);
    const MASK: (u8, &[u8]) = (option::MASK, &[255, 255, 255, 0]);
    const URL: (u8, &[u8]) = (option::FILE, b"http://10.77.0.1:8080/boot/agent");

    fn asked() -> Client {
        let mut client = Client::new(identity(), 0);
        assert!(client.timer(0, 7).is_some());
        client
    }

    #[test]
    fn an_offer_with_a_provisioner_becomes_a_lease() {
        let mut client = asked();
        let offer = reply(Kind::Offer, 7, [10, 77, 0, 21], &[SERVER, MASK, URL]);
        let Some(Outcome::Send(request)) = client.receive(5, &offer) else { panic!("a request is wanted") };
        assert!(request.windows(6).any(|w| w == [option::REQUESTED, 4, 10, 77, 0, 21]));
        let other = reply(Kind::Ack, 7, [10, 77, 0, 99], &[(option::SERVER, &[9, 9, 9, 9]), MASK, URL]);
        assert_eq!(client.receive(6, &other), None, "another server's");
        let ack =
            reply(Kind::Ack, 7, [10, 77, 0, 21], &[SERVER, MASK, URL, (option::ROUTER, &[10, 77, 0, 254])]);
        let Some(Outcome::Bound(lease)) = client.receive(6, &ack) else { panic!("a lease is wanted") };
        assert_eq!(lease.address.to_string(), "10.77.0.21/24");
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 77, 0, 254)));
        assert_eq!(lease.provisioner, "10.77.0.1:8080".parse().expect("address"));
    }

    #[test]
    fn an_address_of_one_server_and_the_provisioner_of_another_go_together() {
        let mut client = asked();
        let address = reply(Kind::Offer, 7, [192, 168, 1, 7], &[(option::SERVER, &[192, 168, 1, 1]), MASK]);
        let proxy = reply(Kind::Offer, 7, [0; 4], &[SERVER, URL]);
        assert_eq!(client.receive(1, &address), None);
        assert_eq!(client.receive(2, &proxy), None, "a better offer may come");
        assert!(client.timer(client.wake(), 8).is_some());
        let ack = reply(Kind::Ack, 7, [192, 168, 1, 7], &[(option::SERVER, &[192, 168, 1, 1]), MASK]);
        let Some(Outcome::Bound(lease)) = client.receive(2000, &ack) else { panic!("a lease is wanted") };
        assert_eq!(lease.provisioner, "10.77.0.1:8080".parse().expect("address"));
    }

    #[test]
    fn it_asks_for_ever_and_never_faster_than_every_15_seconds_in_the_end() {
        let mut client = Client::new(identity(), 0);
        let mut now = 0;
        for round in 0..1000_u32 {
            assert!(client.timer(now, round.wrapping_mul(2_654_435_761)).is_some());
            assert!(client.wake() > now && client.wake() <= now + 18_000);
            assert!(round < 5 || client.wake() >= now + 14_000);
            now = client.wake();
        }
        // Another site's server, with no provisioner: of no use, and asked on.
        let offer = reply(Kind::Offer, 999_u32.wrapping_mul(2_654_435_761), [10, 0, 0, 9], &[SERVER, MASK]);
        assert_eq!(client.receive(now, &offer), None);
        assert!(client.timer(client.wake(), 1).is_some());
    }

    #[test]
    fn a_server_that_offers_and_then_is_silent_or_says_no_is_asked_anew() {
        let mut client = asked();
        let offer = reply(Kind::Offer, 7, [10, 77, 0, 21], &[SERVER, MASK, URL]);
        assert!(matches!(client.receive(5, &offer), Some(Outcome::Send(_))));
        let mut silent = client.clone();
        for _ in 0..REQUESTS {
            assert!(silent.timer(silent.wake(), 8).is_some());
        }
        assert!(matches!(silent.state, State::Discovering { asked: 1, .. }));
        assert_eq!(client.receive(6, &reply(Kind::Nak, 7, [0; 4], &[SERVER])), None);
        assert!(matches!(client.state, State::Discovering { asked: 0, .. }));
        assert!(client.timer(client.wake(), 9).is_some());
    }

    #[test]
    fn a_mask_with_holes_is_no_lease() {
        let mut client = asked();
        let _ = client.receive(5, &reply(Kind::Offer, 7, [10, 77, 0, 21], &[SERVER, MASK, URL]));
        let ack = reply(Kind::Ack, 7, [10, 77, 0, 21], &[SERVER, (option::MASK, &[255, 0, 255, 0]), URL]);
        assert_eq!(client.receive(6, &ack), None);
    }

    proptest! {
        /// Whatever comes, it has always something to do later, and never more than one message to send.
        #[test]
        fn it_never_stops_asking(
            steps in proptest::collection::vec((any::<bool>(), any::<u32>(), 2..7_u8, any::<[u8; 4]>(), any::<bool>()), 1..60)
        ) {
            let mut client = Client::new(identity(), 0);
            let mut now = 0;
            for (timer, random, kind, address, url) in steps {
                if timer {
                    now = now.max(client.wake());
                    prop_assert!(client.timer(now, random).is_some());
                    prop_assert!(client.wake() > now);
                } else {
                    let kind = match kind { 2 => Kind::Offer, 5 => Kind::Ack, _ => Kind::Nak };
                    let options: &[(u8, &[u8])] = if url { &[SERVER, MASK, URL] } else { &[SERVER] };
                    let _ = client.receive(now, &reply(kind, client.xid, address, options));
                }
                prop_assert!(client.wake() <= now + 18_000);
            }
        }
    }
}
