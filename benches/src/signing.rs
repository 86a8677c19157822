//! What the digest of a component version and a signature cost.

use std::process::{Command, Stdio};

use ocm_specs::Algorithm;
use ocm_specs::Digest;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::normalisation::Normalisation;
use ocm_transformers::signing::{PrivateKey, SignatureAlgorithm};
use serde_json::{Value, json};

use crate::child::{Job, cpu_of};
use crate::figures::least;
use crate::report::Report;
use crate::{Result, Sizes};

const RATIO: &str = "sign.ratio";

/// Signatures per round.
const SIGNATURES: u32 = 20;

/// Measures `normalise.*`.
pub(crate) fn measure_normalise(sizes: Sizes, report: &mut Report) -> Result<()> {
    let (resources, rounds) = (sizes.of(1_000, 100), sizes.of(20, 2));
    let sample = Job::Normalise { resources, rounds }.measure()?;
    report.put("normalise.ms.1000", sample.cpu * 1e3);
    Ok(())
}

/// Measures `sign.ratio`, if the other one is here.
pub(crate) fn measure_sign(sizes: Sizes, report: &mut Report) -> Result<()> {
    let seconds = sizes.of(3, 1);
    let Some(theirs) = openssl(seconds)? else {
        report.leave_out(RATIO, "openssl is not installed");
        return Ok(());
    };
    let rounds = sizes.of(10, 1);
    let ours = Job::Sign { rounds }.measure()?.cpu;
    report.put(RATIO, ours / theirs);
    report.note(
        RATIO,
        format!("{:.2} ms against {:.2} ms", ours * 1e3, theirs * 1e3),
    );
    Ok(())
}

/// CPU seconds from a descriptor that was read to its digest: the least of `rounds`.
pub(crate) fn normalise(resources: usize, rounds: usize) -> Result<f64> {
    let list: Vec<Value> = (0..resources).map(resource).collect();
    let descriptor = ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": "acme.org/app", "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "resources": list, "sources": [], "componentReferences": [],
        },
    }))?;
    let times = (0..rounds).map(|_| {
        let (cpu, digest) = cpu_of(|| {
            Normalisation::V4Alpha1.digest(std::hint::black_box(&descriptor), Algorithm::Sha256)
        });
        std::hint::black_box(digest);
        cpu
    });
    Ok(least(times))
}

fn resource(number: usize) -> Value {
    let digest = Digest::sha256(number.to_string().as_bytes());
    json!({
        "name": format!("image-{number}"), "version": "1.0.0", "type": "ociImage", "relation": "external",
        "extraIdentity": {"os": "linux", "architecture": "amd64"},
        "labels": [{"name": "acme.org/team", "value": {"name": "core", "tier": 1}, "signing": true}],
        "access": {"type": "ociArtifact", "imageReference": format!("ghcr.io/acme/image-{number}:1.0.0@{digest}")},
        "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "ociArtifactDigest/v1", "value": digest.hex()},
    })
}

/// CPU seconds of one signature by a key of 4096 bits: the least of `rounds`.
pub(crate) fn sign(rounds: usize) -> Result<f64> {
    let made = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:4096",
        ])
        .stderr(Stdio::null())
        .output()?;
    let key = PrivateKey::from_pem(std::str::from_utf8(&made.stdout)?)?;
    let digest = Digest::sha256(b"what is signed");
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (cpu, signed) = cpu_of(|| {
            (0..SIGNATURES).try_for_each(|_| {
                key.sign(SignatureAlgorithm::Pkcs1V15, &digest)
                    .map(|bytes| {
                        std::hint::black_box(bytes);
                    })
            })
        });
        signed?;
        times.push(cpu / f64::from(SIGNATURES));
    }
    Ok(least(times))
}

/// CPU seconds of one signature, as `openssl speed` tells; `None` where it is not installed.
fn openssl(seconds: u32) -> Result<Option<f64>> {
    let run = Command::new("openssl")
        .args(["speed", "-seconds", &seconds.to_string(), "rsa4096"])
        .stderr(Stdio::null())
        .output();
    let Ok(output) = run else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = parse(&text).ok_or_else(|| format!("`openssl speed` says no time: {text}"))?;
    Ok(Some(found))
}

/// The time of a signature in `rsa 4096 bits 0.004s 0.0001s …`.
fn parse(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("rsa") && line.contains("4096 bits"))?;
    let (_, numbers) = line.split_once("bits")?;
    numbers
        .split_whitespace()
        .next()?
        .strip_suffix('s')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_signature_is_the_first_number() {
        let text = "version: 3\n                  sign    verify\nrsa  4096 bits 0.005210s 0.000080s    191.9  12500.0\n";
        assert_eq!(parse(text), Some(0.00521));
        assert_eq!(parse("nothing"), None);
    }
}
