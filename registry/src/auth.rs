//! Who may do what: basic authentication, and tokens from an endpoint of our own.
//!
//! *Invariant*: secrets are compared by their hashes, so that how long it takes tells nothing about them, and appear in no
//! log, no `Debug` text and no answer. Tokens live in memory, are limited in number and end by the clock.
//!
//! Tokens follow the distribution project's token specification ("Token Authentication"): a 401 names the scope that is
//! missing, `/token` hands out a token for what the user may have of it, as GET with basic authentication or as an OAuth2
//! POST with a password or a refresh token.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ocm_specs::Digest;
use serde_json::json;
use tokio::time::Instant;

use crate::Registry;
use crate::failure::{Code, Failure, Outcome};
use crate::router::{Query, text};
use crate::sessions::random_hex;
use crate::uploads::Incoming;

/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 32;

/// Most scopes in one token.
const SCOPE_LIMIT: usize = 64;

/// Largest form of a token request, in bytes.
const FORM_LIMIT: usize = 64 << 10;

/// How callers prove who they are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Auth {
    /// They don't: everybody may do everything.
    #[default]
    None,
    /// Name and password with every request.
    Basic {
        /// Who there is.
        users: Users,
    },
    /// Name and password for a token, the token with every request.
    Token {
        /// Who there is.
        users: Users,
        /// How long a token is good for.
        lifetime: Duration,
        /// Where tokens are handed out, as clients see it; `None` for `/token` at the host that the client asked for.
        realm: Option<String>,
    },
}

/// The users of a registry, and what everybody else may do.
#[derive(Clone, Debug, Default)]
pub struct Users {
    /// By name.
    pub named: BTreeMap<String, User>,
    /// May anybody read?
    pub anonymous_pull: bool,
}

/// What the registry knows of a user.
#[derive(Clone)]
pub struct User {
    /// Proves that it is them.
    pub password: String,
    /// May they write and delete?
    pub write: bool,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("write", &self.write)
            .finish_non_exhaustive()
    }
}

impl Users {
    /// One user who may do everything.
    pub fn one(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self::default().with(name, password, true)
    }

    /// One user more.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        write: bool,
    ) -> Self {
        let password = password.into();
        self.named.insert(name.into(), User { password, write });
        self
    }

    fn check(&self, name: &str, password: &str) -> Option<Rights> {
        let given = Digest::sha256(password.as_bytes());
        let user = self.named.get(name);
        // Hashes something for unknown users, too.
        let known = Digest::sha256(user.map_or("", |user| &user.password).as_bytes());
        let equal = known
            .hex()
            .bytes()
            .zip(given.hex().bytes())
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0;
        user.filter(|_| equal).map(|user| Rights {
            write: user.write,
            anonymous: false,
        })
    }

    fn anonymous(&self) -> Option<Rights> {
        self.anonymous_pull.then_some(Rights {
            write: false,
            anonymous: true,
        })
    }
}

/// What a request wants to do to content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Delete,
}

impl Access {
    fn action(self) -> &'static str {
        match self {
            Self::Read => "pull",
            Self::Write => "push",
            Self::Delete => "delete",
        }
    }
}

/// What a request wants to do, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) access: Access,
    pub(crate) repository: Option<&'a str>,
    pub(crate) catalog: bool,
}

impl Wish<'_> {
    /// The scope as challenges spell it. Pushing needs reading, too: clients look before they send.
    fn scope(&self) -> Option<String> {
        if self.catalog {
            return Some("registry:catalog:*".to_owned());
        }
        let actions = match self.access {
            Access::Read => "pull",
            Access::Write => "pull,push",
            Access::Delete => "delete",
        };
        Some(format!("repository:{}:{actions}", self.repository?))
    }
}

/// What a user may do at all.
#[derive(Clone, Copy, Debug)]
struct Rights {
    write: bool,
    anonymous: bool,
}

impl Rights {
    fn allow(self, action: &str) -> bool {
        self.write || action == "pull"
    }
}

