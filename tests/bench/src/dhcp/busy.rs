//! Something else that writes to the disk, so that single writes of a server take long.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that are written and waited for at once.
const BYTES: usize = 32 << 20;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(150);

/// Writes to the disk of a folder until it is dropped.
pub struct BusyDisk {
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl BusyDisk {
    /// From now on.
    pub fn new(folder: &Path) -> Self {
        let (stop, path) = (Arc::new(AtomicBool::new(false)), folder.join("busy"));
        let writer = std::thread::spawn({
            let (stop, path) = (Arc::clone(&stop), path.clone());
            move || {
                let bytes = vec![0x5a; BYTES];
                while !stop.load(Ordering::Relaxed) {
                    let written = File::create(&path)
                        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
                    if let Err(error) = written {
                        eprintln!("bench: {}: {error}: the disk is not kept busy", path.display());
                        return;
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        });
        Self { stop, writer: Some(writer), path }
    }
}

impl Drop for BusyDisk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It says by itself what went wrong.
        let _ = self.writer.take().map(JoinHandle::join);
        let _ = std::fs::remove_file(&self.path);
    }
}
