//! `ocm verify component-version`: do signatures hold, and with `--deep`, is everything they stand for there and right?
//!
//! *Invariant*: a zero exit means that every signature that was asked for was verified, at least one; what was not looked
//! at is part of the result.

use std::fmt::Write as _;
use std::time::SystemTime;

use ocm_content::ErrorKind;
use ocm_repository::{ComponentVersion, Resolver, Session};
use ocm_transformers::signing::{
    Closure, ContentCheck, ContentState, DigestOptions, SignatureCheck, SignatureState,
    algorithm_of, check, check_content, gaps, select,
};
use serde::Serialize;

use crate::args::{ResultFormat, VerifyArgs};
use crate::commands::hash::read;
use crate::commands::keys::Keys;
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// The result as a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    api_version: &'static str,
    component: String,
    version: String,
    verified: bool,
    signatures: Vec<SignatureCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deep: Option<Deep>,
    not_checked: Vec<String>,
}

/// What `--deep` adds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Deep {
    /// Component versions whose digests hold, children first.
    versions: Vec<String>,
    /// Why the closure is not what it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    closure_error: Option<String>,
    resources: Vec<ContentCheck>,
}

/// Verifies and prints what came of it.
pub(crate) async fn component_version(args: VerifyArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let keys = Keys::new(ui, &[], &args.public_key, &args.ca_cert)?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let version = read(&session, &resolver, &args.reference).await?;
    let signatures = signatures(&args, &keys, &session, &resolver, &version).await?;
    let mut not_checked = Vec::new();
    let deep = if args.deep {
        Some(deep(&session, &resolver, &version).await?)
    } else {
        not_checked.push("the bytes of resources (--deep checks them)".to_owned());
        if version.descriptor.references().len() > 0 {
            not_checked.push("referenced component versions (--deep checks them)".to_owned());
        }
        None
    };
    not_checked.push("sources: descriptors have no digests of them".to_owned());
    let result = Verification {
        api_version: "ocm.software/verification/v1alpha1",
        component: version.descriptor.name().to_owned(),
        version: version.descriptor.version().to_owned(),
        verified: reasons(&args, &signatures, deep.as_ref()).is_empty(),
        signatures,
        deep,
        not_checked,
    };
    ui.data(&match args.output {
        ResultFormat::Text => text(&result),
        ResultFormat::Json => serde_json::to_string_pretty(&result).unwrap_or_default() + "\n",
    })?;
    let reasons = reasons(&args, &result.signatures, result.deep.as_ref());
    if reasons.is_empty() {
        return Ok(());
    }
    let message = format!(
        "verification of {}:{} failed: {}",
        result.component,
        result.version,
        reasons.join("; ")
    );
    Err(CliError::new(ExitCode::Verification, message))
}

async fn signatures(
    args: &VerifyArgs,
    keys: &Keys,
    session: &Session,
    resolver: &Resolver,
    version: &ComponentVersion,
) -> Result<Vec<SignatureCheck>, CliError> {
    let stored = &version.descriptor;
    let selected = select(stored, &args.signature)?;
    let mut completed = None;
    let mut checks = Vec::new();
    for signature in selected {
        let material = match algorithm_of(&signature) {
            Some(algorithm) => Some(keys.public(signature.name(), algorithm)?),
            None => None,
        };
        let now = SystemTime::now();
        let mut found = check(stored, None, &signature, material.as_ref(), now);
        let is_incomplete = !gaps(stored).is_empty() && stored.references().len() > 0;
        if found.state == SignatureState::Invalid && is_incomplete {
            // It may stand on digests of references that were never stored.
            if completed.is_none() {
                let options = DigestOptions::default();
                let closure = Closure::read(session, version.clone(), resolver, options).await;
                completed = closure
                    .ok()
                    .map(|closure| closure.root().descriptor.clone());
            }
            found = check(
                stored,
                completed.as_ref(),
                &signature,
                material.as_ref(),
                now,
            );
        }
        checks.push(found);
    }
    Ok(checks)
}

async fn deep(
    session: &Session,
    resolver: &Resolver,
    version: &ComponentVersion,
) -> Result<Deep, CliError> {
    let options = DigestOptions::default();
    let mut result = Deep::default();
    let closure = match Closure::read(session, version.clone(), resolver, options).await {
        Ok(closure) => closure,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Mismatch | ErrorKind::NotFound | ErrorKind::Invalid
            ) =>
        {
            result.closure_error = Some(error.to_string());
            return Ok(result);
        }
        Err(error) => return Err(error.into()),
    };
    for member in closure.members() {
        result.versions.push(member.name());
        for resource in member.version.descriptor.resources() {
            result
                .resources
                .push(check_content(session, &member.version, &resource).await);
        }
    }
    Ok(result)
}

/// All that keeps the result from being good.
fn reasons(args: &VerifyArgs, signatures: &[SignatureCheck], deep: Option<&Deep>) -> Vec<String> {
    let mut reasons = Vec::new();
    for one in signatures {
        let is_wanted = !args.signature.is_empty();
        let why = one.reason.as_deref().unwrap_or_default();
        match one.state {
            SignatureState::Valid => {}
            SignatureState::NotChecked if !is_wanted => {}
            _ => reasons.push(format!("signature `{}`: {why}", one.name)),
        }
    }
    let is_any_valid = signatures
        .iter()
        .any(|it| it.state == SignatureState::Valid);
    if reasons.is_empty() && !is_any_valid {
        reasons.push("no signature could be verified".to_owned());
    }
    if let Some(deep) = deep {
        reasons.extend(deep.closure_error.clone());
        let bad = deep
            .resources
            .iter()
            .filter(|it| matches!(it.state, ContentState::Mismatch | ContentState::Unreadable));
        reasons.extend(bad.map(|it| {
            let why = it.reason.as_deref().unwrap_or_default();
            format!("{} resource `{}`: {why}", it.component, it.resource)
        }));
    }
    reasons
}

fn text(result: &Verification) -> String {
    let mut out = format!("{}:{}\n", result.component, result.version);
    for one in &result.signatures {
        let state = match one.state {
            SignatureState::Valid => "valid",
            SignatureState::NotChecked => "not checked",
            _ => "NOT VALID",
        };
        let by = one.digest.as_ref().map_or_else(String::new, |digest| {
            format!(
                ", {}, {}",
                digest.normalisation_algorithm, digest.hash_algorithm
            )
        });
        let _ = writeln!(
            out,
            "  signature {}: {state} ({}{by})",
            one.name, one.algorithm
        );
        if let Some(reason) = &one.reason {
            let _ = writeln!(out, "    {reason}");
        }
        for note in &one.not_checked {
            let _ = writeln!(out, "    not checked: {note}");
        }
    }
    if let Some(deep) = &result.deep {
        if let Some(error) = &deep.closure_error {
            let _ = writeln!(out, "  references: NOT VALID\n    {error}");
        }
        for version in &deep.versions {
            let _ = writeln!(
                out,
                "  component version {version}: digests of its references hold"
            );
        }
        for one in &deep.resources {
            let state = match one.state {
                ContentState::Ok => "ok",
                ContentState::NotChecked => "not checked",
                ContentState::Mismatch => "NOT VALID",
                _ => "unreadable",
            };
            let _ = writeln!(
                out,
                "  resource {} of {}: {state}",
                one.resource, one.component
            );
            if let Some(reason) = &one.reason {
                let _ = writeln!(out, "    {reason}");
            }
        }
    }
    for note in &result.not_checked {
        let _ = writeln!(out, "  not checked: {note}");
    }
    out
}
