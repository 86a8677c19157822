//! `ocm sign component-version`: adds signatures to descriptors.
//!
//! *Invariant*: everything that can fail without writing is done before the first descriptor is written, and a referenced
//! version is written before those that reference it.

use std::time::SystemTime;

use ocm_repository::{Existing, Session};
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::yaml;
use ocm_transformers::signing::{
    Closure, DEFAULT_SIGNATURE, DigestOptions, Member, PrivateKey, PublicMaterial, SignOptions,
    SignatureAlgorithm, SignatureEncoding, SignatureState, check, check_free, sign,
};
use serde_json::Value as Json;

use crate::args::{DocumentFormat, EncodingArg, SignArgs};
use crate::commands::hash::read;
use crate::commands::keys::Keys;
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// A signature that is to be made.
struct Wanted {
    key: PrivateKey,
    options: SignOptions,
}

/// Signs a component version, and with `--recursive` all that it references.
pub(crate) async fn component_version(args: SignArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let wanted = wanted(&args, ui)?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let version = read(&session, &resolver, &args.reference).await?;
    for one in &wanted {
        check_free(&version.descriptor, &one.options.name, args.force)?;
    }
    let options = DigestOptions {
        normalisation: args.normalisation,
        hash: args.hash,
        resources: true,
    };
    let closure = Closure::read(&session, version, &resolver, options).await?;
    let (root, children) = closure
        .members()
        .split_last()
        .ok_or_else(|| CliError::new(ExitCode::Failure, "there is nothing to sign"))?;
    let mut signed = Vec::new();
    if args.recursive {
        for child in children {
            signed.extend(sign_child(child, &wanted)?.map(|descriptor| (child, descriptor)));
        }
    } else if let Some(child) = children.iter().find(|child| child.is_changed()) {
        let message = format!("{} lacks digests, which its own signing adds", child.name());
        return Err(CliError::new(ExitCode::Invalid, message)
            .with_hint("sign with --recursive, or sign what is referenced first"));
    }
    let mut descriptor = root.descriptor.clone();
    let mut signatures = Vec::new();
    for one in &wanted {
        signatures.push(sign(&mut descriptor, &one.key, &one.options)?);
    }
    signed.push((root, descriptor));
    if !args.dry_run {
        for (member, descriptor) in &signed {
            write(&session, member, descriptor).await?;
        }
        session::finish(&session).await?;
    }
    tell(&args, &signed, &wanted, ui);
    print(&args, signatures, ui)
}

fn wanted(args: &SignArgs, ui: &Ui) -> Result<Vec<Wanted>, CliError> {
    let keys = Keys::new(ui, &args.private_key, &args.public_key, &[])?;
    let default = [DEFAULT_SIGNATURE.to_owned()];
    let names = if args.signature.is_empty() {
        default.as_slice()
    } else {
        &args.signature
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    for name in names {
        if wanted.iter().any(|one| one.options.name == *name) {
            return Err(CliError::usage(format!(
                "--signature {name} is there twice"
            )));
        }
        let (algorithm, encoding) = match (args.algorithm, args.encoding) {
            (Some(algorithm), Some(encoding)) => (Some(algorithm), Some(encoding_of(encoding))),
            (algorithm, encoding) => {
                let configured = keys.signer(name)?;
                (
                    algorithm.or(configured.0),
                    encoding.map(encoding_of).or(configured.1),
                )
            }
        };
        let algorithm = algorithm.unwrap_or(SignatureAlgorithm::Pss);
        let encoding = encoding.unwrap_or_default();
        let key = keys.private(name, algorithm)?;
        let certificates = match encoding {
            SignatureEncoding::Pem => keys.public(name, algorithm)?.certificates,
            _ => Vec::new(),
        };
        wanted.push(Wanted {
            key,
            options: SignOptions {
                name: name.clone(),
                algorithm,
                normalisation: args.normalisation,
                hash: args.hash,
                encoding,
                certificates,
                force: args.force,
            },
        });
    }
    Ok(wanted)
}

fn encoding_of(argument: EncodingArg) -> SignatureEncoding {
    match argument {
        EncodingArg::Plain => SignatureEncoding::Plain,
        EncodingArg::Pem => SignatureEncoding::Pem,
    }
}

/// The child's descriptor with the signatures; `None` where all of them are there and hold.
fn sign_child(child: &Member, wanted: &[Wanted]) -> Result<Option<ComponentDescriptor>, CliError> {
    let mut descriptor = child.descriptor.clone();
    for one in wanted {
        let stored = &child.version.descriptor;
        let existing = stored.signatures().find(|it| it.name() == one.options.name);
        let holds = existing.is_some_and(|signature| {
            let material = PublicMaterial {
                key: Some(one.key.public_key()),
                ..PublicMaterial::default()
            };
            check(stored, None, &signature, Some(&material), SystemTime::now()).state
                == SignatureState::Valid
        });
        if !(holds && !one.options.force && !child.is_changed()) {
            sign(&mut descriptor, &one.key, &one.options)?;
        }
    }
    Ok((descriptor != child.version.descriptor).then_some(descriptor))
}

async fn write(
    session: &Session,
    member: &Member,
    descriptor: &ComponentDescriptor,
) -> Result<(), CliError> {
    let spec = member.version.repository.spec();
    let repository = session.repository(spec, true).await?;
    let prepared = repository
        .prepare_version(descriptor, Existing::Overwrite)
        .await?;
    prepared.publish().await?;
    Ok(())
}

fn tell(args: &SignArgs, signed: &[(&Member, ComponentDescriptor)], wanted: &[Wanted], ui: &Ui) {
    let done = if args.dry_run { "would sign" } else { "signed" };
    for (member, _) in signed {
        for Wanted { options, .. } in wanted {
            ui.note(&format!(
                "{done} {} as `{}` with {} over {} by {}\n",
                member.name(),
                options.name,
                options.algorithm,
                options.normalisation.as_str(),
                options.hash.ocm_name()
            ));
        }
    }
}

/// The signature, or the list of them where several were asked for.
fn print(args: &SignArgs, mut signatures: Vec<Json>, ui: &Ui) -> Result<(), CliError> {
    let document = match signatures.len() {
        1 => signatures.swap_remove(0),
        _ => Json::Array(signatures),
    };
    ui.data(&match args.output {
        DocumentFormat::Yaml => yaml::to_string(&document),
        DocumentFormat::Json => serde_json::to_string_pretty(&document).unwrap_or_default() + "\n",
    })
}
