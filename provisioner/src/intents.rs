//! Intents: made when they are asked for, from the ledger and the fleet, and signed by the director's key.
//!
//! An intent's content is decided by the ledger (image, purpose) and the fleet (configuration); when either
//! changes, so does its generation. Signed copies live ten minutes and are kept in memory for five, so a poll
//! every two seconds costs no signature.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use kiln_boot::Ledger;
use kiln_model::fleet::MachineSpec;
use kiln_model::intent::{Intent, IntentKind};
use kiln_model::{Format, Generation, MachineName, Sha256, UnixMillis};
use kiln_signing::PrivateKey;
use kiln_signing::envelope::{SignError, sign};

use crate::db::{DbError, Draft};
use crate::records::{IntentRecord, key};

/// How long an intent is obeyed after it was signed.
const LIFE_MS: u64 = 10 * 60 * 1000;

/// One signed intent.
#[derive(Debug, Clone)]
pub struct SignedIntent {
    /// Which of the machine's intents it is.
    pub generation: Generation,
    /// `Envelope<Intent>`.
    pub bytes: Bytes,
}

/// Signs intents and keeps the newest of each machine.
#[derive(Debug)]
pub struct Signer {
    key: PrivateKey,
    kept: Mutex<HashMap<MachineName, Kept>>,
}

#[derive(Debug)]
struct Kept {
    record: IntentRecord,
    issued: UnixMillis,
    signed: SignedIntent,
}

impl Signer {
    /// Signs with `key`.
    pub fn new(key: PrivateKey) -> Self {
        Self { key, kept: Mutex::default() }
    }

    /// The signed form of what `record` says about `machine`.
    pub fn signed(
        &self,
        machine: &MachineSpec,
        record: &IntentRecord,
        now: UnixMillis,
    ) -> Result<SignedIntent, SignError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // `since` is zero for a clock that was set back; then the copy's own expiry is far away as well.
        if let Some(kept) =
            kept.get(&machine.name).filter(|k| k.record == *record && now.since(k.issued) < LIFE_MS / 2)
        {
            return Ok(kept.signed.clone());
        }
        let intent = Intent {
            kind: IntentKind::Intent,
            format: Format,
            machine: machine.name.clone(),
            mac: machine.mac,
            generation: record.generation,
            image: record.image.clone(),
            purpose: record.purpose,
            config: machine.config(),
            issued: now,
            expires: now.plus(LIFE_MS),
        };
        let bytes = Bytes::from(sign(&intent, &[&self.key])?);
        let signed = SignedIntent { generation: record.generation, bytes };
        let fresh = Kept { record: record.clone(), issued: now, signed: signed.clone() };
        kept.insert(machine.name.clone(), fresh);
        Ok(signed)
    }
}

/// Makes the intent's record say what ledger and fleet say, with a new generation when that is something new.
///
/// Returns none while there is nothing to run. `ledger` is written back when its generation rises.
pub fn settle(
    draft: &mut Draft,
    machine: &MachineSpec,
    ledger: &mut Ledger,
) -> Result<Option<IntentRecord>, DbError> {
    let Some(intended) = ledger.intended.clone() else { return Ok(None) };
    let intent_key = key::intent(&machine.name);
    let before: Option<IntentRecord> = draft.get(&intent_key)?;
    let config = config_digest(machine)?;
    let reconfigured =
        before.as_ref().is_some_and(|b| b.config != config && b.generation == ledger.generation);
    if reconfigured {
        ledger.generation = ledger.generation.next();
        draft.put(key::ledger(&machine.name), ledger)?;
    }
    let record = IntentRecord {
        format: Format,
        generation: ledger.generation,
        image: intended.image,
        purpose: intended.purpose,
        config,
    };
    if before.as_ref() != Some(&record) {
        draft.put(intent_key, &record)?;
    }
    Ok(Some(record))
}

fn config_digest(machine: &MachineSpec) -> Result<Sha256, DbError> {
    let config = (machine.mac, machine.config());
    let bytes = serde_json::to_vec(&config)
        .map_err(|source| DbError::Record { key: format!("configuration of {}", machine.name), source })?;
    Ok(Sha256::of(&bytes))
}
