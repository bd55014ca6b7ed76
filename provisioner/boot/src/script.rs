//! Boot scripts for iPXE. Nothing that comes from the wire can add a line, a command or a setting.

use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::{MacAddr, MachineName};

use crate::answer::script_url;
use crate::words::Words;

/// A script that boots an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunScript {
    /// What its stage 0 is told.
    pub words: Words,
    /// What it boots.
    pub image: ImageRef,
    /// What for.
    pub task: Task,
    /// For the screen: `try 1 of 2`, or why it falls back.
    pub note: String,
    /// The manifest's kernel command line.
    pub cmdline: String,
}

/// What a boot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To run the image that is wanted.
    Run,
    /// To run the last good image.
    Fallback,
    /// To look at a machine that nobody has accepted.
    Discover,
}

impl From<Purpose> for Task {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Run => Self::Run,
            Purpose::Fallback => Self::Fallback,
        }
    }
}

/// A script that waits and asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldScript {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// Who waits.
    pub machine: MachineName,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Why, for the screen.
    pub because: String,
    /// For how long.
    pub retry_s: u32,
}

/// A script for a machine that nobody has accepted yet, when there is no discovery image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrangerScript {
    /// URL of the boot HTTP server, without a trailing `/`.
    pub server: String,
    /// The address it boots from.
    pub mac: MacAddr,
    /// Its serial number, as iPXE sent it: from the wire.
    pub serial: String,
    /// After how long it asks again.
    pub retry_s: u32,
}

/// A word that cannot be in a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has `{found}`, which iPXE would not take as plain text: {rule}")]
pub struct ScriptError {
    what: &'static str,
    found: String,
    rule: &'static str,
}

impl RunScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        let server = plain("the server's URL", &self.words.server)?;
        let token = plain("the boot token", &self.words.token)?;
        let part = |name: &str| format!("{server}/boot/part/{token}/{name}");
        let (kernel, initrd) = (part("vmlinuz"), part("initrd"));
        let what = match self.task {
            Task::Run => format!("boots {}", self.image),
            Task::Fallback => format!("falls back to {}", self.image),
            Task::Discover => format!("is looked at by {}", self.image),
        };
        let mac = self.words.mac;
        let who = self.words.machine.as_ref().map_or(mac.to_string(), |name| format!("{name} ({mac})"));
        Ok(Lines::new()
            .say(&format!("{who} {what}"))
            .say(&self.note)
            .line(&format!("kernel --name vmlinuz {kernel} {} || goto kernel_failed", self.arguments()?))
            .line(&format!("initrd --name initrd {initrd} || goto initrd_failed"))
            .line("boot || goto boot_failed")
            .failure("kernel_failed", &format!("the kernel could not be fetched from {server}"))
            .failure("initrd_failed", &format!("the initrd could not be fetched from {server}"))
            // The token is not shown: a screen can be photographed.
            .failure(
                "boot_failed",
                "the kernel was fetched and the firmware did not start it; Secure Boot must be off",
            )
            .line(":failed")
            .line("echo Kiln: the reason is ${errno}: https://ipxe.org/${errno}")
            .say(&format!("the machine reboots in {PAUSE_S} s"))
            .line(&format!("sleep {PAUSE_S}"))
            .line("reboot")
            .text())
    }

    /// The kernel's command line.
    fn arguments(&self) -> Result<String, ScriptError> {
        let mut words = Vec::new();
        for word in self.cmdline.split_ascii_whitespace() {
            words.push(plain("the image's kernel command line", word)?.to_owned());
        }
        words.extend(self.words.list());
        // A kernel that UEFI starts finds its initrd by this name only.
        words.push("initrd=initrd".to_owned());
        Ok(words.join(" "))
    }
}

impl HoldScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        let server = plain("the server's URL", &self.server)?;
        Ok(Lines::new()
            .say(&format!("{} ({}) waits", self.machine, self.mac))
            .say(&self.because)
            .ask_again(server, self.mac, self.retry_s)
            .text())
    }
}

impl StrangerScript {
    /// The script's text.
    pub fn render(&self) -> Result<String, ScriptError> {
        let server = plain("the server's URL", &self.server)?;
        Ok(Lines::new()
            .say("this machine is not accepted yet, so it is given nothing to boot")
            .say(&format!("its address is {}", self.mac))
            .say(&format!("its serial number is {}", self.serial))
            .say(&format!("to accept it: kiln machine accept {} --name NAME --image IMAGE", self.mac))
            .ask_again(server, self.mac, self.retry_s)
            .text())
    }
}

/// Seconds that an error stays on the screen.
const PAUSE_S: u32 = 10;
/// The longest text on the screen, in characters.
const SCREEN: usize = 240;

/// Lines of a script. Only literals of this file and words that [`plain`] let through become commands;
/// everything else goes through [`Lines::say`].
struct Lines(String);

impl Lines {
    fn new() -> Self {
        Self("#!ipxe\necho\n".to_owned())
    }

    fn line(mut self, line: &str) -> Self {
        self.0.push_str(line);
        self.0.push('\n');
        self
    }

    /// Shows a text on the screen.
    fn say(self, text: &str) -> Self {
        match shown(text) {
            text if text.is_empty() => self,
            text => self.line(&format!("echo Kiln: {text}")),
        }
    }

    fn failure(self, label: &str, text: &str) -> Self {
        self.line(&format!(":{label}")).say(text).line("goto failed")
    }

