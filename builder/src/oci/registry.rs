//! A registry (distribution specification 1.1, "Pull"), over HTTPS; over HTTP on this machine.

use std::io::Read as _;
use std::time::Duration;

use kiln_model::Sha256;
use serde::Deserialize;

use super::OciError;
use super::document::{INDEX_TYPES, LIMIT, MANIFEST_TYPES};

/// Bytes that an answer about a token may have.
const TOKEN_LIMIT: u64 = 64 << 10;

/// One repository of a registry.
#[derive(Debug)]
pub struct Registry {
    agent: ureq::Agent,
    root: String,
    name: String,
    /// What an anonymous reader was given.
    token: std::sync::Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// An answer that is not the thing itself.
enum Refusal {
    /// 401, and who gives tokens.
    Unauthorized(String),
    Other(String),
}

impl Registry {
    /// The repository `name` at `host`. `agent` is asked, with the host's own limits on time.
    pub fn new(host: &str, name: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .user_agent("kiln")
            .build()
            .new_agent();
        let bare = host.strip_prefix('[').and_then(|h| h.split(']').next());
        let bare = bare.unwrap_or_else(|| host.split(':').next().unwrap_or_default());
        let local = bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let scheme = if local { "http" } else { "https" };
        Self { agent, root: format!("{scheme}://{host}"), name: name.to_owned(), token: None.into() }
    }

    /// A manifest or an index, by tag or digest.
    pub fn manifest(&self, reference: &str) -> Result<Vec<u8>, OciError> {
        let accept = [INDEX_TYPES, MANIFEST_TYPES].concat().join(", ");
        self.get(&format!("{}/v2/{}/manifests/{reference}", self.root, self.name), &accept, LIMIT)
    }

    /// A blob, of at most `size` bytes and one more.
    pub fn blob(&self, digest: &Sha256, size: u64) -> Result<Vec<u8>, OciError> {
        self.get(&format!("{}/v2/{}/blobs/sha256:{digest}", self.root, self.name), "*/*", size)
    }

    fn get(&self, url: &str, accept: &str, limit: u64) -> Result<Vec<u8>, OciError> {
        let http = |why: String| OciError::Http { url: url.to_owned(), why };
        match self.ask(url, accept, limit) {
            Ok(bytes) => Ok(bytes),
            Err(Refusal::Other(why)) => Err(http(why)),
            Err(Refusal::Unauthorized(challenge)) => {
                let token = self.anonymous(&challenge)?;
                *self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token);
                self.ask(url, accept, limit).map_err(|refusal| match refusal {
                    Refusal::Other(why) => http(why),
                    Refusal::Unauthorized(_) => http("it wants a login; only public images are read".into()),
                })
            }
        }
    }

    fn ask(&self, url: &str, accept: &str, limit: u64) -> Result<Vec<u8>, Refusal> {
        let other = |e: &dyn std::fmt::Display| Refusal::Other(e.to_string());
        let mut request = self.agent.get(url).header("Accept", accept);
        if let Some(token) = &*self.token.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|e| other(&e))?;
        match response.status().as_u16() {
            200 => {}
            401 => {
                let challenge = response.headers().get("WWW-Authenticate").and_then(|h| h.to_str().ok());
                return Err(Refusal::Unauthorized(challenge.unwrap_or_default().to_owned()));
            }
            status => return Err(other(&format!("status {status}"))),
        }
        let mut bytes = Vec::new();
        // One byte more, so that what is too long is told from what is right.
        let body = response.body_mut().as_reader().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        body.map_err(|e| other(&e))?;
        Ok(bytes)
    }

    /// The token that anybody is given (distribution specification, "Token authentication").
    fn anonymous(&self, challenge: &str) -> Result<String, OciError> {
        let refused = |why: &str| OciError::Http { url: self.root.clone(), why: why.to_owned() };
        let wanted = || refused("it wants a login that is not a token; only public images are read");
        let fields = challenge.strip_prefix("Bearer ").ok_or_else(wanted)?;
        let field = |name: &str| {
            let (_, rest) = fields.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let realm = field("realm").ok_or_else(wanted)?;
        // A registry that is asked over HTTPS sends nobody elsewhere without it.
        if self.root.starts_with("https:") && !realm.starts_with("https:") {
            return Err(refused("it gives tokens without HTTPS"));
        }
        let scope = format!("repository:{}:pull", self.name);
        let mut request = self.agent.get(realm).query("scope", field("scope").unwrap_or(&scope));
        if let Some(service) = field("service") {
            request = request.query("service", service);
        }
        let http = |why: String| OciError::Http { url: realm.to_owned(), why };
        let mut response = request.call().map_err(|e| http(e.to_string()))?;
        let body = response.body_mut().as_reader().take(TOKEN_LIMIT);
        let token: Token = serde_json::from_reader(body).map_err(|e| http(e.to_string()))?;
        token.token.or(token.access_token).ok_or_else(|| http("its answer has no token".to_owned()))
    }
}
