//! Where requests for a registry go, and which other places they may be led to.
//!
//! *Invariant*: whether a URL that a registry names may be used is decided here and nowhere else.

use std::fmt;

use ocm_content::{Error, Host, Result};
use url::Url;

use super::config::ClientConfig;
use crate::credentials::Identity;

/// A registry: the name it has in references, and the URL its requests go to.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As in a reference, canonical: lower case, no default port.
    pub(super) name: String,
    /// What `v2/` is appended to; ends in `/`.
    base: Url,
    /// The hostname that credentials are asked for by.
    hostname: String,
    /// The budget it falls under.
    pub(super) host: Host,
    /// The type of consumer that credentials are asked for as.
    consumer: &'static str,
}

/// Consumers of registries' credentials.
const REGISTRY: &str = "OCIRegistry";

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, shown(&self.base))
    }
}

impl Endpoint {
    /// Finds the endpoint of `host`: `name[:port]`, with or without a scheme.
    ///
    /// An alias comes first; Docker Hub's names mean `registry-1.docker.io`. Plain HTTP is used where the scheme says so, for
    /// hosts that the configuration lists, and for loopback hosts without a scheme.
    pub(super) fn resolve(config: &ClientConfig, host: &str) -> Result<Self> {
        let (scheme, authority) = match host.split_once("://") {
            Some(("oci", authority)) => (None, authority),
            Some((scheme @ ("http" | "https"), authority)) => (Some(scheme), authority),
            Some(_) => return Err(no_host(host)),
            None => (None, host),
        };
        let authority = authority.trim_end_matches('/').to_ascii_lowercase();
        let name = match authority.as_str() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            _ => authority,
        };
        let guess = parse(host, &format!("https://{name}/"))?;
        let plain = match scheme {
            Some(scheme) => scheme == "http",
            None => is_loopback(&guess) || listed(&config.plain_http, &guess, &name),
        };
        let scheme = if plain { "http" } else { "https" };
        let own = parse(host, &format!("{scheme}://{name}/"))?;
        let name = authority_of(&own);
        let (base, hostname) = match alias_of(config, &name) {
            Some(target) => (alias_base(&name, target)?, None),
            None if name == "docker.io" => (
                parse(host, &format!("{scheme}://registry-1.docker.io/"))?,
                Some("docker.io".to_owned()),
            ),
            None => (own, None),
        };
        Ok(Self {
            hostname: hostname.unwrap_or_else(|| base.host_str().unwrap_or_default().to_owned()),
            host: Host::new(&authority_of(&base)),
            name,
            base,
            consumer: REGISTRY,
        })
    }

    /// The server behind a URL that is no registry's, and the URL that its alias, if there is one, makes of it. `consumer` is
    /// the type of consumer whose credentials it gets.
    pub(super) fn web(
        config: &ClientConfig,
        url: &Url,
        consumer: &'static str,
    ) -> Result<(Self, Url)> {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Error::invalid(format!(
                "`{}:` is no web address: expected https:// or http://",
                url.scheme()
            )));
        }
        if has_userinfo(url) {
            let error = Error::invalid("the URL has a user name or password in it");
            return Err(error.with_hint(
                "take it out of the URL and configure it as a credential for the host",
            ));
        }
        let name = authority_of(url);
        let alias = alias_of(config, &name);
        let mut base = url.clone();
        base.set_path("/");
        base.set_query(None);
        base.set_fragment(None);
        let mut target = url.clone();
        target.set_fragment(None);
        if let Some(alias) = alias {
            base = alias_base(&name, alias)?;
            target = base.clone();
            target.set_path(&format!(
                "{}{}",
                base.path(),
                url.path().trim_start_matches('/')
            ));
            target.set_query(url.query());
        }
        let endpoint = Self {
            hostname: base.host_str().unwrap_or_default().to_owned(),
            host: Host::new(&authority_of(&base)),
            name,
            base,
            consumer,
        };
        Ok((endpoint, target))
    }

    /// The same server, with the credentials of the host by which people know it: `github.com` for `api.github.com`. What an
    /// alias stands in for keeps its own.
    pub(super) fn known_as(mut self, hostname: &str) -> Self {
        if authority_of(&self.base) == self.name {
            hostname.clone_into(&mut self.hostname);
        }
        self
    }

    /// Is it a registry, which says by a challenge what it wants?
    pub(super) fn is_registry(&self) -> bool {
        self.consumer == REGISTRY
    }

    /// The URL of `path` below `v2/`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}v2/{path}", self.base.path()));
        url
    }

    /// Is it spoken to without TLS?
    pub(super) fn is_plain(&self) -> bool {
        self.base.scheme() == "http"
    }

    /// The identity that credentials for `path` are asked for by: the place that the requests really go to, so that an
    /// alias's target never sees what is configured for the name it stands in for.
    pub(super) fn identity(&self, path: &str) -> Identity {
        let prefix = self.base.path().trim_matches('/');
        let path = match (prefix, path) {
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}/{path}"),
        };
        Identity::oci(self.base.scheme(), &self.hostname, self.base.port(), &path)
            .with("type", self.consumer)
    }

    /// What remembers who may do what there: consumers of several types at one origin are strangers to each other.
    pub(super) fn authority(&self) -> String {
        match self.is_registry() {
            true => self.origin(),
            false => format!("{} {} {}", self.consumer, self.hostname, self.origin()),
        }
    }

    /// What remembers things about this registry: its origin.
    pub(super) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Resolves a URL that an answer from this registry names for the *next request to itself* (an upload's `Location`,
    /// the `Link` to the next page): relative to `from`, same scheme, host and port.
    pub(super) fn own_url(&self, from: &Url, text: &str, what: &str) -> Result<Url> {
        let url = from
            .join(text)
            .map_err(|_| Error::invalid(format!("{}: the {what} it names is no URL", self.name)))?;
        if url.origin() != self.base.origin() || has_userinfo(&url) {
            return Err(Error::invalid(format!(
                "{}: the {what} it names leads to {}, which is another place",
                self.name,
                origin_of(&url)
            )));
        }
        Ok(url)
    }

    /// May the token service at `realm` be asked for tokens, with the credentials of this registry?
    ///
    /// Registries keep it on hosts of their own choice, so any host over TLS will do, unless the configuration names the one:
    /// what is sent there are credentials configured for the registry, which it could ask for itself. Without TLS only a
    /// registry that has none itself may name one, on its own hostname or, both, on loopback.
    pub(super) fn check_realm(&self, config: &ClientConfig, realm: &Url) -> Result<()> {
        if let Some(pinned) = config.token_service_of(&self.base)
            && !listed([&pinned.to_owned()], realm, &authority_of(realm))
        {
            return Err(Error::invalid(format!(
                "{}: it names the token service {}, and the configuration names {} for it",
                self.name,
                origin_of(realm),
                pinned.escape_debug()
            ))
            .with_hint("where the service has moved, change `tokenService` of the registry in the configuration"));
        }
        let same_host = realm.host() == self.base.host();
        let fine = match realm.scheme() {
            "https" => true,
            "http" if self.is_plain() => {
                same_host || (is_loopback(realm) && is_loopback(&self.base))
            }
            _ => false,
        };
        if fine && realm.host().is_some() && !has_userinfo(realm) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{}: its token service {} is not trusted with credentials",
            self.name,
            origin_of(realm)
        ))
        .with_hint("a token service must be reached over https"))
    }

    /// Is a token service at `realm` nobody's that this registry obviously belongs to: on another host, under another domain,
    /// and not named by the configuration?
    pub(super) fn is_stranger(&self, config: &ClientConfig, realm: &Url) -> bool {
        config.token_service_of(&self.base).is_none() && !are_related(&self.base, realm)
    }

    /// Resolves the target of a redirected read. Other hosts are fine (and get no credentials), a step down from https to
    /// http is not (unless on loopback), and neither is a step from elsewhere to this machine.
    pub(super) fn redirect(&self, from: &Url, text: &str) -> Result<Url> {
        let refuse = |why: &str| Error::invalid(format!("{}: {why}", self.name));
        let url = from
            .join(text)
            .map_err(|_| refuse("it redirects to what is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || has_userinfo(&url) {
            return Err(refuse("it redirects to what is no web address"));
        }
        let both_local = is_loopback(&self.base) && is_loopback(&url);
        if from.scheme() == "https" && url.scheme() == "http" && !both_local {
            return Err(refuse(&format!(
                "it redirects from https to http at {}",
                origin_of(&url)
            )));
        }
        if is_loopback(&url) && !is_loopback(&self.base) {
            return Err(refuse(&format!(
                "it redirects to this machine at {}",
                origin_of(&url)
            )));
        }
        Ok(url)
    }
}

