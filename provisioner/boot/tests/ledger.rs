//! What must hold of a ledger after any sequence of transitions, and the stories it is made for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use kiln_boot::{Decision, Freshness, Ledger, Verdict};
use kiln_model::fleet::BootPolicy;
use kiln_model::intent::Purpose;
use kiln_model::manifest::ImageRef;
use kiln_model::{Arch, BootId, ImageId, Sha256};
use proptest::prelude::*;

const POLICY: BootPolicy = BootPolicy { tries: 2, retry_s: 30, discovery: None };

fn image(n: u8) -> ImageRef {
    ImageRef {
        name: "edge-router".parse().unwrap(),
        version: n.to_string().parse().unwrap(),
        arch: Arch::X86_64,
        id: ImageId(Sha256::of(&[n])),
    }
}

fn boot(n: usize) -> BootId {
    BootId::of_token(&n.to_string())
}

fn ledger() -> Ledger {
    Ledger::new("r1".parse().unwrap())
}

/// Serves boot `n` and says what it gets: `run 2 (1/2)`, `fallback 1`, `hold`.
fn serve(ledger: &mut Ledger, n: usize) -> String {
    let (next, decision) = ledger.serve(boot(n), &POLICY, Freshness::Fresh);
    *ledger = next;
    match decision {
        Decision::Run { image, attempt, tries } => format!("run {} ({attempt}/{tries})", image.version),
        Decision::Fallback { image, .. } => format!("fallback {}", image.version),
        Decision::Hold { .. } => "hold".to_owned(),
    }
}

#[test]
fn a_bad_image_is_tried_twice_and_then_the_last_good_one_runs() {
    let mut ledger = ledger().want(&image(1), &POLICY);
    assert_eq!(serve(&mut ledger, 1), "run 1 (1/2)");
    ledger = ledger.healthy(&boot(1), image(1).id).want(&image(2), &POLICY);
    let wanted = ledger.generation;
    assert_eq!(serve(&mut ledger, 2), "run 2 (1/2)");
    ledger = ledger.failed(&boot(2), image(2).id, "frr never became ready");
    assert_eq!(serve(&mut ledger, 3), "run 2 (2/2)");
    assert_eq!(ledger.generation, wanted, "the same intent, tried again");
    assert_eq!(serve(&mut ledger, 4), "fallback 1");
    assert_eq!(ledger.generation, wanted.next());
    ledger = ledger.healthy(&boot(4), image(1).id);
    assert_eq!(serve(&mut ledger, 5), "fallback 1");
    assert_eq!(ledger.generation, wanted.next(), "the same intent again");
    let Decision::Fallback { because, .. } = ledger.decide(&POLICY, Freshness::Fresh) else {
        panic!("no fallback")
    };
    assert_eq!(because, "edge-router 2 was served twice and did not become healthy (frr never became ready)");
}

#[test]
fn a_healthy_report_gives_the_tries_back() {
    let mut ledger = ledger().want(&image(1), &POLICY);
    for n in 0..10 {
        assert_eq!(serve(&mut ledger, n), "run 1 (1/2)");
        ledger = ledger.healthy(&boot(n), image(1).id);
    }
}

#[test]
fn without_a_last_good_image_the_machine_waits_until_it_is_released() {
    let mut ledger = ledger();
    assert_eq!(serve(&mut ledger, 0), "hold");
    ledger = ledger.want(&image(1), &POLICY);
    serve(&mut ledger, 1);
    serve(&mut ledger, 2);
    assert_eq!(serve(&mut ledger, 3), "hold");
    assert_eq!(ledger.want(&image(1), &POLICY), ledger, "to want it again gives no tries back");
    ledger = ledger.release(&POLICY);
    assert_eq!(serve(&mut ledger, 4), "run 1 (1/2)");
}

