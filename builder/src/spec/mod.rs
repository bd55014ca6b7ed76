//! What a person writes: `image.toml` and `functions/<name>.toml`.
//!
//! Text is read into types that cannot hold nonsense; what does not fit is told with file, line,
//! column, the nearest right word and what is allowed.

mod explain;
mod files;
mod function;
mod image;
mod inherit;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use explain::Setting;
pub use files::SpecFiles;
pub use function::{Folder, FunctionSpec, Group, PlainFile, SHELLS, Source, User};
pub use image::{Component, FirmwareSpec, FunctionOverride, ImageSpec, Packages};
pub use inherit::Document;
use kiln_hw_profiles::{Profile, ProfileError};
use kiln_model::{FunctionName, Sha256};
pub use read::{SpecError, parse_toml};

use crate::lock::{LockedFile, RootLock};
use crate::tree::TreePath;

/// An image's spec with everything that it refers to.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `image.toml`.
    pub image: ImageSpec,
    /// Where `image.toml` is.
    pub file: PathBuf,
    /// The hardware profile.
    pub profile: Profile,
    /// Its functions, in order of name.
    pub functions: BTreeMap<FunctionName, LoadedFunction>,
    /// Every file that was read.
    pub files: SpecFiles,
    /// `image.toml` with what it extends.
    document: Document,
}

/// A function's spec with its templates.
#[derive(Debug, Clone)]
pub struct LoadedFunction {
    /// `functions/<name>.toml`.
    pub spec: FunctionSpec,
    /// Templates by file name, after what the image puts in their place.
    pub templates: BTreeMap<String, Vec<u8>>,
    /// Plain files by their path in the image.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Where each file beside the spec was found, by its name.
    found: BTreeMap<String, PathBuf>,
    /// `<name>.toml` with what it extends.
    document: Document,
}

/// Where templates are in a function's image.
pub const TEMPLATES: &str = "/usr/share/kiln/templates";

/// The lock's root of firmware.
pub const FIRMWARE: &str = "firmware";

/// Packages whose content no function runs on: package managers, shells, what calls them, and start
/// scripts. Dependencies on them count as met. A spec's own `assumed` adds to this list.
pub const ASSUMED: &[&str] = &[
    "adduser",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "iproute2",
    "kmod",
    "login",
    "logrotate",
    "lsb-base",
    "lsof",
    "mount",
    "openssl",
    "passwd",
    "perl",
    "perl-base",
    "procps",
    "python3",
    "sed",
    "systemd",
    "sysvinit-utils",
    "tar",
    "ucf",
    "udev",
    "util-linux",
];

impl Spec {
    /// Reads a spec: `image.toml`, or the folder that it is in.
    pub fn load(path: &Path) -> Result<Self, SpecError> {
        let file = if path.is_dir() { path.join("image.toml") } else { path.to_owned() };
        let folder = file.parent().unwrap_or(Path::new("."));
        let images = folder.join("..");
        let mut files = SpecFiles::new(&images);
        let document = Document::read(&file, &mut files)?;
        let image: ImageSpec = document.parse()?;
        let profile =
            Profile::load(&image.profile, image.arch, None).map_err(|e| profile_error(&file, &e))?;
        let mut functions = BTreeMap::new();
        for name in &image.functions {
            let mut loaded = LoadedFunction::load(&images.join("functions"), name, &mut files)?;
            loaded.put_in_place(&image, folder, &file, name, &mut files)?;
            functions.insert(name.clone(), loaded);
        }
        let spec = Self { image, file, profile, functions, files, document };
        spec.check()?;
        Ok(spec)
    }

    /// Where its lock is.
    pub fn lock_file(&self) -> PathBuf {
        self.file.with_file_name("image.lock")
    }

    /// Where its functions are.
    pub fn functions_folder(&self) -> PathBuf {
        self.file.parent().unwrap_or(Path::new(".")).join("../functions")
    }

    /// Its packages of firmware: its own choice, else the profile's.
    pub fn firmware(&self) -> &[String] {
        self.image.firmware.as_ref().map_or(&self.profile.firmware.packages, |own| &own.packages)
    }

    /// What each root of the image asks for, by name.
    pub fn roots(&self) -> BTreeMap<String, RootLock> {
        let root = |packages: &[String], assumed: &BTreeSet<String>| {
            let assumed = ASSUMED.iter().map(|a| (*a).to_owned()).chain(assumed.iter().cloned());
            RootLock { packages: packages.to_vec(), assumed: assumed.collect(), ..RootLock::default() }
        };
        let none = BTreeSet::new();
        let kernel = self.image.kernel.as_ref().map_or(&self.profile.kernel.package, |k| &k.package);
        // A kernel depends on what makes its initrd and on firmware tools; ours is made here.
        let kernel_assumed =
            ["initramfs-tools", "linux-base", "linux-initramfs-tool"].map(str::to_owned).into();
        let mut roots = BTreeMap::from([
            ("kernel".to_owned(), root(std::slice::from_ref(kernel), &kernel_assumed)),
            ("loader".to_owned(), root(std::slice::from_ref(&self.image.loader.package), &none)),
            ("base".to_owned(), root(&self.image.base.packages, &self.image.base.assumed)),
        ]);
        if !self.firmware().is_empty() {
            roots.insert(FIRMWARE.to_owned(), root(self.firmware(), &none));
        }
        if self.image.has_uki() {
            roots.insert("boot".to_owned(), root(&["systemd-boot-efi".to_owned()], &none));
        }
        for (name, function) in &self.functions {
            let FunctionSpec { packages, assumed, .. } = &function.spec;
            let oci = function.spec.source.oci.as_ref().map(ToString::to_string);
            let locked = |(path, bytes): (&String, &Vec<u8>)| {
                (path.clone(), LockedFile { size: bytes.len() as u64, sha256: Sha256::of(bytes) })
            };
            let files = function.files.iter().map(locked).collect();
            roots.insert(format!("fn/{name}"), RootLock { oci, files, ..root(packages, assumed) });
        }
        roots
    }

