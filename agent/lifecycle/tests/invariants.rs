//! What must hold whatever happens, in whatever order.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{handle, name, process_name, supervisor};
use kiln_lifecycle::{Answer, AskId, Effect, Event, Jitter, ProcessName, Signal, Uptime};
use kiln_model::function::Ask;
use kiln_model::report::{FunctionState, Status};
use kiln_model::timeline::Step;
use kiln_model::{Arch, ImageId, Sha256, manifest::ImageRef};
use proptest::prelude::*;

/// What the world does next. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Happens {
    Time(u64),
    Exit(usize, u32),
    Answer(usize, bool),
    StaleAnswer(u64, bool),
    Drained(bool),
    Reimage,
    Reconfigure(bool, bool),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0_u64..5_000).prop_map(Happens::Time),
        1 => (30_000_u64..700_000).prop_map(Happens::Time),
        3 => (any::<usize>(), any::<u32>()).prop_map(|(at, random)| Happens::Exit(at, random)),
        8 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(at, pass)| Happens::Answer(at, pass)),
        1 => (0_u64..50, any::<bool>()).prop_map(|(id, pass)| Happens::StaleAnswer(id, pass)),
        1 => prop::bool::weighted(0.7).prop_map(Happens::Drained),
        1 => Just(Happens::Reimage),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Happens::Reconfigure(a, b)),
    ]
}

/// The world as the effects say it is: an independent book-keeping.
#[derive(Default)]
struct World {
    now: Uptime,
    running: BTreeSet<ProcessName>,
    told_to_end: BTreeSet<ProcessName>,
    open: BTreeMap<AskId, (String, Uptime)>,
    /// The last answer of frr's health probe since any of its processes was started.
    health: Option<bool>,
    drain_open: bool,
    drain_begun: bool,
    rebooted: bool,
    failed: bool,
}

