//! `ocm transfer component-version` and `ocm transfer ctf`: from what the user names to a generated transfer spec.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt as _, stream};
use ocm_content::{Error, ErrorKind};
use ocm_engine::StepTypes;
use ocm_repository::{ComponentVersion, Repository, Resolver, Session};
use ocm_specs::RepositorySpec;
use ocm_specs::access::{Access, AccessType};
use ocm_specs::descriptor::{Element, ElementKind};
use ocm_specs::reference::ComponentReference;
use ocm_specs::repository_spec::CtfRepositorySpec;
use ocm_transformers::component::ConflictPolicy;
use ocm_transformers::generate::{
    Condition, Copy, Generated, Handler, Options, Override, UploadAs, generate,
};
use ocm_transformers::platforms::check_platform;
use ocm_transformers::signing::{
    BrokenSignatures, Closure, DigestOptions, OnBrokenSignature, SigningKeys,
};

use crate::args::{
    Carry, CarryArchive, CarryVersions, FormArg, TransferOptions, UploadAsArg, VersionChoice,
};
use crate::commands::carry_verify::{self, Verifier};
use crate::commands::keys::Keys;
use crate::commands::select;
use crate::commands::{carry_transforms, carry_uploads};
use crate::config::{CopyMode, TransferConfig, UploadType};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;
use crate::units;

/// Where a dry run without a target writes to: a name that no host can have.
const NO_TARGET: &str = "target.invalid";
/// Contents looked up at once.
const LOOKUPS: usize = 16;

/// What is to be carried where.
pub(crate) struct Request {
    from: From,
    targets: Vec<RepositorySpec>,
    choice: VersionChoice,
    carry: Carry,
    policy: ConflictPolicy,
    on_broken_signature: OnBrokenSignature,
    overrides: Vec<Override>,
    handlers: Vec<Handler>,
    resolver: Resolver,
    /// What the configuration says where the command line does not.
    defaults: TransferConfig,
}

enum From {
    References(Vec<String>),
    Whole(RepositorySpec),
}

impl Request {
    /// What `ocm transfer component-version` is asked for; `None` where it is to run a spec that is there.
    pub(crate) fn of_versions(
        args: CarryVersions,
        ui: &Ui,
    ) -> Result<(Option<Self>, TransferOptions), CliError> {
        if args.options.transfer_spec.is_some() {
            let choice = &args.choice;
            let is_selective = choice.latest || choice.semver_constraint.is_some();
            check_replay(&args.places, is_selective, &args.carry)?;
            return Ok((None, args.options));
        }
        let mut places = args.places.into_iter().peekable();
        let Some(first) = places.next() else {
            return Err(CliError::usage("there is nothing to transfer").with_hint(
                "name a component version and a target, or a spec with --transfer-spec FILE",
            ));
        };
        // The first one is to be carried whatever it looks like; more of them look like what they are.
        let mut references = vec![first];
        while let Some(more) = places.next_if(|it| it.parse::<ComponentReference>().is_ok()) {
            references.push(more);
        }
        let from = From::References(references);
        let targets = targets(places, &args.carry, &args.options, ui)?;
        let request = Self::new(from, targets, args.choice, args.carry, &args.options, ui)?;
        Ok((Some(request), args.options))
    }

    /// What `ocm transfer ctf` is asked for.
    pub(crate) fn of_archive(
        args: CarryArchive,
        ui: &Ui,
    ) -> Result<(Option<Self>, TransferOptions), CliError> {
        if args.options.transfer_spec.is_some() {
            check_replay(&args.places, false, &args.carry)?;
            return Ok((None, args.options));
        }
        let mut places = args.places.into_iter();
        let Some(from) = places.next() else {
            return Err(CliError::usage("there is no archive to transfer")
                .with_hint("write ocm transfer ctf ARCHIVE TARGET"));
        };
        let from = From::Whole(repository(&from)?);
        let targets = targets(places, &args.carry, &args.options, ui)?;
        let choice = VersionChoice::default();
        let request = Self::new(from, targets, choice, args.carry, &args.options, ui)?;
        Ok((Some(request), args.options))
    }

