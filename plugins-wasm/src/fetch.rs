//! HTTPS on behalf of a guest: every hop is checked here, and made by whoever the host was given for it.
//!
//! Invariant: no request leaves for a host that is not granted, redirects included, and the guest sees no credential: it
//! may not set one, and those of the host are added behind this.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use ocm_content::{ByteStream, Error, ErrorKind};
use url::Url;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::bindings::ocm::transformer::fetch as wit;
use crate::rights::Granted;

/// Largest body of a request, in bytes: it is kept for repeating.
pub const REQUEST_BODY: u64 = 4 << 20;
/// Redirects that are followed.
const HOPS: usize = 5;
/// Headers of one request, and bytes in all of them.
const HEADERS: (usize, usize) = (64, 32 << 10);

/// Headers that the connection or the host's credentials set.
const RESERVED: [&str; 16] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
];

/// Makes one request. Handed to the host by the program that runs it.
///
/// Implementors owe: no redirect is followed; credentials are added only if they belong to the host of `url`; limits,
/// retries and proxies are those of the program's own requests; an answer with any status is an answer.
pub trait Http: Send + Sync + 'static {
    /// Sends it and waits for the head of the answer.
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, Error>>;
}

/// A request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`, `HEAD`, `POST`, `PUT` or `DELETE`.
    pub method: String,
    /// Where to.
    pub url: Url,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, if there is one.
    pub body: Option<Bytes>,
}

/// An answer.
pub struct HttpResponse {
    /// Any.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, as it arrives.
    pub body: ByteStream,
}

/// A request that a guest makes.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Exchange {
    request: Result<HttpRequest, Error>,
    length: Option<u64>,
    body: std::sync::Mutex<Option<Arc<std::sync::Mutex<BytesMut>>>>,
    sent: bool,
}

impl Exchange {
    pub(crate) fn new(request: wit::Request) -> Self {
        let length = request.content_length;
        Self {
            request: checked(request),
            length,
            body: std::sync::Mutex::default(),
            sent: false,
        }
    }

    /// The way in for the body.
    pub(crate) fn body(&mut self) -> Result<BodySink, Error> {
        if let Err(error) = &self.request {
            return Err(error.clone());
        }
        let Some(length) = self.length else {
            return Err(Error::invalid(
                "the request has no body: it states no length",
            ));
        };
        let body = self
            .body
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if body.is_some() {
            return Err(Error::invalid("the body of a request is written once"));
        }
        let bytes = Arc::default();
        *body = Some(Arc::clone(&bytes));
        Ok(BodySink { bytes, length })
    }

    /// The request, complete, once.
    pub(crate) fn take(&mut self) -> Result<HttpRequest, Error> {
        if std::mem::replace(&mut self.sent, true) {
            return Err(Error::invalid("a request is sent once"));
        }
        let mut request = self.request.clone()?;
        let body = self
            .body
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        let bytes = body.map(|bytes| {
            let mut bytes = bytes
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *bytes).freeze()
        });
        if let Some(length) = self.length {
            let found = bytes.as_ref().map_or(0, Bytes::len) as u64;
            if found != length {
                return Err(Error::invalid(format!(
                    "the body has {found} of the {length} bytes announced"
                )));
            }
            request.body = Some(bytes.unwrap_or_default());
        }
        Ok(request)
    }
}

