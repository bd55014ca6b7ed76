//! New keys, and the files with which firmware learns them.

use std::str::FromStr as _;
use std::time::Duration;

use der::asn1::UtcTime;
use kiln_model::UnixMillis;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::{Signature, SigningKey};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use rsa::rand_core::{OsRng, RngCore as _};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::builder::{Builder as _, CertificateBuilder, Profile};
use x509_cert::der::EncodePem as _;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};

use super::{SecureBootError, SecureBootKey, failed};

/// Bits of a key: every firmware takes 2048, and few take more.
const BITS: usize = 2048;
/// Firmware does not look at these dates; tools do.
const VALID_DAYS: u64 = 20 * 365;
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`.
const SECURITY_DATABASE: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];
/// `EFI_CERT_X509_GUID`.
const CERT_X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// `EFI_CERT_TYPE_PKCS7_GUID`.
const CERT_PKCS7: [u8; 16] =
    [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// Non-volatile, for boot services and runtime, time-based authenticated.
const ATTRIBUTES: u32 = 0x27;

/// The three keys of a firmware, each with the files that make it known there.
#[derive(Debug)]
pub struct KeySet {
    /// `(file name, content, whether it is secret)`.
    pub files: Vec<(String, Vec<u8>, bool)>,
}

/// Makes the platform key, the key-exchange key and the key that signs images. `owner` is for people: it is in the
/// certificates' names.
pub fn generate(owner: &str, now: UnixMillis) -> Result<KeySet, SecureBootError> {
    let make = |role: &str| new_key(&format!("{owner} {role}"), now);
    let keys =
        [("PK", make("platform key")?), ("KEK", make("key-exchange key")?), ("db", make("image key")?)];
    let [(_, platform), (_, exchange), _] = &keys;
    let mut files = Vec::new();
    for (variable, key) in &keys {
        // The platform key signs itself and the key-exchange key, which signs the list of image keys.
        let (signer, vendor) = match *variable {
            "db" => (exchange, SECURITY_DATABASE),
            _ => (platform, GLOBAL),
        };
        let list = signature_list(key)?;
        let pem = key.key.to_pkcs8_pem(LineEnding::LF).map_err(failed)?;
        let certificate = key.certificate.to_pem(LineEnding::LF).map_err(failed)?;
        files.push((format!("{variable}.key"), pem.as_bytes().to_vec(), true));
        files.push((format!("{variable}.crt"), certificate.into_bytes(), false));
        files.push((format!("{variable}.cer"), key.certificate_der()?, false));
        files.push((
            format!("{variable}.auth"),
            signed_variable(variable, vendor, &list, signer, now)?,
            false,
        ));
        files.push((format!("{variable}.esl"), list, false));
    }
    Ok(KeySet { files })
}

fn new_key(name: &str, now: UnixMillis) -> Result<SecureBootKey, SecureBootError> {
    let key = RsaPrivateKey::new(&mut OsRng, BITS).map_err(failed)?;
    let signer = SigningKey::<rsa::sha2::Sha256>::new(key.clone());
    let spki = SubjectPublicKeyInfoOwned::from_key(key.to_public_key()).map_err(failed)?;
    // A comma would begin another part of the name (RFC 4514).
    let clean: String = name.chars().filter(|c| c.is_alphanumeric() || " -_.".contains(*c)).collect();
    let subject = Name::from_str(&format!("CN={clean}")).map_err(failed)?;
    let mut serial = [0; 16];
    OsRng.fill_bytes(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x01;
    let time = |seconds: u64| {
        UtcTime::from_unix_duration(Duration::from_secs(seconds)).map(Time::UtcTime).map_err(failed)
    };
    let start = now.0 / 1000;
    let validity = Validity { not_before: time(start)?, not_after: time(start + VALID_DAYS * 86_400)? };
    let serial = SerialNumber::new(&serial).map_err(failed)?;
    // Signed by itself and no authority: it signs programs and nothing else, which is what tools check.
    let profile = Profile::Leaf {
        issuer: subject.clone(),
        enable_key_agreement: false,
        enable_key_encipherment: false,
    };
    let builder = CertificateBuilder::new(profile, serial, validity, subject, spki, &signer);
    let certificate = builder.map_err(failed)?.build::<Signature>().map_err(failed)?;
    SecureBootKey::new(key, certificate).map_err(failed)
}

/// `EFI_SIGNATURE_LIST` with one X.509 certificate (UEFI 2.10, section 32.4.1).
fn signature_list(key: &SecureBootKey) -> Result<Vec<u8>, SecureBootError> {
    let der = key.certificate_der()?;
    let size = u32::try_from(der.len() + 16).map_err(failed)?;
    let mut list = CERT_X509.to_vec();
    list.extend((size + 28).to_le_bytes());
    list.extend(0_u32.to_le_bytes());
    list.extend(size.to_le_bytes());
    // SignatureOwner: anything that tells our entries from others; "kiln" and zeros.
    list.extend(*b"nlik\0\0\0\0\0\0\0\0\0\0\0\0");
    list.extend(der);
    Ok(list)
}

/// `EFI_VARIABLE_AUTHENTICATION_2` and the list (UEFI 2.10, section 8.2.2).
fn signed_variable(
    name: &str,
    vendor: [u8; 16],
    list: &[u8],
    signer: &SecureBootKey,
    now: UnixMillis,
) -> Result<Vec<u8>, SecureBootError> {
    let at = jiff::Timestamp::from_second(i64::try_from(now.0 / 1000).map_err(failed)?).map_err(failed)?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    let [year_low, year_high] = at.year().to_le_bytes();
    let parts = [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(i8::unsigned_abs);
    let mut time = vec![year_low, year_high];
    time.extend(parts);
    time.resize(16, 0);
    let mut content: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    content.extend(vendor);
    content.extend(ATTRIBUTES.to_le_bytes());
    content.extend(&time);
    content.extend(list);
    let signature = signer.detached(&content)?;
    let mut variable = time;
    variable.extend(u32::try_from(signature.len() + 24).map_err(failed)?.to_le_bytes());
    // Revision 2.0, WIN_CERT_TYPE_EFI_GUID.
    variable.extend([0x00, 0x02, 0xf1, 0x0e]);
    variable.extend(CERT_PKCS7);
    variable.extend(signature);
    variable.extend(list);
    Ok(variable)
}