    fn new(
        from: From,
        targets: Vec<RepositorySpec>,
        choice: VersionChoice,
        carry: Carry,
        options: &TransferOptions,
        ui: &Ui,
    ) -> Result<Self, CliError> {
        let config = ui.config()?;
        let defaults = config.transfer()?;
        check(&carry, &defaults)?;
        carry_verify::check_args(&carry)?;
        Ok(Self {
            from,
            targets,
            choice,
            policy: policy(options),
            on_broken_signature: on_broken_signature(options),
            overrides: carry_uploads::overrides(&carry.upload_config, config, ui)?,
            handlers: carry_uploads::handlers(&carry.uploader, config, ui)?,
            resolver: config.resolver(&carry.lookup)?,
            defaults,
            carry,
        })
    }

    /// Are references followed?
    fn is_recursive(&self) -> bool {
        let given = self.carry.recursive.map(i64::from);
        given.or(self.defaults.recursive).is_some_and(|it| it != 0)
    }

    /// Reads what is to be carried and writes the spec for it. Nothing is written anywhere.
    pub(crate) async fn generate(
        &self,
        session: &Arc<Session>,
        types: &StepTypes,
        ui: &Ui,
    ) -> Result<Generated, CliError> {
        let transforms = carry_transforms::read(&self.carry.transform, ui)?;
        let roots = self.roots(session).await?;
        let named: BTreeSet<_> = roots.iter().map(key).collect();
        let closure = if self.is_recursive() {
            let options = DigestOptions::default();
            Closure::read_all(session, roots, &self.resolver, options).await?
        } else {
            Closure::of(roots)?
        };
        if carry_verify::is_asked(&self.carry) {
            let verifier = Verifier::new(&self.carry, session, &self.resolver, ui)?;
            ui.note(&verifier.verify(closure.members(), &named).await?);
        }
        let versions = closure.into_members().into_iter();
        let mut versions: Vec<_> = versions.map(|member| member.version).collect();
        let mut notes = Vec::new();
        if self.carry.stop_on_existing {
            let before = versions.len();
            self.stop_on_existing(session, &mut versions, &named)
                .await?;
            if versions.len() < before {
                let left = units::count(before - versions.len(), "component version");
                notes.push(format!("{left} left out below those that the targets have"));
            }
        }
        let mut options = self.options()?;
        options.transforms = transforms;
        if options.allow_external {
            options.absent = absent(session, &versions, &options, &mut notes).await;
        }
        let mut generated = generate(versions, &options, types)?;
        generated.notes.extend(notes);
        Ok(generated)
    }

    async fn roots(&self, session: &Session) -> Result<Vec<ComponentVersion>, CliError> {
        let mut roots = Vec::new();
        match &self.from {
            From::References(references) => {
                for reference in references {
                    let found =
                        select::roots(reference, &self.choice, session, &self.resolver).await?;
                    if found.is_empty() {
                        let message = format!("no version of `{reference}` is allowed");
                        return Err(CliError::new(ExitCode::NotFound, message)
                            .with_hint("--semver-constraint leaves none of those that are there"));
                    }
                    // Oldest first.
                    roots.extend(found.into_iter().rev());
                }
            }
            From::Whole(spec) => {
                let repository = session.repository(spec, false).await?;
                for component in repository.components().await? {
                    let versions = repository.all_versions(&component).await?;
                    read(&repository, &component, versions, &mut roots).await?;
                }
                if roots.is_empty() {
                    let message =
                        format!("there is no component version in {}", repository.location());
                    return Err(CliError::new(ExitCode::NotFound, message));
                }
            }
        }
        // Named twice, carried once.
        let mut seen = BTreeSet::new();
        roots.retain(|version| seen.insert(key(version)));
        Ok(roots)
    }

