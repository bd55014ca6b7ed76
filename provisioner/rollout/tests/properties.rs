//! Whatever the machines do, every step keeps every rule of the checker, and says the same twice.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{World, image};
use kiln_model::fleet::RolloutPolicy;
use kiln_model::intent::Purpose;
use kiln_model::report::Status;
use kiln_rollout::{Rollout, check};
use proptest::prelude::*;

const NAMES: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    /// A machine does what it is told, as a good one does.
    Obeys(usize),
    Reports(usize, Status),
    Silent(usize),
    Fails(usize),
    FallsBack(usize),
    Pause,
    Resume,
    Abort,
    /// The actions of the next steps are lost, as in a crash.
    Loses(bool),
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![
        Status::Starting,
        Status::Healthy,
        Status::Degraded,
        Status::Failed,
        Status::Rebooting,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    let who = || 0..NAMES.len();
    prop_oneof![
        8 => (1..40u64).prop_map(Event::Pass),
        20 => who().prop_map(Event::Obeys),
        1 => (who(), status()).prop_map(|(n, s)| Event::Reports(n, s)),
        1 => who().prop_map(Event::Silent),
        1 => who().prop_map(Event::Fails),
        1 => who().prop_map(Event::FallsBack),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => prop::bool::weighted(0.1).prop_map(|abort| if abort { Event::Abort } else { Event::Resume }),
        1 => any::<bool>().prop_map(Event::Loses),
    ]
}

fn policy() -> impl Strategy<Value = RolloutPolicy> {
    (0..3u32, 0..4u32, 0..30u32, 30..200u32).prop_map(|(canaries, max_unavailable, soak_s, deadline_s)| {
        RolloutPolicy { canaries, max_unavailable, soak_s, deadline_s, require_test: false }
    })
}

fn happen(world: &mut World, event: &Event, loses: &mut bool) {
    let number = |world: &World, n: usize| {
        let wanted = world.machines[&common::name(NAMES[n])].wanted.as_ref().unwrap();
        wanted.version.to_string().parse().unwrap()
    };
    match event {
        Event::Pass(seconds) => world.pass(*seconds),
        Event::Obeys(n) => {
            let image = number(world, *n);
            world.reports(NAMES[*n], image, Status::Healthy);
        }
        Event::Reports(n, status) => {
            let image = number(world, *n);
            world.reports(NAMES[*n], image, *status);
        }
        Event::Silent(n) => world.machine(NAMES[*n]).silent = true,
        Event::Fails(n) => world.machine(NAMES[*n]).seen.failed = Some("why".to_owned()),
        Event::FallsBack(n) => world.machine(NAMES[*n]).seen.purpose = Some(Purpose::Fallback),
        Event::Loses(lost) => *loses = *lost,
        Event::Pause | Event::Resume | Event::Abort => {
            let now = world.now;
            let rollout = world.rollout.as_mut().unwrap();
            let next = match event {
                Event::Pause => rollout.paused(),
                Event::Resume => rollout.resumed(),
                _ => rollout.aborted(now),
            };
            *rollout = next.unwrap_or_else(|_| rollout.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_step_keeps_every_rule(
        policy in policy(),
        unseen in prop::option::weighted(0.3, 0..NAMES.len()),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new(&NAMES, policy);
        if let Some(n) = unseen {
            world.machine(NAMES[n]).seen = kiln_rollout::Observation { wanted: Some(image(1).id), ..Default::default() };
        }
        for name in &NAMES[..3] {
            world.machine(name).seen.groups.insert("spines".to_owned());
        }
        world.start(2, false).unwrap();
        let mut loses = false;
        for event in events {
            happen(&mut world, &event, &mut loses);
            let before = world.rollout.clone().unwrap();
            let observed = world.observed();
            let (after, actions) = before.step(&observed, world.now);
            let broken = check(&before, &after, &actions, &observed, world.now);
            prop_assert!(broken.is_empty(), "{event:?}: {broken:#?}");
            prop_assert_eq!(&before.step(&observed, world.now), &(after.clone(), actions.clone()));
            for member in &after.members {
                let why = after.why(&member.name, &observed, world.now).unwrap();
                prop_assert!(!why.because.is_empty() && why.because.iter().all(|s| !s.is_empty()));
            }
            let text = serde_json::to_string(&after).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Rollout>(&text).unwrap(), &after);
            if !loses {
                actions.iter().for_each(|action| world.execute(action));
            }
            world.rollout = Some(after);
        }
    }

    /// A fleet that does as it is told is done, however often actions are lost.
    #[test]
    fn a_good_image_reaches_everybody(
        policy in policy(),
        unseen in any::<bool>(),
        lost in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        let mut world = World::new(&NAMES, RolloutPolicy { deadline_s: 100_000, canaries: 1, ..policy });
        if unseen {
            // It runs nothing, so it is no canary.
            let machine = world.machine("r5");
            (machine.wanted, machine.seen) = (None, kiln_rollout::Observation::default());
        }
        world.start(2, false).unwrap();
        let mut lost = lost.into_iter();
        for _ in 0..300 {
            world.pass(5);
            let (after, actions) = world.rollout.clone().unwrap().step(&world.observed(), world.now);
            if !lost.next().unwrap_or(false) {
                actions.iter().for_each(|action| world.execute(action));
            }
            world.rollout = Some(after);
            for n in 0..NAMES.len() - usize::from(unseen) {
                happen(&mut world, &Event::Obeys(n), &mut false);
            }
        }
        prop_assert_eq!(world.rollout.unwrap().state, kiln_model::api::RolloutState::Done);
        prop_assert!(world.machines.values().all(|m| m.wanted == Some(image(2))));
    }
}
