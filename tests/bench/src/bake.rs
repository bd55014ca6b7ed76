//! The builder: an image of the edge-router, beside mmdebstrap and mkosi making the nearest that they have.
//!
//! All three find their packages on this disk and ask no network: ours in its cache, the peers in a repository
//! of the same packages at the same versions (and of those that a root file system of theirs needs besides).
//! The peers are given what makes them quickest: no compression, no documentation left out, no waiting for the
//! disk. Neither makes the same thing: ours is a signed set of squashfs images with hash trees, an initrd and a
//! UKI; theirs is a plain tar of one root file system, mmdebstrap's with an initrd, mkosi's without.

mod mirror;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::fleet::{absolute, write};
use crate::process::run;
use crate::table::{Better, Figure};

use mirror::Mirror;

/// What everybody builds an image of: the kernel, and two functions.
const PACKAGES: [&str; 3] = ["linux-image-cloud-amd64", "frr", "chrony"];
const IMAGE: &str = "edge-router";
/// Times that ours is measured; the middle counts. The peers take minutes, and are measured once.
const ROUNDS: usize = 3;

/// A fleet with its image, and a cache that has its packages.
struct Ours {
    kiln: PathBuf,
    agent: PathBuf,
    fleet: PathBuf,
    folder: PathBuf,
}

/// Takes the figures.
pub fn measure(kiln: &Path, agent: &Path, folder: &Path) -> Result<Vec<Figure>> {
    let folder = absolute(folder)?.join("bake");
    fs::create_dir_all(&folder).map_err(Error::io(folder.display().to_string()))?;
    let ours = Ours {
        kiln: absolute(kiln)?,
        agent: absolute(agent)?,
        fleet: folder.join("fleet"),
        folder: folder.clone(),
    };
    eprintln!("bench: bake: fetching packages, which is not measured");
    let bundle = ours.prepare()?;
    let mirror = Mirror::make(&folder.join("mirror"), &PACKAGES)?;

    let cold = middle(|round| ours.cold(round))?;
    let nothing = middle(|_| ours.warm())?;
    let changed = middle(|round| ours.changed(round))?;
    let mmdebstrap = mmdebstrap(&mirror, &folder)?;
    let mkosi = Mkosi::new(&mirror, &folder)?;
    let mkosi_cold = mkosi.build("cold", false)?;
    // The first run fills its cache; the second finds everything installed and only writes the image again.
    mkosi.build("fills its cache", true)?;
    let mkosi_warm = mkosi.build("from its cache", true)?;

    let seconds = |name: &str, ours, peer| Figure::new(name, "s", Better::Lower, ours, peer);
    let mut figures = vec![
        seconds("bake, all cold but the packages", cold, ("mmdebstrap tar", mmdebstrap)),
        seconds("bake, all cold but the packages", cold, ("mkosi tar", mkosi_cold)),
        seconds("bake, nothing changed", nothing, ("mkosi -i tar", mkosi_warm)),
        seconds("bake, one function's template changed", changed, ("mkosi -i tar", mkosi_warm)),
    ];
    figures.extend(ours.weights(&bundle)?);
    Ok(figures)
}

impl Ours {
    /// A new fleet, baked once so that the cache has every package; answers the bundle.
    fn prepare(&self) -> Result<PathBuf> {
        run(Command::new(&self.kiln).arg("init").arg(&self.fleet))?;
        // What the archive has today, as the peers take it.
        run(self.bake("cache", "first").args(["--update", "--yes"]))?;
        let bundles = self.folder.join("first");
        let found = fs::read_dir(&bundles).map_err(Error::io(bundles.display().to_string()))?;
        let mut paths = found.flatten().map(|entry| entry.path());
        let bundle = paths.find(|path| path.extension().is_some_and(|e| e == "kiln"));
        let bundle = bundle.ok_or_else(|| Error::Output {
            program: "kiln bake".to_owned(),
            expected: "bundle",
            found: bundles.display().to_string(),
        })?;
        run(self
            .kiln(["archive", "export"])
            .arg(&bundle)
            .arg(self.inputs())
            .args(["--cache"])
            .arg(self.cache("cache")))?;
        Ok(bundle)
    }

    /// With a cache that has inputs and no part.
    fn cold(&self, round: usize) -> Result<f64> {
        let cache = format!("cold-{round}");
        run(self.kiln(["archive", "import"]).arg(self.inputs()).arg("--cache").arg(self.cache(&cache)))?;
        let took = timed("kiln bake, cold", self.bake(&cache, "out").arg("--offline"))?;
        let at = self.cache(&cache);
        fs::remove_dir_all(&at).map_err(Error::io(at.display().to_string()))?;
        Ok(took)
    }

    fn warm(&self) -> Result<f64> {
        timed("kiln bake, nothing changed", self.bake("cache", "out").arg("--offline"))
    }