fn no_host(text: &str) -> Error {
    Error::invalid(format!("`{}` is no registry host", text.escape_debug()))
}

fn parse(given: &str, text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| no_host(given))?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if plain && url.host().is_some() && !has_userinfo(&url) {
        return Ok(url);
    }
    Err(no_host(given))
}

fn alias_of<'a>(config: &'a ClientConfig, name: &str) -> Option<&'a Url> {
    let mut aliases = config.host_aliases.iter();
    let found = aliases.find(|(alias, _)| alias.eq_ignore_ascii_case(name));
    found.map(|(_, target)| target)
}

fn alias_base(name: &str, target: &Url) -> Result<Url> {
    let usable = matches!(target.scheme(), "http" | "https")
        && target.host().is_some()
        && target.query().is_none()
        && !has_userinfo(target);
    if !usable {
        return Err(Error::invalid(format!(
            "the alias of {name} must be an http or https URL without credentials and query"
        )));
    }
    let mut base = target.clone();
    base.set_fragment(None);
    base.set_path(&format!("{}/", target.path().trim_end_matches('/')));
    Ok(base)
}

fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// `host[:port]`, the port only where it is not the scheme's own.
pub(super) fn authority_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Scheme, host and port, for messages.
pub(super) fn origin_of(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority_of(url))
}

