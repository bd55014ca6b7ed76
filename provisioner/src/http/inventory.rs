//! A machine that nobody has accepted tells what it is made of, and asks whether it was accepted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use kiln_model::Inventory;

use super::HttpError;
use super::boot::{Answer, bearer};
use crate::records::LookRecord;
use crate::server::{Server, now};

/// `POST /v1/boot/inventory`.
pub(super) async fn post(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Answer {
    let look = looker(&server, &headers).await?;
    if !server.limits.inventories.admit(&look.mac.to_string(), now()) {
        let text = "inventories come too often: send one when something has changed";
        return Err(HttpError::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(5));
    }
    let inventory: Inventory = serde_json::from_slice(&body)
        .map_err(|e| HttpError::new(StatusCode::BAD_REQUEST, format!("this is not an inventory: {e}")))?;
    server.take_inventory(&look, inventory, now()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/boot/inventory`: 204 to wait, 205 to boot again because the machine was accepted.
pub(super) async fn get(State(server): State<Arc<Server>>, headers: HeaderMap) -> Answer {
    let look = looker(&server, &headers).await?;
    let accepted = server.fleet().machine_by_mac(look.mac).is_some();
    Ok(if accepted { StatusCode::RESET_CONTENT } else { StatusCode::NO_CONTENT }.into_response())
}

async fn looker(server: &Server, headers: &HeaderMap) -> Result<LookRecord, HttpError> {
    server.looker(bearer(headers)?).await?.ok_or_else(|| {
        HttpError::new(
            StatusCode::FORBIDDEN,
            "this is no token of a machine that looks at itself: boot again",
        )
    })
}
