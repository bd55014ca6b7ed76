//! A rollout in the store: its head under `rollout/ID`, each machine's place under a key of its own, so that no
//! value grows with the fleet. The order of those keys is the order in which machines go.
//!
//! What one step changes fits one transaction with the head. Where it does not (a new rollout, a fleet of machines
//! that were never seen) the excess is written before: a crash then leaves places that say more than the head
//! does, and the next step makes the same of them again.

use kiln_model::Format;
use kiln_rollout::{Member, Rollout};
use serde::{Deserialize, Serialize};

use crate::db::{Db, DbError, Draft};
use crate::records::key;

/// Places written at once: below the store's limit for one transaction.
const BATCH: usize = 64;

/// One machine's place in a rollout.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    format: Format<1>,
    member: Member,
}

/// A whole rollout.
pub async fn load(db: &Db, head: Rollout) -> Result<Rollout, DbError> {
    // One that was stored before machines had keys of their own has them all.
    if !head.members.is_empty() {
        return Ok(head);
    }
    let places: Vec<(String, Place)> = db.list(&key::rollout_places(&head.id)).await?;
    Ok(Rollout { members: places.into_iter().map(|(_, place)| place.member).collect(), ..head })
}

/// The places that differ between two states of one rollout, or all of a new one.
pub fn changed<'a>(before: Option<&Rollout>, after: &'a Rollout) -> Vec<(usize, &'a Member)> {
    let earlier = |at: usize| before.and_then(|before| before.members.get(at));
    after.members.iter().enumerate().filter(|(at, member)| earlier(*at) != Some(member)).collect()
}

/// Writes those of the changed places that do not fit the transaction of the head; answers those that do.
pub async fn store_excess<'a>(
    db: &Db,
    rollout: &Rollout,
    changed: &'a [(usize, &'a Member)],
) -> Result<&'a [(usize, &'a Member)], DbError> {
    let (fitting, excess) = changed.split_at(changed.len().min(BATCH));
    for batch in excess.chunks(BATCH) {
        db.write(|draft| put_places(draft, rollout, batch)).await?;
    }
    Ok(fitting)
}

/// Writes the head and some places into a transaction.
pub fn put(draft: &mut Draft, rollout: &Rollout, places: &[(usize, &Member)]) -> Result<(), DbError> {
    put_places(draft, rollout, places)?;
    draft.put(key::rollout(&rollout.id), &head(rollout))
}

fn put_places(draft: &mut Draft, rollout: &Rollout, places: &[(usize, &Member)]) -> Result<(), DbError> {
    places.iter().try_for_each(|(at, member)| {
        let place = Place { format: Format, member: (*member).clone() };
        draft.put(key::rollout_place(&rollout.id, *at), &place)
    })
}

/// A rollout without its machines.
pub fn head(rollout: &Rollout) -> Rollout {
    Rollout { members: Vec::new(), ..rollout.clone() }
}
