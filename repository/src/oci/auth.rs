//! Authorization driven by challenges: nothing is guessed before a registry asks.
//!
//! The first request to a registry is anonymous. Its 401 says which scheme and which token service the registry wants; that
//! is remembered, and later requests bring what they need at once. Tokens are cached per credential, service and scopes;
//! of many requests that need the same token one fetches it and the others wait for it. A 401 in spite of a token
//! (it expired, it was revoked) drops token and credential and asks once more.
//!
//! *Invariant*: no lock or slot is held while waiting for one of another kind; the lock of one token is held while fetching
//! that token only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use ocm_content::{Error, ErrorKind, Result};
use ocm_specs::Digest;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use super::client::{Call, Inner};
use super::endpoint::authority_of;
use super::errors::Failure;
use super::headers::{Challenge, challenges_of};
use crate::credentials::{Credential, CredentialSource, Secret};

/// Largest answer of a token service, in bytes.
const TOKEN_LIMIT: u64 = 1 << 20;
/// How long a token lives when the service does not say (distribution, token authentication).
const TOKEN_LIFE: u64 = 60;
/// The longest life that is believed, in seconds.
const TOKEN_LIFE_MAX: u64 = 24 * 3600;
/// A token is not used in the last part of its life: it must survive the way to the registry.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// Most scopes taken from a challenge.
const SCOPES: usize = 32;
/// How this program names itself to token services.
const CLIENT_ID: &str = "ocm";
/// The user name beside a token that is sent in place of a password; servers that take tokens look at the token only.
const TOKEN_USER: &str = "x-access-token";

/// What a request needs: actions by `type:name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// Actions, separated by commas, on one thing.
    pub(super) fn one(kind: &str, name: &str, actions: &str) -> Self {
        let actions = actions.split(',').map(str::to_owned).collect();
        Self(BTreeMap::from([(format!("{kind}:{name}"), actions)]))
    }

    /// Actions on a repository.
    pub(super) fn repository(name: &str, actions: &str) -> Self {
        Self::one("repository", name, actions)
    }

    /// Everything of both.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (what, actions) in &other.0 {
            all.0
                .entry(what.clone())
                .or_default()
                .extend(actions.iter().cloned());
        }
        all
    }

    /// Reads the `scope` of a challenge: `type:name:action,action`, separated by blanks. Names may have colons.
    fn parse(text: &str) -> Self {
        let mut scopes = Self::default();
        for scope in text.split_ascii_whitespace().take(SCOPES) {
            if let Some((what, actions)) = scope.rsplit_once(':')
                && what.contains(':')
            {
                let actions = actions
                    .split(',')
                    .filter(|action| !action.is_empty())
                    .map(str::to_owned);
                scopes.0.entry(what.to_owned()).or_default().extend(actions);
            }
        }
        scopes
    }

    /// One text per thing, sorted.
    fn texts(&self) -> Vec<String> {
        let text = |(what, actions): (&String, &BTreeSet<String>)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{what}:{}", actions.join(","))
        };
        self.0.iter().map(text).collect()
    }
}

/// What a registry wants.
#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

/// One entry of the token cache.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TokenKey {
    /// Of the credential; empty for none. The credential itself is nothing to keep in a key.
    fingerprint: String,
    realm: String,
    service: String,
    scopes: Scopes,
}

/// A token, or how asking for it last went.
#[derive(Default)]
struct Slot {
    token: Option<(Secret, Instant)>,
    failed: Option<(Error, Instant)>,
}

type Remembered = Arc<OnceCell<Option<Credential>>>;

/// What is known about registries' demands, credentials and tokens.
pub(super) struct AuthState {
    credentials: Arc<dyn CredentialSource>,
    schemes: Mutex<BTreeMap<String, Scheme>>,
    looked_up: Mutex<BTreeMap<(String, String), Remembered>>,
    tokens: Mutex<BTreeMap<TokenKey, Arc<tokio::sync::Mutex<Slot>>>>,
    /// Token services that credentials went to though they are nobody's that is known, by registry.
    strangers: Mutex<BTreeSet<(String, String)>>,
    /// What token services gave in place of refresh tokens, by the fingerprint of the configured one.
    renewed: Mutex<BTreeMap<String, Secret>>,
}

