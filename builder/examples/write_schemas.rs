//! Writes the JSON Schemas of the specs: `write_schemas FOLDER`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("FOLDER is wanted")?;
    for (name, schema) in kiln_builder::schema::schemas() {
        std::fs::write(folder.join(name), serde_json::to_string_pretty(&schema)? + "\n")?;
    }
    Ok(())
}
