//! ONIE's waterfall of default names, and first-boot scripts of switches' own operating systems.
//!
//! ONIE executes the body of any 200, so whatever is not an installer for this machine is a 404.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse as _;
use kiln_boot::onie::{Operation, Stem};
use kiln_model::fleet::{MachineSpec, ZtpSystem};
use kiln_model::timeline::Step;
use kiln_model::{Arch, MacAddr};

use super::boot::{Answer, OCTETS};
use super::boots::{From, noted};
use super::files::{OnEnd, Sent};
use super::{HttpError, files};
use crate::menus::{is_json, ztp_script};
use crate::server::{Server, now};

/// `GET /onie-installer…`.
pub(super) async fn installer(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): From,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let Some(stem) = Stem::of(&file) else {
        return Err(HttpError::not_found("there is nothing under this path"));
    };
    let wants = match header(&headers, "onie-operation") {
        Some(operation) => Operation::of(operation),
        None => Some(Operation::Install),
    };
    if stem == Stem::Updater || wants != Some(Operation::Install) {
        return Err(HttpError::not_found("Kiln installs operating systems and does not update ONIE"));
    }
    let machine = machine(&server, &headers, peer.0).await?;
    let arch = match header(&headers, "onie-arch") {
        None => None,
        Some("x86_64") => Some(Arch::X86_64),
        Some("arm64") => Some(Arch::Arm64),
        Some(other) => {
            let other: String = other.chars().take(20).collect();
            return Err(HttpError::not_found(format!("Kiln has no images for {other}")));
        }
    };
    let refused = |because: String| {
        server.timelines.note(&machine.name, now(), None, Step::NothingToBoot, format!("ONIE: {because}"));
        HttpError::not_found(because)
    };
    let (path, digest, image) = server.installer_for(&machine, arch, now()).map_err(refused)?;
    let what = said_of_itself(&headers);
    let on_end =
        noted(&server, machine.name.to_string(), None, Step::Installer, format!("{image} for {what}"));
    let counted: OnEnd = {
        let (server, runtime) = (Arc::clone(&server), tokio::runtime::Handle::current());
        Box::new(move |sent| {
            on_end(sent);
            if sent == Sent::Whole {
                runtime.spawn(async move { server.installer_served(&machine, now()).await });
            }
        })
    };
    files::file(&path, &digest.to_string(), OCTETS, &headers, Some(counted)).await
}

/// The machine that asks: the one whose address it asks from, else the one whose address it names, when that
/// one's addresses are not known to be others.
async fn machine(
    server: &Server,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
) -> Result<MachineSpec, HttpError> {
    if let Some(machine) = server.machine_at(peer).await? {
        return Ok(machine);
    }
    let named = header(headers, "onie-eth-addr").and_then(|text| text.parse::<MacAddr>().ok());
    let fleet = server.fleet();
    let machine = named.and_then(|mac| fleet.machine_by_mac(mac));
    let unknown = || HttpError::not_found("nobody has accepted this machine");
    let machine = machine.ok_or_else(unknown)?;
    let asker = crate::boots::addresses::Asker::machine(machine, peer);
    server.refuse_strangers(asker).await.map_err(|_| unknown())?;
    Ok(machine.clone())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What ONIE says of its box, for people.
fn said_of_itself(headers: &HeaderMap) -> String {
    let named = [("onie-machine", ""), ("onie-serial-number", "serial "), ("onie-vendor-id", "vendor ")];
    let said =
        named.into_iter().filter_map(|(name, before)| Some(format!("{before}{}", header(headers, name)?)));
    let said: Vec<_> = said.collect();
    if said.is_empty() { "a box that says nothing of itself".to_owned() } else { said.join(", ") }
}

/// `GET /ztp/SYSTEM.(json|sh)`.
pub(super) async fn ztp(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): From,
    Path(file): Path<String>,
) -> Answer {
    let missing = || HttpError::not_found("there is no first-boot script for this machine");
    let (name, end) = file.rsplit_once('.').ok_or_else(missing)?;
    let systems = [ZtpSystem::Sonic, ZtpSystem::Cumulus];
    let system = systems.into_iter().find(|system| system.as_str() == name).ok_or_else(missing)?;
    let machine = server.machine_at(peer.0).await?.ok_or_else(missing)?;
    let fleet = server.fleet();
    let script = ztp_script(&fleet, &machine, system).ok_or_else(missing)?;
    let (kind, content) =
        if is_json(script) { ("json", "application/json") } else { ("sh", "text/x-shellscript") };
    if end != kind {
        return Err(missing());
    }
    server.timelines.note(
        &machine.name,
        now(),
        None,
        Step::Ztp,
        format!("{name}, {} bytes", script.script.len()),
    );
    Ok(([(header::CONTENT_TYPE, content)], script.script.clone()).into_response())
}
