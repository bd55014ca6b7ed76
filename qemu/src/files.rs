//! The files of a lab: one place that knows their names.

use std::path::{Path, PathBuf};

/// The files of the lab in one folder.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Locked by the holder for as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// What the holder was told to build.
    pub fn plan(&self) -> PathBuf {
        self.dir.join("plan.json")
    }

    pub fn pid(&self) -> PathBuf {
        self.dir.join("holder.pid")
    }

    pub fn holder_log(&self) -> PathBuf {
        self.dir.join("holder.log")
    }

    pub fn server_log(&self) -> PathBuf {
        self.dir.join("serve.log")
    }

    /// The holder's control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(Self::SOCKET)
    }

    /// The control socket's name within the folder.
    pub const SOCKET: &'static str = "lab.sock";

    pub fn machines(&self) -> PathBuf {
        self.dir.join("machines")
    }

    pub fn machine(&self, name: &str) -> PathBuf {
        self.machines().join(name)
    }

    pub fn console(&self, name: &str) -> PathBuf {
        self.machine(name).join("console.log")
    }

    /// Everything that a lab which ended, in whatever way, may have left.
    pub fn leftovers(&self) -> [PathBuf; 6] {
        [self.plan(), self.pid(), self.holder_log(), self.server_log(), self.socket(), self.machines()]
    }
}
