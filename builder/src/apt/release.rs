//! `InRelease`: what an archive vouches for, and its OpenPGP signature (RFC 9580, section 7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kiln_model::Sha256;
use pgp::composed::{CleartextSignedMessage, Deserializable as _, SignedPublicKey};
use pgp::types::KeyDetails as _;

/// Keys that may sign a release.
#[derive(Debug)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
    file: PathBuf,
}

/// The text of an `InRelease` whose signature was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Who publishes it, such as `Debian`.
    pub origin: String,
    /// The suite's lasting name, such as `bookworm-security`.
    pub codename: String,
    /// What the suite is called now, such as `stable-security`; empty when it does not say.
    pub suite: String,
    /// When it was made.
    pub date: Timestamp,
    /// When it stops being valid.
    pub valid_until: Option<Timestamp>,
    /// Whether indices can be fetched under their digest.
    pub by_hash: bool,
    /// Digest and length of each index, by path below the suite.
    pub files: BTreeMap<String, (Sha256, u64)>,
}

/// A release that is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No keyring.
    #[error("cannot read the keyring {file}: {why}; Debian's are in the package debian-archive-keyring")]
    Keyring {
        /// Which.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// Not signed in the open, or not at all.
    #[error("it is no signed text: {0}")]
    NotSigned(String),
    /// Nobody we know signed it, or it was changed.
    #[error("no key of {keyring} signed it (signed by: {signers}); it was changed, or the keyring is old")]
    Signature {
        /// Keyring used.
        keyring: PathBuf,
        /// Ids that the signatures name.
        signers: String,
    },
    /// A field that is missing or wrong.
    #[error("its field `{field}` is missing or wrong")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// Rightly signed, and the release of another suite.
    #[error(
        "it is the release of `{found}`, and `{wanted}` was asked for; somebody may be passing off an old suite \
         as this one"
    )]
    Suite {
        /// The suite that was asked for.
        wanted: String,
        /// What it says it is.
        found: String,
    },
    /// Past its date.
    #[error(
        "it was valid until {valid_until}; somebody may be holding back updates. For a frozen archive, set \
         `Check-Valid-Until: no` at the source"
    )]
    Expired {
        /// Its date.
        valid_until: Timestamp,
    },
}

impl Keyring {
    /// Reads a keyring, binary or ASCII-armoured.
    pub fn load(file: &Path) -> Result<Self, ReleaseError> {
        let refused = |why: String| ReleaseError::Keyring { file: file.to_owned(), why };
        let bytes = std::fs::read(file).map_err(|e| refused(e.to_string()))?;
        Self::parse(&bytes, file).map_err(|e| refused(e.to_string()))
    }

    fn parse(bytes: &[u8], file: &Path) -> pgp::errors::Result<Self> {
        let (found, _) = SignedPublicKey::from_reader_many(std::io::Cursor::new(bytes))?;
        // Certificates of a kind that we cannot read cannot have made a signature we accept.
        let usable = found.flatten().filter(|c| c.details.revocation_signatures.is_empty());
        Ok(Self { certificates: usable.collect(), file: file.to_owned() })
    }

    /// The keys that have not ended by `now`: nobody looks after one that has.
    #[must_use]
    pub fn valid_at(mut self, now: Timestamp) -> Self {
        self.certificates.retain(|certificate| ends(certificate).is_none_or(|end| now.as_second() < end));
        self
    }

    /// The signed text of `bytes`, if one of these keys signed it. What stands outside of the signed
    /// text is not part of the answer.
    pub fn open(&self, bytes: &[u8]) -> Result<String, ReleaseError> {
        let text = std::str::from_utf8(bytes).map_err(|e| ReleaseError::NotSigned(e.to_string()))?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|e| ReleaseError::NotSigned(e.to_string()))?;
        let signed = self.certificates.iter().any(|certificate| {
            message.verify(certificate).is_ok()
                || certificate.public_subkeys.iter().any(|subkey| message.verify(subkey).is_ok())
        });
        if signed {
            return Ok(message.signed_text().replace("\r\n", "\n"));
        }
        let signers: Vec<String> = message
            .signatures()
            .iter()
            .flat_map(|s| s.issuer_key_id().into_iter().map(ToString::to_string))
            .collect();
        Err(ReleaseError::Signature { keyring: self.file.clone(), signers: signers.join(", ") })
    }
}

