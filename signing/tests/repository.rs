//! Publishing and reading back.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::{DAY, NOW, bundle_file, fleet, key, meta_of, root_bytes};
use kiln_model::{Sha256, UnixMillis};
use kiln_signing::bundle::Bundle;
use kiln_signing::fleet::{FleetKeys, load_key, load_publish_keys, load_refresh_keys};
use kiln_signing::repository::{PublishKeys, Published, Repository, RepositoryError, init, publish, refresh};
use kiln_signing::tuf::{Expires, Snapshot, TargetInfo, Timestamp};
use kiln_signing::{Fault, envelope};
use proptest::prelude::*;

struct Scene {
    dir: tempfile::TempDir,
    keys: PublishKeys,
    root: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir, keys: fleet().into_publish_keys(), root: root_bytes(&fleet()) }
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    fn bundle(&self, version: &str, salt: &str) -> Bundle {
        Bundle::open(&bundle_file(self.dir.path(), version, salt, &[&key(2)])).expect("good")
    }

    fn publish(&self, bundle: &Bundle, now: UnixMillis) -> Result<Published, RepositoryError> {
        publish(bundle, &self.repository(), &self.root, &self.keys, now)
    }

    fn load(&self, now: UnixMillis) -> Result<Repository, RepositoryError> {
        Repository::load(&self.repository(), &self.root, now)
    }

    /// Every file of the repository with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => drop(found.insert(path.clone(), std::fs::read(&path).expect("read"))),
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(&self.repository(), &mut found);
        found
    }
}

#[test]
fn what_is_published_is_read_back() {
    let scene = Scene::new();
    let (one, two) = (scene.bundle("1", "a"), scene.bundle("2", "b"));
    let first = scene.publish(&one, NOW).expect("published");
    assert_eq!((first.already_there, first.version), (false, 1));
    scene.publish(&two, NOW).expect("published");
    let read = scene.load(NOW).expect("loaded");
    let images: Vec<_> = read.images().iter().map(|p| p.image.clone()).collect();
    assert_eq!(images, [one.image(), two.image()]);
    assert!(read.damaged().is_empty());
    assert_eq!(read.images()[1].manifest, *two.manifest());
    assert_eq!(read.images()[1].manifest_target, "edge-router/2/x86_64/manifest.json");
    for (name, part) in &two.manifest().parts {
        let target = format!("{}/{name}", two.image().folder());
        assert_eq!(read.read(&target).expect("a part").len() as u64, part.size);
        let path = read.path_of(&target).expect("a path");
        assert!(scene.repository().join(&path).is_file(), "{path}");
        assert!(path.contains(&format!("/{}.", part.sha256)), "{path}");
    }
    // With it, what is published is all of the bundle.
    let lock = read.read(&format!("{}/image.lock", two.image().folder())).expect("the lock");
    assert_eq!(Sha256::of(&lock), two.manifest().lock);
    let metadata = scene.repository().join("metadata");
    for file in ["1.root.json", "1.targets.json", "2.targets.json", "2.snapshot.json", "timestamp.json"] {
        assert!(metadata.join(file).is_file(), "{file}");
    }
}

#[test]
fn the_same_image_again_changes_nothing() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    let before = scene.files();
    let again = scene.publish(&scene.bundle("1", "a"), NOW.plus(1000)).expect("no fault");
    assert_eq!((again.already_there, again.version), (true, 1));
    assert_eq!(scene.files(), before);
}

#[test]
fn the_same_image_again_mends_what_was_damaged() {
    let scene = Scene::new();
    let bundle = scene.bundle("1", "a");
    scene.publish(&bundle, NOW).expect("published");
    let before = scene.files();
    for (path, bytes) in before.iter().filter(|(path, _)| path.to_string_lossy().contains("/targets/")) {
        let mut wrong = bytes.clone();
        wrong.push(b'!');
        std::fs::write(path, wrong).expect("written");
    }
    assert_eq!(scene.load(NOW).expect("metadata is good").damaged().len(), 1);
    scene.publish(&bundle, NOW).expect("mended");
    assert_eq!(scene.files(), before);
}

#[test]
fn another_image_under_the_same_name_is_refused() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    let before = scene.files();
    let error = scene.publish(&scene.bundle("1", "b"), NOW).expect_err("taken");
    assert!(matches!(error, RepositoryError::Taken { .. }));
    assert!(error.to_string().starts_with("edge-router 1 (x86_64) is published already"), "{error}");
    assert_eq!(scene.files(), before);
}

#[test]
fn the_same_image_with_one_signature_more_stays_the_same_image() {
    let scene = Scene::new();
    let published = scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    let more = bundle_file(scene.dir.path(), "1", "a", &[&key(2), &key(7)]);
    let again = scene.publish(&Bundle::open(&more).expect("good"), NOW).expect("published");
    assert_eq!((again.image, again.already_there, again.version), (published.image, true, 2));
    assert_eq!(scene.load(NOW).expect("loaded").images().len(), 1);
}

