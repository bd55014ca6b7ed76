//! Publishing.

use crate::demo::{Demo, Failed};

pub fn run(demo: &mut Demo) -> Result<(), Failed> {
    publish(demo, "1")?;
    let metadata = demo.fleet.dir().join("repository/metadata");
    for file in ["1.root.json", "timestamp.json"] {
        let path = metadata.join(file);
        demo.check(&format!("{} is there", path.display()), path.is_file(), || "it is not".to_owned())?;
    }
    Ok(())
}

/// Verifies and publishes a version's bundle.
pub fn publish(demo: &mut Demo, version: &str) -> Result<(), Failed> {
    let bundle = demo.fleet.bundle(version).display().to_string();
    demo.kiln.run(&["verify", &bundle])?;
    demo.kiln.run(&["publish", &bundle])?;
    Ok(())
}