impl fmt::Debug for AuthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthState")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl AuthState {
    pub(super) fn new(credentials: Arc<dyn CredentialSource>) -> Self {
        Self {
            credentials,
            schemes: Mutex::default(),
            looked_up: Mutex::default(),
            tokens: Mutex::default(),
            strangers: Mutex::default(),
            renewed: Mutex::default(),
        }
    }

    /// Has a registry asked for credentials so far?
    pub(super) fn has_asked(&self, origin: &str) -> bool {
        lock(&self.schemes).contains_key(origin)
    }
}

/// What goes into the `Authorization` header, and where it came from.
pub(super) struct Authorization {
    pub(super) header: HeaderValue,
    /// The token's place in the cache and its text, to be dropped when it does not do.
    token: Option<(TokenKey, Secret)>,
}

impl Inner {
    /// What to bring along, as far as the registry has said what it wants.
    pub(super) async fn authorization(
        &self,
        call: &Call,
        scopes: &Scopes,
    ) -> Result<Option<Authorization>, Failure> {
        let scheme = lock(&self.auth.schemes)
            .get(&call.endpoint.authority())
            .cloned();
        if !call.endpoint.is_registry() {
            return self.web_authorization(call, scheme).await;
        }
        let Some(scheme) = scheme else {
            return Ok(None);
        };
        let credential = self.credential(call).await.map_err(Failure::last)?;
        let (header, token) = match (scheme, credential) {
            (Scheme::Basic, Some(Credential::Basic { username, password })) => {
                (basic(&username, &password), None)
            }
            (Scheme::Basic, _) => return Ok(None),
            (Scheme::Bearer { .. }, Some(Credential::Bearer(token))) => (bearer(&token)?, None),
            (Scheme::Bearer { realm, service }, credential) => {
                let token = self.token(call, credential, realm, service, scopes).await?;
                (bearer(&token.1)?, Some(token))
            }
        };
        Ok(Some(Authorization { header, token }))
    }

    /// What to bring along to a server that is no registry: what is configured for it, unasked, since many such servers deny
    /// that there is anything rather than ask who wants it. Tokens go as they are, or as a password where the server said
    /// that it takes passwords only.
    async fn web_authorization(
        &self,
        call: &Call,
        scheme: Option<Scheme>,
    ) -> Result<Option<Authorization>, Failure> {
        let header = match self.credential(call).await.map_err(Failure::last)? {
            None => return Ok(None),
            Some(Credential::Basic { username, password }) => basic(&username, &password),
            Some(Credential::Bearer(token) | Credential::IdentityToken(token)) => match scheme {
                Some(Scheme::Basic) => basic(TOKEN_USER, &token),
                _ => bearer(&token)?,
            },
        };
        Ok(Some(Authorization {
            header,
            token: None,
        }))
    }

    /// Learns from a 401 what the registry wants, and which scopes it named. `None`: there is nothing (else) to bring.
    pub(super) fn challenged(
        &self,
        call: &Call,
        headers: &HeaderMap,
        used: Option<&Authorization>,
    ) -> Result<Option<Scopes>, Failure> {
        let challenges = challenges_of(headers);
        let find = |scheme| {
            challenges
                .iter()
                .find(|challenge: &&Challenge| challenge.scheme == scheme)
        };
        let bearer = find("bearer").filter(|_| call.endpoint.is_registry());
        let (scheme, scopes) = match (bearer, find("basic")) {
            (Some(challenge), _) => {
                let scheme = self.bearer_scheme(call, challenge)?;
                let scopes = challenge.get("scope").map(Scopes::parse);
                (scheme, scopes.unwrap_or_default())
            }
            (None, Some(_)) => (Scheme::Basic, Scopes::default()),
            (None, None) => return Ok(None),
        };
        match used {
            Some(used) => self.forget(call, used),
            None if !call.endpoint.is_registry() => return Ok(None),
            None => {}
        }
        lock(&self.auth.schemes).insert(call.endpoint.authority(), scheme);
        Ok(Some(scopes))
    }

