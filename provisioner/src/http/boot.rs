//! The endpoints that machines use. ARCHITECTURE.md, "Booting", lists them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use kiln_model::timeline::Step;
use kiln_model::{MacAddr, PartName, Report, Sha256};
use serde::Deserialize;

use super::accept::Peer;
use super::files::{OnEnd, Sent};
use super::{HttpError, files};
use crate::boots::ScriptRequest;
use crate::server::{Server, now};

/// The longest report: it is stored as one value.
const REPORT_LIMIT: usize = 48 * 1024;
const OCTETS: &str = "application/octet-stream";
const JSON: &str = "application/json";

type Answer = Result<Response, HttpError>;

/// The routes for machines.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/boot/ipxe", get(script))
        .route("/boot/part/{token}/{*part}", get(part))
        .route("/boot/loader/{digest}/{file}", get(loader))
        .route("/v1/boot/intent", get(intent))
        .route("/v1/boot/report", post(report).layer(DefaultBodyLimit::max(REPORT_LIMIT)))
        .route("/repository/metadata/{file}", get(metadata))
        .route("/repository/targets/{*path}", get(target))
        .fallback(async || HttpError::not_found("there is nothing under this path"))
        .method_not_allowed_fallback(async || {
            HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .with_state(server)
}

/// What iPXE says of its box in the script's URL. Only the address counts; the rest is for people.
#[derive(Debug, Deserialize)]
struct ScriptQuery {
    mac: String,
    #[serde(default)]
    arch: String,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    asset: String,
}

impl ScriptQuery {
    fn seen(&self) -> String {
        let named =
            [("arch", &self.arch), ("serial", &self.serial), ("uuid", &self.uuid), ("asset", &self.asset)];
        let said = named.into_iter().filter(|(_, value)| !value.is_empty());
        said.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
    }
}

async fn script(
    State(server): State<Arc<Server>>,
    Extension(ConnectInfo(peer)): Extension<ConnectInfo<Peer>>,
    method: Method,
    query: Result<Query<ScriptQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    if method == Method::HEAD {
        // A HEAD would spend a try.
        return Err(HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "a boot script is asked for with GET"));
    }
    let bad = |text: String| HttpError::new(StatusCode::BAD_REQUEST, text);
    let Query(query) = query.map_err(|e| bad(e.body_text()))?;
    let mac: MacAddr = query.mac.parse().map_err(|e| bad(format!("mac: {e}")))?;
    let asked = ScriptRequest { mac, seen: query.seen(), serial: query.serial, peer: peer.0 };
    let text = server.boot_script(&asked, now()).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")], text).into_response())
}

async fn part(
    State(server): State<Arc<Server>>,
    Path((token, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let caller = server.caller(&token).await?;
    let missing = || HttpError::not_found(format!("{} has no such part", caller.image));
    let name: PartName = name.parse().map_err(|_| missing())?;
    let images = server.catalog.images();
    let (path, part) = images.part(&caller.image, &name).ok_or_else(missing)?;
    let step = match name.as_str() {
        "vmlinuz" => Some(Step::Kernel),
        "initrd" => Some(Step::Initrd),
        _ => None,
    };
    let on_end = step.map(|step| -> OnEnd {
        let (server, size) = (Arc::clone(&server), part.size);
        Box::new(move |sent| {
            let (step, detail) = match sent {
                Sent::Whole => (step, format!("{name}, {size} bytes by HTTP")),
                Sent::Stopped { at, of } => {
                    let percent = at.saturating_mul(100) / of.max(1);
                    (Step::HttpStopped, format!("{name} at {percent} %: {at} of {of} bytes"))
                }
                Sent::Part => return,
            };
            server.timelines.note(&caller.machine, now(), Some(caller.boot), step, detail);
        })
    });
    files::file(&path, &part.sha256.to_string(), OCTETS, &headers, on_end).await
}

async fn loader(
    State(server): State<Arc<Server>>,
    Path((digest, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let missing = || HttpError::not_found("there is no such boot loader");
    let digest: Sha256 = digest.parse().map_err(|_| missing())?;
    let images = server.catalog.images();
    let (path, _) = images.loader(&digest, &file).ok_or_else(missing)?;
    // EDK II tells a loader by this type or by the end of its name.
    files::file(&path, &digest.to_string(), "application/efi", &headers, None).await
}

async fn intent(State(server): State<Arc<Server>>, headers: HeaderMap) -> Answer {
    let caller = server.caller(bearer(&headers)?).await?;
    let signed = server.intent_for(&caller, now()).await?;
    let etag = format!("\"{}\"", signed.generation);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.trim() == etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    let headers = [(header::CONTENT_TYPE, JSON.to_owned()), (header::ETAG, etag)];
    Ok((headers, Body::from(signed.bytes)).into_response())
}

async fn report(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Answer {
    let caller = server.caller(bearer(&headers)?).await?;
    let report: Report = serde_json::from_slice(&body)
        .map_err(|e| HttpError::new(StatusCode::BAD_REQUEST, format!("this is not a report: {e}")))?;
    server.take_report(&caller, report, now()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn metadata(State(server): State<Arc<Server>>, Path(file): Path<String>, headers: HeaderMap) -> Answer {
    let missing = || HttpError::not_found("there is no such metadata");
    let path = server.catalog.metadata_file(&file).ok_or_else(missing)?;
    let bytes = tokio::fs::read(&path).await.map_err(|e| HttpError::of_file(&path, &e))?;
    let etag = Sha256::of(&bytes).to_string();
    files::bytes(bytes.into(), &etag, JSON, &headers)
}

async fn target(State(server): State<Arc<Server>>, Path(path): Path<String>, headers: HeaderMap) -> Answer {
    let missing = || HttpError::not_found("there is no such target");
    let (file, digest) = server.catalog.target_file(&path).ok_or_else(missing)?;
    files::file(&file, &digest.to_string(), OCTETS, &headers, None).await
}

fn bearer(headers: &HeaderMap) -> Result<&str, HttpError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    value.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim).ok_or_else(|| {
        HttpError::new(StatusCode::UNAUTHORIZED, "a boot token is wanted: `Authorization: Bearer TOKEN`")
    })
}
