//! Who does what, with a disk of any speed.

use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The state after writes that took so many microseconds.
fn after(writes: &[u64]) -> State<u32> {
    let (mut state, now) = (State::default(), Instant::now());
    for time in writes {
        assert_eq!(state.next(&mut Vec::new(), Duration::from_micros(*time), now), Task::Receive);
    }
    state
}

/// What a thread that rests does at `now`, and which changes it was given.
fn look(state: &mut State<u32>, looked: &mut u64, now: Instant) -> (Look, Vec<u32>) {
    let mut changes = Vec::new();
    let look = state.look(&mut changes, looked, now);
    (look, changes)
}

#[test]
fn a_disk_is_quick_when_its_writes_are_and_one_that_is_not_counts_little() {
    assert!(!after(&[]).is_quick(), "nobody knows yet");
    assert!(after(&[90]).is_quick());
    assert!(!after(&[1000]).is_quick());
    assert!(after(&[90, 4000]).is_quick(), "one of many");
    assert!(!after(&[90, 4000, 4000]).is_quick());
    assert!(!after(&[90, 20_000]).is_quick(), "clients wait for that one alone");
    assert!(after(&[vec![20_000], vec![90; 30]].concat()).is_quick());
    let mut state = after(&[90]);
    state.next(&mut Vec::new(), Duration::MAX, Instant::now());
    assert!(!state.is_quick());
}

#[test]
fn who_receives_writes_to_a_quick_disk_and_is_relieved_when_it_takes_long() {
    let (mut state, start) = (after(&[90]), Instant::now());
    let mut looked = state.begun;
    assert_eq!(look(&mut state, &mut looked, start).0, Look::WhenCalled);
    let mut mine = vec![1, 2];
    assert_eq!(state.submit(&mut mine, start), (Task::Write, 0));
    assert_eq!(mine, [1, 2], "they are the caller's");
    assert_eq!(look(&mut state, &mut looked, start + LATE / 2).0, Look::Again(CALM), "as mostly");
    assert_eq!(look(&mut state, &mut looked, start + LATE).0, Look::Do(Task::Receive));
    assert_eq!(look(&mut state, &mut looked, start + LATE).0, Look::Do(Task::Receive), "if it could not");
    // The other one receives now, and what it gets comes after.
    let mut theirs = vec![3, 4];
    assert_eq!(state.submit(&mut theirs, start + ms(3)), (Task::Receive, 0));
    mine.clear();
    assert_eq!(state.next(&mut mine, ms(5), start + ms(5)), Task::Write);
    assert_eq!(mine, [3, 4]);
    mine.clear();
    assert_eq!(state.next(&mut mine, Duration::from_micros(90), start + ms(6)), Task::Receive);
    assert!(mine.is_empty());
    let mut theirs = vec![5];
    let next = start + ms(7);
    assert_eq!(state.submit(&mut theirs, next), (Task::Write, 0), "the disk is quick again");
    assert_eq!(look(&mut state, &mut looked, next + LATE / 4).0, Look::Again(LATE - LATE / 4), "not trusted");
    state.next(&mut theirs, LATE / 2, next + LATE / 2);
    assert_eq!(look(&mut state, &mut looked, next + LATE / 2).0, Look::WhenCalled);
    state.submit(&mut theirs, next + ms(5) + UNEASY);
    assert_eq!(look(&mut state, &mut looked, next + ms(5) + UNEASY).0, Look::Again(CALM), "trusted");
}

#[test]
fn a_slow_disk_is_the_other_threads_from_the_beginning() {
    let (mut state, start) = (after(&[5000]), Instant::now());
    let mut changes = vec![1, 2];
    assert_eq!(state.submit(&mut changes, start), (Task::Receive, 0));
    let mut looked = 0;
    assert_eq!(look(&mut state, &mut looked, start), (Look::Do(Task::Write), vec![1, 2]));
    assert_eq!(look(&mut state, &mut looked, start + LATE / 4).0, Look::Again(LATE - LATE / 4));
}

#[test]
fn who_rests_looks_by_itself_only_while_there_is_something_to_see() {
    let (mut state, start) = (after(&[90]), Instant::now());
    let mut looked = state.begun;
    for n in 0..3 {
        let now = start + ms(n);
        assert_eq!(state.submit(&mut vec![1], now).0, Task::Write);
        assert_eq!(state.next(&mut Vec::new(), Duration::from_micros(90), now), Task::Receive);
    }
    assert_eq!(look(&mut state, &mut looked, start + ms(3)).0, Look::Again(CALM), "many are written");
    assert_eq!(look(&mut state, &mut looked, start + ms(7)).0, Look::WhenCalled, "and none any more");
}

#[test]
fn what_finds_no_room_is_counted_and_the_rest_is_kept() {
    let mut state = State::default();
    let mut changes: Vec<u32> = (0..WAITING as u32 + 5).collect();
    assert_eq!(state.submit(&mut changes, Instant::now()), (Task::Receive, 5));
    assert!(changes.is_empty());
    let mut written = Vec::new();
    let mut group = Vec::new();
    while state.next(&mut group, ms(1), Instant::now()) == Task::Write {
        assert!(group.len() <= GROUP);
        written.append(&mut group);
    }
    assert!(written.into_iter().eq(0..WAITING as u32));
}