    fn bearer_scheme(&self, call: &Call, challenge: &Challenge) -> Result<Scheme, Failure> {
        let wrong = |what: &str| {
            Failure::last(Error::new(
                ErrorKind::Denied,
                format!("the registry asks for a token but {what}"),
            ))
        };
        let realm = challenge
            .get("realm")
            .ok_or_else(|| wrong("names no token service"))?;
        let realm = Url::parse(realm).map_err(|_| wrong("its token service is no URL"))?;
        let checked = call.endpoint.check_realm(&self.config, &realm);
        checked.map_err(Failure::last)?;
        Ok(Scheme::Bearer {
            realm,
            service: challenge.get("service").map(str::to_owned),
        })
    }

    /// Drops what did not do, so that the next request gets it anew.
    fn forget(&self, call: &Call, used: &Authorization) {
        lock(&self.auth.looked_up).remove(&place(call));
        let Some((key, text)) = &used.token else {
            return;
        };
        let slot = lock(&self.auth.tokens).get(key).cloned();
        // A slot in use is being filled with another token right now.
        if let Some(slot) = slot
            && let Ok(mut slot) = slot.try_lock()
            && slot.token.as_ref().is_some_and(|(token, _)| token == text)
        {
            slot.token = None;
        }
    }

    /// The credential for the call's repository, looked up once.
    async fn credential(&self, call: &Call) -> Result<Option<Credential>> {
        let cell = lock(&self.auth.looked_up)
            .entry(place(call))
            .or_default()
            .clone();
        let identity = call.identity();
        let look_up = || self.auth.credentials.credential(&identity);
        let found = cell.get_or_try_init(look_up).await.map_err(|error| {
            error.context(format!("look up credentials for {}", call.endpoint.name))
        })?;
        Ok(found.clone())
    }

    async fn token(
        &self,
        call: &Call,
        credential: Option<Credential>,
        realm: Url,
        service: Option<String>,
        scopes: &Scopes,
    ) -> Result<(TokenKey, Secret), Failure> {
        let key = TokenKey {
            fingerprint: fingerprint(credential.as_ref()),
            realm: realm.to_string(),
            service: service.clone().unwrap_or_default(),
            scopes: scopes.clone(),
        };
        let asked = Instant::now();
        let slot = lock(&self.auth.tokens)
            .entry(key.clone())
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        if let Some((token, until)) = &slot.token
            && Instant::now() < *until
        {
            return Ok((key, token.clone()));
        }
        // Whoever waited while another one failed has that one's answer.
        if let Some((error, at)) = &slot.failed
            && *at >= asked
        {
            return Err(Failure::last(error.clone()));
        }
        let credential = match credential {
            Some(Credential::IdentityToken(own)) => {
                let renewed = lock(&self.auth.renewed).get(&key.fingerprint).cloned();
                Some(Credential::IdentityToken(renewed.unwrap_or(own)))
            }
            credential => credential,
        };
        let is_refresh = matches!(credential, Some(Credential::IdentityToken(_)));
        if credential.is_some() {
            self.tell_of_stranger(call, &realm);
        }
        match self
            .fetch_token(call, credential, &realm, service.as_deref(), scopes)
            .await
        {
            Ok(Granted {
                token,
                life,
                refresh,
            }) => {
                // Some services take a refresh token once and give the next one with the answer.
                if let Some(refresh) = refresh.filter(|_| is_refresh) {
                    lock(&self.auth.renewed).insert(key.fingerprint.clone(), refresh);
                }
                let margin = TOKEN_MARGIN.min(life / 5);
                slot.token = Some((token.clone(), Instant::now() + life - margin));
                slot.failed = None;
                Ok((key, token))
            }
            Err(error) => {
                slot.token = None;
                slot.failed = Some((error.clone(), Instant::now()));
                Err(Failure::last(error))
            }
        }
    }

