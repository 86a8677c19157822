//! One repository of a registry as a [`ContentStore`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use ocm_content::name::{check_repository, check_tag};
use ocm_content::{
    Blob, ContentStore, Error, ErrorKind, Host, MANIFEST_LIMIT, Pushed, RawManifest, Result,
};
use ocm_specs::media_type::{OCI_MANIFEST, is_manifest};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::{Algorithm, Digest};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::auth::Scopes;
use super::client::{Answer, Call, Inner, PAGE_SIZE};
use super::download::BlobSource;
use super::endpoint::Endpoint;
use super::errors::{Failure, has_code};
use super::headers::number;

/// What a manifest may be.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json";

/// A repository of a registry. Cheap to clone.
#[derive(Clone)]
pub struct OciStore(pub(super) Arc<Repository>);

/// What identifies it, and what it is reached through.
pub(super) struct Repository {
    pub(super) inner: Arc<Inner>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) name: String,
}

impl fmt::Debug for OciStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OciStore({}/{})", self.0.endpoint.name, self.0.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.endpoint.name, self.name)
    }
}

impl OciStore {
    pub(super) fn new(inner: Arc<Inner>, endpoint: Arc<Endpoint>, name: &str) -> Result<Self> {
        check_repository(name)?;
        Ok(Self(Arc::new(Repository {
            inner,
            endpoint,
            name: name.to_owned(),
        })))
    }

    /// Like [`ContentStore::referrers`], only those of an artifact type. The registry may filter (`OCI-Filters-Applied`); what
    /// it leaves is filtered here.
    ///
    /// # Errors
    /// What the registry answers.
    pub async fn referrers_of_type(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>> {
        let mut found = match self.0.referrers_api(subject, artifact_type).await? {
            Some(found) => found,
            None => self.0.referrers_tag(subject).await?,
        };
        if let Some(wanted) = artifact_type {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        let mut seen = BTreeSet::new();
        found.retain(|descriptor| seen.insert(descriptor.digest.clone()));
        Ok(found)
    }
}

#[async_trait]
impl ContentStore for OciStore {
    fn location(&self) -> String {
        format!("oci://{}/{}", self.0.endpoint.name, self.0.name)
    }

    fn host(&self) -> Option<Host> {
        Some(self.0.endpoint.host.clone())
    }

    fn repository(&self) -> String {
        self.0.name.clone()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        let source = BlobSource::new(self.0.clone(), descriptor);
        Blob::described(descriptor, Arc::new(source))
    }

    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.0.exists(descriptor).await
    }

    async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        self.0.blob_size(digest).await
    }

    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        self.0.push(blob, mount_from).await
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.0.manifest(reference).await
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        self.0.put_manifest(manifest, tag).await
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        self.0.resolve(reference).await
    }

    async fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            // May be null, must be there.
            #[serde(deserialize_with = "Option::deserialize")]
            tags: Option<Vec<String>>,
        }
        let mut call = self
            .0
            .call(Method::GET, "tags/list", "list tags".to_owned());
        call.url.set_query(Some(&format!("n={PAGE_SIZE}")));
        let names = self.0.inner.names(call, |page: Page| page.tags);
        // A repository that nothing was pushed to is not known to its registry.
        let mut names = names.await?.unwrap_or_default();
        // What can't be a tag can't be asked for.
        names.retain(|name| !is_fallback_tag(name) && check_tag(name).is_ok());
        Ok(names)
    }

    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.referrers_of_type(subject, None).await
    }

    async fn untag(&self, tag: &str) -> Result<()> {
        check_tag(tag)?;
        let doing = format!("remove tag `{tag}`");
        self.0.remove(&format!("manifests/{tag}"), doing).await
    }

    async fn delete(&self, descriptor: &Descriptor) -> Result<()> {
        let digest = &descriptor.digest;
        if descriptor.is_manifest() {
            return self.0.delete_manifest(digest).await;
        }
        let doing = format!("delete blob {digest}");
        self.0.remove(&format!("blobs/{digest}"), doing).await
    }
}

impl Repository {
    /// A request for something in this repository, with the scopes that it usually takes.
    pub(super) fn call(&self, method: Method, path: &str, doing: String) -> Call {
        let actions = match method {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "pull,push",
        };
        let url = self.endpoint.url(&format!("{}/{path}", self.name));
        let preposition = match method {
            Method::POST | Method::PUT | Method::PATCH => "to",
            _ => "of",
        };
        let doing = format!("{doing} {preposition} {self:?}");
        Call::new(&self.endpoint, &self.name, method, url, doing)
            .scopes(Scopes::repository(&self.name, actions))
    }

