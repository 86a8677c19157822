//! Commits as GitHub archives them: the very bytes that GitHub serves, so that digests stated by other programs hold.

use ocm_content::{Blob, Error, ErrorKind, Result};
use ocm_specs::Digest;
use ocm_specs::access::remote::GitHub;
use ocm_specs::media_type::TGZ;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use url::Url;

use super::{GITHUB, printable};
use crate::oci::{Expected, WebRequest};
use crate::session::Session;

pub(super) async fn archive(
    session: &Session,
    access: GitHub<'_>,
    digest: Option<Digest>,
) -> Result<Blob> {
    let request = request(access)?;
    let expected = Expected {
        media_type: Some(TGZ.to_owned()),
        digest,
    };
    let found = session.client().content(request, expected).await;
    found.map_err(|error| match error.kind() {
        // GitHub denies that private repositories exist.
        ErrorKind::NotFound if error.hint().is_none() => error.with_hint(
            "a private repository needs a token: configure a consumer of type GitHubRepository",
        ),
        _ => error,
    })
}

fn request(access: GitHub<'_>) -> Result<WebRequest> {
    let commit = access.commit.ok_or_else(|| {
        Error::invalid("access.commit is missing: what a reference names may change")
            .with_hint("pin the commit: `commit: <40 hexadecimal digits>`")
    })?;
    if commit.len() != 40 || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::invalid(format!(
            "access.commit: `{}` is no commit: expected 40 hexadecimal digits",
            commit.escape_debug()
        )));
    }
    let no_repository = || {
        Error::invalid(format!(
            "access.repoUrl: `{}` is no repository: expected https://HOST/OWNER/REPOSITORY",
            printable(access.repo_url)
        ))
    };
    let text = match access.repo_url.contains("://") {
        true => access.repo_url.to_owned(),
        false => format!("https://{}", access.repo_url),
    };
    let repository = Url::parse(&text).map_err(|_| no_repository())?;
    let path = repository.path().trim_matches('/').to_owned();
    let (owner, name) = path.split_once('/').ok_or_else(no_repository)?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    if owner.is_empty() || name.is_empty() || name.contains('/') {
        return Err(no_repository());
    }
    let host = repository.host_str().ok_or_else(no_repository)?.to_owned();
    let mut url = api(&repository, access.api_hostname)?;
    let base = url.path().trim_matches('/').to_owned();
    let slash = if base.is_empty() { "" } else { "/" };
    url.set_path(&format!(
        "{base}{slash}repos/{owner}/{name}/tarball/{commit}"
    ));
    let mut request = WebRequest::get(url, GITHUB)
        .with_path(&format!("{owner}/{name}"))
        .header(
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        )
        .header(
            HeaderName::from_static("x-github-api-version"),
            HeaderValue::from_static("2022-11-28"),
        );
    request.doing = format!("read commit {} of {host}/{owner}/{name}", &commit[..12]);
    // Any other API host that an access names has to have credentials of its own.
    let api_host = request.url.host_str().unwrap_or_default();
    if api_host == format!("api.{host}") {
        request.known_as = Some(host);
    }
    Ok(request)
}

/// Where the API is: at `api.github.com`, and below `api/v3` of other installations unless their host says that it is one.
fn api(repository: &Url, hostname: Option<&str>) -> Result<Url> {
    let mut url = repository.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path("");
    if let Some(authority) = hostname {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        let set = url.set_host(Some(host)).is_ok() && url.set_port(port).is_ok();
        if !set || host.contains(['/', '@', '?', '#']) {
            return Err(Error::invalid(format!(
                "access.apiHostname: `{}` is no host",
                authority.escape_debug()
            )));
        }
    } else if repository.host_str() == Some("github.com") {
        url.set_host(Some("api.github.com"))
            .map_err(|_| Error::internal("api.github.com is no host"))?;
    }
    let host = url.host_str().unwrap_or_default();
    if !host.starts_with("api.") && !host.contains(".api.") {
        url.set_path("api/v3");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn check(repo_url: &str, api_hostname: Option<&str>, expected: &str) {
        let access = GitHub {
            repo_url,
            api_hostname,
            commit: Some(COMMIT),
            reference: None,
        };
        let found = match request(access) {
            Ok(request) => format!(
                "{} as {} for {}",
                request.url.as_str().replace(COMMIT, "COMMIT"),
                request.known_as.as_deref().unwrap_or("itself"),
                request.path.as_deref().unwrap_or_default()
            ),
            Err(error) => error.to_string(),
        };
        assert!(found.starts_with(expected), "{repo_url}: {found}");
    }

    #[test]
    fn where_archives_are_and_whose_credentials_they_get() {
        let public =
            "https://api.github.com/repos/acme/app/tarball/COMMIT as github.com for acme/app";
        check("https://github.com/acme/app", None, public);
        check("github.com/acme/app.git", None, public);
        check(
            "https://git.example/acme/app",
            None,
            "https://git.example/api/v3/repos/acme/app/tarball/COMMIT as itself",
        );
        check(
            "http://127.0.0.1:3000/acme/app/",
            None,
            "http://127.0.0.1:3000/api/v3/repos/acme/app/tarball/COMMIT as itself",
        );
        check(
            "https://git.example/acme/app",
            Some("api.git.example"),
            "https://api.git.example/repos/acme/app/tarball/COMMIT as git.example",
        );
        // Somebody else's host gets nothing of what is configured for github.com.
        check(
            "https://github.com/acme/app",
            Some("evil.example:8443"),
            "https://evil.example:8443/api/v3/repos/acme/app/tarball/COMMIT as itself",
        );
        for wrong in [
            "https://github.com/acme",
            "https://github.com/a/b/c",
            "x",
            "",
        ] {
            check(wrong, None, &format!("access.repoUrl: `{wrong}`"));
        }
        for wrong in ["a/b", "u@h", ""] {
            check(
                "https://github.com/acme/app",
                Some(wrong),
                &format!("access.apiHostname: `{wrong}`"),
            );
        }
    }

    #[test]
    fn only_pinned_commits_are_read() {
        for (commit, expected) in [
            (None, "access.commit is missing"),
            (Some("main"), "access.commit: `main` is no commit"),
        ] {
            let access = GitHub {
                repo_url: "github.com/acme/app",
                api_hostname: None,
                commit,
                reference: Some("main"),
            };
            let error = request(access).expect_err("not pinned");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