#[test]
fn a_bundle_that_the_targets_role_has_not_signed_is_refused() {
    let scene = Scene::new();
    let stranger = bundle_file(scene.dir.path(), "1", "a", &[&key(9)]);
    let error = scene.publish(&Bundle::open(&stranger).expect("whole"), NOW).expect_err("not ours");
    assert!(error.to_string().starts_with("manifest.json: key "), "{error}");
    assert!(scene.files().keys().all(|path| path.ends_with(".lock")), "something was written");
}

#[test]
fn keys_and_root_must_suit() {
    let mut scene = Scene::new();
    let bundle = scene.bundle("1", "a");
    let late = NOW.plus((5 * 365 - 29) * DAY * 1000);
    let error = scene.publish(&bundle, late).expect_err("the root ends too soon");
    assert!(matches!(error, RepositoryError::RootExpires { .. }), "{error}");
    scene.keys.snapshot = vec![key(99), key(99)];
    let error = scene.publish(&bundle, NOW).expect_err("not the root's key");
    assert_eq!(error.to_string(), "the snapshot role needs 1 of its keys to sign, and 0 of them are here");
}

#[test]
fn metadata_ages_and_is_refreshed() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    let late = NOW.plus(31 * DAY * 1000);
    let Err(RepositoryError::Refused(error)) = scene.load(late).map(drop) else {
        panic!("it must be out of date")
    };
    assert!(matches!(error.fault(), Fault::Expired { .. }), "{error}");
    refresh(&scene.repository(), &scene.root, &scene.keys, late).expect("refreshed");
    assert_eq!(scene.load(late).expect("fresh").images().len(), 1);
}

#[test]
fn the_key_that_releases_images_can_stay_away_from_refreshing() {
    let mut scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    assert_eq!(scene.load(NOW).expect("loaded").expires(), NOW.plus(30 * DAY * 1000));
    let list = scene.repository().join("metadata/1.targets.json");
    let before = std::fs::read(&list).expect("there");
    let targets = std::mem::take(&mut scene.keys.targets);

    let late = NOW.plus(31 * DAY * 1000);
    refresh(&scene.repository(), &scene.root, &scene.keys, late).expect("two keys are enough");
    let read = scene.load(late).expect("fresh");
    assert_eq!((read.images().len(), read.expires()), (1, late.plus(30 * DAY * 1000)));
    assert_eq!(std::fs::read(&list).expect("there"), before);
    assert!(!scene.repository().join("metadata/2.targets.json").exists(), "the list was signed again");

    // A list that would not outlive the new timestamp must be signed anew, and that takes its key.
    let later = NOW.plus(340 * DAY * 1000);
    let error = refresh(&scene.repository(), &scene.root, &scene.keys, later).expect_err("no key");
    assert_eq!(error.to_string(), "the targets role needs 1 of its keys to sign, and 0 of them are here");
    scene.keys.targets = targets;
    refresh(&scene.repository(), &scene.root, &scene.keys, later).expect("with the key");
    assert_eq!(scene.load(later).expect("fresh").targets().targets().version, 2);
}

#[test]
fn an_empty_repository_is_one_too_and_is_made_once() {
    let scene = Scene::new();
    init(&scene.repository(), &scene.root, &scene.keys, NOW).expect("made");
    let before = scene.files();
    init(&scene.repository(), &scene.root, &scene.keys, NOW.plus(5000)).expect("left alone");
    assert_eq!(scene.files(), before);
    assert!(scene.load(NOW).expect("loaded").images().is_empty());
}

/// Signs the repository's list of files again after `change`, as somebody with every key would.
fn relist(scene: &Scene, change: impl FnOnce(&mut BTreeMap<String, TargetInfo>)) {
    let mut targets = scene.load(NOW).expect("loaded").targets().targets().clone();
    change(&mut targets.targets);
    let targets = envelope::sign(&targets, &[&key(2)]).expect("signed");
    let expires = Expires::after(NOW, DAY);
    let snapshot = Snapshot::new(1, expires, [("targets.json".to_owned(), meta_of(1, &targets))].into());
    let snapshot = envelope::sign(&snapshot, &[&key(3)]).expect("signed");
    let timestamp = Timestamp::new(1, expires, meta_of(1, &snapshot));
    let timestamp = envelope::sign(&timestamp, &[&key(4)]).expect("signed");
    for (file, bytes) in
        [("1.targets.json", targets), ("1.snapshot.json", snapshot), ("timestamp.json", timestamp)]
    {
        std::fs::write(scene.repository().join("metadata").join(file), bytes).expect("written");
    }
}

#[test]
fn a_manifest_that_contradicts_the_list_of_files_is_damage() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    relist(&scene, |files| {
        files.insert("edge-router/1/x86_64/base".to_owned(), TargetInfo::of(b"another base"));
    });
    let read = scene.load(NOW).expect("metadata is good");
    assert!(read.images().is_empty());
    let wanted = "edge-router/1/x86_64/manifest.json: it and the list of files disagree about base";
    assert_eq!(read.damaged()[0].to_string(), wanted);
}

