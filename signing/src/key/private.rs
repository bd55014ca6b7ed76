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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        // Section 7.1, test 2.
        let seed: [u8; 32] = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
            .expect("hex")
            .try_into()
            .expect("32 bytes");
        let key = PrivateKey::from_seed(&seed).expect("a key");
        let signature = key.sign(&[0x72]);
        assert_eq!(
            hex::encode(signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(key.public().verifies(&[0x72], &signature));
        assert!(!key.public().verifies(&[0x73], &signature));
    }

    #[test]
    fn a_key_file_is_read_as_it_was_written() {
        let key = PrivateKey::generate().expect("a key");
        let again = PrivateKey::from_json(&key.to_json()).expect("the same key");
        assert_eq!(again.public(), key.public());
        assert_eq!(again.sign(b"x"), key.sign(b"x"));
    }

    #[test]
    fn a_wrong_key_file_is_refused_without_telling_the_secret() {
        let (one, two) = (PrivateKey::from_seed(&[1; 32]), PrivateKey::from_seed(&[2; 32]));
        let (one, two) = (one.expect("a key"), two.expect("a key"));
        let text = one.to_json();
        let secret = "01".repeat(32);
        assert!(text.contains(&secret));
        let other_id = two.public().id().to_string();
        let changed = [
            text.replace(&one.public().id().to_string(), &other_id),
            text.replace(&one.public().to_hex(), &two.public().to_hex()),
            text.replace("\"keytype\": \"ed25519\"", "\"keytype\": \"rsa\""),
            text.replace("\"format\": 1", "\"format\": 9"),
            text.replace(&secret, &format!("{secret}01")),
            text.replace("\"private\":", "\"privat\":"),
            text.replace(&format!("\"{secret}\""), &format!("[\"{secret}\"]")),
            secret.clone(),
        ];
        for text in changed {
            let error = PrivateKey::from_json(&text).map(drop).expect_err(&text);
            assert!(!error.to_string().contains(&secret[..8]), "{error}");
        }
        assert!(!format!("{one:?}").contains(&secret[..8]));
    }
}