    /// Leaves out what is only reached through component versions that every target has.
    async fn stop_on_existing(
        &self,
        session: &Session,
        versions: &mut Vec<ComponentVersion>,
        roots: &BTreeSet<(String, String)>,
    ) -> Result<(), CliError> {
        let mut reached = roots.clone();
        // Parents come after children: from the end on, whoever is reached has been told so.
        for version in versions.iter().rev() {
            if !reached.contains(&key(version)) || self.is_everywhere(session, version).await? {
                continue;
            }
            for reference in version.descriptor.references() {
                let component = reference.component_name().unwrap_or_default();
                reached.insert((component.to_owned(), reference.version().to_owned()));
            }
        }
        versions.retain(|version| reached.contains(&key(version)));
        Ok(())
    }

    async fn is_everywhere(
        &self,
        session: &Session,
        version: &ComponentVersion,
    ) -> Result<bool, CliError> {
        let (name, number) = key(version);
        for target in &self.targets {
            let repository = match session.repository(target, false).await {
                Ok(repository) => repository,
                // An archive that is not there yet.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if repository.find(&name, &number).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn options(&self) -> Result<Options, CliError> {
        let carry = &self.carry;
        let copy = match (carry.copy_resources, carry.copy_local_resources) {
            (true, _) => Copy::AllResources,
            (false, true) => Copy::LocalResources,
            (false, false) => match self.defaults.copy_mode {
                Some(CopyMode::AllResources) => Copy::AllResources,
                Some(CopyMode::LocalBlob) | None => Copy::LocalBlobs,
            },
        };
        let upload_as = match (carry.upload_as, self.defaults.upload_type) {
            _ if carry.disable_uploads => UploadAs::LocalBlob,
            (Some(UploadAsArg::OciArtifact), _) | (None, Some(UploadType::OciArtifact)) => {
                UploadAs::OciArtifact
            }
            (Some(UploadAsArg::LocalBlob), _) | (None, _) => UploadAs::LocalBlob,
        };
        let mut keep = Vec::new();
        for name in &carry.omit_access_types {
            match AccessType::of(name) {
                AccessType::Other => {
                    let message = format!("--omit-access-types: `{name}` is no access type");
                    return Err(CliError::usage(message)
                        .with_hint("as in ociArtifact, helm, wget, gitHub, git, s3"));
                }
                kind => keep.push(kind),
            }
        }
        let conditions = |texts: &[String]| -> Result<Vec<Condition>, CliError> {
            let parsed = texts.iter().map(|text| Condition::parse(text));
            let parsed = parsed.collect::<Result<_, _>>();
            parsed.map_err(|error| usage(&error))
        };
        for platform in &carry.platform {
            check_platform(platform).map_err(|error| usage(&error))?;
        }
        Ok(Options {
            select: conditions(&carry.select)?,
            exclude: conditions(&carry.exclude)?,
            platforms: carry.platform.clone(),
            transforms: Vec::new(),
            overrides: self.overrides.clone(),
            handlers: match carry.disable_uploads {
                true => Vec::new(),
                false => self.handlers.clone(),
            },
            targets: self.targets.clone(),
            copy,
            copy_sources: carry.copy_sources,
            upload_as,
            keep,
            allow_external: carry.allow_external,
            absent: BTreeSet::new(),
            conflict_policy: self.policy,
            on_broken_signature: self.on_broken_signature,
        })
    }
}

/// Elements to be carried by value whose content is nowhere, each with a note. They are looked up, not read. Any other failure
/// is the run's to tell.
async fn absent(
    session: &Session,
    versions: &[ComponentVersion],
    options: &Options,
    notes: &mut Vec<String>,
) -> BTreeSet<(String, ElementKind, usize)> {
    let mut lookups = Vec::new();
    for version in versions {
        let (name, number) = key(version);
        for (kind, is_wanted) in [
            (ElementKind::Resource, options.copy != Copy::LocalBlobs),
            (ElementKind::Source, options.copy_sources),
        ] {
            for (index, element) in version.descriptor.elements(kind).enumerate() {
                let access = element
                    .access_value()
                    .and_then(|it| it.get("type")?.as_str());
                let access = AccessType::of(access.unwrap_or_default());
                // What lies beside a descriptor can't be left behind.
                let is_beside = access.is_local() || access == AccessType::RelativeOciReference;
                if is_beside || !is_wanted || options.keep.contains(&access) {
                    continue;
                }
                let place = (format!("{name}:{number}"), kind, index);
                lookups.push(async move {
                    let error = look_up(session, version, &element).await.err()?;
                    (error.kind() == ErrorKind::NotFound).then(|| {
                        let named = format!("{kind} `{}` of {}", element.identity(), place.0);
                        (place, format!("{named} is left by reference: {error}"))
                    })
                });
            }
        }
    }
    let found: Vec<_> = stream::iter(lookups).buffered(LOOKUPS).collect().await;
    let (places, told): (_, Vec<_>) = found.into_iter().flatten().unzip();
    notes.extend(told);
    places
}

/// Looks the content of an element up. A blob of a registry is asked for even where its size is known.
async fn look_up(
    session: &Session,
    version: &ComponentVersion,
    element: &Element<'_>,
) -> Result<(), Error> {
    session.content(version, element).await?;
    if let Ok(Access::OciBlob(blob)) = element.access()
        && blob.size.is_some()
        && let (Ok(reference), Ok(digest)) = (blob.reference.parse(), blob.digest.parse())
    {
        session.oci_store(&reference)?.blob_size(&digest).await?;
    }
    Ok(())
}

/// What a replayed spec says can't be said again beside it.
fn check_replay(places: &[String], is_selective: bool, carry: &Carry) -> Result<(), CliError> {
    let flags = [
        ("--latest or --semver-constraint", is_selective),
        ("--recursive", carry.recursive.is_some()),
        ("--copy-resources", carry.copy_resources),
        ("--copy-local-resources", carry.copy_local_resources),
        ("--copy-sources", carry.copy_sources),
        ("--upload-as", carry.upload_as.is_some()),
        ("--disable-uploads", carry.disable_uploads),
        ("--allow-external", carry.allow_external),
        ("--type", carry.form.is_some()),
        ("--select", !carry.select.is_empty()),
        ("--exclude", !carry.exclude.is_empty()),
        ("--platform", !carry.platform.is_empty()),
        ("--transform", !carry.transform.is_empty()),
        ("--stop-on-existing", carry.stop_on_existing),
        ("--upload-config", !carry.upload_config.is_empty()),
        ("--uploader", !carry.uploader.is_empty()),
        ("--omit-access-types", !carry.omit_access_types.is_empty()),
        ("--lookup", !carry.lookup.is_empty()),
        ("--verify", !carry.verify.is_empty()),
        ("--verify-all", carry.verify_all),
        ("--to", !carry.to.is_empty()),
    ];
    let flag = flags.iter().find(|(_, is_given)| *is_given);
    let given = places.first().map(String::as_str);
    match given.or(flag.map(|(name, _)| *name)) {
        None => Ok(()),
        Some(given) => Err(CliError::usage(format!(
            "`{given}` can't stand beside --transfer-spec, which says what is carried where"
        ))
        .with_hint("leave it out, or print a spec that says so with --dry-run")),
    }
}

/// Refuses what is not available, naming what is.
fn check(carry: &Carry, defaults: &TransferConfig) -> Result<(), CliError> {
    if carry.script.is_some() {
        return Err(
            CliError::usage("transfer scripts (--script) are not available").with_hint(
                "print the plan with --dry-run, change it, and run it with --transfer-spec; --select and --omit-access-types cover most scripts",
            ),
        );
    }
    if carry.bom_file.is_some() {
        return Err(CliError::usage("--bom-file is not available")
            .with_hint("--report FILE writes what was carried, as JSON"));
    }
    let depth = carry.recursive.map(i64::from).or(defaults.recursive);
    if !matches!(depth, None | Some(-1 | 0)) {
        return Err(CliError::usage(
            "references are followed all the way (--recursive, -1) or not at all (0): a closure that is cut off can't be verified",
        ));
    }
    Ok(())
}

pub(crate) fn policy(options: &TransferOptions) -> ConflictPolicy {
    use crate::args::ConflictPolicyArg as Arg;
    match options.conflict_policy {
        Some(Arg::Fail) => ConflictPolicy::Fail,
        Some(Arg::Update) => ConflictPolicy::Update,
        Some(Arg::Replace) => ConflictPolicy::Replace,
        Some(Arg::Skip) => ConflictPolicy::Skip,
        // To publish anew replaces whatever differs, too.
        None if options.enforce => ConflictPolicy::Enforce,
        None if options.overwrite => ConflictPolicy::Replace,
        None if options.no_update => ConflictPolicy::Skip,
        None => ConflictPolicy::Update,
    }
}

pub(crate) fn on_broken_signature(options: &TransferOptions) -> OnBrokenSignature {
    use crate::args::OnBrokenArg as Arg;
    match options.on_broken_signature {
        None | Some(Arg::Fail) => OnBrokenSignature::Fail,
        Some(Arg::Keep) => OnBrokenSignature::Keep,
        Some(Arg::Drop) => OnBrokenSignature::Drop,
        Some(Arg::Resign) => OnBrokenSignature::Resign,
    }
}

/// Gives a run what its steps need to know: what becomes of component versions that are there, and of signatures.
pub(crate) fn provide(
    session: &Session,
    options: &TransferOptions,
    ui: &Ui,
) -> Result<(), CliError> {
    session.provide(policy(options));
    let policy = on_broken_signature(options);
    let is_resigning = policy == OnBrokenSignature::Resign;
    if !is_resigning && !options.private_key.is_empty() {
        let message = "--private-key is for --on-broken-signature resign";
        return Err(CliError::usage(message)
            .with_hint("write --on-broken-signature resign --private-key [NAME=]FILE"));
    }
    let keys: Option<Box<dyn SigningKeys>> = match is_resigning {
        true => Some(Box::new(Keys::new(ui, &options.private_key, &[], &[])?)),
        false => None,
    };
    session.provide(BrokenSignatures { policy, keys });
    Ok(())
}

/// What a person wrote makes no sense.
fn usage(error: &Error) -> CliError {
    let cause = CliError::usage(error.to_string());
    match error.hint() {
        Some(hint) => cause.with_hint(hint),
        None => cause,
    }
}

/// A component version's name and version.
fn key(version: &ComponentVersion) -> (String, String) {
    let descriptor = &version.descriptor;
    (
        descriptor.name().to_owned(),
        descriptor.version().to_owned(),
    )
}

fn repository(text: &str) -> Result<RepositorySpec, CliError> {
    text.parse()
        .map_err(|error| CliError::usage(format!("`{text}`: {error}")))
}

/// The targets, of `--to` and of what stands at the end, each once.
fn targets(
    places: impl Iterator<Item = String>,
    carry: &Carry,
    options: &TransferOptions,
    ui: &Ui,
) -> Result<Vec<RepositorySpec>, CliError> {
    let mut targets: Vec<RepositorySpec> = Vec::new();
    for text in places.chain(carry.to.iter().cloned()) {
        let mut target = repository(&text)?;
        if let RepositorySpec::Oci(spec) = &target {
            // Found now, and not after everything has been read.
            spec.endpoint()
                .map_err(|error| CliError::usage(format!("target `{text}`: {error}")))?;
        }
        if let (RepositorySpec::Ctf(spec), Some(form)) = (&mut target, carry.form) {
            shape(spec, form);
        }
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    if targets.is_empty() && !options.dry_run {
        return Err(CliError::usage("there is no target to transfer to")
            .with_hint("name it at the end, as in localhost:5001 or ./archive, or with --to"));
    }
    if targets.is_empty() {
        ui.note(&format!(
            "note: no target is named, so the plan says `{NO_TARGET}`; put a registry in its place before it runs\n"
        ));
        targets.push(RepositorySpec::oci(NO_TARGET, ""));
    }
    Ok(targets)
}

fn shape(spec: &mut CtfRepositorySpec, form: FormArg) {
    let name = match form {
        FormArg::Directory => "directory",
        FormArg::Tar => "tar",
        FormArg::Tgz => "tgz",
    };
    spec.file_format = Some(name.to_owned());
}

async fn read(
    repository: &Repository,
    component: &str,
    versions: Vec<String>,
    roots: &mut Vec<ComponentVersion>,
) -> Result<(), CliError> {
    for version in versions {
        roots.push(repository.get(component, &version).await?);
    }
    Ok(())
}
