//! What a machine would get, and why, in words.

use kiln_model::MacAddr;
use kiln_model::api::Explanation;
use kiln_model::fleet::BootPolicy;

use crate::answer::{BootAnswer, Menu, answer, script_url};
use crate::client::Client;
use crate::ledger::{Decision, Freshness, Ledger};

/// What is known of a machine that is in `fleet.toml`, beside what is on its menu.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// How machines boot.
    pub policy: &'a BootPolicy,
    /// Whether boxes still take new images from the repository.
    pub freshness: Freshness,
}

/// What `client` would get, and why: the same decisions that serve it, in words.
/// `machine` is none for a machine that is not in `fleet.toml`.
pub fn explain(client: &Client, menu: &Menu<'_>, machine: Option<Known<'_>>) -> Explanation {
    let mut explanation = Explanation { gets: Vec::new(), because: Vec::new() };
    let who = match (machine, menu.machine) {
        (Some(_), Some(standing)) => format!("{} is {} in fleet.toml", client.mac, standing.name),
        _ => format!("no machine in fleet.toml has the address {}", client.mac),
    };
    explanation.because.push(who);
    if explain_firmware(client, menu, &mut explanation) {
        explain_decision(client.mac, menu, machine, &mut explanation);
    }
    explanation
}

/// Answers whether a boot of ours follows.
fn explain_firmware(client: &Client, menu: &Menu<'_>, to: &mut Explanation) -> bool {
    let answer = answer(client, menu);
    to.because.push(answer.because().to_owned());
    let ours = |url: &str| if url.contains("/uki/") { "agent" } else { "iPXE" };
    let script = script_url(menu.server, client.mac);
    let (first, next) = match &answer {
        BootAnswer::Loader { file, .. } => {
            (format!("firmware: {file} by TFTP"), Some(ours(&format!("/{file}"))))
        }
        BootAnswer::Http { url, .. } => (format!("firmware: {url}"), Some(ours(url))),
        BootAnswer::Script { url, .. } => (format!("iPXE: {url}"), None),
        BootAnswer::Agent { url, .. } => (format!("agent: {url}"), None),
        BootAnswer::Installer { url, .. } => (format!("ONIE: {url}"), None),
        BootAnswer::Ztp { url, .. } => (format!("first boot: {url}"), None),
        BootAnswer::Nothing { .. } => ("firmware: an address and nothing to boot".to_owned(), None),
    };
    to.gets.push(first);
    match next {
        Some("agent") => to.gets.push(format!("agent: {}/boot/agent", menu.server)),
        Some(_) => to.gets.push(format!("iPXE: {script}")),
        None => {}
    }
    next.is_some() || matches!(answer, BootAnswer::Script { .. } | BootAnswer::Agent { .. })
}

