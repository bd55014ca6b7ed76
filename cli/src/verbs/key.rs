//! `kiln key`: the fleet's private keys.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::Subcommand;
use kiln_signing::PrivateKey;
use serde::Serialize;

use crate::args::Output;
use crate::failure::Failure;
use crate::fleet::{FleetDir, read_key};
use crate::show;

/// Make and list private keys
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a new ed25519 key in the fleet's folder of keys
    #[command(after_help = "Example:\n  kiln key new targets-2")]
    New {
        /// Its name; its file is keys/NAME.json, which must not exist
        name: kiln_model::PartName,
    },
    /// List the keys that are here, without their secrets
    #[command(after_help = "Example:\n  kiln key list --output json")]
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    id: String,
    public: String,
}

pub fn run(verb: Verb, fleet: &FleetDir) -> Result<(), Failure> {
    match verb {
        Verb::New { name } => {
            let path = fleet.kiln.keys.join(format!("{name}.json"));
            let key = PrivateKey::generate()?;
            write_new(&path, &key)?;
            println!("{}  {}", key.public().id(), path.display());
            Ok(())
        }
        Verb::List { output } => show::print(output, &list(&fleet.kiln.keys)?, |keys, paint| {
            let rows: Vec<_> =
                keys.iter().map(|key| [key.name.clone(), key.id.clone()].map(Into::into)).collect();
            show::table(["NAME", "ID"], &rows, "no private keys are here", paint)
        }),
    }
}

/// Writes a key that nobody else can read, and never over another one.
pub fn write_new(path: &Path, key: &PrivateKey) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(key.to_json().as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::new(format!("cannot make {}", path.display())).caused_by(&error))
}

fn list(dir: &Path) -> Result<Vec<Listed>, Failure> {
    let unreadable = |error| Failure::new(format!("cannot read {}", dir.display())).caused_by(&error);
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json"))
        else {
            continue;
        };
        let key = read_key(&path)?;
        let public = key.public();
        keys.push(Listed { name: name.to_owned(), id: public.id().to_string(), public: public.to_hex() });
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(keys)
}
