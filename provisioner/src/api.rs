//! The operator API on the unix socket. `kiln_model::api` lists the requests.
//!
//! Who may open the socket may use it: the file's permission (0600) is the authorisation.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kiln_boot::{Client, Ledger, Program};
use kiln_model::api::{
    AlarmView, Applied, Apply, Explanation, Hardware, ImageView, MachineView, Refusal, RolloutView,
    StartRollout, Timeline, Why,
};
use kiln_model::fleet::MachineSpec;
use kiln_model::{MacAddr, MachineName};
use serde::Deserialize;
use tokio::net::UnixListener;

use crate::alarms;
use crate::db::DbError;
use crate::error::ServeError;
use crate::intents;
use crate::records::{FailedImageRecord, MachineRecord, key};
use crate::rollouts::Order;
use crate::server::{Server, now};

/// The longest `fleet.toml` that is taken.
const FLEET_LIMIT: usize = 16 << 20;

/// A refusal to an operator.
#[derive(Debug, thiserror::Error)]
#[error("{}", refusal.error)]
pub struct ApiError {
    status: StatusCode,
    refusal: Refusal,
}

impl ApiError {
    fn new(status: StatusCode, error: impl Into<String>, help: impl Into<String>) -> Self {
        Self { status, refusal: Refusal { error: error.into(), help: help.into() } }
    }

    /// 400: what was asked cannot be understood.
    pub fn bad_request(error: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, help)
    }

    /// 404: what was asked for is not there.
    pub fn not_found(error: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, help)
    }

    /// 409: it cannot be done now.
    pub fn conflict(error: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error, help)
    }

    /// 500: our fault.
    pub fn ours(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "api: a fault of the server");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), "the server's log says more")
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        Self::ours(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.refusal)).into_response()
    }
}

type Answer<T> = Result<Json<T>, ApiError>;

/// The routes for operators.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/v1/machines", get(machines))
        .route("/v1/machines/{name}", get(machine))
        .route("/v1/machines/{name}/timeline", get(timeline))
        .route("/v1/machines/{name}/hardware", get(hardware))
        .route("/v1/machines/{name}/release", post(release))
        .route("/v1/machines/{name}/reinstall", post(reinstall))
        .route("/v1/explain", get(explain_mac))
        .route("/v1/images", get(images))
        .route("/v1/alarms", get(alarms))
        .route("/v1/alarms/{id}/clear", post(clear_alarm))
        .route("/v1/rollouts", get(rollouts).post(start_rollout))
        .route("/v1/rollouts/current", get(current_rollout))
        .route("/v1/rollouts/current/{action}", post(order_rollout))
        .route("/v1/rollouts/current/why/{name}", get(why))
        .route("/v1/apply", post(apply).layer(DefaultBodyLimit::max(FLEET_LIMIT)))
        .fallback(async || {
            ApiError::not_found("there is nothing under this path", "`kiln` and server must match")
        })
        .method_not_allowed_fallback(async || {
            let error = "this path does not take this method";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error, "`kiln` and server must match")
        })
        .with_state(server)
}

