//! Secure Boot: an RSA key with its certificate signs programs (Authenticode) and firmware variables
//! (UEFI 2.10, section 8.2.2).
//!
//! Signatures carry no time, and PKCS #1 v1.5 takes no random number: the same program and key give the same bytes.

use std::path::{Path, PathBuf};

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode as _, DecodePem as _, Encode as _, Tag};
use kiln_model::Sha256;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
use rsa::traits::PublicKeyParts as _;
use spki::{AlgorithmIdentifierOwned, EncodePublicKey as _};
use x509_cert::Certificate;
use x509_cert::attr::Attribute;

mod enroll;

pub use enroll::{KeySet, generate};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SPC_INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");

/// `SpcIndirectDataContent` without its outer tag and without the digest that ends it: an
/// `SpcPeImageData` with no flags and an empty file name, and a `DigestInfo` of SHA-256.
const SPC_PREFIX: &[u8] = &[
    0x30, 0x17, // SpcAttributeTypeAndOptionalValue
    0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0f, // SPC_PE_IMAGE_DATA
    0x30, 0x09, 0x03, 0x01, 0x00, 0xa0, 0x04, 0xa2, 0x02, 0x80, 0x00, // no flags, empty SpcLink
    0x30, 0x31, 0x30, 0x0d, // DigestInfo
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, // SHA-256
    0x04, 0x20, // the digest
];

/// A key that cannot be used, or a signature that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SecureBootError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        problem: String,
    },
    /// No key or signature could be made: no random numbers, or a bug.
    #[error("Secure Boot: {0}")]
    Failed(String),
}

/// A private RSA key with the certificate that firmware knows it by.
#[derive(Debug, Clone)]
pub struct SecureBootKey {
    key: RsaPrivateKey,
    certificate: Certificate,
}

impl SecureBootKey {
    /// Reads key (PKCS #8, PEM) and certificate (X.509, PEM or DER).
    pub fn load(key: &Path, certificate: &Path) -> Result<Self, SecureBootError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| SecureBootError::Io { path: path.to_owned(), source })
        };
        let (key_bytes, certificate_bytes) = (zeroize::Zeroizing::new(read(key)?), read(certificate)?);
        let wrong = |path: &Path, problem: &str| SecureBootError::Invalid {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let parsed = std::str::from_utf8(&key_bytes).ok().and_then(|t| RsaPrivateKey::from_pkcs8_pem(t).ok());
        let parsed = parsed.ok_or_else(|| {
            wrong(key, "this is not an RSA key in PKCS #8 (`-----BEGIN PRIVATE KEY-----`) without a password; `kiln key new secure-boot` makes one")
        })?;
        let cert = Certificate::from_pem(&certificate_bytes)
            .or_else(|_| Certificate::from_der(&certificate_bytes))
            .map_err(|e| wrong(certificate, &format!("this is not an X.509 certificate: {e}")))?;
        Self::new(parsed, cert).map_err(|problem| wrong(certificate, &problem))
    }

    fn new(key: RsaPrivateKey, certificate: Certificate) -> Result<Self, String> {
        if key.size() < 256 {
            return Err("the key has fewer than 2048 bits, and firmware refuses those".to_owned());
        }
        let public = key.to_public_key().to_public_key_der().map_err(|e| e.to_string())?;
        let stated = certificate.tbs_certificate.subject_public_key_info.to_der();
        if stated.is_ok_and(|stated| stated == public.as_bytes()) {
            return Ok(Self { key, certificate });
        }
        Err("this certificate is not the one of that private key".to_owned())
    }

    /// The certificate, DER: what goes into the firmware's `db`.
    pub fn certificate_der(&self) -> Result<Vec<u8>, SecureBootError> {
        self.certificate.to_der().map_err(failed)
    }

    /// A PKCS #7 signature over a program's digest (Authenticode, "PKCS #7 SignedData").
    pub fn authenticode(&self, digest: Sha256) -> Result<Vec<u8>, SecureBootError> {
        let content = [SPC_PREFIX, digest.as_bytes()].concat();
        let attributes = [
            attribute(CONTENT_TYPE, Any::encode_from(&SPC_INDIRECT_DATA))?,
            attribute(MESSAGE_DIGEST, Any::new(Tag::OctetString, *Sha256::of(&content).as_bytes()))?,
        ];
        let attributes = SetOfVec::try_from(attributes.to_vec()).map_err(failed)?;
        let signature = self.sign(&attributes.to_der().map_err(failed)?)?;
        let content = EncapsulatedContentInfo {
            econtent_type: SPC_INDIRECT_DATA,
            econtent: Some(Any::new(Tag::Sequence, content).map_err(failed)?),
        };
        let signed = self.signed_data(content, Some(attributes), signature)?;
        let content = Any::encode_from(&signed).map_err(failed)?;
        ContentInfo { content_type: SIGNED_DATA, content }.to_der().map_err(failed)
    }

    /// A detached PKCS #7 `SignedData` over bytes, without attributes, as firmware variables want it.
    fn detached(&self, bytes: &[u8]) -> Result<Vec<u8>, SecureBootError> {
        let signature = self.sign(bytes)?;
        let content = EncapsulatedContentInfo { econtent_type: DATA, econtent: None };
        self.signed_data(content, None, signature)?.to_der().map_err(failed)
    }

    /// PKCS #1 v1.5 with SHA-256. The random numbers blind the arithmetic; the result is the same each time.
    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SecureBootError> {
        let signer = SigningKey::<rsa::sha2::Sha256>::new(self.key.clone());
        let signature = signer.try_sign_with_rng(&mut rsa::rand_core::OsRng, bytes).map_err(failed)?;
        Ok(signature.to_vec())
    }

    fn signed_data(
        &self,
        content: EncapsulatedContentInfo,
        signed_attrs: Option<SetOfVec<Attribute>>,
        signature: Vec<u8>,
    ) -> Result<SignedData, SecureBootError> {
        let null = |oid| AlgorithmIdentifierOwned { oid, parameters: Some(Any::null()) };
        let tbs = &self.certificate.tbs_certificate;
        let signer = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: tbs.issuer.clone(),
                serial_number: tbs.serial_number.clone(),
            }),
            digest_alg: null(SHA_256),
            signed_attrs,
            signature_algorithm: null(RSA_ENCRYPTION),
            signature: OctetString::new(signature).map_err(failed)?,
            unsigned_attrs: None,
        };
        let certificates = vec![CertificateChoices::Certificate(self.certificate.clone())];
        Ok(SignedData {
            version: CmsVersion::V1,
            digest_algorithms: SetOfVec::try_from(vec![null(SHA_256)]).map_err(failed)?,
            encap_content_info: content,
            certificates: Some(CertificateSet(SetOfVec::try_from(certificates).map_err(failed)?)),
            crls: None,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![signer]).map_err(failed)?),
        })
    }
}

fn attribute(oid: ObjectIdentifier, value: der::Result<Any>) -> Result<Attribute, SecureBootError> {
    let values = SetOfVec::try_from(vec![value.map_err(failed)?]).map_err(failed)?;
    Ok(Attribute { oid, values })
}

fn failed(error: impl std::fmt::Display) -> SecureBootError {
    SecureBootError::Failed(error.to_string())
}
