//! What a spec calls an image: `dir:PATH[:TAG]` or `docker://REGISTRY/NAME[:TAG][@sha256:DIGEST]`.

use std::fmt;
use std::str::FromStr;

use kiln_model::Sha256;
use serde::Deserialize;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Reference {
    /// An OCI image layout.
    Layout {
        /// Its folder, relative to the spec.
        path: String,
        /// Which of its images (`org.opencontainers.image.ref.name`); none when it has one.
        tag: Option<String>,
    },
    /// A registry.
    Registry {
        /// Host, and perhaps port.
        host: String,
        /// Repository.
        name: String,
        /// Tag.
        tag: Option<String>,
        /// Digest of the manifest or index; it is believed instead of the tag.
        digest: Option<Sha256>,
    },
}

/// Text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no OCI image: `dir:PATH`, `dir:PATH:TAG`, `docker://REGISTRY/NAME:TAG` or \
     `docker://REGISTRY/NAME@sha256:DIGEST` is wanted"
)]
pub struct ReferenceError(String);

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refused = || ReferenceError(text.chars().take(200).collect());
        let parsed = match (text.strip_prefix("dir:"), text.strip_prefix("docker://")) {
            (Some(rest), _) => layout(rest),
            (_, Some(rest)) => registry(rest),
            _ => None,
        };
        parsed.ok_or_else(refused)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { path, tag } => {
                write!(f, "dir:{path}")?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))
            }
            Self::Registry { host, name, tag, digest } => {
                write!(f, "docker://{host}/{name}")?;
                tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
                digest.iter().try_for_each(|digest| write!(f, "@sha256:{digest}"))
            }
        }
    }
}

fn layout(rest: &str) -> Option<Reference> {
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let right = !path.is_empty() && !path.contains(['\0', ':']) && tag.is_none_or(is_tag);
    right.then(|| Reference::Layout { path: path.to_owned(), tag: tag.map(str::to_owned) })
}

fn registry(rest: &str) -> Option<Reference> {
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.strip_prefix("sha256:")?.parse().ok()?)),
        None => (rest, None),
    };
    let (host, path) = rest.split_once('/')?;
    let (name, tag) = match path.rsplit_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (path, None),
    };
    let host_is_right =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    // Distribution specification 1.1, "Pulling manifests".
    let part = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        edge(part.bytes().next()) && edge(part.bytes().next_back()) && part.bytes().all(inside)
    };
    let right = host_is_right
        && name.len() <= 255
        && name.split('/').all(part)
        && tag.is_none_or(is_tag)
        && (tag.is_some() || digest.is_some());
    right.then(|| Reference::Registry {
        host: host.to_owned(),
        name: name.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

fn is_tag(tag: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(first)
        && tag.bytes().all(|b| first(b) || b".-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reference_comes_back_as_it_was_written() {
        let digest = Sha256::of(b"");
        for text in [
            "dir:../layouts/x",
            "dir:/srv/x:1.2",
            "docker://registry.example/team/x:1.2",
            &format!("docker://127.0.0.1:5000/x:1@sha256:{digest}"),
            &format!("docker://registry.example/x@sha256:{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            "x",
            "dir:",
            "dir:a:b:c",
            "docker://x",
            "docker://registry.example/x",
            "docker://registry.example/../x:1",
            "docker://registry.example/X:1",
            "docker://a b/x:1",
            "docker://registry.example/x@md5:00",
            "docker://registry.example/x:1?y",
        ] {
            let wrong = text.parse::<Reference>().expect_err(text).to_string();
            assert!(wrong.contains("docker://REGISTRY/NAME:TAG"), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_read_is_what_was_written(text in "(dir:|docker://)?[a-z0-9:/@._-]{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
