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
    /// Make a new ed25519 key in the fleet's folder of keys; `secure-boot` makes RSA keys for firmware
    #[command(after_help = "Example:\n  kiln key new targets-2\n  kiln key new secure-boot")]
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
        Verb::New { name } if name.as_str() == "secure-boot" => secure_boot(fleet),
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

/// Makes the three RSA keys of Secure Boot and the files with which firmware learns them.
fn secure_boot(fleet: &FleetDir) -> Result<(), Failure> {
    let folder = fleet.kiln.keys.join("secure-boot");
    if folder.exists() {
        return Err(Failure::new(format!("{} is there already", folder.display()))
            .help("move it away first: machines that know these keys start nothing that others signed"));
    }
    let owner = fleet.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let keys = kiln_outputs::secure_boot::generate(&owner, super::now())?;
    std::fs::create_dir_all(&folder)?;
    for (name, bytes, secret) in keys.files {
        let mode = if secret { 0o600 } else { 0o644 };
        let path = folder.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(&bytes).and_then(|()| file.sync_all())?;
    }
    let shown = folder.strip_prefix(&fleet.dir).unwrap_or(&folder).display();
    println!("{shown}/{{PK,KEK,db}}.{{key,crt,cer,esl,auth}}");
    println!("\nkiln.toml, so that images are signed:\n");
    println!("  [secure_boot]\n  key = \"{shown}/db.key\"\n  certificate = \"{shown}/db.crt\"\n");
    println!(
        "Firmware in setup mode learns db.auth, KEK.auth and PK.auth, in this order, or db.cer by its menu."
    );
    println!("Only db.key is needed to bake; keep PK.key and KEK.key offline.");
    Ok(())
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
