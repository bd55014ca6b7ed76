//! What the daemon does on a box that has a disk: the entry of an image that was healthy loses its counter, and the
//! intent that it obeys is kept for a boot in which no provisioner answers. And how a box that started without one finds
//! it again.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use kiln_disk::free_slot;
use kiln_model::manifest::ImageRef;
use kiln_signing::bundle::{LOCK_FILE, LOCK_LIMIT};

use crate::boot::{self, BootRecord};
use crate::cmdline::{BootParameters, Task};
use crate::console::{printable, say};
use crate::disk::Disk;
use crate::disk::entries::{self, Blessed};
use crate::disk::state::{self, Kept};
use crate::disk::update::{Documents, Update};
use crate::http::{Client, retrying};
use crate::trust::{Checked, repository_path};

/// How often a box that runs without a provisioner looks for it.
const EVERY: Duration = Duration::from_secs(30);
/// Bytes of the provisioner's answer at most.
const ANSWER: u64 = 4096;

/// The image is healthy: the firmware's loader need not count any more, and the intent is kept for a boot without a
/// provisioner.
pub fn bless(image: &ImageRef) {
    let Some(disk) = Disk::find() else { return };
    match entries::bless(&disk, image) {
        Ok(Some(Blessed { path, starts })) => {
            say!("kiln: {image} has proven itself, started {starts} times: {path} is what the loader starts");
        }
        Ok(None) => {}
        Err(error) => say!("kiln: {error}; the loader starts what it started before"),
    }
    if let Err(why) = state::save_noted(&disk, Path::new(state::NOTE)) {
        say!("kiln: the intent cannot be kept on {}: {why}", disk.path.display());
    }
}

/// Keeps an intent that was verified and is obeyed: of an image that is not healthy yet, when it is.
pub fn keep(parameters: &BootParameters, envelope: &[u8]) {
    let Some(disk) = starts_from() else { return };
    let Some(kept) = Kept::of(parameters, envelope) else { return };
    let note = Path::new(state::NOTE);
    let done = if note.exists() { state::note(note, &kept) } else { state::save(&disk, &kept) };
    if let Err(why) = done {
        say!("kiln: the intent cannot be kept on {}: {why}", disk.path.display());
    }
}

/// The disk that the box starts from: an intent is kept there, or will be.
fn starts_from() -> Option<Disk> {
    let noted = Path::new(state::NOTE).exists();
    Disk::find().filter(|disk| noted || state::load(disk).is_some())
}

/// Whether the box starts from its disk, and `image` has no entry there.
pub fn lacks(image: &ImageRef) -> bool {
    let Some(disk) = starts_from() else { return false };
    entries::all(&disk).is_ok_and(|entries| !entries.iter().any(|entry| entry.is_of(image)))
}

/// Puts the image that an intent names into the slot that does not run, on a box that starts from its disk. The box
/// runs on meanwhile. Without it the box starts what it has, which fetches the new image's parts: that is said, and
/// the new image is not given up.
pub async fn update(client: &Client, running: &ImageRef, checked: &Checked) {
    let Some(disk) = starts_from() else { return };
    let image = kiln_signing::image_ref(&checked.manifest);
    match write(client, &disk, running, &image, checked).await {
        Ok(entry) => say!("kiln: {image} is on the disk and was read back; {entry} starts it"),
        Err(why) => say!("kiln: {image} is not on the disk: {}", printable(&why)),
    }
}

async fn write(
    client: &Client,
    disk: &Disk,
    running: &ImageRef,
    image: &ImageRef,
    checked: &Checked,
) -> Result<String, String> {
    let manifest = &checked.manifest;
    let letter = free_slot(&entries::all(disk).map_err(|e| e.to_string())?, running);
    say!("kiln: {image} is written to kiln-{letter}; the box runs on meanwhile");
    let lock = repository_path(image, LOCK_FILE, &manifest.lock);
    let lock = client.get(&lock, LOCK_LIMIT).await.map_err(|e| e.to_string())?;
    let documents = Documents { manifest, envelope: &checked.envelope, lock: &lock };
    let device = File::options().read(true).write(true).open(&disk.path).map_err(|e| e.to_string())?;
    let mut update = Update::begin(device, &disk.table, letter, &documents).map_err(|e| e.to_string())?;
    for (name, part) in &manifest.parts {
        let path = repository_path(image, name.as_str(), &part.sha256);
        let fetch = async || {
            let mut at = 0;
            let sink = |bytes: &[u8]| {
                update.put(name, at, bytes)?;
                at += bytes.len() as u64;
                Ok(())
            };
            client.stream(&path, part.size, sink).await
        };
        retrying(fetch).await.map_err(|e| e.to_string())?;
    }
    // Reading everything back takes longer than the daemon may be silent.
    let finished = tokio::task::spawn_blocking(move || update.finish()).await;
    finished.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Asks the provisioner that the box knew for a boot of its own, and ends when it has one: it is written down, and
/// the next daemon goes on with it. Functions run on meanwhile.
pub async fn find_provisioner(mut record: BootRecord) {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let arch = crate::stage0::arch();
    let path = format!("/boot/agent?mac={}&arch={arch}&kernel={kernel}&via=disk", record.parameters.mac);
    let client = Client::to(record.parameters.server, String::new());
    loop {
        tokio::time::sleep(EVERY).await;
        let Ok(answer) = client.get_once(&path, ANSWER, None).await else { continue };
        let line = String::from_utf8(answer.body.unwrap_or_default()).unwrap_or_default();
        match Task::parse(&line) {
            Ok(Task::Run(parameters)) if parameters.machine == record.parameters.machine => {
                record.parameters = parameters;
                record.without_provisioner = false;
                match boot::save(Path::new(boot::RECORD), &record) {
                    Ok(()) => return say!("kiln: the provisioner answers again"),
                    Err(why) => say!("kiln: writing {}: {why}", boot::RECORD),
                }
            }
            Ok(_) => say!("kiln: the provisioner has something else in mind; the box runs on"),
            Err(error) => say!("kiln: the provisioner: {}", printable(&error.to_string())),
        }
    }
}