#[test]
fn a_manifest_under_another_images_name_is_damage() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    let from = scene.repository().join("targets/edge-router/1");
    std::fs::rename(from, scene.repository().join("targets/edge-router/9")).expect("moved");
    relist(&scene, |files| {
        *files = std::mem::take(files)
            .into_iter()
            .map(|(name, info)| (name.replace("/1/", "/9/"), info))
            .collect();
    });
    let read = scene.load(NOW).expect("metadata is good");
    assert!(read.images().is_empty());
    let wanted = "edge-router/9/x86_64/manifest.json: this is the manifest of edge-router/1/x86_64";
    assert_eq!(read.damaged()[0].to_string(), wanted);
}

#[test]
fn two_publishers_do_not_interleave() {
    let scene = Scene::new();
    init(&scene.repository(), &scene.root, &scene.keys, NOW).expect("made");
    let other = std::fs::File::open(scene.repository().join(".lock")).expect("the lock");
    other.lock().expect("locked");
    let error = scene.publish(&scene.bundle("1", "a"), NOW).expect_err("busy");
    assert!(matches!(error, RepositoryError::Busy { .. }), "{error}");
    drop(other);
    scene.publish(&scene.bundle("1", "a"), NOW).expect("free again");
}

#[test]
fn a_publisher_that_died_before_the_timestamp_is_forgotten() {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    // What a power cut could leave: the next version's files, and a partial one.
    let metadata = scene.repository().join("metadata");
    for file in ["2.targets.json", "2.snapshot.json", ".timestamp.json.partial"] {
        std::fs::write(metadata.join(file), b"half").expect("written");
    }
    assert_eq!(scene.load(NOW).expect("the old state").images().len(), 1);
    scene.publish(&scene.bundle("2", "b"), NOW).expect("goes on");
    assert_eq!(scene.load(NOW).expect("the new state").images().len(), 2);
}

#[test]
fn new_keys_of_a_fleet_publish_and_are_kept_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let scene = Scene::new();
    let fleet_dir = scene.dir.path().join("fleet");
    let keys = FleetKeys::generate().expect("keys");
    keys.write(&fleet_dir, NOW).expect("written");
    assert!(keys.write(&fleet_dir, NOW).is_err(), "keys are never overwritten");
    let root = std::fs::read(fleet_dir.join("trust/root.json")).expect("root");
    let director = std::fs::read(fleet_dir.join("trust/director.json")).expect("director");
    let director = kiln_signing::KeySet::from_json(&director).expect("a key set");
    assert!(director.get(&keys.director.public().id()).is_some());

    let loaded = load_publish_keys(&fleet_dir.join("keys")).expect("loaded");
    let path = bundle_file(scene.dir.path(), "1", "a", &[&loaded.targets[0]]);
    let repository = scene.repository();
    publish(&Bundle::open(&path).expect("good"), &repository, &root, &loaded, NOW).expect("published");
    assert_eq!(Repository::load(&repository, &root, NOW).expect("loaded").images().len(), 1);
    std::fs::remove_file(fleet_dir.join("keys/targets.json")).expect("taken away");
    let loaded = load_refresh_keys(&fleet_dir.join("keys")).expect("loaded");
    refresh(&repository, &root, &loaded, NOW).expect("refreshed");

    let file = fleet_dir.join("keys/root.json");
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let error = load_key(&file).map(drop).expect_err("open to others");
    assert!(error.to_string().contains("others may read this private key (mode 644)"), "{error}");
}

/// Published once for all cases: what is slow about it is that it must survive a power cut.
static PUBLISHED: LazyLock<Scene> = LazyLock::new(|| {
    let scene = Scene::new();
    scene.publish(&scene.bundle("1", "a"), NOW).expect("published");
    scene
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// One changed byte anywhere in a repository is found, or it has changed nothing that counts.
    #[test]
    fn a_flipped_byte_is_found_or_means_nothing(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), mask in 1u8..) {
        let scene = &*PUBLISHED;
        let files: Vec<_> = scene.files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let (path, good) = &files[which.index(files.len())];
        let mut bytes = good.clone();
        let index = at.index(bytes.len());
        bytes[index] ^= mask;
        std::fs::write(path, &bytes).expect("written");
        let found = scene.load(NOW).map(|read| {
            read.targets().targets().targets.keys().all(|name| read.read(name).is_ok())
        });
        std::fs::write(path, good).expect("put back");
        let all_read = found.unwrap_or(false);
        let touched = path.strip_prefix(scene.repository()).expect("inside");
        let insignificant = touched.ends_with("timestamp.json") || touched.ends_with("1.root.json");
        prop_assert!(insignificant || !all_read, "{} byte {}", touched.display(), index);
    }
}
