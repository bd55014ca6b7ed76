//! Files: what a process may do with them, whoever it is and whatever is mounted (landlock(7)).
//!
//! Mounts say the same; this holds when one of them is wrong, and cannot be taken back. Reading and executing
//! is allowed in all of the function's root, writing in the folders that its spec names, in `/dev` (where only
//! harmless devices are), in its own `/proc` (where settings of the machine are read-only mounts) and to its
//! output. A kernel without Landlock has the other walls; the daemon says so once.

use std::io;
use std::os::fd::AsFd as _;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, make_bitflags,
};

use super::{SandboxError, failed};
use crate::slot::Slot;

/// The newest version whose rights are understood here; a kernel that knows fewer enforces those it knows.
const VERSION: ABI = ABI::V5;
/// What is allowed everywhere.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});
/// What is allowed to files that are there already.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate});
/// Nobody runs what he has written, nor makes devices.
const NO_DEVICES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | IoctlDev});

/// Rules that are made and do not hold yet.
pub struct Walls(RulesetCreated);

impl Walls {
    /// The rules of a slot, seen from inside its root.
    pub fn of(slot: &Slot) -> Result<Self, SandboxError> {
        let everything = AccessFs::from_all(VERSION);
        let rules = Ruleset::default().handle_access(everything).and_then(Ruleset::create);
        let rules = rules.map_err(refused("making rules for files"))?;
        let walls = Self(rules).allow("/", READ)?;
        let walls = walls.allow("/dev", WRITE | AccessFs::IoctlDev)?.allow("/proc", WRITE)?;
        let in_folder = everything & !NO_DEVICES;
        let walls = slot.writable.iter().try_fold(walls, |walls, folder| walls.allow(folder, in_folder))?;
        let output = io::stdout();
        // `/dev/stdout` leads to a pipe that is not in the root.
        let rule = PathBeneath::new(output.as_fd(), WRITE);
        walls.0.add_rule(rule).map(Self).map_err(refused("allowing its output"))
    }

    /// From here on they hold, for us and for all that we start.
    pub fn enter(self) -> Result<(), SandboxError> {
        self.0.restrict_self().map(drop).map_err(refused("restricting its files"))
    }

    fn allow(self, path: &str, access: BitFlags<AccessFs>) -> Result<Self, SandboxError> {
        let what = || format!("allowing {path}");
        let folder = PathFd::new(path).map_err(refused(what()))?;
        self.0.add_rule(PathBeneath::new(folder, access)).map(Self).map_err(refused(what()))
    }
}

/// Whether the kernel that runs has Landlock, and it is turned on.
pub fn supported() -> bool {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    strict.handle_access(READ).and_then(Ruleset::create).is_ok()
}

fn refused<E: std::error::Error + Send + Sync + 'static>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> SandboxError {
    let failed = failed(what);
    move |error| failed(io::Error::other(error))
}
