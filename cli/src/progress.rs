//! Progress: a moving line on a terminal, plain lines elsewhere. All of it goes to the standard error.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of one long verb. It may be told from several threads.
pub struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    /// The last tenth of a download that was printed as a plain line.
    tenth: Mutex<u64>,
}

impl Progress {
    /// Begins.
    pub fn start() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, started: Instant::now(), tenth: Mutex::new(0) }
    }

    /// A step began.
    pub fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("{:7.1}s  {what}", self.started.elapsed().as_secs_f32()),
        }
    }

    /// Something to know.
    pub fn note(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("note: {what}")),
            None => eprintln!("note: {what}"),
        }
    }

    /// `done` of `total` bytes are here.
    pub fn download(&self, done: u64, total: u64) {
        let text = format!("packages: {} of {}", crate::show::bytes(done), crate::show::bytes(total));
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            return;
        }
        let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(10);
        let mut last = self.tenth.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if tenth > *last {
            *last = tenth;
            self.step(&text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