/// Whoever sent a request, as far as it was proved.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    rights: Rights,
    /// What the token is for; `None` without tokens.
    scopes: Option<BTreeSet<Scope>>,
}

impl Caller {
    fn everybody() -> Self {
        Self::with(Rights {
            write: true,
            anonymous: false,
        })
    }

    fn with(rights: Rights) -> Self {
        Self {
            rights,
            scopes: None,
        }
    }

    /// May the caller do that in that repository?
    pub(crate) fn may(&self, action: &str, repository: &str) -> bool {
        self.rights.allow(action) && self.in_scope("repository", repository, action)
    }

    fn in_scope(&self, kind: &str, name: &str, action: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| {
            scopes.iter().any(|scope| {
                scope.kind == kind
                    && scope.name == name
                    && (scope.action == action || scope.action == "*")
            })
        })
    }

    fn may_have(&self, wish: &Wish<'_>) -> bool {
        match wish.repository {
            _ if wish.catalog => self.in_scope("registry", "catalog", "*"),
            Some(repository) => self.may(wish.access.action(), repository),
            None => true,
        }
    }
}

/// One action on one thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    kind: String,
    name: String,
    action: String,
}

/// `repository:acme/x:pull,push`, as far as `rights` go. Names may hold colons.
fn scopes(text: &str, rights: Rights) -> Vec<Scope> {
    let parts = text
        .split_once(':')
        .and_then(|(kind, rest)| Some((kind, rest.rsplit_once(':')?)));
    let Some((kind, (name, actions))) = parts else {
        return Vec::new();
    };
    actions
        .split(',')
        .filter(|action| match kind {
            "repository" => rights.allow(action),
            "registry" => name == "catalog" && *action == "*",
            _ => false,
        })
        .take(SCOPE_LIMIT)
        .map(|action| Scope {
            kind: kind.to_owned(),
            name: name.to_owned(),
            action: action.to_owned(),
        })
        .collect()
}

/// Tokens that were handed out, by their hash.
#[derive(Debug)]
pub(crate) struct Tokens {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    access: BTreeMap<Digest, Granted>,
    /// Who a refresh token stands for. They don't expire; the oldest go when there are too many.
    refresh: BTreeMap<Digest, (Rights, Instant)>,
}

#[derive(Debug)]
struct Granted {
    expires: Instant,
    caller: Caller,
}

impl Tokens {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, caller: Caller, lifetime: Duration) -> Outcome<String> {
        let token = random_hex::<TOKEN_BYTES>()?;
        let now = Instant::now();
        let granted = Granted {
            expires: now + lifetime,
            caller,
        };
        let mut table = self.lock();
        if table.access.len() >= self.limit {
            table.access.retain(|_, granted| granted.expires > now);
        }
        while table.access.len() >= self.limit {
            let first = table
                .access
                .iter()
                .min_by_key(|(_, granted)| granted.expires);
            let Some(first) = first.map(|(digest, _)| digest.clone()) else {
                break;
            };
            table.access.remove(&first);
        }
        table.access.insert(hash(&token), granted);
        Ok(token)
    }

    fn caller(&self, token: &str) -> Option<Caller> {
        let key = hash(token);
        let mut table = self.lock();
        let granted = table.access.get(&key)?;
        if granted.expires <= Instant::now() {
            table.access.remove(&key);
            return None;
        }
        Some(granted.caller.clone())
    }

    fn grant_refresh(&self, rights: Rights) -> Outcome<String> {
        let token = random_hex::<TOKEN_BYTES>()?;
        let mut table = self.lock();
        if table.refresh.len() >= self.limit {
            let oldest = table.refresh.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(oldest) = oldest.map(|(digest, _)| digest.clone()) {
                table.refresh.remove(&oldest);
            }
        }
        table.refresh.insert(hash(&token), (rights, Instant::now()));
        Ok(token)
    }

    fn refreshed(&self, token: &str) -> Option<Rights> {
        self.lock().refresh.get(&hash(token)).map(|found| found.0)
    }
}

