//! What fuzzing found is never lost again: every kept input goes through its target, and every target has some.

use std::time::{Duration, Instant};

use kiln_fuzz::{corpus, targets};

/// No input of a few kilobytes may keep a reader busy for longer, even unoptimised on a loaded machine.
const LONGEST: Duration = Duration::from_secs(5);

#[test]
fn every_kept_input_is_read_without_harm() {
    for target in targets() {
        let inputs = corpus::inputs(&target).expect("a readable corpus");
        assert!(!inputs.is_empty(), "{}: has neither seeds nor a corpus", target.name);
        for input in inputs {
            let began = Instant::now();
            (target.run)(&input);
            assert!(
                began.elapsed() < LONGEST,
                "{}: {:?} for {} bytes",
                target.name,
                began.elapsed(),
                input.len()
            );
        }
    }
}

/// Beyond what was found: what every reader must survive, of each of its seeds.
#[test]
fn every_cut_and_many_flips_of_every_seed_are_read_without_harm() {
    for target in targets() {
        for seed in (target.seeds)() {
            let step = (seed.len() / 64).max(1);
            for at in (0..seed.len()).step_by(step) {
                (target.run)(&seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 0xff;
                (target.run)(&flipped);
                flipped[at] ^= 0xfe;
                (target.run)(&flipped);
            }
        }
    }
}

#[test]
fn names_are_told_apart() {
    let mut names: Vec<&str> = targets().iter().map(|target| target.name).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}
