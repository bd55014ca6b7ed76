//! `kiln publish`: a bundle into the repository.

use std::path::{Path, PathBuf};

use kiln_outputs::{Output, derive, target_file};
use kiln_signing::attestation::{TEST_RESULT, TestResult};
use kiln_signing::bundle::Bundle;
use kiln_signing::fleet::load_refresh_keys;
use kiln_signing::repository::{Extra, Repository, publish_with, refresh};
use kiln_signing::tuf::{Role, TrustedRoot};

use super::now;
use super::test::beside;
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;

/// Verify a bundle and publish it into a TUF repository
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln publish bundles/edge-router-1-x86_64.kiln\n\n\
With what switches and disks take (targets IMAGE/VERSION/ARCH/onie-installer.bin and disk.raw.zst):\n  \
kiln publish bundles/edge-router-1-x86_64.kiln --with onie,disk\n\n\
Metadata lasts 30 days without a publish. A daily timer keeps it young, with the online keys alone:\n  \
kiln publish --refresh")]
pub struct Args {
    /// The bundle
    #[arg(required_unless_present = "refresh")]
    bundle: Option<PathBuf>,
    /// Sign the metadata that is there again, so that it does not expire
    #[arg(long, conflicts_with = "bundle")]
    refresh: bool,
    /// Also make and publish these: disk, onie
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "refresh")]
    with: Vec<Output>,
    /// The repository's folder [default: the fleet's]
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
}

pub fn run(args: Args, fleet: &FleetDir) -> Result<(), Failure> {
    let progress = Progress::start();
    let repository = args.repo.unwrap_or_else(|| fleet.kiln.repository.clone());
    let root = fleet.root_json()?;
    let Some(bundle) = args.bundle else {
        progress.step("signing the metadata again");
        refresh(&repository, &root, &load_refresh_keys(&fleet.kiln.keys)?, now())?;
        let expires = Repository::load(&repository, &root, now())?.expires();
        drop(progress);
        println!("the metadata in {} is good until {expires}", repository.display());
        return Ok(());
    };
    let keys = fleet.publish_keys()?;
    progress.step("verifying the bundle");
    let path = bundle;
    let bundle = Bundle::open(&path)?;
    let mut extra = extra(&args.with, &path, &progress)?;
    extra.files.extend(test_result(&path, &bundle, &root)?);
    progress.step("publishing");
    let published = publish_with(&bundle, &extra.files, &repository, &root, &keys, now())?;
    drop(progress);
    let how = if published.already_there { "was published already" } else { "is published" };
    println!("{} {how} in {} (targets version {})", published.image, repository.display(), published.version);
    Ok(())
}

/// What `kiln test` has left beside the bundle, if it is about this one.
fn test_result(path: &Path, bundle: &Bundle, root: &[u8]) -> Result<Option<Extra>, Failure> {
    let file = beside(path);
    let bytes = match std::fs::read(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Failure::new(format!("cannot read {}", file.display())).caused_by(&e))?,
    };
    let root = TrustedRoot::new(root)?;
    let result = TestResult::verify(&bytes, root.keys(Role::Targets))?;
    if result.image != bundle.image().id {
        return Err(Failure::new(format!("{} is about another image than the bundle's", file.display()))
            .help("run `kiln test` again, or remove the file"));
    }
    Ok(Some(Extra { name: TEST_RESULT.to_owned(), path: file }))
}

/// Files that are made for the repository alone, in a folder that goes when they are published.
struct Made {
    files: Vec<Extra>,
    _folder: Option<tempfile::TempDir>,
}

fn extra(with: &[Output], bundle: &Path, progress: &Progress) -> Result<Made, Failure> {
    if let Some(output) = with.iter().find(|output| target_file(**output).is_none()) {
        return Err(Failure::usage(format!("`{output}` is no target of its own; disk and onie are"))
            .help("a uki.efi is a part and published with the image; `kiln export` makes an OCI layout"));
    }
    if with.is_empty() {
        return Ok(Made { files: Vec::new(), _folder: None });
    }
    // Beside the bundle there is room for what is as large as it.
    let beside = bundle.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = tempfile::tempdir_in(beside)?;
    let made = derive(bundle, with, folder.path(), &|step| progress.step(step))?;
    let file = |one: kiln_outputs::Derived| {
        target_file(one.output).map(|name| Extra { name: name.to_owned(), path: one.path })
    };
    Ok(Made { files: made.into_iter().filter_map(file).collect(), _folder: Some(folder) })
}
