//! What firmware, iPXE and stage 0 fetch before anything runs: boot scripts, loaders, kernels.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Extension, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse as _;
use kiln_boot::{HoldScript, RunScript, StrangerScript};
use kiln_model::manifest::ImageRef;
use kiln_model::timeline::Step;
use kiln_model::{Arch, BootId, MacAddr, Manifest, PartName, Sha256};
use serde::Deserialize;

use super::accept::Peer;
use super::boot::{Answer, JSON, OCTETS};
use super::files::{OnEnd, Sent};
use super::{HttpError, files};
use crate::boots::{Boot, BootRequest, Given};
use crate::server::{Server, now};

/// Whom a request came from, as the accept loop knows it.
pub(super) type From = Extension<ConnectInfo<Peer>>;

/// What a box says of itself. Its address and its processor count; the rest is for people.
#[derive(Debug, Deserialize)]
pub(super) struct BootQuery {
    mac: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    asset: String,
    #[serde(default)]
    kernel: String,
    #[serde(default)]
    via: String,
}

impl BootQuery {
    fn seen(&self) -> String {
        let named = [
            ("arch", &self.arch),
            ("serial", &self.serial),
            ("uuid", &self.uuid),
            ("asset", &self.asset),
            ("kernel", &self.kernel),
            ("via", &self.via),
        ];
        let said = named.into_iter().filter(|(_, value)| !value.is_empty());
        said.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    }

    /// iPXE for BIOS is a 32-bit program, on processors that are 64-bit ones.
    fn processor(&self) -> Option<Arch> {
        match self.arch.as_str() {
            "x86_64" | "i386" => Some(Arch::X86_64),
            "arm64" => Some(Arch::Arm64),
            _ => None,
        }
    }

    fn request(self, peer: &Peer) -> Result<BootRequest, HttpError> {
        let mac: MacAddr = self.mac.parse().map_err(|e| bad_request(format!("mac: {e}")))?;
        let (seen, arch, from_disk) = (self.seen(), self.processor(), self.via == "disk");
        Ok(BootRequest { mac, arch, serial: self.serial, seen, peer: peer.0, from_disk })
    }
}

fn bad_request(text: String) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, text)
}

async fn asked(
    server: &Server,
    peer: &Peer,
    method: &Method,
    query: Result<Query<BootQuery>, QueryRejection>,
) -> Result<(BootRequest, Given), HttpError> {
    if *method == Method::HEAD {
        // A HEAD would spend a try.
        return Err(HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "a boot is asked for with GET"));
    }
    let Query(query) = query.map_err(|e| bad_request(e.body_text()))?;
    let asked = query.request(peer)?;
    let given = server.boot(&asked, now()).await?;
    Ok((asked, given))
}

fn text(text: String) -> axum::response::Response {
    ([(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

/// `GET /boot/ipxe`: a boot script.
pub(super) async fn script(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): From,
    method: Method,
    query: Result<Query<BootQuery>, QueryRejection>,
) -> Answer {
    let (asked, given) = asked(&server, &peer, &method, query).await?;
    let url = server.serve.url();
    let script = match given {
        Given::Boot(boot) => {
            let Boot { words, image, task, note, cmdline } = *boot;
            RunScript { words, image, task, note, cmdline }.render()
        }
        Given::Hold { machine, because, retry_s } => {
            HoldScript { server: url, machine, mac: asked.mac, because, retry_s }.render()
        }
        Given::Stranger => {
            let retry_s = server.fleet().fleet().boot.retry_s;
            StrangerScript { server: url, mac: asked.mac, serial: asked.serial, retry_s }.render()
        }
    };
    Ok(text(script.map_err(HttpError::ours)?))
}

/// `GET /boot/agent`: the words that tell stage 0 which boot this is, when no boot script has.
pub(super) async fn agent(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): From,
    method: Method,
    query: Result<Query<BootQuery>, QueryRejection>,
) -> Answer {
    let (asked, given) = asked(&server, &peer, &method, query).await?;
    match given {
        Given::Boot(boot) => Ok(text(format!("{}\n", boot.words.line()))),
        Given::Hold { machine, because, retry_s } => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(HttpError::new(status, format!("{machine} waits: {because}")).retry_after(retry_s))
        }
        Given::Stranger => {
            let retry_s = server.fleet().fleet().boot.retry_s;
            Err(HttpError::not_found(format!("{} is not accepted", asked.mac)).retry_after(retry_s))
        }
    }
}

/// Whose token it is: a machine's boot, or a box that looks at itself.
struct Holder {
    whose: String,
    boot: Option<BootId>,
    image: ImageRef,
}

async fn holder(server: &Server, token: &str) -> Result<Holder, HttpError> {
    if let Some(look) = server.looker(token).await? {
        return Ok(Holder { whose: look.mac.to_string(), boot: None, image: look.image });
    }
    let caller = server.caller(token).await?;
    Ok(Holder { whose: caller.machine.to_string(), boot: Some(caller.boot), image: caller.image })
}

/// `GET /boot/part/TOKEN/PART`: a part of the image that this boot was given, or its signed manifest.
pub(super) async fn part(
    State(server): State<Arc<Server>>,
    Path((token, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let Holder { whose, boot, image } = holder(&server, &token).await?;
    let missing = || HttpError::not_found(format!("{image} has no such part"));
    let images = server.catalog.images();
    if name == Manifest::FILE {
        let (path, digest) = images.manifest_file(&image).ok_or_else(missing)?;
        return files::file(&path, &digest.to_string(), JSON, &headers, None).await;
    }
    let name: PartName = name.parse().map_err(|_| missing())?;
    let (path, part) = images.part(&image, &name).ok_or_else(missing)?;
    let step = match name.as_str() {
        "vmlinuz" => Some(Step::Kernel),
        "initrd" => Some(Step::Initrd),
        _ => None,
    };
    let on_end = step.map(|step| noted(&server, whose, boot, step, name.to_string()));
    files::file(&path, &part.sha256.to_string(), OCTETS, &headers, on_end).await
}

/// Notes in a timeline how sending `name` went: `step`, or where it stopped.
pub(super) fn noted(
    server: &Arc<Server>,
    whose: String,
    boot: Option<BootId>,
    step: Step,
    name: String,
) -> OnEnd {
    let server = Arc::clone(server);
    Box::new(move |sent| {
        let (step, detail) = match sent {
            Sent::Whole => (step, format!("{name} by HTTP")),
            Sent::Stopped { at, of } => {
                let percent = at.saturating_mul(100) / of.max(1);
                (Step::HttpStopped, format!("{name} at {percent} %: {at} of {of} bytes"))
            }
            Sent::Part => return,
        };
        server.timelines.note(whose, now(), boot, step, detail);
    })
}

/// `GET /boot/loader/<sha256>/FILE` and `GET /boot/uki/<sha256>/uki.efi`, for UEFI HTTP boot.
pub(super) async fn firmware_file(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): From,
    Path((kind, digest, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let missing = || HttpError::not_found("there is no such boot loader");
    let images = server.catalog.images();
    let found: Option<(PathBuf, Sha256)> =
        images.boot_file(&format!("{kind}/{digest}/{file}")).map(|(path, part)| (path, part.sha256));
    let (path, digest) = found.ok_or_else(missing)?;
    let whose = server.timeline_at(peer.0).await?;
    let on_end = whose.map(|whose| noted(&server, whose, None, Step::Loader, file));
    // EDK II tells a loader by this type or by the end of its name.
    files::file(&path, &digest.to_string(), "application/efi", &headers, on_end).await
}