fn hash(secret: &str) -> Digest {
    Digest::sha256(secret.as_bytes())
}

impl Registry {
    /// Lets the request pass, or says what it lacks.
    pub(crate) fn authorize(&self, headers: &HeaderMap, wish: &Wish<'_>) -> Outcome<Caller> {
        let caller = match &self.config.auth {
            Auth::None => return Ok(Caller::everybody()),
            Auth::Basic { users } => match headers.get(AUTHORIZATION) {
                None => users.anonymous(),
                Some(value) => basic(value).and_then(|(name, secret)| users.check(&name, &secret)),
            }
            .map(Caller::with),
            Auth::Token { users, .. } => match headers.get(AUTHORIZATION) {
                None => users.anonymous().map(Caller::with),
                Some(value) => bearer(value).and_then(|token| self.tokens.caller(token)),
            },
        };
        match caller {
            Some(caller) if caller.may_have(wish) => Ok(caller),
            // A token for something else, or none: another one may do. Users who never may are told so.
            Some(caller)
                if caller.rights.anonymous || caller.rights.allow(wish.access.action()) =>
            {
                let error = caller.scopes.is_some().then_some("insufficient_scope");
                Err(self.challenge(headers, wish, error)?)
            }
            Some(_) => Err(Failure::new(
                StatusCode::FORBIDDEN,
                Code::Denied,
                "this user may not do that",
            )),
            None => {
                let error = headers
                    .contains_key(AUTHORIZATION)
                    .then_some("invalid_token");
                Err(self.challenge(headers, wish, error)?)
            }
        }
    }

    fn challenge(
        &self,
        headers: &HeaderMap,
        wish: &Wish<'_>,
        error: Option<&str>,
    ) -> Outcome<Failure> {
        let Auth::Token { realm, .. } = &self.config.auth else {
            return Ok(unauthorized(BASIC_CHALLENGE.clone()));
        };
        let host = host(headers);
        let realm = match realm {
            Some(realm) => realm.clone(),
            None => format!("http://{host}/token"),
        };
        let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{host}\"");
        if let Some(scope) = wish.scope() {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        if let Some(error) = error {
            challenge.push_str(&format!(",error=\"{error}\""));
        }
        Ok(unauthorized(text(&challenge)?))
    }

    /// Hands out a token.
    pub(crate) async fn token(
        &self,
        method: &Method,
        headers: &HeaderMap,
        query: &Query,
        body: Body,
    ) -> Outcome {
        let Auth::Token {
            users, lifetime, ..
        } = &self.config.auth
        else {
            let message = "this registry has no tokens";
            return Err(Failure::not_found(Code::Unsupported, message));
        };
        let (rights, asked, offline) = if *method == Method::POST {
            let form = self.form(body).await?;
            let rights = self.form_rights(users, &form)?;
            let asked: Vec<String> = form
                .all("scope")
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect();
            (rights, asked, form.get("access_type") == Some("offline"))
        } else {
            let rights = match headers.get(AUTHORIZATION) {
                None => users.anonymous(),
                Some(value) => basic(value).and_then(|(name, secret)| users.check(&name, &secret)),
            };
            let rights = rights.ok_or_else(|| unauthorized(BASIC_CHALLENGE.clone()))?;
            let asked = query
                .all("scope")
                .flat_map(str::split_whitespace)
                .map(str::to_owned)
                .collect();
            (rights, asked, query.get("offline_token") == Some("true"))
        };
        let granted = asked
            .iter()
            .flat_map(|text| scopes(text, rights))
            .take(SCOPE_LIMIT)
            .collect();
        let caller = Caller {
            rights,
            scopes: Some(granted),
        };
        let token = self.tokens.grant(caller, *lifetime)?;
        let mut body = json!({
            "token": token,
            "access_token": token,
            "expires_in": lifetime.as_secs(),
        });
        if offline && !rights.anonymous {
            body["refresh_token"] = self.tokens.grant_refresh(rights)?.into();
        }
        Ok(secret_json(body.to_string()))
    }