    pub(super) async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        let digest = &descriptor.digest;
        let call = match descriptor.is_manifest() {
            true => self.manifest_call(Method::HEAD, &digest.to_string()),
            false => {
                let doing = format!("look for blob {digest}");
                self.call(Method::HEAD, &format!("blobs/{digest}"), doing)
            }
        };
        let answer = self.inner.exchange(&call, None, 0).await?;
        if answer.is(StatusCode::NOT_FOUND) {
            return Ok(false);
        }
        answer.expect(&call, &[StatusCode::OK])?;
        Ok(true)
    }

    pub(super) async fn blob_size(&self, digest: &Digest) -> Result<u64> {
        let doing = format!("look for blob {digest}");
        let call = self.call(Method::HEAD, &format!("blobs/{digest}"), doing);
        let answer = self.inner.exchange(&call, None, 0).await?;
        let answer = answer.expect(&call, &[StatusCode::OK])?;
        let size = answer.header("content-length").and_then(number);
        size.ok_or_else(|| call.blame(Error::invalid("the registry does not tell its size"), 1))
    }

    fn manifest_call(&self, method: Method, reference: &str) -> Call {
        let doing = match method {
            Method::GET => "read",
            Method::HEAD => "look for",
            _ => "write",
        };
        self.call(
            method,
            &format!("manifests/{reference}"),
            format!("{doing} manifest {reference}"),
        )
        .header(ACCEPT, HeaderValue::from_static(ACCEPTED))
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        check_reference(reference)?;
        let call = self.manifest_call(Method::GET, reference);
        let answer = self.inner.exchange(&call, None, MANIFEST_LIMIT).await?;
        let answer = answer.expect(&call, &[StatusCode::OK])?;
        read_manifest(reference, &answer).map_err(|error| call.blame(error, 1))
    }

    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        check_reference(reference)?;
        let call = self.manifest_call(Method::HEAD, reference);
        let answer = self.inner.exchange(&call, None, 0).await?;
        if answer.is(StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(self.manifest(reference).await?.descriptor());
        }
        let answer = answer.expect(&call, &[StatusCode::OK])?;
        let announced = announced_digest(&answer.headers);
        let asked: Option<Digest> = reference.parse().ok();
        if let (Some(asked), Some(announced)) = (&asked, &announced)
            && asked.algorithm() == announced.algorithm()
            && asked != announced
        {
            let error = Error::mismatch(format!("the registry says it is {announced}"));
            return Err(call.blame(error, 1));
        }
        let media_type = content_type(&answer.headers).filter(|media_type| is_manifest(media_type));
        let size = answer.header("content-length").and_then(number);
        // Some proxies take the length of the body away with the body.
        let size = size.filter(|size| *size > 0);
        match (asked.or(announced), media_type, size) {
            (Some(digest), Some(media_type), Some(size)) => {
                Ok(Descriptor::new(media_type, digest, size))
            }
            // The head does not tell; the document does.
            _ => Ok(self.manifest(reference).await?.descriptor()),
        }
    }

    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let parsed = manifest.parse()?;
        let found = Digest::of(manifest.digest.algorithm(), &manifest.bytes);
        if found != manifest.digest {
            return Err(Error::mismatch(format!(
                "the manifest has digest {found}, expected {}",
                manifest.digest
            )));
        }
        let digest = manifest.digest.to_string();
        // Under a tag a registry uses SHA-256; other digests need a request of their own.
        let by_digest = tag.is_none() || manifest.digest.algorithm() != Algorithm::Sha256;
        let mut takes_subjects = false;
        for reference in by_digest.then_some(digest.as_str()).into_iter().chain(tag) {
            takes_subjects = self.put_under(manifest, reference).await?;
        }
        match parsed.subject {
            Some(ref subject) if !takes_subjects => {
                let referrer = referrer(manifest, &parsed);
                let with = |referrers: &mut Vec<Descriptor>| {
                    if referrers
                        .iter()
                        .all(|known| known.digest != referrer.digest)
                    {
                        referrers.push(referrer);
                    }
                };
                self.change_fallback_index(&subject.digest, with).await
            }
            _ => Ok(()),
        }
    }

    /// Writes a manifest; says whether the registry keeps the list of its subject's referrers.
    async fn put_under(&self, manifest: &RawManifest, reference: &str) -> Result<bool> {
        let call = self.manifest_call(Method::PUT, reference);
        let media_type = HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| call.blame(Error::invalid("its media type is malformed"), 1))?;
        let call = call.header(CONTENT_TYPE, media_type);
        let mut failed = 0;
        loop {
            let body = Some(manifest.bytes.clone());
            let answer = self.inner.exchange(&call, body, MANIFEST_LIMIT).await?;
            let failure = match self.taken(manifest, &call, answer) {
                Ok(takes_subjects) => return Ok(takes_subjects),
                Err(failure) => failure,
            };
            // What has another digest there was right here: a tag must not stay with it.
            failed += 1;
            self.inner.pause(&call, failure, failed).await?;
        }
    }

    /// Judges the answer to a manifest.
    fn taken(&self, manifest: &RawManifest, call: &Call, answer: Answer) -> Result<bool, Failure> {
        if has_code(&answer.body, "MANIFEST_BLOB_UNKNOWN") || has_code(&answer.body, "BLOB_UNKNOWN")
        {
            // It said that it has a blob which it does not have: the shortcut is not for this registry.
            self.inner
                .learn(&self.endpoint, |abilities| abilities.no_self_mount = true);
        }
        if !matches!(answer.status.as_u16(), 200..=202) {
            let mut failure = Failure::answered(answer.status, &answer.headers, &answer.body);
            failure.again |= has_code(&answer.body, "DIGEST_INVALID");
            return Err(failure);
        }
        if let Some(meter) = &call.meter {
            meter.sent(manifest.bytes.len() as u64);
        }
        match announced_digest(&answer.headers) {
            Some(digest)
                if digest.algorithm() == manifest.digest.algorithm()
                    && digest != manifest.digest =>
            {
                Err(Failure {
                    again: true,
                    ..Failure::last(Error::mismatch(format!(
                        "the registry says it is {digest} now"
                    )))
                })
            }
            _ => Ok(answer.header("oci-subject").is_some()),
        }
    }

    /// Asks the referrers API; `None` where the registry has none.
    async fn referrers_api(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Descriptor>>> {
        if self.inner.abilities(&self.endpoint).no_referrers {
            return Ok(None);
        }
        let doing = format!("list referrers of {subject}");
        let mut call = self.call(Method::GET, &format!("referrers/{subject}"), doing);
        if let Some(artifact_type) = artifact_type {
            call.url
                .query_pairs_mut()
                .append_pair("artifactType", artifact_type);
        }
        #[derive(Deserialize)]
        struct Referrers {
            // May be null, must be there.
            #[serde(deserialize_with = "Option::deserialize")]
            manifests: Option<Vec<Descriptor>>,
        }
        let mut found = Vec::new();
        let pages = self.inner.pages(call.clone(), |body| {
            let list: Referrers = serde_json::from_slice(body).ok()?;
            found.extend(list.manifests.unwrap_or_default());
            Some(found.len())
        });
        let answer = pages.await?;
        match answer.status.as_u16() {
            200 => {
                if answer.header("oci-filters-applied").is_some() {
                    tracing::trace!(doing = %call.doing, "the registry filtered");
                }
                Ok(Some(found))
            }
            404 if has_code(&answer.body, "NAME_UNKNOWN") => Ok(None),
            400 | 404 | 405 | 501 => {
                self.inner
                    .learn(&self.endpoint, |abilities| abilities.no_referrers = true);
                Ok(None)
            }
            _ => Err(answer.error(&call)),
        }
    }

    /// Reads the index that stands in for the API (distribution-spec, "Referrers tag schema").
    async fn referrers_tag(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match self.manifest(&fallback_tag(subject)).await {
            Ok(index) => Ok(index.parse()?.manifests.unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Changes that index. Writers of this program wait for each other; the spec has no way to keep others out.
    async fn change_fallback_index(
        &self,
        subject: &Digest,
        change: impl FnOnce(&mut Vec<Descriptor>) + Send,
    ) -> Result<()> {
        let tag = fallback_tag(subject);
        let lock = {
            let locks = self.inner.index_locks.lock();
            let mut locks = locks.unwrap_or_else(PoisonError::into_inner);
            let place = format!("{}/{}:{tag}", self.endpoint.origin(), self.name);
            locks.entry(place).or_default().clone()
        };
        let _alone = lock.lock().await;
        let before = self.referrers_tag(subject).await?;
        let mut referrers = before.clone();
        change(&mut referrers);
        if referrers == before {
            return Ok(());
        }
        if referrers.is_empty() {
            let index = self.resolve(&tag).await?;
            return self.remove_manifest(&index.digest).await;
        }
        let index = RawManifest::write(&Manifest::index(referrers));
        self.put_under(&index, &tag).await?;
        Ok(())
    }

    /// Deletes a manifest, and its entry in the index that stands in for the referrers API, if there is one.
    async fn delete_manifest(&self, digest: &Digest) -> Result<()> {
        let subject = match self.manifest(&digest.to_string()).await {
            Ok(manifest) => manifest.parse()?.subject,
            // Whatever it is, it may be deleted.
            Err(_) => None,
        };
        self.remove_manifest(digest).await?;
        let Some(subject) = subject.map(|subject| subject.digest) else {
            return Ok(());
        };
        if self.referrers_api(&subject, None).await?.is_some() {
            return Ok(());
        }
        let without = |referrers: &mut Vec<Descriptor>| {
            referrers.retain(|referrer| referrer.digest != *digest);
        };
        self.change_fallback_index(&subject, without).await
    }

    async fn remove_manifest(&self, digest: &Digest) -> Result<()> {
        let doing = format!("delete manifest {digest}");
        self.remove(&format!("manifests/{digest}"), doing).await
    }

    async fn remove(&self, path: &str, doing: String) -> Result<()> {
        let call = self.call(Method::DELETE, path, doing);
        let answer = self.inner.exchange(&call, None, MANIFEST_LIMIT).await?;
        let unsupported =
            answer.is(StatusCode::BAD_REQUEST) && has_code(&answer.body, "DIGEST_INVALID");
        if unsupported {
            // Registries of before distribution-spec 1.1 take a tag for a malformed digest.
            let error = Error::unsupported("the registry can't remove a tag alone");
            return Err(call.blame(error, 1));
        }
        answer.expect(
            &call,
            &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT],
        )?;
        Ok(())
    }
}

/// The entry that a manifest with a subject has in its subject's list (distribution-spec, "Listing Referrers").
fn referrer(manifest: &RawManifest, parsed: &Manifest) -> Descriptor {
    let mut descriptor = manifest.descriptor();
    descriptor.artifact_type = parsed.effective_artifact_type().map(str::to_owned);
    descriptor.annotations = parsed.annotations.clone();
    descriptor
}

fn fallback_tag(subject: &Digest) -> String {
    // At most 64 characters of the value, so that it is a tag for any algorithm.
    let hex = &subject.hex()[..subject.hex().len().min(64)];
    format!("{}-{hex}", subject.algorithm())
}

/// Is it such a tag? It is bookkeeping, not a name that anyone gave.
fn is_fallback_tag(tag: &str) -> bool {
    tag.split_once('-').is_some_and(|(algorithm, hex)| {
        matches!(algorithm, "sha256" | "sha512")
            && hex.len() == 64
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn check_reference(reference: &str) -> Result<()> {
    match reference.parse::<Digest>() {
        Ok(_) => Ok(()),
        Err(_) => check_tag(reference),
    }
}

/// The digest that the registry announces, where it is one that can be checked.
pub(super) fn announced_digest(headers: &HeaderMap) -> Option<Digest> {
    headers
        .get("docker-content-digest")?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next()?.trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}

/// Takes an answer for a manifest only if digest and media type are what was asked for and announced.
fn read_manifest(reference: &str, answer: &Answer) -> Result<RawManifest> {
    let mut manifest = RawManifest::new(OCI_MANIFEST, answer.body.clone());
    let asked = reference.parse::<Digest>().ok();
    for expected in asked.iter().chain(&announced_digest(&answer.headers)) {
        let found = Digest::of(expected.algorithm(), &answer.body);
        if found != *expected {
            return Err(Error::mismatch(format!(
                "the document has digest {found}, expected {expected}"
            )));
        }
    }
    if let Some(asked) = asked {
        manifest.digest = asked;
    }
    manifest.identified(content_type(&answer.headers).as_deref())
}

#[cfg(test)]
mod tests {
    use ocm_specs::media_type::{DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX};

    use super::*;

    #[test]
    fn all_kinds_of_manifests_are_asked_for() {
        let accepted: Vec<&str> = ACCEPTED.split(", ").map(str::trim).collect();
        assert_eq!(
            accepted,
            [
                OCI_MANIFEST,
                OCI_INDEX,
                DOCKER_MANIFEST,
                DOCKER_MANIFEST_LIST
            ]
        );
    }

    #[test]
    fn the_tag_that_stands_in_for_referrers() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let tag = fallback_tag(&digest);
        assert!(check_tag(&tag).is_ok() && is_fallback_tag(&tag));
        assert!(!is_fallback_tag("sha256-12.sig") && !is_fallback_tag("1.0.0"));
        let digest = Digest::sha256(b"x");
        assert_eq!(fallback_tag(&digest), digest.to_string().replace(':', "-"));
    }
}