    /// After a line of one function's configuration has changed.
    fn changed(&self, round: usize) -> Result<f64> {
        let template = self.fleet.join("images/functions/frr/frr.conf");
        let text = fs::read_to_string(&template).map_err(Error::io(template.display().to_string()))?;
        write(&template, &format!("{text}! {round}\n"))?;
        timed("kiln bake, a template changed", self.bake("cache", "out").arg("--offline"))
    }

    /// What each part weighs, and all together.
    fn weights(&self, bundle: &Path) -> Result<Vec<Figure>> {
        let shown = run(self.kiln(["inspect"]).arg(bundle).args(["--output", "json"]))?;
        let Shown { manifest } = serde_json::from_str(&shown).map_err(|_| Error::Output {
            program: "kiln inspect".to_owned(),
            expected: "manifest",
            found: shown.clone(),
        })?;
        let parts = manifest.parts.into_iter();
        let mut weights: Vec<(String, u64)> = parts.map(|(name, part)| (name, part.size)).collect();
        let all = weights.iter().map(|(_, size)| size).sum();
        weights.push(("everything".to_owned(), all));
        // A size in bytes is far below 2^52.
        #[expect(clippy::cast_precision_loss)]
        let figure = |(name, size): (String, u64)| {
            Figure::alone(
                format!("{IMAGE} weighs, {name}"),
                "MiB",
                Better::Lower,
                size as f64 / (1 << 20) as f64,
            )
        };
        Ok(weights.into_iter().map(figure).collect())
    }

    fn kiln<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new(&self.kiln);
        command.args(words);
        command
    }

    fn bake(&self, cache: &str, to: &str) -> Command {
        let mut command = Command::new(&self.kiln);
        command.arg("-C").arg(&self.fleet).args(["bake", IMAGE]);
        command.arg("--agent").arg(&self.agent).arg("--cache").arg(self.cache(cache));
        command.arg("--to").arg(self.folder.join(to));
        command
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn inputs(&self) -> PathBuf {
        self.folder.join("inputs")
    }
}

/// What is read of what `kiln inspect` shows.
#[derive(Deserialize)]
struct Shown {
    manifest: Manifest,
}

#[derive(Deserialize)]
struct Manifest {
    parts: std::collections::BTreeMap<String, Part>,
}

#[derive(Deserialize)]
struct Part {
    size: u64,
}

fn mmdebstrap(mirror: &Mirror, folder: &Path) -> Result<f64> {
    let mut command = Command::new("mmdebstrap");
    command.env("TMPDIR", folder).args(["--quiet", "--mode=root", "--variant=essential"]);
    // `usr-is-merged`, which is essential in bookworm, refuses any other root file system.
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
    command.arg("--dpkgopt=force-unsafe-io").arg(format!("--include={}", PACKAGES.join(",")));
    command.arg("bookworm").arg(folder.join("mmdebstrap.tar"));
    command.arg(format!("deb [trusted=yes] copy:{} bookworm main", mirror.folder.display()));
    timed("mmdebstrap", &mut command)
}

/// mkosi 14, in a folder of its own.
struct Mkosi<'a> {
    mirror: &'a Mirror,
    folder: PathBuf,
}

impl<'a> Mkosi<'a> {
    fn new(mirror: &'a Mirror, folder: &Path) -> Result<Self> {
        let folder = folder.join("mkosi");
        fs::create_dir_all(folder.join("workspace")).map_err(Error::io(folder.display().to_string()))?;
        Ok(Self { mirror, folder })
    }

    fn build(&self, how: &str, incremental: bool) -> Result<f64> {
        let mut command = Command::new("mkosi");
        command.current_dir(&self.folder).args([
            "--force",
            "--distribution",
            "debian",
            "--release",
            "bookworm",
        ]);
        command.args([
            "--format",
            "tar",
            "--compress-output",
            "no",
            "--with-docs",
            "--repository-key-check",
            "no",
        ]);
        command.arg("--workspace-dir").arg(self.folder.join("workspace")).args(["--output", "image.tar"]);
        command.arg("--local-mirror").arg(format!("file://{}", self.mirror.folder.display()));
        for package in PACKAGES {
            command.args(["--package", package]);
        }
        if incremental {
            command.arg("--incremental");
        }
        timed(&format!("mkosi, {how}"), command.arg("build"))
    }
}

/// Runs a command to its end; answers the seconds that it took.
fn timed(name: &str, command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    run(command)?;
    let took = start.elapsed().as_secs_f64();
    eprintln!("bench: {name}: {took:.2} s");
    Ok(took)
}

/// The middle one of several measurements.
fn middle(mut measure: impl FnMut(usize) -> Result<f64>) -> Result<f64> {
    let mut all = (0..ROUNDS).map(&mut measure).collect::<Result<Vec<f64>>>()?;
    all.sort_by(f64::total_cmp);
    Ok(all.get(ROUNDS / 2).copied().unwrap_or_default())
}
