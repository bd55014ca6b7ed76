//! `kiln machine accept`: a discovered machine becomes one of the fleet.
//!
//! The server judges the new `fleet.toml` before anything is written, so a value that cannot be changes nothing.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use kiln_model::api::{Applied, Apply, Hardware};
use kiln_model::{ImageName, MacAddr, MachineName};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::client::Client;
use crate::failure::Failure;
use crate::fleet::FleetDir;

/// Write a discovered machine into fleet.toml, and hand that to the server
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kiln machine accept 52:54:00:77:00:99 --name leaf3 --image edge-router --address 10.77.0.13"
)]
pub struct Args {
    /// The address it boots from
    mac: MacAddr,
    /// What it is called from now on
    #[arg(long)]
    name: MachineName,
    /// The image it runs
    #[arg(long)]
    image: ImageName,
    /// What it is for, such as spine
    #[arg(long, default_value = "", hide_default_value = true)]
    role: String,
    /// Its own address [default: one from the pool]
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// Its hardware profile [default: the one that fits what it told best]
    #[arg(long)]
    profile: Option<String>,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &Args, fleet: &FleetDir, client: &Client) -> Result<(), Failure> {
    let path = &fleet.kiln.fleet;
    let before = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}", path.display())).caused_by(&error))?;
    let profile = match &args.profile {
        Some(profile) => Some(profile.clone()),
        None => {
            let hardware: Hardware = client.get(&format!("/v1/machines/{}/hardware", args.mac))?;
            hardware.profiles.first().map(|fit| fit.profile.clone())
        }
    };
    let after = with_machine(&before, args, profile.as_deref())
        .map_err(|error| Failure::new(format!("{} is not TOML", path.display())).caused_by(&error))?;
    let judged: Applied = client.post("/v1/apply", &Apply { fleet: after.clone(), dry_run: true })?;
    let own = format!("+ machine {}", args.name);
    if let Some(other) = judged.changes.iter().find(|change| **change != own) {
        return Err(Failure::new(format!("{} has a change that is not applied: {other}", path.display()))
            .help("look at it with `kiln apply --dry-run`, apply it, and accept the machine then"));
    }
    judged.changes.iter().for_each(|change| println!("{change}"));
    if args.dry_run {
        println!("nothing was changed: this was a dry run");
        return Ok(());
    }
    write_whole(path, &after)
        .map_err(|error| Failure::new(format!("cannot write {}", path.display())).caused_by(&error))?;
    let _: Applied = client.post("/v1/apply", &Apply { fleet: after, dry_run: false })?;
    println!("{} is {} in {}; it boots {} next", args.mac, args.name, path.display(), args.image);
    Ok(())
}

/// The text with the machine at its end, and every other line as people wrote it.
fn with_machine(text: &str, args: &Args, profile: Option<&str>) -> Result<String, toml_edit::TomlError> {
    let mut document: DocumentMut = text.parse()?;
    let mut machine = Table::new();
    machine.insert("name", value(args.name.as_str()));
    machine.insert("mac", value(args.mac.to_string()));
    if let Some(address) = args.address {
        machine.insert("address", value(address.to_string()));
    }
    machine.insert("image", value(args.image.as_str()));
    if let Some(profile) = profile {
        machine.insert("profile", value(profile));
    }
    if !args.role.is_empty() {
        machine.insert("role", value(args.role.as_str()));
    }
    let machines = document.entry("machine").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    match machines.as_array_of_tables_mut() {
        Some(machines) => machines.push(machine),
        // `machine = [{ … }]`: the server refuses what does not fit.
        None => {
            if let Some(machines) = machines.as_array_mut() {
                machines.push(machine.into_inline_table());
            }
        }
    }
    Ok(document.to_string())
}

/// The file is the old one or the new one, whatever happens.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::metadata(path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use kiln_model::fleet::Fleet;

    use super::*;

    fn args() -> Args {
        Args {
            mac: "52:54:00:77:00:99".parse().expect("a MAC address"),
            name: "leaf3".parse().expect("a name"),
            image: "edge-router".parse().expect("a name"),
            role: "leaf".to_owned(),
            address: Some(Ipv4Addr::new(10, 77, 0, 13)),
            profile: None,
            dry_run: false,
        }
    }

    #[test]
    fn what_people_wrote_stays_as_it_is() {
        let text = "# our fleet\nformat = 1\n\n[[machine]] # the first\nname = 'r1'\nmac = \"52:54:00:77:00:11\"\nimage = \"edge-router\"\n";
        let after = with_machine(text, &args(), Some("generic/vm")).expect("TOML");
        assert!(after.starts_with(text), "{after}");
        let fleet: Fleet = toml::from_str(&after).expect("a fleet");
        let leaf = fleet.machines.last().expect("it is there");
        assert_eq!(
            (leaf.name.as_str(), leaf.role.as_str(), leaf.profile.as_str()),
            ("leaf3", "leaf", "generic/vm")
        );
        assert_eq!(leaf.address, args().address);
        // The first machine of a fleet, and a list that somebody wrote on one line.
        for text in ["format = 1\n", "format = 1\nmachine = []\n"] {
            let after = with_machine(text, &args(), None).expect("TOML");
            assert_eq!(toml::from_str::<Fleet>(&after).expect("a fleet").machines.len(), 1, "{after}");
        }
        assert!(with_machine("format = ", &args(), None).is_err());
    }
}
