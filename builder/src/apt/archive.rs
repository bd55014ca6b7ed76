//! Fetches releases, indices and packages. Everything is checked against a digest before it is kept.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kiln_model::{Arch, Sha256};

use super::index::{IndexError, Universe, parse};
use super::release::{Keyring, Release, ReleaseError};
use super::sources::Source;
use crate::limited::Limited;
use crate::store::{ContentStore, StoreError};

/// Bytes that a release may have.
const RELEASE_LIMIT: u64 = 8 << 20;
/// Bytes that an index may have, packed and unpacked.
const INDEX_LIMIT: u64 = 512 << 20;
/// Missing inputs that a message names.
const NAMED: usize = 5;

/// Debian's archive, over HTTP and through the cache.
#[derive(Debug)]
pub struct Archive {
    agent: ureq::Agent,
    sources: Vec<Source>,
    store: ContentStore,
    offline: bool,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The host names no source of Debian's.
    #[error("no source of Debian's archive is configured in /etc/apt; see sources.list(5)")]
    NoSources,
    /// No answer, or the wrong one.
    #[error("cannot fetch {url}: {why}")]
    Http {
        /// What was asked for.
        url: String,
        /// What came back.
        why: String,
    },
    /// A release that is not to be believed.
    #[error("{url} is refused: {source}")]
    Release {
        /// Where it came from.
        url: String,
        /// Why.
        source: ReleaseError,
    },
    /// The suite has no such index.
    #[error("{suite} has no `{component}` for {arch}; the sources name it in {file}")]
    NoIndex {
        /// Suite.
        suite: String,
        /// Component.
        component: String,
        /// Debian's name for the architecture.
        arch: &'static str,
        /// Where it is configured.
        file: String,
    },
    /// Bytes that are not what was promised.
    #[error("{what} is {found}, and should be {expected}")]
    Digest {
        /// What was fetched.
        what: String,
        /// Length and digest promised.
        expected: String,
        /// Length and digest found.
        found: String,
    },
    /// An index that cannot be unpacked or read.
    #[error("{what}: {why}")]
    Index {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
    /// A package that no source has any more.
    #[error(
        "{package} is locked and no source has it any more ({tried}); `kiln bake --update` takes the version \
         that there is now"
    )]
    Gone {
        /// Name and version.
        package: String,
        /// What each source answered.
        tried: String,
    },
    /// Nothing may be fetched, and it is not here.
    #[error(
        "{missing} of {of} inputs are not in {folder}: {names}; bake once without `--offline`, or carry them over \
         with `kiln archive export` and `kiln archive import`", folder = .folder.display()
    )]
    NotHere {
        /// Where they were looked for.
        folder: PathBuf,
        /// How many are missing.
        missing: usize,
        /// Of how many.
        of: usize,
        /// The first of them.
        names: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Something with a known length and digest below an archive's root.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// For messages: `frr 8.4.4-1`.
    pub name: &'a str,
    /// Path below the root.
    pub path: &'a str,
    /// The suite that had it; its source is asked first.
    pub suite: &'a str,
    /// Length in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: &'a Sha256,
}

impl Archive {
    /// An archive of these sources, of which only Debian's are used. The second value says which were
    /// left out, and why.
    pub fn new(sources: Vec<Source>, store: ContentStore) -> (Self, Vec<String>) {
        let (debian, other): (Vec<_>, Vec<_>) = sources.into_iter().partition(Source::is_debian);
        let notes = other
            .iter()
            .map(|s| format!("{} ({}) is not Debian's archive and is not used", s.uri, s.file.display()));
        let notes = notes.collect();
        let mut config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent("kiln");
        if let Some(proxy) =
            super::proxy::configured(Path::new("/etc/apt")).and_then(|p| ureq::Proxy::new(&p).ok())
        {
            config = config.proxy(Some(proxy));
        }
        (Self { agent: config.build().new_agent(), sources: debian, store, offline: false }, notes)
    }

