//! `kiln.discover`: the firmware has started us without a boot script, from a disk or a single file, so the
//! box looks for its provisioner itself and asks what the script would have said.
//!
//! Every Ethernet interface asks by DHCP ([`client`], [`message`]) at the same time; who has a lease asks
//! `GET /boot/agent` over it. The first answer is taken. It goes on for ever, and says on the console what it
//! waits for.

mod client;
mod message;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::client::Outcome;
use self::message::Identity;
use super::alive;
use crate::cmdline::Task;
use crate::console::{printable, say};
use crate::http::{self, HttpError};
use crate::network::{Interface, Network, NetworkError};
use crate::sys::wire;

/// Ports of DHCP (RFC 2131, section 4.1).
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// When the provisioner does not say when it wants to be asked again.
const PAUSE_S: u64 = 30;
/// However long it says.
const LONGEST_PAUSE_S: u64 = 600;
/// The console repeats what is waited for.
const REMIND: Duration = Duration::from_secs(30);
/// New interfaces are looked for this often: drivers take their time.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of the provisioner's answer at most.
const ANSWER: u64 = 4096;

/// What the questions of all interfaces have in common.
#[derive(Clone)]
struct Seeker {
    network: Network,
    /// Whether this box has a disk of ours, `disk` or `uki`.
    via: &'static str,
    uuid: Option<[u8; 16]>,
    kernel: String,
    /// A provisioner has said something, if only to wait: the box is not alone.
    answered: Arc<AtomicBool>,
    /// One interface at a time has an address: two in one network would take each other's answers.
    turn: Arc<Mutex<()>>,
}

/// Asks on every interface until a provisioner says what to do. With `patience`, none when nobody has answered
/// anything in that time.
///
/// # Errors
/// The kernel refuses to list interfaces.
pub async fn ask(
    network: &Network,
    via: &'static str,
    patience: Option<Duration>,
) -> Result<Option<Task>, NetworkError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let uuid = super::introduce::hardware::uuid();
    let seeker = Seeker {
        network: network.clone(),
        via,
        uuid,
        kernel: release,
        answered: Arc::default(),
        turn: Arc::default(),
    };
    let mut end = patience.map(|patience| Instant::now() + patience);
    let mut asking = FuturesUnordered::new();
    let mut known = BTreeSet::new();
    loop {
        for interface in network.ethernet().await? {
            if known.insert(interface.index) {
                asking.push(seek(seeker.clone(), interface));
            }
        }
        if known.is_empty() {
            say!("kiln: there is no Ethernet interface; is the driver of its card in the hardware profile?");
        }
        let look = Instant::now() + if known.is_empty() { REMIND / 3 } else { LOOK };
        alive();
        tokio::select! {
            Some(task) = asking.next() => return Ok(Some(task)),
            () = sleep_until(end.map_or(look, |end| end.min(look))) => {}
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            if !seeker.answered.load(Ordering::Relaxed) {
                return Ok(None);
            }
            end = None;
        }
    }
}

/// Asks on one interface until the provisioner has said what to do.
async fn seek(seeker: Seeker, interface: Interface) -> Task {
    let mut shown = Shown::new(&interface);
    loop {
        let result = match connect(&seeker, &interface, &mut shown).await {
            Ok(lease) => question(&seeker, &interface, &lease, &mut shown).await,
            Err(why) => Err(why),
        };
        match result {
            Ok(task) => return task,
            Err(why) => shown.say(&why),
        }
        sleep(LOOK * 5).await;
    }
}

/// Link and lease.
async fn connect(seeker: &Seeker, interface: &Interface, shown: &mut Shown) -> Result<client::Lease, String> {
    let text = |error: NetworkError| error.to_string();
    seeker.network.up(interface.index).await.map_err(text)?;
    while !seeker.network.has_carrier(interface.index).await.map_err(text)? {
        shown.say("no link; check the cable and the port of the switch");
        sleep(LOOK).await;
    }
    shown.say("asks for an address (DHCP)");
    let socket = wire::broadcast(&interface.name, CLIENT_PORT).and_then(UdpSocket::from_std);
    let socket = socket.map_err(|why| format!("opening the DHCP port: {why}"))?;
    let architecture = if cfg!(target_arch = "aarch64") { 19 } else { 16 };
    let identity = Identity { mac: interface.mac, uuid: seeker.uuid, architecture };
    let begun = Instant::now();
    let now = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut client = client::Client::new(identity, now());
    let mut buffer = [0; 2048];
    loop {
        let wake = begun + Duration::from_millis(client.wake());
        let send =
            match timeout(wake.saturating_duration_since(Instant::now()), socket.recv(&mut buffer)).await {
                Err(_) => client.timer(now(), random()),
                Ok(Err(why)) => return Err(format!("listening for DHCP: {why}")),
                Ok(Ok(length)) => match client.receive(now(), buffer.get(..length).unwrap_or_default()) {
                    Some(Outcome::Bound(lease)) => return Ok(lease),
                    Some(Outcome::Send(bytes)) => Some(bytes),
                    None => None,
                },
            };
        if let Some(bytes) = send {
            // A send that fails is repeated like one that is lost.
            let _ = socket.send_to(&bytes, (Ipv4Addr::BROADCAST, SERVER_PORT)).await;
            shown.remind(now());
        }
    }
}

