//! Certificates that come with signatures (formats.md 7.4): who vouches for a key.
//!
//! *Invariant*: trust starts at certificates that were configured. None of a signature is an anchor, and the system's
//! roots, which vouch for web servers, count for nothing here.

use std::time::{Duration, SystemTime};

use ocm_content::Error;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::rsa::PublicKey;

/// Extended key usage "code signing", 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

/// The key in a certificate; says nothing about trust.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] for what is no certificate of version 3, or holds another kind of key.
pub(super) fn key(der: &[u8]) -> Result<PublicKey, Error> {
    let der = CertificateDer::from(der);
    let parsed = parse(&der)?;
    PublicKey::from_der(parsed.subject_public_key_info().as_ref())
}

/// Does a certificate name itself as its issuer?
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] for what is no certificate.
pub(super) fn is_self_signed(der: &[u8]) -> Result<bool, Error> {
    let der = CertificateDer::from(der);
    let parsed = parse(&der)?;
    Ok(parsed.issuer() == parsed.subject())
}

/// The key of the first certificate of a signature's `chain`, if it leads to one of `given` and is good for signing code
/// at `now`. Of the given certificates, self-signed ones are anchors and the others help to get there.
///
/// # Errors
/// [`ocm_content::ErrorKind::Mismatch`] with the reason.
pub(super) fn verified_key(
    chain: &[Vec<u8>],
    given: &[Vec<u8>],
    now: SystemTime,
) -> Result<PublicKey, Error> {
    let distrust = |why: String| Error::mismatch(format!("the signature's certificate: {why}"));
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or_else(|| distrust("there is none".to_owned()))?;
    for embedded in chain {
        if is_self_signed(embedded)? && !given.contains(embedded) {
            return Err(distrust(
                "it is self-signed, or comes with a root of its own".to_owned(),
            ));
        }
    }
    let mut anchors = Vec::new();
    let mut others: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let given: Vec<CertificateDer<'_>> = given
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    for certificate in &given {
        if is_self_signed(certificate)? {
            let anchor = anchor_from_trusted_cert(certificate);
            anchors.push(anchor.map_err(|why| Error::invalid(format!("root certificate: {why}")))?);
        } else {
            others.push(certificate.clone());
        }
    }
    if anchors.is_empty() {
        return Err(distrust("no root certificate is configured".to_owned())
            .with_hint("give the root's certificate with --ca-cert"));
    }
    let der = CertificateDer::from(leaf.as_slice());
    let parsed = parse(&der)?;
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    parsed
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &anchors,
            &others,
            UnixTime::since_unix_epoch(since),
            KeyUsage::required_if_present(CODE_SIGNING),
            None,
            None,
        )
        .map_err(|why| distrust(reason(&why)))?;
    key(leaf)
}

/// What is wrong with a chain, for people.
fn reason(why: &webpki::Error) -> String {
    match why {
        webpki::Error::UnknownIssuer => "it does not lead to a root that is configured".to_owned(),
        webpki::Error::CertExpired { .. } => "it, or one that it leads to, has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "it is not valid yet".to_owned(),
        webpki::Error::RequiredEkuNotFoundContext(_) => "it is not for signing code".to_owned(),
        other => other.to_string(),
    }
}

fn parse<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, Error> {
    EndEntityCert::try_from(der).map_err(|why| Error::invalid(format!("bad certificate: {why}")))
}