#[test]
fn what_was_received_last_is_written_before_the_end() {
    let mut state = after(&[5000]);
    state.submit(&mut vec![7], Instant::now());
    state.is_closed = true;
    let mut looked = 0;
    assert_eq!(look(&mut state, &mut looked, Instant::now()), (Look::Do(Task::Write), vec![7]));
    assert_eq!(look(&mut state, &mut looked, Instant::now()).0, Look::Do(Task::End), "the other one writes");
    state.next(&mut Vec::new(), ms(1), Instant::now());
    assert_eq!(look(&mut state, &mut looked, Instant::now()).0, Look::Do(Task::End));
    // Who receives may be the last.
    let mut changes = vec![8];
    state.time = Some(ms(5));
    assert_eq!(state.submit(&mut changes, Instant::now()), (Task::Receive, 0));
    assert_eq!(state.submit(&mut changes, Instant::now()), (Task::Write, 0));
    assert_eq!(changes, [8]);
    changes.clear();
    assert_eq!(state.submit(&mut changes, Instant::now()), (Task::End, 0), "the other one writes");
    assert_eq!(state.next(&mut changes, ms(1), Instant::now()), Task::Receive);
    assert_eq!(state.submit(&mut changes, Instant::now()), (Task::End, 0));
}

#[test]
fn who_rests_is_called_only_for_what_it_would_not_see_by_itself() {
    let (mut state, now) = (after(&[90]), Instant::now());
    assert!(!state.is_call_needed(), "nothing came");
    state.is_at_rest = true;
    state.submit(&mut Vec::new(), now);
    assert!(!state.is_call_needed(), "only what needs no disk came");
    state.submit(&mut vec![1], now);
    assert!(state.is_call_needed(), "to look from now on");
    assert!(!state.is_call_needed(), "it does");
    state.submit(&mut vec![2], now);
    assert!(!state.is_call_needed(), "who writes goes on with it");
    assert_eq!(state.next(&mut Vec::new(), ms(1), now), Task::Write);
    assert_eq!(state.next(&mut Vec::new(), ms(20), now), Task::Receive);
    state.submit(&mut vec![3], now);
    assert!(state.is_call_needed(), "nobody else writes to a slow disk");
}

/// One step of two threads, of which each receives, writes or rests.
#[derive(Debug, Clone)]
enum Step {
    /// So many changes come to who receives, if anybody does.
    Received(u8),
    /// The write under way ends.
    Written,
    /// One comes from elsewhere.
    Added,
    /// So many microseconds pass, and who rests looks.
    Passed(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..9_u8).prop_map(Step::Received),
        4 => Just(Step::Written),
        1 => Just(Step::Added),
        4 => (1..4000_u64).prop_map(Step::Passed),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn changes_are_written_once_in_their_order_by_one_thread_and_somebody_receives(
        steps in steps(), first in 50..5000_u64
    ) {
        let mut state = after(&[first]);
        let mut now = Instant::now();
        // The changes that a thread writes, and since when; who receives when it is not that one.
        let mut writing: Option<(Vec<u32>, Instant)> = None;
        let mut other_receives = false;
        let (mut came, mut written, mut looked) = (0_u32, Vec::new(), 0);
        for step in steps {
            match step {
                Step::Received(count) => {
                    if writing.is_some() && !other_receives {
                        continue;
                    }
                    let mut changes: Vec<u32> = (came..came + u32::from(count)).collect();
                    came += u32::from(count);
                    if state.submit(&mut changes, now).0 == Task::Write {
                        prop_assert!(writing.is_none(), "one writes at a time");
                        (writing, other_receives) = (Some((changes, now)), false);
                    }
                }
                Step::Added => {
                    state.push(came);
                    came += 1;
                }
                Step::Written => {
                    if let Some((mut group, since)) = writing.take() {
                        written.append(&mut group);
                        if state.next(&mut group, now - since, now) == Task::Write {
                            writing = Some((group, now));
                        }
                    }
                }
                Step::Passed(time) => {
                    now += Duration::from_micros(time);
                    let rests = writing.is_none() || !other_receives;
                    let (does, group) = if rests { look(&mut state, &mut looked, now) } else { continue };
                    match does {
                        Look::Do(Task::Write) => {
                            prop_assert!(writing.is_none(), "one writes at a time");
                            (writing, other_receives) = (Some((group, now)), true);
                        }
                        Look::Do(Task::Receive) => other_receives = true,
                        _ => {}
                    }
                    let is_late = writing.as_ref().is_some_and(|(_, since)| now - *since >= LATE);
                    prop_assert!(other_receives || !is_late, "somebody receives");
                }
            }
        }
        let mut group = writing.map(|(group, _)| group).unwrap_or_default();
        loop {
            written.append(&mut group);
            if state.next(&mut group, ms(1), now) == Task::Receive {
                break;
            }
        }
        prop_assert!(written.into_iter().eq(0..came), "all, in their order");
    }
}

#[test]
fn a_thread_that_rests_is_called_for_what_is_slow_and_ends_when_told_to() {
    let backlog: Backlog<u32> = Backlog::default();
    let (said, heard) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut task = Task::Receive;
            while task != Task::End {
                let mut changes = Vec::new();
                task = if task == Task::Write {
                    backlog.next(&mut changes, ms(5))
                } else {
                    backlog.rest(&mut changes)
                };
                if task != Task::Receive {
                    said.send((task, changes)).expect("heard");
                }
            }
        });
        let next = || heard.recv_timeout(Duration::from_secs(10)).expect("it is called");
        for n in 0..3 {
            // By then it rests until it is called.
            thread::sleep(ms(10));
            assert_eq!(backlog.submit(&mut vec![n]), (Task::Receive, 0));
            assert_eq!(next(), (Task::Write, vec![n]));
        }
        assert!(backlog.add(9));
        assert_eq!(next(), (Task::Write, vec![9]));
        backlog.close();
        assert_eq!(next(), (Task::End, vec![]));
    });
}
