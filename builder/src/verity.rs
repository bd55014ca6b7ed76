//! dm-verity: a hash tree that follows a file system in the same file.
//!
//! Version 1 of the kernel's format (`Documentation/admin-guide/device-mapper/verity.rst`): SHA-256,
//! 4096-byte data and hash blocks, salt before data, no superblock. The salt is derived from the
//! content, so that sealing is deterministic and still no two file systems share one.

use std::num::NonZeroUsize;

use kiln_model::Sha256;
use kiln_model::manifest::Verity;
use sha2::Digest as _;

const BLOCK: usize = Verity::BLOCK as usize;
const HASH: usize = 32;
/// Sets the salt apart from any other digest of the same bytes.
const SALT_DOMAIN: &[u8] = b"kiln dm-verity salt\0";

/// A file system with its hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The file system, zero-padded to 4096 bytes, then the hash tree, top level first.
    pub bytes: Vec<u8>,
    /// What a box needs to mount it.
    pub verity: Verity,
}

/// Appends the hash tree of `file_system` to it, with a salt derived from its digest.
pub fn seal(file_system: Vec<u8>) -> Sealed {
    let mut derived = sha2::Sha256::new_with_prefix(SALT_DOMAIN);
    derived.update(sha2::Sha256::digest(&file_system));
    seal_with_salt(file_system, Sha256::from_bytes(derived.finalize().into()))
}

fn seal_with_salt(file_system: Vec<u8>, salt: Sha256) -> Sealed {
    let mut bytes = file_system;
    bytes.resize(bytes.len().next_multiple_of(BLOCK).max(BLOCK), 0);
    let data_blocks = (bytes.len() / BLOCK) as u64;

    // From the data upwards, until one hash is left; that of a single data block needs no level.
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut hashes = hash_blocks(&bytes, salt);
    while hashes.len() > HASH {
        hashes.resize(hashes.len().next_multiple_of(BLOCK), 0);
        let above = hash_blocks(&hashes, salt);
        levels.push(std::mem::replace(&mut hashes, above));
    }
    for level in levels.iter().rev() {
        bytes.extend_from_slice(level);
    }
    let mut root = [0; HASH];
    root.copy_from_slice(&hashes);
    Sealed { bytes, verity: Verity { root_hash: Sha256::from_bytes(root), salt, data_blocks } }
}

/// The hashes of all blocks, one after another. Parts of `blocks` are hashed by as many threads as
/// there are processors.
fn hash_blocks(blocks: &[u8], salt: Sha256) -> Vec<u8> {
    let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).get();
    let share = (blocks.len() / BLOCK).div_ceil(workers).max(1) * BLOCK;
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let hash = |part: &[u8]| part.chunks(BLOCK).flat_map(|block| hash_block(block, salt)).collect();
        let threads: Vec<_> = blocks.chunks(share).map(|part| scope.spawn(move || hash(part))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
            .collect()
    });
    parts.concat()
}

fn hash_block(block: &[u8], salt: Sha256) -> [u8; HASH] {
    sha2::Sha256::new_with_prefix(salt.as_bytes()).chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Lengths whose trees have no, one and two levels, full and just begun.
    const BLOCKS: [usize; 7] = [1, 2, 127, 128, 129, 300, 128 * 128 + 1];

    fn content(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|at| ((at / 7) ^ (at >> 12)) as u8).collect()
    }

    fn veritysetup(arguments: &[String]) -> (bool, String) {
        let output = Command::new("/usr/sbin/veritysetup").args(arguments).output();
        let output = output.expect("Debian's cryptsetup-bin is installed");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn arguments(verb: &str, path: &str, sealed: &Sealed, blocks: usize) -> Vec<String> {
        let mut arguments: Vec<String> = [verb, path, path].map(str::to_owned).to_vec();
        if verb == "verify" {
            arguments.push(sealed.verity.root_hash.to_string());
        }
        arguments.extend(
            [
                "--no-superblock",
                "--format=1",
                "--hash=sha256",
                "--data-block-size=4096",
                "--hash-block-size=4096",
            ]
            .map(str::to_owned),
        );
        arguments.push(format!("--salt={}", sealed.verity.salt));
        arguments.push(format!("--data-blocks={blocks}"));
        arguments.push(format!("--hash-offset={}", blocks * BLOCK));
        arguments
    }

    #[test]
    fn veritysetup_makes_the_same_tree_and_verifies_ours() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("image");
        let name = path.to_str().expect("text");
        for blocks in BLOCKS {
            let data = content(blocks);
            let sealed = seal(data.clone());
            assert_eq!(sealed.verity.data_blocks, blocks as u64);

            std::fs::write(&path, &data).expect("writable");
            let (made, text) = veritysetup(&arguments("format", name, &sealed, blocks));
            assert!(made && text.contains(&sealed.verity.root_hash.to_string()), "{blocks} blocks: {text}");
            let mut theirs = std::fs::read(&path).expect("readable");
            theirs.resize(sealed.bytes.len().max(theirs.len()), 0);
            assert!(theirs == sealed.bytes, "the tree over {blocks} blocks differs");

            std::fs::write(&path, &sealed.bytes).expect("writable");
            assert!(veritysetup(&arguments("verify", name, &sealed, blocks)).0, "{blocks} blocks");
            let mut forged = sealed.bytes.clone();
            forged[blocks * BLOCK - 1] ^= 1;
            std::fs::write(&path, &forged).expect("writable");
            assert!(!veritysetup(&arguments("verify", name, &sealed, blocks)).0, "{blocks} blocks, forged");
        }
    }

    #[test]
    fn sealing_pads_and_depends_on_nothing_but_the_bytes() {
        let sealed = seal(b"short".to_vec());
        assert_eq!((sealed.bytes.len(), sealed.verity.data_blocks), (BLOCK, 1));
        assert_eq!(seal(Vec::new()).verity.data_blocks, 1);
        let (once, again) = (seal(content(300)), seal(content(300)));
        assert_eq!(once, again);
        let other = seal(content(301));
        assert!(once.verity.salt != other.verity.salt && once.verity.root_hash != other.verity.root_hash);
    }
}