fn explain_decision(mac: MacAddr, menu: &Menu<'_>, machine: Option<Known<'_>>, to: &mut Explanation) {
    let (Some(Known { ledger, policy, freshness }), Some(standing)) = (machine, menu.machine) else {
        to.gets.push(match menu.images.first() {
            Some(bootable) => {
                to.because.push(format!("[boot] discovery in fleet.toml names {}", bootable.image.name));
                format!("boot: {} looks at the machine, tells what it is made of, and waits", bootable.image)
            }
            None => "boot: the machine is not accepted; it says so on the screen and asks again".to_owned(),
        });
        to.because.push(format!("`kiln machine accept {mac} --name NAME --image IMAGE` accepts it"));
        return;
    };
    let name = standing.name;
    match ledger.decide(policy, freshness) {
        Decision::Run { image, attempt, tries } => {
            to.gets.push(format!("boot: runs {image}"));
            to.because.push(format!("{image} is wanted on {name}, and this is try {attempt} of {tries}"));
        }
        Decision::Fallback { image, because } => {
            to.gets.push(format!("boot: falls back to {image}"));
            to.because.push(because);
            to.because.push(format!("{image} is the last image that was healthy on {name}"));
        }
        Decision::Hold { because, retry_s } => {
            to.gets.push(format!("boot: waits {retry_s} s and asks again"));
            to.because.push(because);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::fleet::{LoaderChoice, ZtpSystem};
    use kiln_model::manifest::ImageRef;
    use kiln_model::{Arch, BootId, ImageId, MachineName, Sha256};

    use super::*;
    use crate::answer::{Bootable, Loader, Loaders, Standing};
    use crate::client::Program;

    const FRESH: Freshness = Freshness::Fresh;

    fn image(n: &str) -> ImageRef {
        ImageRef {
            name: "edge-router".parse().unwrap(),
            version: n.parse().unwrap(),
            arch: Arch::X86_64,
            id: ImageId(Sha256::of(n.as_bytes())),
        }
    }

    fn explained(
        program: Program,
        code: u16,
        machine: Option<(&MachineName, Known<'_>)>,
        image: Option<ImageRef>,
    ) -> String {
        let client = Client { mac: MacAddr([0x52, 0x54, 0, 0, 0, 1]), program, architectures: vec![code] };
        let file = |name: &str| Loader {
            file: format!("{name}/00/{name}.efi"),
            path: format!("boot/{name}/00/{name}.efi"),
        };
        let loaders = Loaders { efi_x64: Some(file("ipxe")), ..Loaders::default() };
        let images: Vec<_> = image
            .map(|image| Bootable { image, uki: Some(file("uki")), installer: true })
            .into_iter()
            .collect();
        let standing =
            machine.map(|(name, _)| Standing { name, loader: LoaderChoice::Auto, install_closed: None });
        let menu = Menu {
            server: "http://10.77.0.1",
            loaders: &loaders,
            images: &images,
            machine: standing,
            ztp: &[],
        };
        let Explanation { gets, because } = explain(&client, &menu, machine.map(|(_, known)| known));
        format!("gets\n  {}\nbecause\n  {}", gets.join("\n  "), because.join("\n  "))
    }

    #[test]
    fn every_decision_has_its_reason() {
        let name: MachineName = "r1".parse().unwrap();
        let policy = BootPolicy { tries: 1, retry_s: 30, discovery: None };
        let boot = BootId::of_token;
        let shown = |ledger: &Ledger| {
            let known = Known { ledger, policy: &policy, freshness: FRESH };
            explained(Program::Pxe, 7, Some((&name, known)), ledger.wanted.clone())
        };
        let new = Ledger::new(name.clone());
        let wanted = new.want(&image("1"), &policy);
        let served = wanted.serve(boot("1"), &policy, FRESH).0;
        let good = served
            .healthy(&boot("1"), image("1").id)
            .want(&image("2"), &policy)
            .serve(boot("2"), &policy, FRESH)
            .0;
        let fallen = good.failed(&boot("2"), image("2").id, "frr never became ready");
        let stranger = explained(Program::Pxe, 7, None, None);
        let all = [stranger, shown(&new), shown(&wanted), shown(&served), shown(&fallen)];
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn every_firmware_has_its_line() {
        let name: MachineName = "r1".parse().unwrap();
        let policy = BootPolicy { tries: 1, retry_s: 30, discovery: None };
        let ledger = Ledger::new(name.clone()).want(&image("1"), &policy);
        let known = Known { ledger: &ledger, policy: &policy, freshness: FRESH };
        let shown = |program, code| explained(program, code, Some((&name, known)), Some(image("1")));
        let discovered = explained(Program::HttpBoot, 16, None, Some(image("1")));
        let all = [
            shown(Program::HttpBoot, 16),
            shown(Program::HttpBoot, 19),
            shown(Program::Onie, 0),
            shown(Program::Ztp(ZtpSystem::Cumulus), 0),
            shown(Program::Agent, 16),
            discovered,
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
