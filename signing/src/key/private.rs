//! The half of a key that signs.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey};
use kiln_model::Format;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::{KeyError, KeyId, PublicKey};

/// A private key. Its memory is wiped when it is dropped; it is never shown.
///
/// Its file (`keys/<role>.json`, mode 0600) is
/// `{"format":1,"keyid":"…","keytype":"ed25519","public":"…","private":"…"}`.
pub struct PrivateKey {
    key: SigningKey,
    public: PublicKey,
}

impl PrivateKey {
    /// A new key from the kernel's random numbers.
    ///
    /// # Errors
    /// The kernel gave none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|e| KeyError::Random(e.to_string()))?;
        Self::from_seed(&seed)
    }

    /// The key of a seed (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// Never for a seed of random bytes; the public half is checked like any other.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = SigningKey::from_bytes(seed);
        let public = PublicKey::from_bytes(key.verifying_key().as_bytes())?;
        Ok(Self { key, public })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Anything but a key file of a known format whose halves and id belong together.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let what = "a Kiln key file";
        // The parser's own message could repeat the secret.
        let file: KeyFile = serde_json::from_str(text).map_err(|e| KeyError::File {
            what,
            line: e.line(),
            why: "`format` 1, `keyid`, `keytype`, `public` and `private` are wanted",
        })?;
        let refused = |why| KeyError::File { what, line: 1, why };
        if file.keytype != "ed25519" {
            return Err(KeyError::Algorithm { keytype: file.keytype.clone(), scheme: file.keytype.clone() });
        }
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(file.private.as_bytes(), seed.as_mut())
            .map_err(|_| refused("`private` must be 64 hex digits"))?;
        let key = Self::from_seed(&seed)?;
        if key.public.to_hex() != file.public || key.public.id() != file.keyid {
            return Err(refused("`public`, `private` and `keyid` do not belong together"));
        }
        Ok(key)
    }

    /// Writes a key file.
    pub fn to_json(&self) -> Zeroizing<String> {
        let file = KeyFile {
            format: Format,
            keyid: self.public.id(),
            keytype: "ed25519".to_owned(),
            public: self.public.to_hex(),
            private: hex::encode(Zeroizing::new(self.key.to_bytes()).as_ref()),
        };
        let mut text = serde_json::to_string_pretty(&file).unwrap_or_default();
        text.push('\n');
        Zeroizing::new(text)
    }

    /// The half that verifies.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`. The same message always gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.id().short())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: Format<1>,
    keyid: KeyId,
    keytype: String,
    public: String,
    private: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}