    /// Says, once, that credentials for a registry go to somebody else.
    fn tell_of_stranger(&self, call: &Call, realm: &Url) {
        if !call.endpoint.is_stranger(&self.config, realm) {
            return;
        }
        let (registry, service) = (&call.endpoint.name, authority_of(realm));
        let new = lock(&self.auth.strangers).insert((registry.clone(), service.clone()));
        if new {
            tracing::warn!(
                "credentials for the registry {registry} go to the token service that it names, {service}, which is in another \
                 domain; say with `tokenService` in the configuration that it is the right one"
            );
        }
    }

    /// Asks the token service, again where that may help.
    async fn fetch_token(
        &self,
        call: &Call,
        credential: Option<Credential>,
        realm: &Url,
        service: Option<&str>,
        scopes: &Scopes,
    ) -> Result<Granted> {
        let doing = format!(
            "get a token for {} from {}",
            call.endpoint.name,
            authority_of(realm)
        );
        let asking = Call {
            doing,
            ..call.clone()
        };
        let mut failed = 0;
        loop {
            let tried = self
                .ask(&asking, credential.as_ref(), realm, service, scopes)
                .await;
            let failure = match tried {
                Ok(token) => return Ok(token),
                Err(failure) => failure,
            };
            failed += 1;
            self.pause(&asking, failure, failed).await?;
        }
    }

    async fn ask(
        &self,
        call: &Call,
        credential: Option<&Credential>,
        realm: &Url,
        service: Option<&str>,
        scopes: &Scopes,
    ) -> Result<Granted, Failure> {
        let mut headers = HeaderMap::new();
        let (method, url, body) = match credential {
            Some(Credential::IdentityToken(token)) => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
                (
                    Method::POST,
                    realm.clone(),
                    Some(oauth_form(token, service, scopes)),
                )
            }
            credential => {
                if let Some(Credential::Basic { username, password }) = credential {
                    headers.insert(AUTHORIZATION, basic(username, password));
                }
                (Method::GET, token_url(realm, service, scopes), None)
            }
        };
        let _slot = self.limits.request(&Self::host_of(realm)).await;
        let payload = body.map_or(super::client::Payload::None, |form| {
            super::client::Payload::Bytes(form.into())
        });
        let mut response = self
            .send(method, url, headers, payload, &call.meter)
            .await?;
        let status = response.status();
        if status != StatusCode::OK {
            let text = self.error_body(&mut response).await;
            return Err(token_failure(
                call,
                status,
                response.headers(),
                &text,
                credential.is_some(),
            ));
        }
        let body = self.body(&mut response, TOKEN_LIMIT).await?;
        read_token(&body).map_err(Failure::last)
    }
}

fn token_failure(
    call: &Call,
    status: StatusCode,
    headers: &HeaderMap,
    text: &[u8],
    authorized: bool,
) -> Failure {
    let failure = Failure::answered(status, headers, text);
    // Services answer a wrong password with 400, 401 or 403; all mean the same to the user.
    if !matches!(status.as_u16(), 400 | 401 | 403) {
        return failure;
    }
    let message = failure
        .error
        .to_string()
        .replacen("the registry", "the token service", 1);
    let (name, identity) = (&call.endpoint.name, call.identity());
    let hint = match authorized {
        true => {
            format!("the credentials configured for {name} were refused (looked for: {identity})")
        }
        false => format!("no credentials are configured for {name} (looked for: {identity})"),
    };
    Failure {
        error: Error::new(ErrorKind::Denied, message).with_hint(hint),
        ..failure
    }
}