impl World {
    fn obey(&mut self, effects: &[Effect]) {
        assert!(!self.rebooted || effects.is_empty(), "nothing is done after a reboot: {effects:?}");
        for effect in effects {
            match effect {
                Effect::Start(process) => {
                    assert!(self.running.insert(process.clone()), "{process} is started while it runs");
                    // What was asked before a start says nothing about after it.
                    let own = format!("/run/{}", process.process);
                    let frr = process.function.as_str() == "frr";
                    self.open.retain(|_, (path, _)| *path != own && !(frr && path == "/health"));
                    self.health = self.health.filter(|_| !frr);
                }
                Effect::Stop(process, signal) => {
                    assert!(self.running.contains(process), "{process} does not run");
                    let before = !self.told_to_end.insert(process.clone());
                    assert_eq!(before, *signal == Signal::Kill, "SIGTERM comes before SIGKILL, each once");
                }
                Effect::Ask { id, ask: Ask::Unix { path }, .. } => {
                    let silent = |at: Uptime| self.now.since(at) >= 2_000;
                    assert!(self.open.values().all(|(p, at)| p != path || silent(*at)), "{path} asked twice");
                    self.open.retain(|_, (p, _)| p != path);
                    self.open.insert(*id, (path.clone(), self.now));
                }
                Effect::Drain { .. } => self.drain_open = true,
                // It failed, or took too long.
                Effect::Undrain { .. } => self.drain_open = false,
                Effect::Record { step: Step::Draining, .. } => self.drain_begun = true,
                Effect::Record { step: Step::Failed, .. } => self.failed = true,
                Effect::Reboot => {
                    assert!(self.drain_begun || self.failed, "a reboot without a drain or a failure");
                    assert!(!self.drain_open, "a reboot while traffic is being taken away");
                    self.rebooted = true;
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, happens: &Happens) -> Option<Event> {
        let pick = |at: usize, length: usize| (length > 0).then(|| at % length);
        Some(match happens {
            Happens::Time(millis) => {
                self.now = self.now.plus(*millis);
                Event::Timer
            }
            Happens::Exit(at, random) => {
                let process = self.running.iter().nth(pick(*at, self.running.len())?)?.clone();
                self.running.remove(&process);
                self.told_to_end.remove(&process);
                Event::Exited {
                    process,
                    how: "ended with 1".to_owned(),
                    jitter: Jitter::from_random(*random),
                }
            }
            Happens::Answer(at, pass) => {
                let id = *self.open.keys().nth(pick(*at, self.open.len())?)?;
                let (path, asked) = self.open.remove(&id)?;
                let counts = self.now.since(asked) < 2_000;
                if path == "/health" && counts {
                    self.health = Some(*pass);
                }
                self.answer(id, *pass)
            }
            Happens::StaleAnswer(id, pass) if !self.open.contains_key(&AskId(*id)) => {
                self.answer(AskId(*id), *pass)
            }
            Happens::StaleAnswer(..) => return None,
            Happens::Drained(_) if !self.drain_open => return None,
            Happens::Drained(good) => {
                self.drain_open = false;
                let result = if *good { Ok(()) } else { Err("ended with 1".to_owned()) };
                Event::DrainFinished { function: name("frr"), result }
            }
            Happens::Reimage => Event::Reimage(image()),
            Happens::Reconfigure(frr, chrony) => {
                let both = [("frr", *frr), ("chrony", *chrony)];
                Event::Reconfigure(both.into_iter().filter(|(_, yes)| *yes).map(|(n, _)| name(n)).collect())
            }
        })
    }

    fn answer(&self, id: AskId, pass: bool) -> Event {
        let answer = if pass { Answer::Pass } else { Answer::Fail("no".to_owned()) };
        Event::Answered { id, answer }
    }
}

fn image() -> ImageRef {
    ImageRef { name: name("edge"), version: name("2"), arch: Arch::X86_64, id: ImageId(Sha256::of(b"2")) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hold_in_every_history(history in prop::collection::vec(happens(), 0..120)) {
        let mut core = supervisor();
        let mut world = World::default();
        world.obey(&handle(&mut core, Uptime(0), Event::Timer));
        let mut confirmed = false;
        for step in &history {
            let Some(event) = world.event(step) else { continue };
            let effects = handle(&mut core, world.now, event);
            world.obey(&effects);

            let frr = core.functions().into_iter().find(|f| f.name.as_str() == "frr").expect("frr");
            if frr.state == FunctionState::Healthy {
                prop_assert!(world.running.contains(&process_name("frr/zebra")));
                prop_assert!(world.running.contains(&process_name("frr/bgpd")));
                prop_assert_eq!(world.health, Some(true), "healthy without a passing probe since the last start");
            }
            prop_assert!(!confirmed || core.confirmed(), "what was healthy once stays so");
            confirmed = core.confirmed();
            let again = core.clone().handle(world.now, Event::Timer);
            prop_assert!(again.is_empty(), "something was left to do: {:?}", again);
            prop_assert!(core.wake().is_none_or(|at| at > world.now), "a wake-up in the past");
        }
    }

    #[test]
    fn a_box_that_never_gets_healthy_gives_up_in_time(answers in prop::collection::vec(any::<bool>(), 0..400)) {
        let mut core = supervisor();
        let mut answers = answers.into_iter();
        let mut effects = handle(&mut core, Uptime(0), Event::Timer);
        let mut now = Uptime(0);
        let mut done = core.confirmed();
        while !done && now.0 <= 125_000 {
            let asked: Vec<(AskId, bool)> = effects.iter().filter_map(|effect| match effect {
                // Health never passes; readiness may.
                Effect::Ask { id, ask: Ask::Unix { path }, .. } => {
                    Some((*id, path != "/health" && answers.next().unwrap_or(false)))
                }
                _ => None,
            }).collect();
            effects.clear();
            for (id, pass) in asked {
                let answer = if pass { Answer::Pass } else { Answer::Fail("no".to_owned()) };
                effects.extend(handle(&mut core, now, Event::Answered { id, answer }));
            }
            now = now.plus(500);
            effects.extend(handle(&mut core, now, Event::Timer));
            done = effects.contains(&Effect::Reboot);
        }
        prop_assert!(done, "no reboot by {now:?}");
        prop_assert!(now.0 <= 120_500);
        prop_assert_eq!(core.status(), Status::Failed);
    }
}
