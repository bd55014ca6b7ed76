//! `kiln init`: a new fleet.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kiln_model::ImageName;
use kiln_signing::fleet::FleetKeys;

use super::{key, now};
use crate::failure::Failure;

/// The example images of this version of Kiln: path below `images/`, and content.
static IMAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Make a new fleet: keys, trust root, example images, kiln.toml, fleet.toml
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln init demo --lab")]
pub struct Args {
    /// The fleet's folder; it must be empty or not exist
    dir: PathBuf,
    /// The example image that its machines run
    #[arg(long, default_value = "edge-router", value_name = "NAME")]
    image: ImageName,
    /// Fill it for the lab: its two machines, its network, short deadlines
    #[arg(long)]
    lab: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let refused = |why: &str| Failure::new(format!("cannot make a fleet in {}: {why}", args.dir.display()));
    if let Ok(mut entries) = fs::read_dir(&args.dir)
        && entries.next().is_some()
    {
        return Err(refused("the folder is not empty").help("name a new folder; nothing is ever overwritten"));
    }
    check_image(&args.image)?;
    let absolute = std::path::absolute(&args.dir)?;
    let parent = absolute.parent().ok_or_else(|| refused("it has no parent"))?;
    fs::create_dir_all(parent)?;
    // Made whole beside its place, so that an interrupted init leaves nothing under its name.
    let partial = tempfile::Builder::new().prefix(".kiln-init.").tempdir_in(parent)?;
    fill(partial.path(), args)?;
    fs::rename(partial.path(), &absolute)
        .map_err(|error| refused("it cannot be put there").caused_by(&error))?;
    println!("a new fleet is in {}", args.dir.display());
    println!("keep {}/keys secret; root and targets belong off this machine", args.dir.display());
    println!("next: kiln -C {} bake {}", args.dir.display(), args.image);
    Ok(())
}

fn check_image(image: &ImageName) -> Result<(), Failure> {
    let spec = format!("{image}/image.toml");
    if IMAGES.iter().any(|(path, _)| *path == spec) {
        return Ok(());
    }
    let known: Vec<&str> = IMAGES.iter().filter_map(|(path, _)| path.strip_suffix("/image.toml")).collect();
    Err(Failure::usage(format!("there is no example image `{image}`"))
        .help(format!("there are: {}", known.join(", "))))
}

fn fill(dir: &Path, args: &Args) -> Result<(), Failure> {
    let keys = FleetKeys::generate()?;
    // The temporary folder is private; the fleet's is not, but its keys are.
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for folder in ["trust", "images", "bundles"] {
        fs::create_dir(dir.join(folder))?;
    }
    for folder in ["keys", "state"] {
        fs::DirBuilder::new().mode(0o700).create(dir.join(folder))?;
    }
    for (file, private) in keys.files() {
        key::write_new(&dir.join("keys").join(file), private)?;
    }
    fs::write(dir.join("trust/root.json"), keys.root_json(now())?)?;
    fs::write(dir.join("trust/director.json"), keys.director_json()?)?;
    for (path, content) in IMAGES {
        let to = dir.join("images").join(path);
        fs::create_dir_all(to.parent().unwrap_or(dir))?;
        fs::write(to, content)?;
    }
    let (kiln, fleet) = if args.lab { (KILN_LAB, FLEET_LAB) } else { (KILN, FLEET) };
    fs::write(dir.join("kiln.toml"), kiln)?;
    fs::write(dir.join("fleet.toml"), fleet.replace("IMAGE", args.image.as_str()))?;
    fs::write(dir.join(".gitignore"), "/keys/\n/state/\n/bundles/\n/repository/\n/.lab/\n")?;
    Ok(())
}

const KILN: &str = include_str!("init/kiln.toml");
const FLEET: &str = include_str!("init/fleet.toml");
const KILN_LAB: &str = include_str!("init/kiln-lab.toml");
const FLEET_LAB: &str = include_str!("init/fleet-lab.toml");

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::fleet::{Fleet, KilnToml};

    #[test]
    fn what_init_writes_can_be_read() {
        for text in [KILN, KILN_LAB] {
            toml::from_str::<KilnToml>(text).expect("kiln.toml");
        }
        for text in [FLEET, FLEET_LAB] {
            toml::from_str::<Fleet>(&text.replace("IMAGE", "edge-router")).expect("fleet.toml");
        }
    }

    #[test]
    fn the_labs_fleet_is_the_labs_topology() {
        let fleet: Fleet = toml::from_str(&FLEET_LAB.replace("IMAGE", "edge-router")).expect("fleet.toml");
        let kiln: KilnToml = toml::from_str(KILN_LAB).expect("kiln.toml");
        let lab = kiln_lab::Topology::parse("edge-pair", kiln_lab::Topology::EDGE_PAIR).expect("topology");
        assert_eq!(kiln.serve.address, lab.boot.address.address);
        assert_eq!(kiln.serve.interface, lab.boot.bridge);
        let written: Vec<_> = fleet.machines.iter().map(|m| (m.name.clone(), m.mac)).collect();
        let wired: Vec<_> = lab.machines.iter().map(|m| (m.name.clone(), m.mac)).collect();
        assert_eq!(written, wired);
    }
}
