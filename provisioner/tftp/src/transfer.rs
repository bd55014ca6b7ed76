//! One transfer as a state machine: reactions and time in, what to send out. No I/O, no bytes of files.
//!
//! Windows are RFC 7440's, lost blocks are sent again from the first that is missing (go-back-N). With a
//! window of one that is RFC 1350, without its "sorcerer's apprentice": a second ACK of the same block
//! never makes a block go out twice (RFC 1123, section 4.2.3.1). A larger window takes such an ACK for a
//! gap that the client noticed, and sends again once for each first missing block, no matter how many
//! ACKs repeat. So what a client can make us send is bounded by what it acknowledges and by the clock.
//!
//! `now` is the time since any fixed point.

use std::time::Duration;

use crate::negotiate::Agreed;
use crate::packet::Reaction;

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What the driver does next. It then waits for a packet until [`Transfer::deadline`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Only wait.
    Wait,
    /// Send the OACK.
    Oack,
    /// Send the blocks from `first` on, `count` of them. Blocks count from 1 and do not wrap here.
    Blocks {
        /// The first one.
        first: u64,
        /// How many.
        count: u16,
    },
    /// The transfer is over.
    End(End),
}

/// How a transfer ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client acknowledged the last block.
    Done,
    /// The client sent an ERROR.
    ClientError {
        /// Its code.
        code: u16,
        /// Its text.
        message: String,
        /// Whether it came before any acknowledgement: a probe.
        at_once: bool,
    },
    /// The client fell silent.
    TimedOut,
}

/// One transfer.
#[derive(Debug, Clone)]
pub struct Transfer {
    length: u64,
    block: u16,
    window: u16,
    /// Whether the OACK waits for its ACK 0.
    opening: bool,
    /// The client has every block up to this one.
    acked: u64,
    /// The last block of the window that is out.
    sent: u64,
    /// A window was sent again for this first missing block.
    repaired: Option<u64>,
    first_wait: Duration,
    doubling: bool,
    tries: u32,
    retries: u32,
    deadline: Duration,
}

impl Transfer {
    /// A transfer of `length` bytes, to be begun with [`Transfer::start`].
    pub fn new(length: u64, agreed: &Agreed, wait: Duration, retries: u32) -> Self {
        Self {
            length,
            block: agreed.block.max(1),
            window: agreed.window.max(1),
            opening: agreed.oack.is_some(),
            acked: 0,
            sent: 0,
            repaired: None,
            first_wait: agreed.timeout.unwrap_or(wait),
            doubling: agreed.timeout.is_none(),
            tries: 0,
            retries,
            deadline: Duration::MAX,
        }
    }

    /// The first thing to send.
    pub fn start(&mut self, now: Duration) -> Action {
        self.arm(now);
        if self.opening { Action::Oack } else { self.send_window() }
    }

    /// A packet from the client.
    pub fn on_reaction(&mut self, reaction: &Reaction, now: Duration) -> Action {
        match reaction {
            Reaction::Error { code, message } => {
                Action::End(End::ClientError { code: *code, message: message.clone(), at_once: self.opening })
            }
            Reaction::Ack(0) if self.opening => {
                self.opening = false;
                self.progress(now)
            }
            Reaction::Ack(_) if self.opening => Action::Wait,
            Reaction::Ack(number) => self.on_ack(*number, now),
        }
    }

    /// The deadline passed.
    pub fn on_timeout(&mut self, now: Duration) -> Action {
        if now < self.deadline {
            return Action::Wait;
        }
        self.tries += 1;
        if self.tries > self.retries {
            return Action::End(End::TimedOut);
        }
        self.arm(now);
        self.repaired = None;
        if self.opening { Action::Oack } else { self.send_window() }
    }

    /// How many bytes the file has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// When [`Transfer::on_timeout`] is due.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How many bytes the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.length.min(self.acked.saturating_mul(self.block.into()))
    }

    /// The first block that the client has not acknowledged.
    pub fn first_missing(&self) -> u64 {
        self.acked + 1
    }

    /// Where block `number` is in the file, and how long it is.
    pub fn range(&self, number: u64) -> (u64, usize) {
        let start = number.saturating_sub(1).saturating_mul(self.block.into());
        let length = self.length.saturating_sub(start).min(self.block.into());
        (start, usize::try_from(length).unwrap_or(0))
    }

    /// The number of the last block: the one that is not full, and may be empty.
    fn last(&self) -> u64 {
        self.length / u64::from(self.block) + 1
    }

    /// Wire numbers go round. What is out is far less than a round, so one number means one block.
    fn on_ack(&mut self, number: u16, now: Duration) -> Action {
        let [.., high, low] = self.acked.to_be_bytes();
        let advance = u64::from(number.wrapping_sub(u16::from_be_bytes([high, low])));
        if advance > self.sent - self.acked {
            return Action::Wait;
        }
        if advance > 0 {
            self.acked += advance;
            return self.progress(now);
        }
        if self.window == 1 || self.repaired == Some(self.acked) {
            return Action::Wait;
        }
        self.repaired = Some(self.acked);
        self.arm(now);
        self.send_window()
    }

    fn progress(&mut self, now: Duration) -> Action {
        if self.acked >= self.last() {
            return Action::End(End::Done);
        }
        self.tries = 0;
        self.arm(now);
        self.send_window()
    }

    fn send_window(&mut self) -> Action {
        let first = self.acked + 1;
        self.sent = self.last().min(self.acked + u64::from(self.window));
        Action::Blocks { first, count: u16::try_from(self.sent + 1 - first).unwrap_or(self.window) }
    }

    fn arm(&mut self, now: Duration) {
        let factor = if self.doubling { 1 << self.tries.min(16) } else { 1 };
        self.deadline = now + (self.first_wait * factor).min(LONGEST_WAIT.max(self.first_wait));
    }
}