impl Release {
    /// Reads the text of a release.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let field = |field| ReleaseError::Field { field };
        let document: deb822_fast::Deb822 = text.parse().map_err(|_| field("Codename"))?;
        let paragraph = document.iter().next().ok_or(field("Codename"))?;
        let get = |name: &'static str| paragraph.get(name).map(str::trim).ok_or(field(name));
        let mut files = BTreeMap::new();
        for line in get("SHA256")?.lines().filter(|l| !l.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let (Some(digest), Some(size), Some(path)) = (words.next(), words.next(), words.next()) else {
                return Err(field("SHA256"));
            };
            let digest: Sha256 = digest.parse().map_err(|_| field("SHA256"))?;
            files.insert(path.to_owned(), (digest, size.parse().map_err(|_| field("SHA256"))?));
        }
        let valid_until = paragraph.get("Valid-Until").map(|text| date(text).ok_or(field("Valid-Until")));
        Ok(Self {
            origin: get("Origin")?.to_owned(),
            codename: get("Codename")?.to_owned(),
            suite: paragraph.get("Suite").map(str::trim).unwrap_or_default().to_owned(),
            date: date(get("Date")?).ok_or(field("Date"))?,
            valid_until: valid_until.transpose()?,
            by_hash: paragraph.get("Acquire-By-Hash").is_some_and(|v| v.trim() == "yes"),
            files,
        })
    }

    /// Refuses the release of another suite than `wanted`: Debian has signed those of every suite, and one
    /// that gets no updates any more is as well signed as the newest.
    pub fn check_suite(&self, wanted: &str) -> Result<(), ReleaseError> {
        if !wanted.is_empty() && [&self.codename, &self.suite].into_iter().any(|name| name == wanted) {
            return Ok(());
        }
        Err(ReleaseError::Suite { wanted: wanted.to_owned(), found: self.codename.clone() })
    }

    /// Refuses a release past its date.
    pub fn check_valid(&self, now: Timestamp) -> Result<(), ReleaseError> {
        match self.valid_until {
            Some(valid_until) if valid_until < now => Err(ReleaseError::Expired { valid_until }),
            _ => Ok(()),
        }
    }
}

/// When a certificate ends, in seconds since 1970: its newest signature on itself says (RFC 9580, section
/// 5.2.3.13).
fn ends(certificate: &SignedPublicKey) -> Option<i64> {
    let (id, details) = (certificate.legacy_key_id(), &certificate.details);
    let of_users = details.users.iter().flat_map(|user| &user.signatures);
    let own = of_users.chain(&details.direct_signatures).filter(|s| s.issuer_key_id().contains(&&id));
    let newest = own.max_by_key(|signature| signature.created().map(|at| at.as_secs()))?;
    let seconds = newest.key_expiration_time()?.as_secs();
    (seconds > 0).then(|| i64::from(certificate.created_at().as_secs()) + i64::from(seconds))
}

/// A date as `Release` files have it (RFC 2822, in UTC): `Sat, 15 Nov 2026 10:21:45 UTC`.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.trim().replace("UTC", "+0000");
    jiff::fmt::rfc2822::parse(&text).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nCodename: bookworm\nDate: Sat, 10 Jan 2026 10:21:45 UTC\n\
        Valid-Until: Sat, 17 Jan 2026 10:21:45 UTC\nAcquire-By-Hash: yes\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n";

    #[test]
    fn a_release_says_what_it_vouches_for_and_until_when() {
        let release = Release::parse(TEXT).expect("a release");
        assert!(release.by_hash);
        assert_eq!(release.files["main/binary-amd64/Packages"], (Sha256::of(b""), 0));
        let at = |text: &str| text.parse::<Timestamp>().expect(text);
        assert!(release.check_valid(at("2026-01-17T00:00:00Z")).is_ok());
        assert!(release.check_valid(at("2026-01-18T00:00:00Z")).is_err());
    }

    #[test]
    fn the_release_of_another_suite_is_refused() {
        let release =
            Release::parse(&TEXT.replace("Codename", "Suite: stable\nCodename")).expect("a release");
        for right in ["bookworm", "stable"] {
            release.check_suite(right).expect(right);
        }
        for wrong in ["trixie", "bookworm-security", ""] {
            let refused = release.check_suite(wrong).expect_err(wrong).to_string();
            assert!(refused.contains("the release of `bookworm`"), "{refused}");
        }
        assert!(Release::parse(TEXT).expect("a release").check_suite("").is_err(), "nothing is no name");
    }

    #[test]
    fn a_broken_field_is_named() {
        for (from, to, field) in
            [("Date: Sat", "Date: Foo", "Date"), ("e3b0", "x", "SHA256"), ("Codename", "C", "Codename")]
        {
            let wrong = Release::parse(&TEXT.replace(from, to)).expect_err(field).to_string();
            assert!(wrong.contains(field), "{wrong}");
        }
    }

    #[test]
    fn text_without_a_signature_is_refused() {
        let keyring = Keyring { certificates: Vec::new(), file: "k.gpg".into() };
        assert!(matches!(keyring.open(TEXT.as_bytes()), Err(ReleaseError::NotSigned(_))));
    }

    /// The real thing, as apt has fetched it: what Debian signed is right, and one changed letter is not.
    #[test]
    #[ignore = "needs the lists of `apt-get update`: run by make test, which sees to them"]
    fn debians_own_signature_is_checked() {
        let lists = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
        let found = lists.map(|e| e.path()).find(|p| p.to_string_lossy().ends_with("_bookworm_InRelease"));
        let keyring = Keyring::load(Path::new("/usr/share/keyrings/debian-archive-keyring.gpg"));
        let keyring = keyring.expect("Debian's keyring");
        let file = found.expect("an InRelease of bookworm in apt's lists: run `apt-get update`");
        let bytes = std::fs::read(file).expect("an InRelease");
        let release = Release::parse(&keyring.open(&bytes).expect("signed")).expect("a release");
        assert_eq!((release.origin.as_str(), release.codename.as_str()), ("Debian", "bookworm"));
        let changed = String::from_utf8(bytes).expect("text").replacen("Origin: Debian", "Origin: Debiam", 1);
        assert!(matches!(keyring.open(changed.as_bytes()), Err(ReleaseError::Signature { .. })));
    }
}
