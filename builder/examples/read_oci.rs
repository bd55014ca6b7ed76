//! Lists the files of an OCI image as a bake would read it: `read_oci STORE FOLDER REFERENCE`. One line each:
//! digest or target, and path.

use std::path::PathBuf;

use kiln_builder::oci::{fetch, pin};
use kiln_builder::store::ContentStore;
use kiln_builder::tree::Node;
use kiln_model::{Arch, Sha256};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("STORE, FOLDER and REFERENCE are wanted");
    let (store, folder, reference) = (next()?, PathBuf::from(next()?), next()?);
    let store = ContentStore::open(store.as_ref())?;
    let image = pin("fn/x", &reference.parse()?, &folder, Arch::X86_64, &store)?;
    let (config, tree, _) = fetch(&image, &folder, &store, false)?;
    for (path, entry) in tree.iter() {
        match &entry.node {
            Node::File(bytes) => println!("{} {path}", Sha256::of(bytes)),
            Node::Symlink(target) => println!("-> {target} {path}"),
            Node::Dir => {}
        }
    }
    eprintln!("command: {:?}", config.command(|_| true).unwrap_or_default());
    Ok(())
}
