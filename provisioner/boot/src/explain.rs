//! What a machine would get, and why, in words.

use kiln_model::api::Explanation;
use kiln_model::fleet::BootPolicy;
use kiln_model::{MacAddr, MachineName};

use crate::answer::{BootAnswer, Client, Loaders, answer, script_url};
use crate::ledger::{Decision, Ledger};

/// What is known of a machine that is in `fleet.toml`.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a MachineName,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// How machines boot.
    pub policy: &'a BootPolicy,
}

/// What `client` would get, and why: the same decisions that serve it, in words.
/// `machine` is none for a machine that is not in `fleet.toml`.
pub fn explain(client: &Client, loaders: &Loaders, server: &str, machine: Option<Known<'_>>) -> Explanation {
    let mut explanation = Explanation { gets: Vec::new(), because: Vec::new() };
    explain_firmware(client, loaders, server, &mut explanation);
    explain_script(client.mac, machine, &mut explanation);
    explanation
}

fn explain_firmware(client: &Client, loaders: &Loaders, server: &str, to: &mut Explanation) {
    let answer = answer(client, loaders, server);
    to.because.push(answer.because().to_owned());
    match answer {
        BootAnswer::Loader { file, .. } => to.gets.push(format!("firmware: {file} by TFTP")),
        BootAnswer::Http { url, .. } => to.gets.push(format!("firmware: {url}")),
        BootAnswer::Nothing { .. } => to.gets.push("firmware: an address and nothing to boot".to_owned()),
        BootAnswer::Script { .. } => {}
    }
    to.gets.push(format!("iPXE: {}", script_url(server, client.mac)));
}

fn explain_script(mac: MacAddr, machine: Option<Known<'_>>, to: &mut Explanation) {
    let Some(Known { name, ledger, policy }) = machine else {
        to.gets
            .push("script: the machine is not accepted; it says so on the screen and asks again".to_owned());
        to.because.push(format!("no machine in fleet.toml has the address {mac}"));
        return;
    };
    to.because.push(format!("{mac} is {name} in fleet.toml"));
    match ledger.decide(policy) {
        Decision::Run { image, attempt, tries } => {
            to.gets.push(format!("script: boots {image}"));
            to.because.push(format!("{image} is wanted on {name}, and this is try {attempt} of {tries}"));
        }
        Decision::Fallback { image, because } => {
            to.gets.push(format!("script: falls back to {image}"));
            to.because.push(because);
            to.because.push(format!("{image} is the last image that was healthy on {name}"));
        }
        Decision::Hold { because, retry_s } => {
            to.gets.push(format!("script: waits {retry_s} s and asks again"));
            to.because.push(because);
        }
    }
}