/// Asks the provisioner until it answers with a boot, or the lease ends.
async fn question(
    seeker: &Seeker,
    interface: &Interface,
    lease: &client::Lease,
    shown: &mut Shown,
) -> Result<Task, String> {
    let end = Instant::now() + Duration::from_secs(lease.seconds.into());
    let provisioner = lease.provisioner;
    shown.say(&format!("has {} and asks {provisioner} what to boot", lease.address));
    while Instant::now() < end {
        let asked = ask_once(seeker, interface, lease).await?;
        let pause = match asked {
            Ok(task) => return Ok(task),
            Err(HttpError::Status { status, text, retry_after, .. }) => {
                seeker.answered.fetch_or(is_an_answer(status), Ordering::Relaxed);
                let pause = retry_after.unwrap_or(PAUSE_S).clamp(1, LONGEST_PAUSE_S);
                let text = printable(&text);
                shown.say(&format!("the provisioner answers {status}: {text}; asks again in {pause} s"));
                pause
            }
            Err(error) => {
                shown.say(&format!("{error}; asks again"));
                5
            }
        };
        sleep(Duration::from_secs(pause)).await;
    }
    Err("its lease has ended".to_owned())
}

/// Whether a status comes from a provisioner that works: one that is broken is as good as none.
const fn is_an_answer(status: u16) -> bool {
    status < 500 || status == 503
}

async fn ask_once(
    seeker: &Seeker,
    interface: &Interface,
    lease: &client::Lease,
) -> Result<Result<Task, HttpError>, String> {
    let _turn = seeker.turn.lock().await;
    let text = |error: NetworkError| error.to_string();
    seeker.network.set(interface, lease.address, lease.gateway).await.map_err(text)?;
    let path = format!(
        "/boot/agent?mac={}&arch={}&kernel={}&via={}",
        interface.mac,
        super::arch(),
        seeker.kernel,
        seeker.via
    );
    let client = http::Client::to(lease.provisioner, String::new());
    let answer = client.get_once(&path, ANSWER, None).await;
    let answer = answer.map(|answer| answer.body.unwrap_or_default()).and_then(|body| {
        let why = |why: String| HttpError::Network { path: "/boot/agent".to_owned(), why };
        let line = std::str::from_utf8(&body).map_err(|e| why(e.to_string()))?;
        Task::parse(line).map_err(|e| why(e.to_string()))
    });
    if !matches!(answer, Ok(Task::Run(_) | Task::Introduce(_))) {
        seeker.network.unset(interface, lease.address).await.map_err(text)?;
    }
    Ok(answer)
}

/// What was shown of an interface, so that it is not shown again and again.
struct Shown {
    name: String,
    last: String,
    at: u64,
}

impl Shown {
    fn new(interface: &Interface) -> Self {
        Self { name: format!("{} ({})", interface.name, interface.mac), last: String::new(), at: 0 }
    }

    fn say(&mut self, text: &str) {
        if text != self.last {
            say!("kiln: {}: {text}", self.name);
            text.clone_into(&mut self.last);
        }
    }

    fn remind(&mut self, now: u64) {
        if now.saturating_sub(self.at) >= REMIND.as_secs() * 1000 {
            self.at = now;
            let waited = now / 1000;
            say!("kiln: {}: no provisioner has offered an address for {waited} s; asks on", self.name);
        }
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u32::from_ne_bytes(bytes),
        // Only what is sent differs less from machine to machine.
        Err(_) => Instant::now().elapsed().subsec_nanos(),
    }
}
