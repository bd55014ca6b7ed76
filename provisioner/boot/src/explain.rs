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

#[cfg(test)]
mod tests {
    use kiln_model::{Arch, BootId, ImageId, Sha256, manifest::ImageRef};

    use super::*;
    use crate::answer::Loader;

    fn explained(machine: Option<Known<'_>>) -> String {
        let client = Client {
            mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            architectures: vec![7],
            user_class: Vec::new(),
            vendor_class: b"PXEClient".to_vec(),
        };
        let loader = Loader { file: "loader/00/ipxe.efi".to_owned(), path: "repository/ipxe.efi".to_owned() };
        let loaders = Loaders { efi_x64: Some(loader), ..Loaders::default() };
        let Explanation { gets, because } = explain(&client, &loaders, "http://10.77.0.1", machine);
        format!("gets\n  {}\nbecause\n  {}", gets.join("\n  "), because.join("\n  "))
    }

    #[test]
    fn every_decision_has_its_reason() {
        let name: MachineName = "r1".parse().unwrap();
        let policy = BootPolicy { tries: 1, retry_s: 30 };
        let image = |n: &str| ImageRef {
            name: "edge-router".parse().unwrap(),
            version: n.parse().unwrap(),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(n.as_bytes())),
        };
        let boot = BootId::of_token;
        let shown = |ledger: &Ledger| explained(Some(Known { name: &name, ledger, policy: &policy }));
        let new = Ledger::new(name.clone());
        let wanted = new.want(&image("1"), &policy);
        let served = wanted.serve(boot("1"), &policy).0;
        let good =
            served.healthy(&boot("1"), image("1").id).want(&image("2"), &policy).serve(boot("2"), &policy).0;
        let fallen = good.failed(&boot("2"), image("2").id, "frr never became ready");
        let all = [explained(None), shown(&new), shown(&wanted), shown(&served), shown(&fallen)];
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