    async fn form(&self, body: Body) -> Outcome<Query> {
        let mut body = Incoming::new(body, self.config.limits.stall);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await? {
            if bytes.len() + chunk.len() > FORM_LIMIT {
                return Err(Failure::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Code::SizeInvalid,
                    format!("the form has more than {FORM_LIMIT} bytes"),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Query::of(&bytes))
    }

    fn form_rights(&self, users: &Users, form: &Query) -> Outcome<Rights> {
        let field = |name| form.get(name).unwrap_or_default();
        let rights = match form.get("grant_type") {
            Some("password") => users.check(field("username"), field("password")),
            Some("refresh_token") => self.tokens.refreshed(field("refresh_token")),
            _ => {
                let message = "`grant_type` is neither `password` nor `refresh_token`";
                return Err(Failure::bad(Code::Unsupported, message));
            }
        };
        rights.ok_or_else(|| unauthorized(BASIC_CHALLENGE.clone()))
    }
}

static BASIC_CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"ocm registry\", charset=\"UTF-8\"");

fn unauthorized(challenge: HeaderValue) -> Failure {
    Failure::new(
        StatusCode::UNAUTHORIZED,
        Code::Unauthorized,
        "authentication is required",
    )
    .with(WWW_AUTHENTICATE, challenge)
}

fn secret_json(body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The host as the client names it: only what can stand in a URL, and no user name.
fn host(headers: &HeaderMap) -> String {
    headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.contains('@'))
        .and_then(|value| value.parse::<Authority>().ok())
        .map_or_else(|| "localhost".to_owned(), |host| host.to_string())
}

fn scheme<'a>(value: &'a HeaderValue, scheme: &str) -> Option<&'a str> {
    let (found, rest) = value.to_str().ok()?.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    scheme(value, "bearer")
}

fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let decoded = BASE64.decode(scheme(value, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, secret) = text.split_once(':')?;
    Some((name.to_owned(), secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Rights = Rights {
        write: true,
        anonymous: false,
    };

    #[tokio::test(start_paused = true)]
    async fn tokens_expire_and_are_bounded() {
        let tokens = Tokens::new(2);
        let grant = |seconds| {
            let lifetime = Duration::from_secs(seconds);
            let token = tokens.grant(Caller::with(WRITER), lifetime);
            token.expect("there is chance in the system")
        };
        let (short, long) = (grant(10), grant(20));
        assert!(tokens.caller(&short).is_some());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(tokens.caller(&short).is_none());
        assert!(tokens.caller(&long).is_some());
        let (_, _) = (grant(30), grant(30));
        assert!(tokens.caller(&long).is_none(), "it would expire first");
        assert!(tokens.caller("").is_none());
    }

    #[test]
    fn scopes_are_cut_to_what_the_user_may_do() {
        let reader = Rights {
            write: false,
            anonymous: false,
        };
        let check = |text: &str, rights, expected: &[&str]| {
            let found: Vec<String> = scopes(text, rights)
                .into_iter()
                .map(|scope| format!("{}:{}:{}", scope.kind, scope.name, scope.action))
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        check(
            "repository:a/b:pull,push",
            WRITER,
            &["repository:a/b:pull", "repository:a/b:push"],
        );
        check(
            "repository:a/b:pull,push,*",
            reader,
            &["repository:a/b:pull"],
        );
        check("repository:h:1/a:pull", reader, &["repository:h:1/a:pull"]);
        check("registry:catalog:*", reader, &["registry:catalog:*"]);
        check("registry:users:*", WRITER, &[]);
        check("", WRITER, &[]);
        check("repository", WRITER, &[]);
    }

    #[test]
    fn passwords_do_not_show() {
        let users = Users::one("joe", "secret-word");
        assert!(!format!("{users:?}").contains("secret-word"));
        assert!(users.check("joe", "secret-word").is_some());
        assert!(users.check("joe", "").is_none());
        assert!(users.check("", "").is_none());
    }
}
