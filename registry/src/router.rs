//! From a request to the endpoint that answers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tracing::Instrument;
use url::form_urlencoded;

use crate::Registry;
use crate::auth::{Access, Wish};
use crate::failure::{Failure, Outcome};
use crate::route::Route;

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Longest query that is read, in bytes.
const QUERY_LIMIT: usize = 16 << 10;

/// How much of a path goes into logs, in characters.
const LOGGED_PATH: usize = 512;

pub(crate) fn routes(registry: Arc<Registry>) -> Router {
    Router::new().fallback(handle).with_state(registry)
}

async fn handle(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    registry.requests.record(&method, &path);
    let shown: String = path.chars().take(LOGGED_PATH).collect();
    let span = tracing::info_span!("request", %method, path = shown);
    async {
        let mut response = match registry.respond(request).await {
            Ok(response) => response,
            Err(failure) => {
                tracing::debug!(code = ?failure.code, "refused");
                failure.into_response()
            }
        };
        tracing::debug!(status = response.status().as_u16(), "answered");
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert(API_VERSION, version);
        response
    }
    .instrument(span)
    .await
}

impl Registry {
    async fn respond(&self, request: Request) -> Outcome {
        let (head, body) = request.into_parts();
        let (method, headers) = (&head.method, &head.headers);
        let route = Route::parse(head.uri.path())?;
        let query = Query::parse(head.uri.query())?;
        let wish = wish(method, &route)?;
        if route == Route::Token {
            return self.token(method, headers, &query, body).await;
        }
        let caller = self.authorize(headers, &wish)?;
        if wish.access != Access::Read && !self.writable() {
            return Err(Failure::not_allowed(
                "this registry is read-only",
                "GET, HEAD",
            ));
        }
        let (is_head, is_get) = (*method == Method::HEAD, *method == Method::GET);
        match &route {
            Route::Base => Ok(answer(StatusCode::OK)),
            Route::Token => Err(unknown_method("GET, POST")),
            Route::Catalog => self.catalog(&query).await,
            Route::Tags(name) => self.tags(name, &query).await,
            Route::Referrers(name, subject) => self.referrers(name, subject, &query).await,
            Route::Manifest(name, reference) if is_head => {
                self.head_manifest(name, reference).await
            }
            Route::Manifest(name, reference) if is_get => self.get_manifest(name, reference).await,
            Route::Manifest(name, reference) if *method == Method::PUT => {
                self.put_manifest(name, reference, headers, body).await
            }
            Route::Manifest(name, reference) => self.delete_manifest(name, reference).await,
            Route::Blob(name, digest) if is_head => self.head_blob(name, digest).await,
            Route::Blob(name, digest) if is_get => self.get_blob(name, digest, headers).await,
            Route::Blob(name, digest) => self.delete_blob(name, digest).await,
            Route::Uploads(name) => self.post_upload(name, &query, &caller, body).await,
            Route::Upload(name, session) if is_get => self.upload_status(name, session),
            Route::Upload(name, session) if *method == Method::PATCH => {
                self.patch_upload(name, session, headers, body).await
            }
            Route::Upload(name, session) if *method == Method::PUT => {
                self.put_upload(name, session, &query, headers, body).await
            }
            Route::Upload(name, session) => self.delete_upload(name, session),
        }
    }
}

/// What a request wants to do, if the endpoint can do it.
fn wish<'a>(method: &Method, route: &'a Route) -> Outcome<Wish<'a>> {
    let (read, write, delete) = (Access::Read, Access::Write, Access::Delete);
    let (allowed, access): (&'static str, _) = match route {
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => (
            "GET, HEAD",
            matches!(*method, Method::GET | Method::HEAD).then_some(read),
        ),
        Route::Token => (
            "GET, POST",
            matches!(*method, Method::GET | Method::POST).then_some(read),
        ),
        Route::Manifest(..) => (
            "GET, HEAD, PUT, DELETE",
            match *method {
                Method::GET | Method::HEAD => Some(read),
                Method::PUT => Some(write),
                Method::DELETE => Some(delete),
                _ => None,
            },
        ),
        Route::Blob(..) => (
            "GET, HEAD, DELETE",
            match *method {
                Method::GET | Method::HEAD => Some(read),
                Method::DELETE => Some(delete),
                _ => None,
            },
        ),
        Route::Uploads(_) => ("POST", (*method == Method::POST).then_some(write)),
        Route::Upload(..) => (
            "GET, PATCH, PUT, DELETE",
            matches!(
                *method,
                Method::GET | Method::PATCH | Method::PUT | Method::DELETE
            )
            .then_some(write),
        ),
    };
    access
        .map(|access| Wish {
            access,
            repository: route.repository(),
            catalog: *route == Route::Catalog,
        })
        .ok_or_else(|| unknown_method(allowed))
}

fn unknown_method(allowed: &'static str) -> Failure {
    Failure::not_allowed("this endpoint has no such method", allowed)
}

/// An answer without a body.
pub(crate) fn answer(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A header's value.
pub(crate) fn text(value: &str) -> Outcome<HeaderValue> {
    HeaderValue::from_str(value).map_err(|error| Failure::internal(&error))
}

/// The query of a request. Of a name that occurs twice the first value counts, besides [`Query::all`].
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(query: Option<&str>) -> Outcome<Self> {
        let query = query.unwrap_or_default();
        if query.len() > QUERY_LIMIT {
            return Err(Failure::new(
                StatusCode::URI_TOO_LONG,
                crate::failure::Code::SizeInvalid,
                format!("a query has at most {QUERY_LIMIT} bytes here"),
            ));
        }
        Ok(Self::of(query.as_bytes()))
    }

    /// Reads what a query or a form holds.
    pub(crate) fn of(encoded: &[u8]) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            values
                .entry(name.into_owned())
                .or_default()
                .push(value.into_owned());
        }
        Self(values)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The start of a new query with those of the parameters that are here.
    pub(crate) fn only(&self, names: &[&str]) -> form_urlencoded::Serializer<'static, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for name in names {
            if let Some(value) = self.get(name) {
                query.append_pair(name, value);
            }
        }
        query
    }
}