    /// The same with more components of each suite; a suite that has no such component is passed over.
    #[must_use]
    pub fn with_components<'a>(mut self, components: impl IntoIterator<Item = &'a str>) -> Self {
        let components: Vec<&str> = components.into_iter().collect();
        for source in &mut self.sources {
            let new = components.iter().filter(|c| !source.components.iter().any(|there| there == *c));
            source.extra = new.map(|c| (*c).to_owned()).collect();
        }
        self
    }

    /// Nothing but what `store` has: no network is asked, and nothing of the host is read.
    pub fn offline(store: ContentStore) -> Self {
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        Self { agent, sources: Vec::new(), store, offline: true }
    }

    /// When this is offline: whether all of `wanted` (names and digests) is here. Every name that is
    /// missing is told at once.
    pub fn check_offline(
        &self,
        wanted: impl IntoIterator<Item = (String, Sha256)>,
    ) -> Result<(), ArchiveError> {
        if !self.offline {
            return Ok(());
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let missing =
            wanted.iter().filter(|(_, digest)| !self.store.has(digest)).map(|(name, _)| name.as_str());
        let missing: Vec<&str> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let more = missing.len().saturating_sub(NAMED);
        let and_more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Err(ArchiveError::NotHere {
            folder: self.store.folder().to_owned(),
            missing: missing.len(),
            of: wanted.len(),
            names: missing[..missing.len().min(NAMED)].join(", ") + &and_more,
        })
    }

    /// Everything that the sources have for `arch`, and the date of the newest release.
    pub fn universe(&self, arch: Arch, now: Timestamp) -> Result<(Universe, Timestamp), ArchiveError> {
        if self.sources.is_empty() {
            return Err(ArchiveError::NoSources);
        }
        let mut universe = Universe::default();
        let mut newest = Timestamp::UNIX_EPOCH;
        let suites: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                self.sources.iter().map(|source| scope.spawn(|| self.suite(source, arch, now))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
        });
        for suite in suites {
            let (date, packages) = suite?;
            newest = newest.max(date);
            universe.add(packages);
        }
        Ok((universe, newest))
    }

    /// Whether the cache has it. [`Self::package`] finds out whether it is undamaged.
    pub fn has(&self, digest: &Sha256) -> bool {
        self.store.has(digest)
    }

    /// The bytes of a package: from the cache, else from the source of its suite, else from any.
    pub fn package(&self, wanted: Wanted<'_>) -> Result<Vec<u8>, ArchiveError> {
        if let Some(bytes) = self.store.get(wanted.sha256) {
            return Ok(bytes);
        }
        self.check_offline([(wanted.name.to_owned(), *wanted.sha256)])?;
        if self.sources.is_empty() {
            return Err(ArchiveError::NoSources);
        }
        let mut roots: Vec<(&str, bool)> =
            self.sources.iter().map(|s| (s.uri.as_str(), s.suite != wanted.suite)).collect();
        roots.sort_by_key(|(_, other)| *other);
        let mut tried: Vec<(&str, String)> = Vec::new();
        for (root, _) in roots {
            if tried.iter().any(|(t, _)| *t == root) {
                continue;
            }
            match self.get(&format!("{root}/{}", wanted.path), wanted.size) {
                Ok(bytes) => {
                    check(wanted.name, &bytes, wanted.size, wanted.sha256)?;
                    self.store.put(&bytes)?;
                    return Ok(bytes);
                }
                Err(ArchiveError::Http { why, .. }) => tried.push((root, why)),
                Err(other) => return Err(other),
            }
        }
        let tried: Vec<String> = tried.into_iter().map(|(root, why)| format!("{root}: {why}")).collect();
        Err(ArchiveError::Gone { package: wanted.name.to_owned(), tried: tried.join("; ") })
    }

    fn suite(
        &self,
        source: &Source,
        arch: Arch,
        now: Timestamp,
    ) -> Result<(Timestamp, Vec<super::Package>), ArchiveError> {
        let root = format!("{}/dists/{}", source.uri, source.suite);
        let url = format!("{root}/InRelease");
        let refused = |source| ArchiveError::Release { url: url.clone(), source };
        let keyring = Keyring::load(&source.keyring()).map_err(refused)?.valid_at(now);
        let text = keyring.open(&self.get(&url, RELEASE_LIMIT)?).map_err(refused)?;
        let release = Release::parse(&text).map_err(refused)?;
        release.check_suite(&source.suite).map_err(refused)?;
        if source.check_valid_until {
            release.check_valid(now).map_err(refused)?;
        }
        let mut packages = Vec::new();
        let stated = source.components.iter().map(|component| (component, true));
        for (component, is_stated) in stated.chain(source.extra.iter().map(|component| (component, false))) {
            let path = format!("{component}/binary-{}/Packages.xz", arch.debian());
            let Some((digest, size)) = release.files.get(&path) else {
                if !is_stated {
                    continue;
                }
                return Err(ArchiveError::NoIndex {
                    suite: source.suite.clone(),
                    component: component.clone(),
                    arch: arch.debian(),
                    file: source.file.display().to_string(),
                });
            };
            let text = self.index(&root, &path, release.by_hash, *size, digest)?;
            let index =
                |e: IndexError| ArchiveError::Index { what: format!("{root}/{path}"), why: e.to_string() };
            packages.extend(parse(&text, &source.suite).map_err(index)?);
        }
        Ok((release.date, packages))
    }

    fn index(
        &self,
        root: &str,
        path: &str,
        by_hash: bool,
        size: u64,
        digest: &Sha256,
    ) -> Result<String, ArchiveError> {
        let packed = match self.store.get(digest) {
            Some(bytes) => bytes,
            None => {
                // Under its digest an index stays while the archive is being updated.
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let plain = format!("{root}/{path}");
                let url = if by_hash { format!("{root}/{folder}/by-hash/SHA256/{digest}") } else { plain };
                let bytes = self.get(&url, size)?;
                check(&url, &bytes, size, digest)?;
                self.store.put(&bytes)?;
                bytes
            }
        };
        unpacked(&packed, INDEX_LIMIT)
            .map_err(|e| ArchiveError::Index { what: format!("{root}/{path}"), why: e.to_string() })
    }

    fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        let failed = |e: ureq::Error| ArchiveError::Http { url: url.to_owned(), why: e.to_string() };
        let mut response = self.agent.get(url).call().map_err(failed)?;
        let mut bytes = Vec::new();
        // One byte more, so that what is too long is told from what is right.
        let mut body = response.body_mut().as_reader().take(limit + 1);
        match body.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(e) => Err(ArchiveError::Http { url: url.to_owned(), why: e.to_string() }),
        }
    }
}

