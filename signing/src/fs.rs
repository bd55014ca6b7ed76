//! The few file operations that must survive a power cut, and readers that stop at a limit.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

/// A file that appears under its name only when it is whole: written beside it as `.NAME.partial`,
/// synced, renamed. Dropped without [`Partial::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Partial {
    writer: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl Partial {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let partial = path.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        let writer = BufWriter::with_capacity(256 * 1024, File::create(&partial)?);
        Ok(Self { writer, partial, path: path.to_owned() })
    }

    /// Makes it durable, then visible.
    ///
    /// # Errors
    /// What the file system says; then nothing is left of it.
    pub fn commit(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        std::fs::rename(&self.partial, &self.path)?;
        sync_folder_of(&self.path)
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a commit there is nothing of this name; before it, this is all that can be done.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Writes a whole file by write, sync and rename.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Partial::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Makes a folder and those above it, durably.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(above)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder_of(path),
    }
}

/// Reads a file of at most `limit` bytes; of a longer one, one byte more, so that the caller sees it.
pub(crate) fn read_up_to(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A lock that ends with the process that holds it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or gives `None` when somebody else has it.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