    fn ask_again(self, server: &str, mac: MacAddr, retry_s: u32) -> Self {
        self.say(&format!("it asks again in {retry_s} s"))
            .line(":again")
            .line(&format!("sleep {retry_s}"))
            .line(&format!("chain --replace --autofree {} || goto again", script_url(server, mac)))
    }

    fn text(self) -> String {
        self.0
    }
}

/// Lets a word through that iPXE takes as it is: no space, quote, `$`, `#`, `;`, `&` or `|`.
fn plain<'a>(what: &'static str, word: &'a str) -> Result<&'a str, ScriptError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/=,+@%-[]".contains(&b);
    if !word.is_empty() && word.bytes().all(allowed) {
        return Ok(word);
    }
    Err(ScriptError {
        what,
        found: word.chars().take(80).collect(),
        rule: "letters, digits and `. _ : / = , + @ % - [ ]` are wanted",
    })
}

/// A text as it is shown: characters that mean something to iPXE, and those that are not ASCII, are left out.
fn shown(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " ._:/=,+@%-()[]?!*".contains(c);
    let text: String = text.chars().take(SCREEN).map(|c| if c == ';' { ',' } else { c }).collect();
    let text: String = text.chars().filter(|c| harmless(*c)).collect();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kiln_model::{Arch, ImageId, Sha256};
    use proptest::prelude::*;

    use super::*;

    fn run() -> RunScript {
        RunScript {
            words: Words {
                server: "http://10.77.0.1:8080".to_owned(),
                token: "00112233445566778899aabbccddeeff".to_owned(),
                machine: Some("r1".parse().unwrap()),
                mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
                address: "10.77.0.11/24".parse().unwrap(),
                gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
            },
            image: ImageRef {
                name: "edge-router".parse().unwrap(),
                version: "2".parse().unwrap(),
                arch: Arch::X86_64,
                id: ImageId(Sha256::of(b"2")),
            },
            task: Task::Run,
            note: "try 1 of 2".to_owned(),
            cmdline: "console=ttyS0,115200 panic=10".to_owned(),
        }
    }

    fn hold() -> HoldScript {
        let Words { server, mac, .. } = run().words;
        let because =
            "edge-router 2 was served twice; `kiln machine release r1` gives the tries back".to_owned();
        HoldScript { server, machine: "r1".parse().unwrap(), mac, because, retry_s: 30 }
    }

    fn stranger(serial: &str) -> StrangerScript {
        let Words { server, mac, .. } = run().words;
        StrangerScript { server, mac, serial: serial.to_owned(), retry_s: 30 }
    }

    #[test]
    fn scripts_are_as_written_down() {
        insta::assert_snapshot!("run", run().render().unwrap());
        let words = Words { gateway: None, ..run().words };
        let fallback = RunScript { task: Task::Fallback, words, ..run() };
        insta::assert_snapshot!("fallback", fallback.render().unwrap());
        let words = Words { machine: None, ..run().words };
        let discovery = RunScript { task: Task::Discover, words, note: String::new(), ..run() };
        insta::assert_snapshot!("discovery", discovery.render().unwrap());
        insta::assert_snapshot!("hold", hold().render().unwrap());
        insta::assert_snapshot!("stranger", stranger("CZ1234").render().unwrap());
    }

    #[test]
    fn a_word_that_ipxe_would_interpret_is_refused() {
        for bad in ["quiet${uuid}", "a\nreboot\n", "x||", "\"quoted\"", "a\\b", "#", "a;b", "ä"] {
            let word = RunScript { cmdline: bad.to_owned(), ..run() }.render();
            // White space only separates words; the words themselves are looked at.
            assert!(word.is_err() || bad.contains('\n'), "{bad:?}");
            let words = Words { token: bad.to_owned(), ..run().words };
            assert!(RunScript { words, ..run() }.render().is_err(), "{bad:?}");
            let words = Words { server: bad.to_owned(), ..run().words };
            assert!(RunScript { words, ..run() }.render().is_err(), "{bad:?}");
            assert!(HoldScript { server: bad.to_owned(), ..hold() }.render().is_err(), "{bad:?}");
        }
    }

    /// The commands of a script: its lines without what is only shown.
    fn commands(script: &str) -> Vec<String> {
        script.lines().filter(|line| !line.starts_with("echo Kiln: ")).map(str::to_owned).collect()
    }

    proptest! {
        #[test]
        fn nothing_from_the_wire_becomes_a_command(text in any::<String>()) {
            let script = stranger(&text).render().unwrap();
            prop_assert_eq!(commands(&script), commands(&stranger("x").render().unwrap()));
            for line in script.lines().filter(|line| line.starts_with("echo")) {
                prop_assert!(!line.contains(['$', '#', '|', '&', '\\', '"', '\'', ';']), "{}", line);
            }
            let script = HoldScript { because: text, ..hold() }.render().unwrap();
            prop_assert_eq!(commands(&script), commands(&hold().render().unwrap()));
        }

        #[test]
        fn whatever_the_command_line_is_there_is_one_kernel_line(cmdline in any::<String>()) {
            if let Ok(script) = (RunScript { cmdline, ..run() }).render() {
                prop_assert_eq!(script.lines().count(), run().render().unwrap().lines().count());
                let others = |text: &str| commands(text).into_iter().filter(|l| !l.starts_with("kernel ")).collect::<Vec<_>>();
                prop_assert_eq!(others(&script), others(&run().render().unwrap()));
            }
        }
    }
}
