//! `--verify` of transfers: before the first byte is written, everything that is to be carried is verified.
//!
//! *Invariant*: what passes is either signed and verified itself, or pinned by a digest in something that passed. The run
//! then carries the very descriptors that were looked at here.

use std::collections::BTreeSet;
use std::time::SystemTime;

use ocm_repository::{ComponentVersion, Resolver, Session};
use ocm_specs::descriptor::{ComponentDescriptor, Signature};
use ocm_transformers::signing::{
    Closure, DigestOptions, Member, SignatureCheck, SignatureState, algorithm_of, check, gaps,
};

use crate::args::Carry;
use crate::commands::keys::Keys;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;
use crate::units;

/// Most reasons that a message lists.
const LISTED: usize = 10;

/// What is to be verified.
pub(crate) struct Verifier<'a> {
    keys: Keys,
    names: Vec<String>,
    all: bool,
    session: &'a Session,
    resolver: &'a Resolver,
    /// Component versions, as `(component, version)`, that something verified names by digest.
    pinned: BTreeSet<(String, String)>,
    checked: usize,
    reasons: Vec<String>,
}

/// Is anything to be verified?
pub(crate) fn is_asked(carry: &Carry) -> bool {
    carry.verify_all || !carry.verify.is_empty()
}

/// What a person must have meant otherwise.
pub(crate) fn check_args(carry: &Carry) -> Result<(), CliError> {
    for entry in &carry.verify {
        if entry.is_empty() || entry.starts_with('=') || entry.ends_with('=') {
            return Err(
                CliError::usage(format!("--verify `{entry}` names no signature and key"))
                    .with_hint("write NAME, or NAME=KEYFILE, as in acme-signature=acme.pub"),
            );
        }
    }
    let has_keys = !carry.public_key.is_empty() || !carry.ca_cert.is_empty();
    if has_keys && !is_asked(carry) {
        return Err(
            CliError::usage("keys are given, and nothing is to be verified")
                .with_hint("say what with --verify NAME, or --verify-all"),
        );
    }
    Ok(())
}

impl<'a> Verifier<'a> {
    /// Reads the arguments; keys are read when they are needed.
    pub(crate) fn new(
        carry: &Carry,
        session: &'a Session,
        resolver: &'a Resolver,
        ui: &'a Ui,
    ) -> Result<Self, CliError> {
        let (mut names, mut keys) = (Vec::new(), carry.public_key.clone());
        for entry in &carry.verify {
            match entry.split_once('=') {
                Some((name, _)) => {
                    names.push(name.to_owned());
                    keys.push(entry.clone());
                }
                None => names.push(entry.clone()),
            }
        }
        Ok(Self {
            keys: Keys::new(ui, &[], &keys, &carry.ca_cert)?,
            names,
            all: carry.verify_all,
            session,
            resolver,
            pinned: BTreeSet::new(),
            checked: 0,
            reasons: Vec::new(),
        })
    }

    /// Verifies everything in `members`; `roots` are those that were asked for by name. Gives a line for the user.
    pub(crate) async fn verify(
        mut self,
        members: &[Member],
        roots: &BTreeSet<(String, String)>,
    ) -> Result<String, CliError> {
        // Parents first: they pin their children.
        for member in members.iter().rev() {
            self.member(member, roots).await?;
        }
        if self.reasons.is_empty() {
            let versions = units::count(members.len(), "component version");
            let signatures = units::count(self.checked, "signature");
            return Ok(format!(
                "verified {versions}: {signatures}, and digests of what they reference\n"
            ));
        }
        let more = self.reasons.len().saturating_sub(LISTED);
        self.reasons.truncate(LISTED);
        let mut message = format!(
            "verification failed, nothing was written: {}",
            self.reasons.join("; ")
        );
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        Err(CliError::new(ExitCode::Verification, message))
    }

    async fn member(
        &mut self,
        member: &Member,
        roots: &BTreeSet<(String, String)>,
    ) -> Result<(), CliError> {
        let stored = &member.version.descriptor;
        let key = (stored.name().to_owned(), stored.version().to_owned());
        let name = member.name();
        let mut is_signed = false;
        let mut completed = None;
        let signatures: Vec<_> = stored.signatures().collect();
        for signature in &signatures {
            if !self.all && !self.names.iter().any(|it| it == signature.name()) {
                continue;
            }
            let found = self.check(member, signature, &mut completed).await?;
            if found.state == SignatureState::Valid {
                is_signed = true;
                self.checked += 1;
            } else {
                let why = found.reason.unwrap_or_default();
                let signature = signature.name();
                self.reasons
                    .push(format!("signature `{signature}` of {name}: {why}"));
            }
        }
        let is_root = roots.contains(&key);
        for wanted in &self.names {
            let is_there = signatures.iter().any(|it| it.name() == wanted);
            if is_root && !is_there {
                self.reasons
                    .push(format!("{name} has no signature `{wanted}`"));
            }
        }
        if is_root && self.all && signatures.is_empty() {
            self.reasons.push(format!("{name} has no signature"));
        }
        if !is_root && !is_signed && !self.pinned.contains(&key) {
            self.reasons.push(format!(
                "{name} is neither signed nor pinned by a digest where it is referenced"
            ));
        }
        // Digests that are there are part of what was verified; those that were computed only if the signature needed them.
        let digests = completed.as_ref().unwrap_or(stored);
        for reference in digests.references() {
            if reference.digest().is_some() {
                let component = reference.component_name().unwrap_or_default();
                self.pinned
                    .insert((component.to_owned(), reference.version().to_owned()));
            }
        }
        Ok(())
    }

    /// One signature; `completed` becomes the descriptor with computed digests if the signature stands on these.
    async fn check(
        &self,
        member: &Member,
        signature: &Signature<'_>,
        completed: &mut Option<ComponentDescriptor>,
    ) -> Result<SignatureCheck, CliError> {
        let stored = &member.version.descriptor;
        let material = match algorithm_of(signature) {
            Some(algorithm) => Some(self.keys.public(signature.name(), algorithm)?),
            None => None,
        };
        let now = SystemTime::now();
        let found = check(stored, None, signature, material.as_ref(), now);
        let is_incomplete = !gaps(stored).is_empty() && stored.references().len() > 0;
        if found.state != SignatureState::Invalid || !is_incomplete {
            return Ok(found);
        }
        // It may stand on digests of references that were never stored.
        let full = match member.is_changed() {
            true => member.descriptor.clone(),
            false => match self.complete(&member.version).await {
                Some(full) => full,
                None => return Ok(found),
            },
        };
        let again = check(stored, Some(&full), signature, material.as_ref(), now);
        if again.state == SignatureState::Valid {
            *completed = Some(full);
        }
        Ok(again)
    }

    async fn complete(&self, version: &ComponentVersion) -> Option<ComponentDescriptor> {
        let options = DigestOptions::default();
        let closure = Closure::read(self.session, version.clone(), self.resolver, options).await;
        closure
            .ok()
            .map(|closure| closure.root().descriptor.clone())
    }
}
