//! Lists, in pages: repositories, tags, referrers (OCI distribution specification, "Content Discovery").

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue};
use ocm_specs::Digest;
use ocm_specs::media_type::OCI_INDEX;
use ocm_specs::oci::{Descriptor, Manifest};
use serde_json::json;

use crate::Registry;
use crate::failure::{Code, Failure, Outcome};
use crate::router::{Query, text};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The parameter that names the first entry of a page of referrers. Clients only pass it on from the `Link`.
const FIRST: &str = "first";

impl Registry {
    pub(crate) async fn catalog(&self, query: &Query) -> Outcome {
        let names = self.config.stores.repositories().await;
        let names = names.map_err(|error| Failure::of_store(&error, Code::NameUnknown))?;
        let (page, next) = self.page(&names, query)?;
        let mut response = json_response(json!({ "repositories": page }).to_string());
        link(&mut response, "/v2/_catalog", query, next)?;
        Ok(response)
    }

    pub(crate) async fn tags(&self, name: &str, query: &Query) -> Outcome {
        let failed = |error| Failure::of_store(&error, Code::NameUnknown);
        let tags = self.store(name)?.tags().await.map_err(failed)?;
        if tags.is_empty() {
            // An empty repository and none at all look the same from inside.
            let names = self.config.stores.repositories().await.map_err(failed)?;
            if names
                .binary_search_by(|known| known.as_str().cmp(name))
                .is_err()
            {
                let message = format!("there is no repository `{name}`");
                return Err(Failure::not_found(Code::NameUnknown, message));
            }
        }
        let (page, next) = self.page(&tags, query)?;
        let mut response = json_response(json!({ "name": name, "tags": page }).to_string());
        link(&mut response, &format!("/v2/{name}/tags/list"), query, next)?;
        Ok(response)
    }

    pub(crate) async fn referrers(&self, name: &str, subject: &Digest, query: &Query) -> Outcome {
        let listed = self.store(name)?.referrers(subject).await;
        let mut listed =
            listed.map_err(|error| Failure::of_store(&error, Code::ManifestUnknown))?;
        let wanted = query.get("artifactType");
        if let Some(wanted) = wanted {
            listed.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
        }
        let first = match query.get(FIRST) {
            Some(text) => text.parse().map_err(|_| bad_page(FIRST))?,
            None => 0,
        };
        let rest: Vec<Descriptor> = listed.split_off(listed.len().min(first));
        let (page, more) = fit(
            rest,
            self.config.limits.page,
            self.config.limits.manifest_size,
        );
        let count = page.len();
        let index = Manifest::index(page).to_bytes();
        let mut response = Response::new(Body::from(index));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
        if wanted.is_some() {
            headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if more && count > 0 {
            let mut query = query.only(&["artifactType"]);
            query.append_pair(FIRST, &(first + count).to_string());
            let target = format!("/v2/{name}/referrers/{subject}?{}", query.finish());
            headers.insert(LINK, text(&format!("<{target}>; rel=\"next\""))?);
        }
        Ok(response)
    }

    /// The entries behind `last`, `n` of them at most, and the `last` of the next page.
    fn page<'a>(
        &self,
        sorted: &'a [String],
        query: &Query,
    ) -> Outcome<(&'a [String], Option<&'a str>)> {
        let limit = self.config.limits.page.max(1);
        let wanted = match query.get("n") {
            Some(text) => text.parse::<usize>().map_err(|_| bad_page("n"))?,
            None => limit,
        };
        let start = match query.get("last") {
            Some(last) => sorted.partition_point(|entry| entry.as_str() <= last),
            None => 0,
        };
        let rest = &sorted[start..];
        let page = &rest[..wanted.min(limit).min(rest.len())];
        let next = page.last().filter(|_| page.len() < rest.len());
        Ok((page, next.map(String::as_str)))
    }
}

fn bad_page(parameter: &str) -> Failure {
    Failure::bad(
        Code::PaginationNumberInvalid,
        format!("`{parameter}` is not a number"),
    )
}

/// As many descriptors as a page may have, in number and roughly in bytes; and whether there are more.
fn fit(all: Vec<Descriptor>, count: usize, bytes: u64) -> (Vec<Descriptor>, bool) {
    let total = all.len();
    let mut used = 0;
    let page: Vec<Descriptor> = all
        .into_iter()
        .take(count.max(1))
        .take_while(|referrer| {
            let size = serde_json::to_vec(referrer).map_or(0, |json| json.len() as u64);
            let is_first = used == 0;
            used += size + 1;
            // One that is larger than a page travels alone.
            is_first || used <= bytes / 2
        })
        .collect();
    let more = page.len() < total;
    (page, more)
}

fn json_response(body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn link(response: &mut Response, path: &str, query: &Query, next: Option<&str>) -> Outcome<()> {
    if let Some(next) = next {
        let mut query = query.only(&["n"]);
        query.append_pair("last", next);
        let value = format!("<{path}?{}>; rel=\"next\"", query.finish());
        response.headers_mut().insert(LINK, text(&value)?);
    }
    Ok(())
}