#[test]
fn a_running_box_that_refuses_the_next_image_stays_good() {
    let mut ledger = ledger().want(&image(1), &POLICY);
    serve(&mut ledger, 1);
    ledger = ledger.healthy(&boot(1), image(1).id).want(&image(2), &POLICY);
    ledger = ledger.failed(&boot(1), image(2).id, "manifest: bad signature");
    assert_eq!(ledger.boot.as_ref().unwrap().verdict, Verdict::Healthy);
    assert_eq!(ledger.failed[&image(2).id].reason, "manifest: bad signature");
    assert_eq!(ledger.last_good, Some(image(1)));
    ledger = ledger.want(&image(1), &POLICY).healthy(&boot(1), image(1).id);
    assert_eq!(serve(&mut ledger, 2), "run 1 (1/2)");
}

#[test]
fn a_step_back_is_told_from_a_step_forward() {
    let step_back = |ledger: &Ledger| ledger.is_step_back(&ledger.decide(&POLICY, Freshness::Fresh));
    let mut ledger = ledger().want(&image(1), &POLICY);
    assert!(!step_back(&ledger), "the first boot");
    serve(&mut ledger, 1);
    ledger = ledger.healthy(&boot(1), image(1).id).want(&image(2), &POLICY);
    assert!(!step_back(&ledger), "an update");
    serve(&mut ledger, 2);
    assert!(!step_back(&ledger), "the second try");
    let reverted = ledger.failed(&boot(2), image(2).id, "why").want(&image(1), &POLICY);
    assert!(step_back(&reverted), "a rollout took it back");
    serve(&mut ledger, 3);
    assert!(step_back(&ledger), "its tries are spent");
    serve(&mut ledger, 4);
    assert!(!step_back(&ledger), "it is back already");
}

#[test]
fn a_step_back_is_a_fallback_until_it_was_healthy_again() {
    let mut ledger = ledger().want(&image(1), &POLICY);
    serve(&mut ledger, 1);
    ledger = ledger.healthy(&boot(1), image(1).id).want(&image(2), &POLICY);
    serve(&mut ledger, 2);
    let before = ledger.failed(&boot(2), image(2).id, "why");
    ledger = before.step_back(&image(1), "canary r1 failed", &POLICY);
    assert_eq!(ledger.generation, before.generation.next(), "one new intent");
    assert_eq!(ledger.intended.as_ref().map(|i| i.purpose), Some(Purpose::Fallback));
    assert_eq!(ledger.step_back(&image(1), "again", &POLICY), ledger, "said twice, it changes nothing");
    assert_eq!(serve(&mut ledger, 3), "fallback 1");
    ledger = ledger.healthy(&boot(3), image(1).id);
    assert_eq!(serve(&mut ledger, 4), "run 1 (1/2)");
    // What was never healthy here is no last good image.
    let never = before.step_back(&image(3), "canary r1 failed", &POLICY);
    assert_eq!(never.intended.as_ref().map(|i| i.purpose), Some(Purpose::Run));
}

#[test]
fn expired_metadata_spends_no_tries() {
    let expired = Freshness::ExpiredAt(kiln_model::UnixMillis(1_000));
    let ledger = ledger().want(&image(1), &POLICY);
    let (held, decision) = ledger.serve(boot(1), &POLICY, expired);
    assert!(
        matches!(&decision, Decision::Hold { because, .. } if because.contains("kiln publish --refresh"))
    );
    assert_eq!(held, ledger);
    let mut good = ledger;
    serve(&mut good, 1);
    let good = good.healthy(&boot(1), image(1).id).want(&image(2), &POLICY);
    let (after, decision) = good.serve(boot(2), &POLICY, expired);
    assert!(matches!(decision, Decision::Fallback { image, .. } if image == self::image(1)));
    assert_eq!(after.tries_left, POLICY.tries);
}

#[test]
fn the_stored_form_of_format_1_loads_for_ever() {
    let stored = include_str!("fixtures/ledger-1.json");
    let ledger: Ledger = serde_json::from_str(stored).unwrap();
    assert_eq!(
        ledger.decide(&POLICY, Freshness::Fresh).intended().map(|i| (i.image.version.to_string(), i.purpose)),
        Some(("1".to_owned(), Purpose::Fallback))
    );
    assert_eq!(serde_json::to_string_pretty(&ledger).unwrap(), stored.trim_end());
    let newer = stored.replace("\"format\": 1", "\"format\": 2");
    assert!(serde_json::from_str::<Ledger>(&newer).unwrap_err().to_string().contains("format 2"));
}