fn checked(request: wit::Request) -> Result<HttpRequest, Error> {
    if !["GET", "HEAD", "POST", "PUT", "DELETE"].contains(&&*request.method) {
        let shown = crate::limits::cut(request.method, 20);
        return Err(Error::invalid(format!(
            "the method `{}` is not offered",
            shown.escape_debug()
        )));
    }
    let length = request.content_length.unwrap_or_default();
    if length > REQUEST_BODY {
        return Err(Error::limit(format!(
            "a body of {length} bytes is larger than the {REQUEST_BODY} bytes that a plugin may send"
        )));
    }
    let url = Url::parse(&request.url)
        .map_err(|error| Error::invalid(format!("the address of the request is wrong: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::new(
            ErrorKind::Denied,
            "credentials in an address are refused",
        ));
    }
    let mut headers = Vec::with_capacity(request.headers.len());
    let mut size = 0;
    for (name, value) in request.headers {
        size += name.len() + value.len();
        let name = name.to_ascii_lowercase();
        if RESERVED.contains(&&*name) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("the header `{name}` is the host's own"),
            ));
        }
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty()
            || !name.bytes().all(is_token)
            || value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f)
        {
            return Err(Error::invalid(
                "a header of the request has characters that headers can't have",
            ));
        }
        headers.push((name, value));
    }
    if headers.len() > HEADERS.0 || size > HEADERS.1 {
        return Err(Error::limit("the request has too many headers"));
    }
    Ok(HttpRequest {
        method: request.method,
        url,
        headers,
        body: None,
    })
}

/// Sends a request and follows redirects, each hop checked.
pub(crate) async fn exchange(
    plugin: &str,
    granted: &Granted,
    http: Option<&Arc<dyn Http>>,
    mut request: HttpRequest,
) -> Result<HttpResponse, Error> {
    let mut from = None;
    for _ in 0..=HOPS {
        permit(plugin, granted, &request.url, from.as_deref())?;
        let Some(http) = http else {
            return Err(Error::unsupported(
                "no way to make requests was given to plugins here",
            ));
        };
        let response = http.send(request.clone()).await?;
        let location = response.headers.iter().find(|(name, _)| name == "location");
        let is_redirect = matches!(response.status, 301 | 302 | 303 | 307 | 308);
        let (true, Some((_, location))) = (is_redirect, location) else {
            return Ok(response);
        };
        let next = request.url.join(location).map_err(|error| {
            Error::invalid(format!(
                "{} redirects to something that is no address: {error}",
                origin(&request.url)
            ))
        })?;
        let keeps_method =
            matches!(response.status, 307 | 308) || matches!(&*request.method, "GET" | "HEAD");
        if !keeps_method {
            "GET".clone_into(&mut request.method);
            request.body = None;
        }
        from = Some(origin(&request.url));
        request.url = next;
    }
    Err(Error::limit(format!(
        "more than {HOPS} redirects, the last one from {}",
        from.unwrap_or_default()
    )))
}

fn permit(plugin: &str, granted: &Granted, url: &Url, from: Option<&str>) -> Result<(), Error> {
    let host = url.host_str().unwrap_or_default();
    let is_loopback = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("a request to {} is not HTTPS", origin(url)),
        ));
    }
    if granted.permits(host, url.port()) {
        return Ok(());
    }
    let to = match from {
        Some(from) => format!("{from} redirects to {}", origin(url)),
        None => format!("a request to {}", origin(url)),
    };
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    Err(Error::new(
        ErrorKind::Denied,
        format!("{to}, which is not granted to plugin `{plugin}`"),
    )
    .with_hint(format!(
        "if the plugin asks for this host, --allow-plugin {plugin}=http:{host}{port} allows it"
    )))
}

fn origin(url: &Url) -> String {
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!(
        "{}://{}{port}",
        url.scheme(),
        url.host_str().unwrap_or_default()
    )
}

/// The guest's way into the body of a request.
pub(crate) struct BodySink {
    bytes: Arc<std::sync::Mutex<BytesMut>>,
    length: u64,
}

#[async_trait::async_trait]
impl Pollable for BodySink {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for BodySink {
    fn write(&mut self, chunk: Bytes) -> StreamResult<()> {
        let mut bytes = self
            .bytes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if (bytes.len() + chunk.len()) as u64 > self.length {
            return Err(StreamError::trap(
                "it wrote a longer body than it announced",
            ));
        }
        bytes.extend_from_slice(&chunk);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let bytes = self
            .bytes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match usize::try_from(self.length).unwrap_or(usize::MAX) - bytes.len() {
            // A sink that is full waits for nothing: whoever goes on writing is stopped at once.
            0 => Err(StreamError::Closed),
            room => Ok(room.min(64 << 10)),
        }
    }
}