/// An index is read whole or not at all: what is cut off would be packages that nobody has.
fn unpacked(packed: &[u8], limit: u64) -> std::io::Result<String> {
    let mut text = String::new();
    Limited::new(liblzma::read::XzDecoder::new(packed), limit).read_to_string(&mut text)?;
    Ok(text)
}

fn check(what: &str, bytes: &[u8], size: u64, digest: &Sha256) -> Result<(), ArchiveError> {
    let found = Sha256::of(bytes);
    if bytes.len() as u64 == size && found == *digest {
        return Ok(());
    }
    Err(ArchiveError::Digest {
        what: what.to_owned(),
        expected: format!("{size} bytes with SHA-256 {digest}"),
        found: format!("{} bytes with SHA-256 {found}", bytes.len()),
    })
}

#[cfg(test)]
mod signed;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// What a web server has, by path.
    type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

    fn serve(path: &str, body: &[u8]) -> String {
        serve_all(Arc::new(Mutex::new(BTreeMap::from([(path.to_owned(), body.to_vec())]))))
    }

    /// A web server on a port of its own.
    pub(super) fn serve_all(files: Files) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = first.split(' ').nth(1).unwrap_or_default();
                let found = files.lock().expect("not poisoned").get(path).cloned();
                let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
                let body = found.unwrap_or_default();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = (&stream).write_all(&[head.as_bytes(), &body].concat());
            }
        });
        format!("http://{address}/debian")
    }

    pub(super) fn archive(uri: String, folder: &Path) -> Archive {
        let source = Source {
            uri,
            suite: "s".into(),
            components: vec!["main".into()],
            extra: Vec::new(),
            signed_by: None,
            check_valid_until: true,
            file: "f".into(),
        };
        Archive::new(vec![source], ContentStore::open(folder).expect("a store")).0
    }

    #[test]
    fn a_package_is_what_was_locked_or_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = archive(serve("/debian/pool/x.deb", b"package"), folder.path());
        let right = Sha256::of(b"package");
        let wanted = Wanted { name: "x 1", path: "pool/x.deb", suite: "s", size: 7, sha256: &right };
        let wrong = Sha256::of(b"other");
        let refused = archive.package(Wanted { sha256: &wrong, ..wanted }).expect_err("another digest");
        assert!(matches!(&refused, ArchiveError::Digest { .. }), "{refused}");
        assert!(refused.to_string().contains(&right.to_string()), "{refused}");
        let short = archive.package(Wanted { size: 6, ..wanted }).expect_err("longer than promised");
        assert!(matches!(&short, ArchiveError::Digest { .. }), "{short}");
        assert_eq!(archive.package(wanted).expect("right"), b"package");
        // The second time nothing is asked of the network.
        let gone = Wanted { path: "pool/gone.deb", ..wanted };
        assert_eq!(archive.package(gone).expect("cached"), b"package");
        let gone = archive.package(Wanted { sha256: &wrong, ..gone }).expect_err("gone");
        assert!(gone.to_string().contains("--update"), "{gone}");
    }

    #[test]
    fn an_index_that_unpacks_to_more_than_anybody_needs_is_refused_and_never_cut() {
        let mut packed = Vec::new();
        let zeroes = std::io::repeat(b'\n').take(1 << 20);
        liblzma::read::XzEncoder::new(zeroes, 6).read_to_end(&mut packed).expect("memory");
        assert!(packed.len() < 1000, "{} bytes", packed.len());
        assert_eq!(unpacked(&packed, 1 << 20).expect("fits").len(), 1 << 20);
        let refused = unpacked(&packed, (1 << 20) - 1).expect_err("a byte too many");
        assert!(refused.to_string().contains("larger than allowed"), "{refused}");
        assert!(unpacked(&packed[..packed.len() / 2], 1 << 20).is_err(), "cut off");
    }

    #[test]
    fn an_archive_that_is_not_signed_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let archive = archive(serve("/debian/dists/s/InRelease", b"Origin: Debian\n"), folder.path());
        let refused = archive.universe(Arch::X86_64, Timestamp::UNIX_EPOCH).expect_err("unsigned");
        assert!(matches!(refused, ArchiveError::Release { .. }), "{refused}");
    }
}
