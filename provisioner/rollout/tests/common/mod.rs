//! A world in small: machines that do what they are told, or do not.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::fleet::{LoaderChoice, MachineSpec, RolloutPolicy};
use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::report::Status;
use kiln_model::{Arch, ImageId, MacAddr, MachineName, Sha256, UnixMillis};
use kiln_rollout::{Action, Candidate, Observation, Observations, Rollout, StartError, start};

pub fn image(n: u32) -> ImageRef {
    ImageRef {
        name: "edge-router".parse().unwrap(),
        version: n.to_string().parse().unwrap(),
        arch: Arch::X86_64,
        id: ImageId(Sha256::of(&n.to_be_bytes())),
    }
}

pub fn name(text: &str) -> MachineName {
    text.parse().unwrap()
}

/// One machine: its ledger, and what it says.
pub struct Machine {
    pub wanted: Option<ImageRef>,
    pub seen: Observation,
    pub silent: bool,
}

pub struct World {
    pub now: UnixMillis,
    pub machines: BTreeMap<MachineName, Machine>,
    pub policy: RolloutPolicy,
    pub failed: BTreeMap<ImageId, String>,
    pub rollout: Option<Rollout>,
}

impl World {
    /// Machines that are healthy on image 1.
    pub fn new(names: &[&str], policy: RolloutPolicy) -> Self {
        let now = UnixMillis(1_000_000);
        let machine = || Machine {
            wanted: Some(image(1)),
            silent: false,
            seen: Observation {
                wanted: Some(image(1).id),
                purpose: Some(Purpose::Run),
                running: Some(image(1).id),
                status: Some(Status::Healthy),
                healthy_since: Some(now),
                last_report: Some(now),
                ..Observation::default()
            },
        };
        let machines = names.iter().map(|n| (name(n), machine())).collect();
        Self { now, machines, policy, failed: BTreeMap::new(), rollout: None }
    }

    pub fn machine(&mut self, which: &str) -> &mut Machine {
        self.machines.get_mut(&name(which)).unwrap()
    }

    pub fn start(&mut self, n: u32, retry_failed: bool) -> Result<(), StartError> {
        let specs: Vec<_> = self.machines.keys().map(spec).collect();
        let candidates: Vec<_> = specs
            .iter()
            .map(|spec| Candidate { spec, wanted: self.machines[&spec.name].wanted.as_ref() })
            .collect();
        let failed = self.failed.get(&image(n).id).map(String::as_str);
        self.rollout = Some(start(&image(n), &candidates, &self.policy, failed, retry_failed, self.now)?);
        Ok(())
    }

    pub fn observed(&self) -> Observations {
        self.machines.iter().map(|(name, machine)| (name.clone(), machine.seen.clone())).collect()
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(seconds * 1000);
        for machine in self.machines.values_mut().filter(|m| !m.silent && m.seen.last_report.is_some()) {
            machine.seen.last_report = Some(self.now);
        }
    }

    pub fn execute(&mut self, action: &Action) {
        let (machine, image) = match action {
            Action::Assign { machine, image } | Action::Revert { machine, image } => (machine, image),
            Action::RememberFailed { image, reason } => {
                return drop(self.failed.insert(image.id, reason.clone()));
            }
        };
        let machine = self.machines.get_mut(machine).unwrap();
        machine.wanted = Some(image.clone());
        machine.seen.wanted = Some(image.id);
        machine.seen.purpose = Some(Purpose::Run);
        machine.seen.failed = None;
    }

    /// A machine reports a status on an image.
    pub fn reports(&mut self, which: &str, n: u32, status: Status) {
        let now = self.now;
        let machine = self.machine(which);
        machine.silent = false;
        let seen = &mut machine.seen;
        let was = seen.status == Some(Status::Healthy) && seen.running == Some(image(n).id);
        seen.healthy_since =
            (status == Status::Healthy).then(|| seen.healthy_since.filter(|_| was).unwrap_or(now));
        (seen.running, seen.status, seen.last_report) = (Some(image(n).id), Some(status), Some(now));
    }
}

fn spec(name: &MachineName) -> MachineSpec {
    MachineSpec {
        name: name.clone(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        address: None,
        address6: None,
        loader: LoaderChoice::Auto,
        image: "edge-router".parse().unwrap(),
        profile: "generic/vm".to_owned(),
        role: String::new(),
        failure_domain: String::new(),
        groups: BTreeSet::new(),
        interfaces: BTreeMap::new(),
        vars: BTreeMap::new(),
    }
}
