//! A box as the server sees it: asks for a script, fetches, verifies its intent, reports.

use std::net::Ipv4Addr;

use kiln_model::intent::Intent;
use kiln_model::report::{AgentEvent, AgentMemory, Status};
use kiln_model::timeline::Step;
use kiln_model::{BootId, Format, ImageId, Report};
use kiln_signing::{Document, envelope};

use super::fleet::{Fleet, R1, R2};
use super::wire::Answer;

/// One boot of one machine.
pub struct Agent {
    pub name: String,
    pub mac: String,
    pub script: String,
    pub token: String,
    pub running: Option<ImageId>,
    sequence: u64,
    events: u64,
}

impl Agent {
    /// Asks for the script, as iPXE does: from the address that the box was given.
    pub async fn ask(fleet: &Fleet, mac: &str) -> String {
        let from = match mac {
            R1 => Ipv4Addr::new(127, 0, 0, 11),
            R2 => Ipv4Addr::new(127, 0, 0, 12),
            _ => Ipv4Addr::LOCALHOST,
        };
        let path = format!("/boot/ipxe?mac={mac}&arch=x86_64&uuid=1-2&serial=S%201&asset=");
        let answer = fleet.http_from(from, "GET", &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    }

    /// Boots: script, kernel, initrd, verified intent.
    pub async fn boot(fleet: &Fleet, name: &str, mac: &str) -> Self {
        let script = Self::ask(fleet, mac).await;
        let token = script.split("kiln.token=").nth(1).unwrap_or_else(|| panic!("no token: {script}"));
        let token: String = token.chars().take_while(char::is_ascii_hexdigit).collect();
        assert_eq!(token.len(), 32, "128 bits: {script}");
        for part in ["vmlinuz", "initrd"] {
            let answer = fleet.http("GET", &format!("/boot/part/{token}/{part}"), &[], b"").await;
            assert_eq!(answer.status, 200, "{part}: {}", answer.text());
        }
        let mut agent = Self {
            name: name.to_owned(),
            mac: mac.to_owned(),
            script,
            token,
            running: None,
            sequence: 0,
            events: 0,
        };
        agent.running = Some(agent.intent(fleet).await.image.id);
        agent
    }

    /// A boot whose token came in another way than by a script.
    pub fn with_token(name: &str, mac: &str, token: &str) -> Self {
        let (script, token) = (String::new(), token.to_owned());
        Self {
            name: name.to_owned(),
            mac: mac.to_owned(),
            script,
            token,
            running: None,
            sequence: 0,
            events: 0,
        }
    }

    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub async fn poll(&self, fleet: &Fleet, etag: Option<&str>) -> Answer {
        let authorization = self.authorization();
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(etag.map(|etag| ("if-none-match", etag)));
        fleet.http("GET", "/v1/boot/intent", &headers, b"").await
    }

    /// The intent, verified as a box verifies it.
    pub async fn intent(&self, fleet: &Fleet) -> Intent {
        let answer = self.poll(fleet, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let intent =
            envelope::verify::<Intent>(&answer.body, &fleet.director(), Document::INTENT).expect("verifies");
        let intent = intent.into_inner();
        assert_eq!(intent.machine.as_str(), self.name);
        assert_eq!(intent.mac.to_string(), self.mac);
        assert!(intent.expires > crate::server::now());
        intent
    }

    pub fn report(&mut self, status: Status, events: &[(Step, &str)]) -> Report {
        self.sequence += 1;
        let events = events.iter().map(|(step, detail)| {
            self.events += 1;
            AgentEvent { sequence: self.events, uptime_ms: 1000, step: *step, detail: (*detail).to_owned() }
        });
        Report {
            format: Format,
            machine: self.name.parse().expect("a name"),
            boot: BootId::of_token(&self.token),
            events: events.collect(),
            sequence: self.sequence,
            uptime_ms: 1000,
            generation: None,
            image: self.running,
            status,
            functions: Vec::new(),
            memory: AgentMemory { pid1: 1, agentd: 2 },
        }
    }

    pub async fn send(&self, fleet: &Fleet, report: &Report) -> Answer {
        let authorization = self.authorization();
        let body = serde_json::to_vec(report).expect("JSON");
        fleet.http("POST", "/v1/boot/report", &[("authorization", &authorization)], &body).await
    }

    pub async fn tell(&mut self, fleet: &Fleet, status: Status, events: &[(Step, &str)]) {
        let report = self.report(status, events);
        let answer = self.send(fleet, &report).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
}
