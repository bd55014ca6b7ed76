//! Makes a fleet's keys and publishes two small images with them: `publish_sample DIR`.
//!
//! `tests/peers/tuf/run.sh` lets python-tuf follow what this wrote.

use std::path::PathBuf;
use std::time::SystemTime;

use kiln_model::UnixMillis;
use kiln_signing::bundle::Bundle;
use kiln_signing::fleet::FleetKeys;
use kiln_signing::repository::publish;

#[path = "../tests/common/mod.rs"]
mod common;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: publish_sample DIR")?);
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = UnixMillis(u64::try_from(since_1970.as_millis())?);
    let keys = FleetKeys::generate()?;
    keys.write(&dir, now)?;
    let root = keys.root_json(now)?;
    let bundles = [("1", "first"), ("2", "second")]
        .map(|(version, salt)| common::bundle_file(&dir, version, salt, &[&keys.targets]));
    let keys = keys.into_publish_keys();
    for path in bundles {
        let published = publish(&Bundle::open(&path)?, &dir.join("repository"), &root, &keys, now)?;
        println!("published {} as version {} of the list", published.image, published.version);
    }
    Ok(())
}