#[derive(Debug, Clone)]
enum Event {
    Want(u8),
    StepBack(u8),
    Serve,
    /// While the repository's metadata is expired.
    ServeExpired,
    /// By the boot so many before the newest, of an image.
    Healthy(usize, u8),
    Failed(usize, u8),
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..4u8).prop_map(Event::Want),
        1 => (0..4u8).prop_map(Event::StepBack),
        4 => Just(Event::Serve),
        1 => Just(Event::ServeExpired),
        3 => (0..3usize, 0..4u8).prop_map(|(back, n)| Event::Healthy(back, n)),
        2 => (0..3usize, 0..4u8).prop_map(|(back, n)| Event::Failed(back, n)),
        1 => Just(Event::Release),
    ]
}

proptest! {
    #[test]
    fn the_rules_hold_after_any_sequence(events in prop::collection::vec(event(), 0..60)) {
        let mut ledger = ledger();
        let mut boots: Vec<Option<ImageId>> = Vec::new();
        let mut proven = BTreeSet::new();
        for event in events {
            let before = ledger.clone();
            let reporter = |back: usize| boots.len().checked_sub(back + 1);
            match event {
                Event::Want(n) => ledger = before.want(&image(n), &POLICY),
                Event::Release => ledger = before.release(&POLICY),
                Event::StepBack(n) => {
                    ledger = before.step_back(&image(n), "why", &POLICY);
                    prop_assert_eq!(ledger.wanted.as_ref(), Some(&image(n)));
                }
                Event::Serve | Event::ServeExpired => {
                    let expired = matches!(event, Event::ServeExpired);
                    let at = kiln_model::UnixMillis(1);
                    let freshness = if expired { Freshness::ExpiredAt(at) } else { Freshness::Fresh };
                    let (next, decision) = before.serve(boot(boots.len()), &POLICY, freshness);
                    prop_assert!(!expired || next.tries_left == before.tries_left, "a try was spent for nothing");
                    ledger = next;
                    boots.push(decision.intended().map(|i| i.image.id));
                    match decision {
                        Decision::Run { image, .. } => {
                            prop_assert_eq!(Some(&image), before.wanted.as_ref());
                            prop_assert!(before.tries_left > 0, "a spent image was served");
                            prop_assert_eq!(ledger.tries_left, before.tries_left - 1);
                        }
                        Decision::Fallback { image, .. } => prop_assert_eq!(Some(&image), before.last_good.as_ref()),
                        Decision::Hold { .. } => {
                            prop_assert!(before.wanted.is_none() || before.last_good.is_none());
                        }
                    }
                }
                Event::Healthy(back, n) => if let Some(reporter) = reporter(back) {
                    ledger = before.healthy(&boot(reporter), image(n).id);
                    let newest = boots.iter().rposition(Option::is_some);
                    let counts = newest == Some(reporter) && boots[reporter] == Some(image(n).id);
                    if counts {
                        proven.insert(image(n).id);
                        prop_assert_eq!(ledger.last_good.as_ref(), Some(&image(n)));
                    } else {
                        prop_assert_eq!(&ledger, &before, "an older boot, or another image, changed something");
                    }
                },
                Event::Failed(back, n) => if let Some(reporter) = reporter(back) {
                    ledger = before.failed(&boot(reporter), image(n).id, "why");
                    prop_assert_eq!(&ledger.last_good, &before.last_good);
                    if boots.iter().rposition(Option::is_some) != Some(reporter) {
                        prop_assert_eq!(&ledger, &before, "an older boot changed something");
                    }
                },
            }
            prop_assert!(ledger.last_good.as_ref().is_none_or(|good| proven.contains(&good.id)));
            let changed = ledger.intended != before.intended;
            let counted = if changed { before.generation.next() } else { before.generation };
            prop_assert_eq!(ledger.generation, counted);
            prop_assert!(ledger.tries_left <= ledger.tries);
            let text = serde_json::to_string(&ledger).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger.clone());
        }
    }
}
