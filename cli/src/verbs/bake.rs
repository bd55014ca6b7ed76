//! `kiln bake`: from a spec to a signed bundle.

use std::env;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use kiln_builder::bake::{
    BakeOptions, BakeReport, LockChoice, LockUpdate, Progress as BakeProgress, bake, plan_update,
};
use kiln_builder::spec::Spec;
use kiln_builder::store::ContentStore;
use kiln_model::ImageVersion;

use crate::args::{Format, Output};
use crate::failure::Failure;
use crate::fleet::FleetDir;
use crate::progress::Progress;
use crate::show::{self, bytes, span};

/// Bake an image: the same spec and lock always give the same bytes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  kiln bake edge-router
  kiln bake edge-router --update --dry-run    # what would be locked now
  kiln bake edge-router --update --yes
  kiln bake edge-router --offline             # from the cache alone
  kiln bake edge-router --output disk,onie    # what `outputs` of image.toml names
  kiln bake edge-router --explain")]
pub struct Args {
    /// image.toml, the folder it is in, or the name of one of the fleet's images
    spec: PathBuf,
    /// Resolve packages anew, show what changes, ask, and write image.lock instead of obeying it
    #[arg(long)]
    update: bool,
    /// With --update: show what would change, and change and bake nothing
    #[arg(long, requires = "update", conflicts_with = "yes")]
    dry_run: bool,
    /// With --update: do not ask
    #[arg(long, short, requires = "update")]
    yes: bool,
    /// Ask no network and read nothing of apt's: every locked byte comes from the cache
    #[arg(long, conflicts_with = "update")]
    offline: bool,
    /// Bake nothing: print every value of the spec with the line that set it (table or json)
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "table"
    )]
    explain: Option<Format>,
    /// Takes the place of the spec's version
    #[arg(long)]
    version: Option<ImageVersion>,
    /// The static kiln-agent for the image's architecture [default: the one beside this program]
    #[arg(long, value_name = "FILE", env = "KILN_AGENT")]
    agent: Option<PathBuf>,
    /// Folder for the bundle [default: the fleet's bundles/]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Also write these beside the bundle: uki, disk, onie, oci (pxe is the bundle itself)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    output: Vec<kiln_outputs::Output>,
    /// RSA key that programs for firmware are signed with (PKCS #8, PEM) [default: kiln.toml's]
    #[arg(long, value_name = "FILE", requires = "secure_boot_certificate")]
    secure_boot_key: Option<PathBuf>,
    /// Its certificate (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "secure_boot_key")]
    secure_boot_certificate: Option<PathBuf>,
    /// Folder for downloads and finished parts [default: ~/.cache/kiln]
    #[arg(long, value_name = "DIR", env = "KILN_CACHE")]
    cache: Option<PathBuf>,
}

pub fn run(args: Args, fleet: &FleetDir) -> Result<(), Failure> {
    let spec = find_spec(&args.spec, &fleet.dir)?;
    if let Some(output) = args.explain {
        let settings = Spec::load(&spec)?.explain();
        return show::print(Output { output }, settings.as_slice(), show::evidence::settings);
    }
    let cache = args.cache.clone().unwrap_or_else(ContentStore::default_folder);
    let lock = match args.update {
        true => match update(&spec, &cache, &args)? {
            Some(update) => LockChoice::New(update),
            None => return Ok(()),
        },
        false => LockChoice::Beside,
    };
    let given = args.secure_boot_key.zip(args.secure_boot_certificate);
    let of_fleet = fleet.kiln.secure_boot.as_ref().map(|s| (s.key.clone(), s.certificate.clone()));
    let options = BakeOptions {
        secure_boot: given.or(of_fleet),
        spec,
        lock,
        offline: args.offline,
        agent: find_agent(args.agent)?,
        trust: fleet.kiln.trust.clone(),
        keys: fleet.kiln.keys.clone(),
        output: args.to.unwrap_or_else(|| fleet.bundles()),
        version: args.version,
        cache,
    };
    std::fs::create_dir_all(&options.output)?;
    let progress = Progress::start();
    let report = bake(&options, &|told| tell(&progress, told))?;
    let made = kiln_outputs::derive(&report.bundle, &args.output, &options.output, &|s| progress.step(s))?;
    drop(progress);
    print!("{}{}", summary(&report), super::export::summary(&made));
    Ok(())
}

/// Says what the baker says.
pub(super) fn tell(progress: &Progress, told: BakeProgress) {
    match told {
        BakeProgress::Step(step) => progress.step(&step),
        BakeProgress::Download { done, total } => progress.download(done, total),
        BakeProgress::Note(note) => progress.note(&note),
    }
}

/// The new lock, if it is wanted; what it changes is shown first.
fn update(spec: &Path, cache: &Path, args: &Args) -> Result<Option<LockUpdate>, Failure> {
    let progress = Progress::start();
    let update = plan_update(spec, cache, &|told| tell(&progress, told))?;
    drop(progress);
    for change in &update.changes {
        println!("image.lock: {change}");
    }
    if update.changes.is_empty() {
        println!("image.lock: nothing changes");
    }
    if args.dry_run {
        return Ok(None);
    }
    // A first lock takes nothing away, and neither does one that is the same.
    if args.yes || !update.replaces || update.changes.is_empty() {
        return Ok(Some(update));
    }
    if !io::stdin().is_terminal() {
        let changes = update.changes.len();
        return Err(Failure::new(format!("{} would change in {changes} places", update.file.display()))
            .help("say --yes to take the new lock, or --dry-run to only look"));
    }
    print!("Write {} and bake? [y/N] ", update.file.display());
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes").then_some(update))
}

fn summary(report: &BakeReport) -> String {
    let mut out = String::new();
    for part in &report.parts {
        let cached = if part.cached { "  (from the cache)" } else { "" };
        out += &format!("{:<20} {:>9}{cached}\n", part.name, bytes(part.size));
    }
    let steps: Vec<String> = report
        .timings
        .iter()
        .map(|(step, took)| format!("{step} {}", span(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))))
        .collect();
    out += &format!("{}\n", steps.join(", "));
    out + &format!("{}  {}  {}\n", report.image, bytes(report.bundle_size), report.bundle.display())
}

pub(super) fn find_spec(given: &Path, fleet: &Path) -> Result<PathBuf, Failure> {
    if given.exists() {
        return Ok(given.to_owned());
    }
    let named = fleet.join("images").join(given).join("image.toml");
    if named.is_file() {
        return Ok(named);
    }
    Err(Failure::usage(format!(
        "there is no spec {} and no image of that name in this fleet",
        given.display()
    ))
    .help(format!("the fleet's images are in {}", fleet.join("images").display())))
}

/// Beside this program, or where a build of this repository puts it.
pub(super) fn find_agent(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let here = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let built = format!("../{}-unknown-linux-gnu/agent/kiln-agent", env::consts::ARCH);
    let candidates = match given {
        Some(path) => vec![path],
        None => vec![here.join("kiln-agent"), here.join(built)],
    };
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Failure::new(format!("there is no kiln-agent at {}", looked.join(" or ")))
            .help("build it with `make agent`, or name it with --agent")
    })
}
