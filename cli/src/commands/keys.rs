//! Keys for signatures: from files that the command line names, else from the configuration.
//!
//! *Invariant*: a key is read, used and forgotten; none is printed or written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocm_content::{Error, ErrorKind};
use ocm_repository::credentials::{Consumers, Identity, Properties};
use ocm_specs::Algorithm;
use ocm_specs::normalisation::Normalisation;
use ocm_transformers::signing::{
    PrivateKey, PublicMaterial, SignatureAlgorithm, SignatureEncoding, SigningKeys,
};
use serde_json::Value as Json;

use crate::config::Config;
use crate::environment::Environment;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Entry type of v1 with keys by the names of signatures.
const KEYS_CONFIG: &str = "keys.config.ocm.software";
/// Entry type that says how to sign.
const SIGNING_CONFIG: &str = "signing.config.ocm.software";
/// The consumer that RSA keys are configured for.
const CONSUMER: &str = "RSA/v1alpha1";

/// Where keys come from.
pub(crate) struct Keys {
    environment: Environment,
    config: Arc<Config>,
    consumers: Consumers,
    private: Vec<(Option<String>, PathBuf)>,
    public: Vec<(Option<String>, PathBuf)>,
    roots: Vec<PathBuf>,
}

/// Which half of a pair.
#[derive(Clone, Copy)]
enum Half {
    Private,
    Public,
}

impl Keys {
    /// Takes `[NAME=]FILE` arguments, and reads the configuration.
    pub(crate) fn new(
        ui: &Ui,
        private: &[String],
        public: &[String],
        roots: &[PathBuf],
    ) -> Result<Self, CliError> {
        let config = ui.config()?.clone();
        Ok(Self {
            environment: ui.environment.clone(),
            consumers: config.consumers()?,
            config,
            private: private.iter().map(|it| named_file(it)).collect(),
            public: public.iter().map(|it| named_file(it)).collect(),
            roots: roots.to_vec(),
        })
    }