fn token_url(realm: &Url, service: Option<&str>, scopes: &Scopes) -> Url {
    let mut url = realm.clone();
    url.set_fragment(None);
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes.texts() {
            query.append_pair("scope", &scope);
        }
        query.append_pair("client_id", CLIENT_ID);
    }
    url
}

fn oauth_form(token: &Secret, service: Option<&str>, scopes: &Scopes) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("refresh_token", token.expose());
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    if !scopes.0.is_empty() {
        form.append_pair("scope", &scopes.texts().join(" "));
    }
    form.finish()
}

/// What a token service hands out.
struct Granted {
    token: Secret,
    life: Duration,
    /// To ask with the next time.
    refresh: Option<Secret>,
}

fn read_token(body: &[u8]) -> Result<Granted> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<f64>,
    }
    let wrong = |what: &str| Error::invalid(format!("the token service's answer {what}"));
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| wrong("is not what it should be"))?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty())
        .ok_or_else(|| wrong("has no token"))?;
    let life = match answer.expires_in {
        Some(seconds) if seconds >= 1.0 => (seconds as u64).min(TOKEN_LIFE_MAX),
        _ => TOKEN_LIFE,
    };
    let refresh = answer.refresh_token.filter(|token| !token.is_empty());
    Ok(Granted {
        token: Secret::new(token),
        life: Duration::from_secs(life),
        refresh: refresh.map(Secret::new),
    })
}

fn basic(username: &str, password: &Secret) -> HeaderValue {
    let text = format!("{username}:{}", password.expose());
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    let mut value = HeaderValue::try_from(format!("Basic {text}"))
        .expect("base64 has no character that a header may not have");
    value.set_sensitive(true);
    value
}

fn bearer(token: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Failure::last(Error::invalid(
            "the token has characters that no header may have",
        ))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn fingerprint(credential: Option<&Credential>) -> String {
    let text = match credential {
        None => return String::new(),
        Some(Credential::Basic { username, password }) => {
            format!("basic {} {username} {}", username.len(), password.expose())
        }
        Some(Credential::Bearer(token)) => format!("bearer {}", token.expose()),
        Some(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
    };
    Digest::sha256(text.as_bytes()).to_string()
}

fn place(call: &Call) -> (String, String) {
    (call.endpoint.authority(), call.path.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_united() {
        let ours = Scopes::repository("a/b", "pull,push").union(&Scopes::repository("c", "pull"));
        let theirs = Scopes::parse(
            "repository:a/b:pull,delete repository:h:5000/x:pull nonsense registry:catalog:*",
        );
        assert_eq!(
            ours.union(&theirs).texts(),
            [
                "registry:catalog:*",
                "repository:a/b:delete,pull,push",
                "repository:c:pull",
                "repository:h:5000/x:pull",
            ]
        );
    }

    #[test]
    fn tokens_as_services_write_them() {
        for (body, expected) in [
            (r#"{"token":"a","expires_in":300}"#, Some(("a", 300))),
            (r#"{"access_token":"b"}"#, Some(("b", 60))),
            (
                r#"{"token":"","access_token":"b","expires_in":0}"#,
                Some(("b", 60)),
            ),
            (
                r#"{"token":"a","expires_in":1e300}"#,
                Some(("a", TOKEN_LIFE_MAX)),
            ),
            (r#"{"token":"a","expires_in":-5}"#, Some(("a", 60))),
            ("{}", None),
            ("<html>", None),
        ] {
            let found = read_token(body.as_bytes()).ok();
            let found = found
                .as_ref()
                .map(|granted| (granted.token.expose(), granted.life.as_secs()));
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let credential = Credential::basic("jo", "hunter2");
        let header = basic("jo", &Secret::new("hunter2"));
        let shown = format!("{credential:?} {header:?} {}", Secret::new("hunter2"));
        assert!(
            !shown.contains("hunter2") && !shown.contains("am86"),
            "{shown}"
        );
    }
}