    /// What holds between the files of a spec.
    fn check(&self) -> Result<(), SpecError> {
        for (name, function) in &self.functions {
            if let Some(other) = function.spec.after.iter().find(|o| !self.functions.contains_key(*o)) {
                let problem =
                    format!("function `{name}` starts after `{other}`, which is not in `functions`");
                return Err(SpecError::whole(&self.file, problem));
            }
        }
        let mut done: BTreeSet<&FunctionName> = BTreeSet::new();
        while done.len() < self.functions.len() {
            let ready = |(name, f): &(&FunctionName, &LoadedFunction)| {
                !done.contains(name) && f.spec.after.iter().all(|o| done.contains(o))
            };
            let Some((name, _)) = self.functions.iter().find(ready) else {
                let waiting: Vec<&str> =
                    self.functions.keys().filter(|n| !done.contains(n)).map(FunctionName::as_str).collect();
                let problem =
                    format!("functions wait for each other in a circle (`after`): {}", waiting.join(", "));
                return Err(SpecError::whole(&self.file, problem));
            };
            done.insert(name);
        }
        Ok(())
    }
}

impl LoadedFunction {
    fn load(folder: &Path, name: &FunctionName, files: &mut SpecFiles) -> Result<Self, SpecError> {
        let document = Document::read(&folder.join(format!("{name}.toml")), files)?;
        let spec: FunctionSpec = document.parse()?;
        spec.check().map_err(|wrong| wrong.of(&document))?;
        let (templates, plain, found) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut loaded = Self { spec, templates, files: plain, found, document };
        for config in loaded.spec.configs.clone() {
            let template = template_name(&config.template).ok_or_else(|| {
                let problem =
                    format!("a template is a file in {TEMPLATES}, and `{}` is not", config.template);
                loaded.document.error_at(&config.template, problem)
            })?;
            let bytes = loaded.beside(folder, template, &config.template, files)?;
            loaded.templates.insert(template.to_owned(), bytes);
        }
        for file in loaded.spec.files.clone() {
            let bytes = loaded.beside(folder, &file.source, &file.source, files)?;
            loaded.files.insert(file.path, bytes);
        }
        Ok(loaded)
    }

    /// A file in the folder named like the function, else in that of a function that it extends. `word` is
    /// what the spec calls it.
    fn beside(
        &mut self,
        folder: &Path,
        name: &str,
        word: &str,
        files: &mut SpecFiles,
    ) -> Result<Vec<u8>, SpecError> {
        let stems = self.document.files.iter().filter_map(|(file, _)| file.file_stem());
        let places: Vec<PathBuf> = stems.map(|stem| folder.join(stem).join(name)).collect();
        let from =
            places.iter().find(|place| place.is_file()).or(places.first()).cloned().unwrap_or_default();
        let bytes = files.bytes(&from).map_err(|why| {
            self.document.error_at(word, format!("cannot read {}: it {why}", from.display()))
        })?;
        self.found.insert(name.to_owned(), from);
        Ok(bytes)
    }

    /// Puts the image's own templates in the place of the function's.
    fn put_in_place(
        &mut self,
        image: &ImageSpec,
        folder: &Path,
        file: &Path,
        name: &FunctionName,
        files: &mut SpecFiles,
    ) -> Result<(), SpecError> {
        let Some(overrides) = image.function_overrides.get(name) else { return Ok(()) };
        for (template, from) in &overrides.templates {
            let Some(bytes) = self.templates.get_mut(template) else {
                let known: Vec<&str> = self.templates.keys().map(String::as_str).collect();
                let problem =
                    format!("function `{name}` has no template `{template}`; it has: {}", known.join(", "));
                return Err(SpecError::whole(file, problem));
            };
            let from = folder.join(from);
            *bytes = files
                .bytes(&from)
                .map_err(|why| SpecError::whole(file, format!("cannot read {}: it {why}", from.display())))?;
            self.found.insert(template.clone(), from);
        }
        Ok(())
    }
}

/// The file name of a template, if its path is right within [`TEMPLATES`].
fn template_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix(TEMPLATES)?.strip_prefix('/')?;
    let parsed = TreePath::parse(name).ok()?;
    (parsed.file_name() == name && !name.is_empty()).then_some(name)
}

fn profile_error(file: &Path, error: &ProfileError) -> SpecError {
    SpecError::whole(file, error.to_string())
}

#[cfg(test)]
mod tests;