    /// The key that makes the signature `name`.
    pub(crate) fn private(
        &self,
        name: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<PrivateKey, CliError> {
        let (text, from) = self
            .text(Half::Private, name, algorithm)?
            .ok_or_else(|| missing("private", name, algorithm))?;
        PrivateKey::from_pem(&text).map_err(|error| CliError::from(error.context(from)))
    }

    /// What is trusted for the signature `name`; the public half of a private key where only that is configured.
    pub(crate) fn public(
        &self,
        name: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<PublicMaterial, CliError> {
        let parse = |(text, from): (String, String)| {
            PublicMaterial::from_pem(&text).map_err(|error| CliError::from(error.context(from)))
        };
        let own = self
            .text(Half::Public, name, algorithm)?
            .map(parse)
            .transpose()?;
        let mut roots = Vec::new();
        for path in &self.roots {
            roots.push((
                read(&self.environment.working_directory.join(path))?,
                path.display().to_string(),
            ));
        }
        for entry in self.config.entries_of(KEYS_CONFIG) {
            for root in entry
                .get("rootCertificates")
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
            {
                roots.extend(self.key_data(root, "a root certificate of the configuration")?);
            }
        }
        if own.is_none() && roots.is_empty() {
            let private = self.text(Half::Private, name, algorithm)?;
            return private
                .map(parse)
                .unwrap_or_else(|| Err(missing("public", name, algorithm)));
        }
        let mut material = own.unwrap_or_default();
        for root in roots {
            material.certificates.extend(parse(root)?.certificates);
        }
        Ok(material)
    }

    /// Algorithm and encoding of the configuration: an entry for this signature before one for all.
    pub(crate) fn signer(
        &self,
        name: &str,
    ) -> Result<(Option<SignatureAlgorithm>, Option<SignatureEncoding>), CliError> {
        let entries = self.config.entries_of(SIGNING_CONFIG);
        let signature = |entry: &Json| {
            entry
                .get("signature")
                .and_then(Json::as_str)
                .map(str::to_owned)
        };
        let own = entries
            .iter()
            .rev()
            .find(|it| signature(it).as_deref() == Some(name));
        let fallback = entries.iter().rev().find(|it| signature(it).is_none());
        let Some(signer) = own.or(fallback).and_then(|entry| entry.get("signer")) else {
            return Ok((None, None));
        };
        let text = |field: &str| {
            signer
                .get(field)
                .and_then(Json::as_str)
                .filter(|it| !it.is_empty())
        };
        let bad =
            |what: String| CliError::new(ExitCode::Invalid, format!("{SIGNING_CONFIG}: {what}"));
        let kind = text("type").unwrap_or_default();
        if kind.split('/').next() != Some("RSASigningConfiguration") {
            return Err(
                bad(format!("signers of type `{kind}` are not available here"))
                    .with_hint("use RSASigningConfiguration/v1alpha1, or name --algorithm"),
            );
        }
        let algorithm = text("signatureAlgorithm")
            .map(parse_algorithm)
            .transpose()
            .map_err(bad)?;
        let encoding = match text("signatureEncodingPolicy") {
            None => None,
            Some("Plain") => Some(SignatureEncoding::Plain),
            Some("PEM") => Some(SignatureEncoding::Pem),
            Some(other) => return Err(bad(format!("encoding policy `{other}` is unknown"))),
        };
        Ok((algorithm, encoding))
    }

    /// The PEM text of a key, and where it is from.
    fn text(
        &self,
        half: Half,
        name: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<Option<(String, String)>, CliError> {
        let given = match half {
            Half::Private => &self.private,
            Half::Public => &self.public,
        };
        let own = given
            .iter()
            .rev()
            .find(|(owner, _)| owner.as_deref() == Some(name));
        let general = given.iter().rev().find(|(owner, _)| owner.is_none());
        if let Some((_, path)) = own.or(general) {
            let from = format!("key file {}", path.display());
            return Ok(Some((
                read(&self.environment.working_directory.join(path))?,
                from,
            )));
        }
        if let Some(found) = self.of_consumer(half, name, algorithm)? {
            return Ok(Some(found));
        }
        let list = match half {
            Half::Private => "privateKeys",
            Half::Public => "publicKeys",
        };
        let entries = self.config.entries_of(KEYS_CONFIG);
        let found = entries
            .iter()
            .rev()
            .find_map(|entry| entry.get(list)?.get(name));
        match found {
            Some(key) => self.key_data(key, &format!("key `{name}` of the configuration")),
            None => Ok(None),
        }
    }

    /// The consumer for algorithm and signature, else one that is for either or for all.
    fn of_consumer(
        &self,
        half: Half,
        name: &str,
        algorithm: SignatureAlgorithm,
    ) -> Result<Option<(String, String)>, CliError> {
        for (has_algorithm, has_signature) in
            [(true, true), (false, true), (true, false), (false, false)]
        {
            let mut identity = Identity::new(CONSUMER);
            if has_algorithm {
                identity = identity.with("algorithm", algorithm.as_str());
            }
            if has_signature {
                identity = identity.with("signature", name);
            }
            let Some(properties) = self.consumers.find(&identity) else {
                continue;
            };
            if let Some(found) = self.of_properties(half, properties, &identity)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn of_properties(
        &self,
        half: Half,
        properties: &Properties,
        identity: &Identity,
    ) -> Result<Option<(String, String)>, CliError> {
        let [inline, file, old_inline, old_file] = match half {
            Half::Private => [
                "privateKeyPEM",
                "privateKeyPEMFile",
                "private_key_pem",
                "private_key_pem_file",
            ],
            Half::Public => [
                "publicKeyPEM",
                "publicKeyPEMFile",
                "public_key_pem",
                "public_key_pem_file",
            ],
        };
        let get = |new: &str, old: &str| properties.get(new).or_else(|| properties.get(old));
        let from = format!("the key of consumer {identity}");
        if let Some(text) = get(inline, old_inline) {
            return Ok(Some((text.expose().to_owned(), from)));
        }
        match get(file, old_file) {
            Some(path) => {
                let path = self.environment.expand_home(path.expose());
                Ok(Some((read(&path)?, from)))
            }
            None => Ok(None),
        }
    }

    /// v1's way to write a key: `path`, or `stringdata`.
    fn key_data(&self, key: &Json, from: &str) -> Result<Option<(String, String)>, CliError> {
        let text = |field: &str| key.get(field).and_then(Json::as_str);
        let text = match (text("path"), text("stringdata")) {
            (Some(path), _) => read(&self.environment.expand_home(path))?,
            (None, Some(text)) => text.to_owned(),
            (None, None) => {
                let message = format!("{from} has neither `path` nor `stringdata`");
                return Err(CliError::new(ExitCode::Invalid, message));
            }
        };
        Ok(Some((text, from.to_owned())))
    }
}

impl SigningKeys for Keys {
    fn private(&self, name: &str, algorithm: SignatureAlgorithm) -> Result<PrivateKey, Error> {
        Self::private(self, name, algorithm).map_err(|error| {
            let kind = match error.code {
                ExitCode::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Invalid,
            };
            let cause = Error::new(kind, error.message);
            match error.hint {
                Some(hint) => cause.with_hint(hint),
                None => cause,
            }
        })
    }
}

fn missing(half: &str, name: &str, algorithm: SignatureAlgorithm) -> CliError {
    let message = format!("there is no {half} key for the signature `{name}` with {algorithm}");
    let hint = format!(
        "name a PEM file with --{half}-key FILE, or configure the consumer \
         {{type: {CONSUMER}, algorithm: {algorithm}, signature: {name}}} with the property {half}_key_pem_file"
    );
    CliError::new(ExitCode::NotFound, message).with_hint(hint)
}

/// `NAME=FILE` or `FILE`; what has a slash is no name.
fn named_file(argument: &str) -> (Option<String>, PathBuf) {
    match argument.split_once('=') {
        Some((name, file)) if !name.is_empty() && !name.contains(['/', '\\']) => {
            (Some(name.to_owned()), PathBuf::from(file))
        }
        _ => (None, PathBuf::from(argument)),
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))
}

/// The argument of `--algorithm`.
pub(crate) fn parse_algorithm(text: &str) -> Result<SignatureAlgorithm, String> {
    SignatureAlgorithm::ALL
        .into_iter()
        .find(|it| it.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("`{text}` is none of RSASSA-PSS, RSASSA-PKCS1-V1_5"))
}

/// The argument of `--normalisation`, with or without what all names begin with.
pub(crate) fn parse_normalisation(text: &str) -> Result<Normalisation, String> {
    Normalisation::parse(text)
        .or_else(|| Normalisation::parse(&format!("jsonNormalisation/{text}")))
        .ok_or_else(|| {
            let names: Vec<&str> = Normalisation::ALL.iter().map(|it| it.as_str()).collect();
            format!("`{text}` is none of {}", names.join(", "))
        })
}

/// The argument of `--hash`.
pub(crate) fn parse_hash(text: &str) -> Result<Algorithm, String> {
    Algorithm::parse(text).ok_or_else(|| format!("`{text}` is none of SHA-256, SHA-512"))
}