/// Binds the socket, private from its first moment. One that a crash left behind is replaced.
pub fn bind(socket: &FilePath) -> Result<UnixListener, ServeError> {
    refuse_second_server(socket)?;
    let fresh = socket.with_extension("sock.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ServeError::file("replace", &fresh)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(ServeError::file("listen on", &fresh))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))
        .map_err(ServeError::file("protect", &fresh))?;
    fs::rename(&fresh, socket).map_err(ServeError::file("put in place", socket))?;
    Ok(listener)
}

/// Refuses to go on when somebody answers on `socket`.
pub fn refuse_second_server(socket: &FilePath) -> Result<(), ServeError> {
    match UnixStream::connect(socket) {
        Ok(_) => Err(ServeError::AlreadyRunning { socket: socket.to_owned() }),
        Err(_) => Ok(()),
    }
}

async fn machines(State(server): State<Arc<Server>>) -> Answer<Vec<MachineView>> {
    Ok(Json(server.machine_views(now()).await?))
}

async fn machine(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<MachineView> {
    let view = match which(&server, &name)? {
        Which::Machine(machine) => server.machine_view(&machine, now()).await?,
        Which::Stranger(mac) => server.stranger_view(mac).await?.ok_or_else(|| never_seen(mac))?,
    };
    Ok(Json(view))
}

async fn timeline(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<Timeline> {
    let whose = match which(&server, &name)? {
        Which::Machine(machine) => machine.name.to_string(),
        Which::Stranger(mac) => mac.to_string(),
    };
    Ok(Json(server.timeline(&whose, now()).await?))
}

async fn hardware(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<Hardware> {
    let mac = match which(&server, &name)? {
        Which::Machine(machine) => machine.mac,
        Which::Stranger(mac) => mac,
    };
    Ok(Json(server.hardware(mac).await?))
}

async fn reinstall(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<MachineView> {
    let machine = known(&server, &name)?;
    server.reinstall(&machine, now()).await?;
    Ok(Json(server.machine_view(&machine, now()).await?))
}

async fn release(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<MachineView> {
    let machine = known(&server, &name)?;
    let fleet = server.fleet();
    let name = &machine.name;
    let keys = [key::ledger(name), key::intent(name), key::machine(name)];
    server
        .db
        .transact(&keys, |draft| {
            if let Some(ledger) = draft.get::<Ledger>(&key::ledger(name))? {
                let mut ledger = ledger.release(&fleet.fleet().boot);
                draft.put(key::ledger(name), &ledger)?;
                intents::settle(draft, &machine, &mut ledger)?;
            }
            if let Some(record) = draft.get::<MachineRecord>(&key::machine(name))? {
                draft.put(key::machine(name), &MachineRecord { trouble: String::new(), ..record })?;
            }
            Ok::<_, DbError>(())
        })
        .await?;
    tracing::info!(machine = %name, "ledger: released by the operator");
    Ok(Json(server.machine_view(&machine, now()).await?))
}

#[derive(Debug, Deserialize)]
struct ExplainQuery {
    mac: String,
    arch: Option<u16>,
    #[serde(rename = "as")]
    program: Option<String>,
    relay: Option<std::net::Ipv4Addr>,
}

async fn explain_mac(
    State(server): State<Arc<Server>>,
    query: Result<Query<ExplainQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Explanation> {
    let wants = "ask for /v1/explain?mac=MAC&arch=N&as=PROGRAM&relay=IP; PROGRAM is pxe, http, ipxe, agent, onie, sonic or cumulus";
    let bad = |error: String| ApiError::bad_request(error, wants);
    let Query(query) = query.map_err(|e| bad(e.body_text()))?;
    let mac: MacAddr = query.mac.parse().map_err(|e| bad(format!("{e}")))?;
    // UEFI x86-64 by TFTP, the commonest.
    let arch = query.arch.unwrap_or(7);
    let program = match query.program {
        Some(name) => Program::named(&name)
            .ok_or_else(|| bad(format!("no program is called `{}`", name.escape_debug())))?,
        None => Program::of_architecture(arch),
    };
    let client = Client { mac, program, architectures: vec![arch] };
    let leases = server.leases().ok_or_else(|| ApiError::ours("the leases are not read yet"))?;
    Ok(Json(server.explain(leases, &client, query.relay, now())))
}

/// What should not be and that no machine is to blame for: another DHCP server.
async fn alarms(State(server): State<Arc<Server>>) -> Answer<Vec<AlarmView>> {
    Ok(Json(alarms::list(&server, now()).await?))
}

async fn clear_alarm(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer<AlarmView> {
    let cleared = alarms::clear(&server, &id, now()).await?;
    let missing = || ApiError::not_found(format!("there is no alarm `{id}`"), "`kiln alarm list` names them");
    Ok(Json(cleared.ok_or_else(missing)?))
}

async fn images(State(server): State<Arc<Server>>) -> Answer<Vec<ImageView>> {
    let failed: Vec<(String, FailedImageRecord)> = server.db.list(key::FAILED_IMAGES).await?;
    let images = server.catalog.images();
    let views = images.all().iter().map(|published| ImageView {
        image: published.image.clone(),
        size: published.manifest.parts.values().map(|part| part.size).sum(),
        failed: failed
            .iter()
            .find(|(_, record)| record.image.id == published.image.id)
            .map(|(_, record)| record.reason.clone()),
    });
    Ok(Json(views.collect()))
}

async fn rollouts(State(server): State<Arc<Server>>) -> Answer<Vec<RolloutView>> {
    let rollouts = server.rollouts().await?;
    Ok(Json(rollouts.iter().map(kiln_rollout::Rollout::view).collect()))
}

async fn start_rollout(
    State(server): State<Arc<Server>>,
    body: Result<Json<StartRollout>, JsonRejection>,
) -> Answer<RolloutView> {
    let Json(asked) = body.map_err(not_understood)?;
    Ok(Json(server.start_rollout(&asked, now()).await?))
}

async fn current_rollout(State(server): State<Arc<Server>>) -> Answer<RolloutView> {
    Ok(Json(server.newest_rollout().await?.view()))
}

async fn order_rollout(State(server): State<Arc<Server>>, Path(action): Path<String>) -> Answer<RolloutView> {
    let order = match action.as_str() {
        "pause" => Order::Pause,
        "resume" => Order::Resume,
        "abort" => Order::Abort,
        _ => {
            let error = format!("a rollout cannot be told to `{action}`");
            return Err(ApiError::not_found(error, "it can be told to pause, resume or abort"));
        }
    };
    Ok(Json(server.order_rollout(order, now()).await?))
}

async fn why(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Answer<Why> {
    let machine = known(&server, &name)?;
    Ok(Json(server.why(&machine.name, now()).await?))
}

async fn apply(
    State(server): State<Arc<Server>>,
    body: Result<Json<Apply>, JsonRejection>,
) -> Answer<Applied> {
    let Json(asked) = body.map_err(not_understood)?;
    Ok(Json(server.apply(&asked).await?))
}

fn not_understood(rejection: JsonRejection) -> ApiError {
    ApiError::bad_request(rejection.body_text(), "`kiln` and server must be of the same version")
}

/// Whom a name in a path means.
enum Which {
    Machine(Box<MachineSpec>),
    /// The address of a box that is in no `[[machine]]`.
    Stranger(MacAddr),
}

fn which(server: &Server, name: &str) -> Result<Which, ApiError> {
    match name.parse::<MacAddr>() {
        Ok(mac) => {
            let fleet = server.fleet();
            Ok(fleet
                .machine_by_mac(mac)
                .map_or(Which::Stranger(mac), |machine| Which::Machine(Box::new(machine.clone()))))
        }
        Err(_) => Ok(Which::Machine(Box::new(known(server, name)?))),
    }
}

fn never_seen(mac: MacAddr) -> ApiError {
    ApiError::not_found(
        format!("{mac} was never seen"),
        "`kiln machine list` shows every machine, discovered ones too",
    )
}

/// The machine of this name, or the name that was probably meant.
fn known(server: &Server, name: &str) -> Result<MachineSpec, ApiError> {
    let fleet = server.fleet();
    let found = name.parse::<MachineName>().ok().and_then(|name| fleet.machine(&name).cloned());
    found.ok_or_else(|| {
        let names = fleet.fleet().machines.iter().map(|m| m.name.as_str());
        let nearest = names.map(|n| (strsim::damerau_levenshtein(n, name), n)).min();
        let help = match nearest {
            Some((distance, nearest)) if distance <= 2 => format!("did you mean `{nearest}`?"),
            _ => "`kiln machine list` shows every machine".to_owned(),
        };
        ApiError::not_found(format!("no machine is called `{}`", name.escape_debug()), help)
    })
}
