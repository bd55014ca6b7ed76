//! The endpoints that machines use. ARCHITECTURE.md, "Booting", lists them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use kiln_model::{Report, Sha256};

use super::{HttpError, boots, files, inventory, onie};
use crate::server::{Server, now};

/// The longest report: it is stored as one value.
const REPORT_LIMIT: usize = 48 * 1024;
/// The longest inventory.
const INVENTORY_LIMIT: usize = kiln_model::inventory::LIMIT;
pub(super) const OCTETS: &str = "application/octet-stream";
pub(super) const JSON: &str = "application/json";

pub(super) type Answer = Result<Response, HttpError>;

/// The routes for machines.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/boot/ipxe", get(boots::script))
        .route("/boot/agent", get(boots::agent))
        .route("/boot/part/{token}/{*part}", get(boots::part))
        .route("/boot/{kind}/{digest}/{file}", get(boots::firmware_file))
        .route("/{file}", get(onie::installer))
        .route("/ztp/{file}", get(onie::ztp))
        .route("/v1/boot/intent", get(intent))
        .route("/v1/boot/report", post(report).layer(DefaultBodyLimit::max(REPORT_LIMIT)))
        .route(
            "/v1/boot/inventory",
            get(inventory::get).post(inventory::post).layer(DefaultBodyLimit::max(INVENTORY_LIMIT)),
        )
        .route("/repository/metadata/{file}", get(metadata))
        .route("/repository/targets/{*path}", get(target))
        .fallback(async || HttpError::not_found("there is nothing under this path"))
        .method_not_allowed_fallback(async || {
            HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        })
        .with_state(server)
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
    if !server.limits.reports.admit(caller.machine.as_str(), now()) {
        let text = "reports come too often: send what has gathered in one";
        return Err(HttpError::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(1));
    }
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

pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, HttpError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    value.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim).ok_or_else(|| {
        HttpError::new(StatusCode::UNAUTHORIZED, "a boot token is wanted: `Authorization: Bearer TOKEN`")
    })
}
