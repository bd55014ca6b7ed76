//! The file system that was made for a part the last time, whatever was in it then: most blocks of the next are the
//! same.

use kiln_model::Sha256;
use serde::{Deserialize, Serialize};

use super::BakeError;
use super::parts::Key;
use crate::squashfs::{Block, Known, Options};
use crate::store::ContentStore;

/// What is noted of it; its bytes are in the store as the part's.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    file_system: Option<Sha256>,
    blocks: Vec<Block>,
}

/// The last one of a part; an empty one when there is none.
pub struct Before {
    key: Sha256,
    note: Note,
    bytes: Vec<u8>,
}

impl Before {
    /// Reads it. What cannot be read is made again.
    pub fn load(part: &str, options: &Options, store: &ContentStore) -> Self {
        let options = format!("{} {:?}", options.level, options.block);
        let key = Key::new("blocks").add(part.as_bytes()).add(options.as_bytes()).finish();
        let note = store.note(&key).and_then(|note| serde_json::from_slice::<Note>(&note).ok());
        let note = note.unwrap_or_default();
        let bytes = note.file_system.and_then(|digest| store.get(&digest)).unwrap_or_default();
        Self { key, note, bytes }
    }

    /// Its blocks.
    pub fn known(&self) -> Known<'_> {
        Known::new(&self.bytes, &self.note.blocks)
    }

    /// Another one takes its place.
    pub fn replace(self, bytes: &[u8], blocks: Vec<Block>, store: &ContentStore) -> Result<(), BakeError> {
        let note = Note { file_system: Some(store.put(bytes)?), blocks };
        Ok(store.set_note(&self.key, &serde_json::to_vec(&note)?)?)
    }
}