/// A URL for messages: without query, which may be a signature.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", origin_of(url), url.path())
}

/// Is `host` or `host:port` of `url` in the list, in any case?
pub(super) fn listed<'a>(
    list: impl IntoIterator<Item = &'a String>,
    url: &Url,
    name: &str,
) -> bool {
    let host = url.host_str().unwrap_or_default();
    list.into_iter()
        .any(|entry| entry.eq_ignore_ascii_case(name) || entry.eq_ignore_ascii_case(host))
}

/// Are both on the same host, or in the same domain? A domain is the last two labels of a name: that is too much where domains
/// are registered below two labels (`co.uk`), which only a list of all of them could tell.
fn are_related(one: &Url, other: &Url) -> bool {
    fn domain(name: &str) -> Option<(&str, &str)> {
        let mut labels = name.trim_end_matches('.').rsplit('.');
        let (top, own) = (labels.next()?, labels.next()?);
        Some((own, top))
    }
    match (one.host(), other.host()) {
        (Some(url::Host::Domain(one)), Some(url::Host::Domain(other))) => {
            one == other || domain(one).is_some_and(|found| domain(other) == Some(found))
        }
        (one, other) => one == other,
    }
}

/// Does the URL name this machine?
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        // Who connects to no address in particular is connected to this machine.
        Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(url::Host::Ipv6(address)) => {
            let mapped = address.to_ipv4_mapped();
            address.is_loopback()
                || address.is_unspecified()
                || mapped.is_some_and(|address| address.is_loopback() || address.is_unspecified())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::HostConfig;

    fn config() -> ClientConfig {
        let mut config = ClientConfig::default();
        config.plain_http.insert("plain.example:5000".to_owned());
        let alias = |text: &str| Url::parse(text).expect("a URL");
        config
            .host_aliases
            .insert("ghcr.io".to_owned(), alias("http://127.0.0.1:5001/mirror/"));
        config
    }

    #[test]
    fn where_requests_go() {
        for (host, expected) in [
            (
                "Registry.Example",
                "registry.example https://registry.example/v2/x",
            ),
            ("oci://r.example:443", "r.example https://r.example/v2/x"),
            (
                "r.example:8443",
                "r.example:8443 https://r.example:8443/v2/x",
            ),
            ("http://r.example", "r.example http://r.example/v2/x"),
            (
                "plain.example:5000",
                "plain.example:5000 http://plain.example:5000/v2/x",
            ),
            ("plain.example", "plain.example https://plain.example/v2/x"),
            (
                "localhost:5000",
                "localhost:5000 http://localhost:5000/v2/x",
            ),
            ("127.1.2.3", "127.1.2.3 http://127.1.2.3/v2/x"),
            ("[::1]:5000", "[::1]:5000 http://[::1]:5000/v2/x"),
            ("https://localhost", "localhost https://localhost/v2/x"),
            ("docker.io", "docker.io https://registry-1.docker.io/v2/x"),
            (
                "index.docker.io",
                "docker.io https://registry-1.docker.io/v2/x",
            ),
            ("ghcr.io", "ghcr.io http://127.0.0.1:5001/mirror/v2/x"),
            ("", "`` is no registry host"),
            (
                "user:pw@r.example",
                "`user:pw@r.example` is no registry host",
            ),
            ("r.example/path", "`r.example/path` is no registry host"),
            ("ftp://r.example", "`ftp://r.example` is no registry host"),
            ("a b", "`a b` is no registry host"),
        ] {
            let found = match Endpoint::resolve(&config(), host) {
                Ok(endpoint) => format!("{} {}", endpoint.name, endpoint.url("x")),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn credentials_are_asked_for_the_place_that_gets_them() {
        for (host, expected) in [
            (
                "r.example",
                "hostname=r.example,path=a/b,scheme=https,type=OCIRegistry",
            ),
            (
                "docker.io",
                "hostname=docker.io,path=a/b,scheme=https,type=OCIRegistry",
            ),
            (
                "ghcr.io",
                "hostname=127.0.0.1,path=mirror/a/b,port=5001,scheme=http,type=OCIRegistry",
            ),
        ] {
            let endpoint = Endpoint::resolve(&config(), host).expect("a host");
            assert_eq!(endpoint.identity("a/b").to_string(), expected);
        }
    }

    #[test]
    fn where_an_answer_may_lead() {
        let verdict = |result: Result<()>| if result.is_ok() { "yes" } else { "no" };
        for (host, to, redirect, own, realm) in [
            ("r.example", "https://r.example/x", "yes", "yes", "yes"),
            (
                "r.example",
                "https://cdn.example/x?sig=1",
                "yes",
                "no",
                "yes",
            ),
            ("r.example", "https://r.example:8443/x", "yes", "no", "yes"),
            ("r.example", "http://r.example/x", "no", "no", "no"),
            ("r.example", "http://cdn.example/x", "no", "no", "no"),
            ("r.example", "https://127.0.0.1/x", "no", "no", "yes"),
            ("r.example", "https://u:p@r.example/x", "no", "no", "no"),
            ("r.example", "file:///etc/passwd", "no", "no", "no"),
            (
                "http://r.example",
                "http://r.example/x",
                "yes",
                "yes",
                "yes",
            ),
            (
                "http://r.example",
                "http://r.example:81/x",
                "yes",
                "no",
                "yes",
            ),
            (
                "http://r.example",
                "http://cdn.example/x",
                "yes",
                "no",
                "no",
            ),
            (
                "http://r.example",
                "https://cdn.example/x",
                "yes",
                "no",
                "yes",
            ),
            (
                "127.0.0.1:5000",
                "http://localhost:5001/x",
                "yes",
                "no",
                "yes",
            ),
            ("127.0.0.1:5000", "http://r.example/x", "yes", "no", "no"),
            ("r.example", "https://127.0.0.1/x", "no", "no", "yes"),
            ("r.example", "https://0.0.0.0/x", "no", "no", "yes"),
            ("r.example", "https://[::]/x", "no", "no", "yes"),
            (
                "r.example",
                "https://[::ffff:127.0.0.1]/x",
                "no",
                "no",
                "yes",
            ),
            ("https://localhost", "http://localhost/x", "yes", "no", "no"),
        ] {
            let endpoint = Endpoint::resolve(&config(), host).expect("a host");
            let from = endpoint.url("a");
            let found = [
                verdict(endpoint.redirect(&from, to).map(drop)),
                verdict(endpoint.own_url(&from, to, "location").map(drop)),
                verdict(endpoint.check_realm(&config(), &Url::parse(to).expect("a URL"))),
            ];
            assert_eq!(found, [redirect, own, realm], "{host} -> {to}");
        }
    }

    #[test]
    fn token_services_elsewhere_are_strangers_unless_they_are_named() {
        for (host, realm, stranger) in [
            ("r.example", "https://r.example/token", false),
            ("r.example", "https://r.example:8443/token", false),
            ("r.example", "https://auth.r.example/token", false),
            ("registry.acme.org", "https://gitlab.acme.org/jwt", false),
            ("registry.acme.org", "https://Auth.Acme.org./jwt", false),
            ("docker.io", "https://auth.docker.io/token", false),
            ("registry.acme.org", "https://acme.org.evil.com/token", true),
            ("registry.acme.org", "https://evil-acme.org/token", true),
            ("acme", "https://acme.org/token", true),
            ("acme", "https://org/token", true),
            ("https://10.0.0.1", "https://10.0.0.1:5001/token", false),
            ("https://10.0.0.1", "https://11.0.0.1/token", true),
            ("https://10.0.0.1", "https://r.example/token", true),
        ] {
            let mut config = config();
            let realm = Url::parse(realm).expect("a URL");
            let endpoint = Endpoint::resolve(&config, host).expect("a host");
            let found = endpoint.is_stranger(&config, &realm);
            assert_eq!(found, stranger, "{host} -> {realm}");
            endpoint.check_realm(&config, &realm).expect("by TLS");
            let name = endpoint.base.host_str().expect("a host").to_owned();
            for (pinned, fine) in [
                (realm.host_str().expect("a host"), true),
                (&authority_of(&realm), true),
                ("other.example", false),
            ] {
                let pinned = HostConfig {
                    token_service: Some(pinned.to_owned()),
                    ..HostConfig::default()
                };
                config.hosts.insert(name.clone(), pinned);
                let checked = endpoint.check_realm(&config, &realm);
                assert_eq!(checked.is_ok(), fine, "{host} -> {realm}");
                assert!(!endpoint.is_stranger(&config, &realm));
            }
        }
    }
}
