//! HTTPS on behalf of a guest: every hop is checked here, and made by whoever the host was given for it.
//!
//! Invariant: no request leaves for a host that is not granted, redirects included, and the guest sees no credential: it
//! may not set one, and those of the host are added behind this.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use ocm_content::{ByteStream, Error, ErrorKind};
use url::{Host, Url};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::bindings::ocm::transformer::fetch as wit;
use crate::rights::Granted;

/// Largest body of a request, in bytes: it is kept for repeating.
pub const REQUEST_BODY: u64 = 4 << 20;
/// Bytes that the bodies of all requests of one call may take at once.
const BODIES: u64 = 2 * REQUEST_BODY;
/// Longest address, in bytes.
const ADDRESS: usize = 8 << 10;
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
    bodies: Bodies,
    body: std::sync::Mutex<Option<Arc<Body>>>,
    sent: bool,
}

/// What the bodies of all requests of one call take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies(Arc<AtomicU64>);

impl Bodies {
    /// Room for a body, if there is any.
    fn take(&self, length: u64) -> Result<Body, Error> {
        let taken = self.0.fetch_add(length, Ordering::Relaxed) + length;
        let body = Body {
            bytes: std::sync::Mutex::default(),
            length,
            bodies: self.clone(),
        };
        if taken > BODIES {
            return Err(Error::limit(format!(
                "the bodies of requests that were not sent take {taken} bytes, at most {BODIES} are kept"
            )));
        }
        Ok(body)
    }
}

/// The body of a request, and the room that it takes for as long as anybody may write to it.
#[derive(Debug)]
struct Body {
    bytes: std::sync::Mutex<BytesMut>,
    length: u64,
    bodies: Bodies,
}

impl Body {
    fn lock(&self) -> std::sync::MutexGuard<'_, BytesMut> {
        self.bytes
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.length, Ordering::Relaxed);
    }
}

impl Exchange {
    /// A request that may be made, if it is in order and granted: nothing is kept for one that is not.
    pub(crate) fn new(
        request: wit::Request,
        plugin: &str,
        granted: &Granted,
        bodies: &Bodies,
    ) -> Self {
        let length = request.content_length;
        let request = checked(request).and_then(|request| {
            permit(plugin, granted, &request.url, None)?;
            Ok(request)
        });
        Self {
            request,
            length,
            bodies: bodies.clone(),
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
        let room = Arc::new(self.bodies.take(length)?);
        *body = Some(Arc::clone(&room));
        Ok(BodySink(room))
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
        let bytes = body.map(|body| std::mem::take(&mut *body.lock()).freeze());
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
    if request.url.len() > ADDRESS {
        return Err(Error::limit(format!(
            "the address of the request has {} bytes, at most {ADDRESS} are taken",
            request.url.len()
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
    let near = near(url);
    if url.scheme() != "https" && !(url.scheme() == "http" && near == Some(Near::Loopback)) {
        return Err(Error::new(
            ErrorKind::Denied,
            format!("a request to {} is not HTTPS", origin(url)),
        ));
    }
    if granted.permits(host, url.port()) {
        if near.is_none() || granted.names(host, url.port()) {
            return Ok(());
        }
        let message = format!(
            "a request to {}, an address of this machine or its network, is granted by no pattern, only by its name",
            origin(url)
        );
        return Err(Error::new(ErrorKind::Denied, message).with_hint(format!(
            "if the plugin should reach it, name it: --allow-plugin {plugin}=http:{host}"
        )));
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

/// Addresses that only this machine, or its network, reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    Loopback,
    Network,
}

/// Is the address, as it is written, one of these? What a name stands for is not asked here.
fn near(url: &Url) -> Option<Near> {
    match url.host()? {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let is_local = name == "localhost" || name.ends_with(".localhost");
            is_local.then_some(Near::Loopback)
        }
        Host::Ipv4(address) => near_v4(address),
        Host::Ipv6(address) => match address.to_ipv4_mapped() {
            Some(address) => near_v4(address),
            None if address.is_loopback() => Some(Near::Loopback),
            // Unspecified, unique local, link-local.
            None => {
                let [first, ..] = address.segments();
                let is_near = address.is_unspecified()
                    || first & 0xfe00 == 0xfc00
                    || first & 0xffc0 == 0xfe80;
                is_near.then_some(Near::Network)
            }
        },
    }
}

fn near_v4(address: Ipv4Addr) -> Option<Near> {
    if address.is_loopback() {
        return Some(Near::Loopback);
    }
    let [a, b, ..] = address.octets();
    // Besides private and link-local ones: 0.0.0.0/8 and the carriers' 100.64.0.0/10.
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_near = address.is_private() || address.is_link_local() || is_shared || a == 0;
    is_near.then_some(Near::Network)
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
pub(crate) struct BodySink(Arc<Body>);

#[async_trait::async_trait]
impl Pollable for BodySink {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for BodySink {
    fn write(&mut self, chunk: Bytes) -> StreamResult<()> {
        let mut bytes = self.0.lock();
        if (bytes.len() + chunk.len()) as u64 > self.0.length {
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
        let bytes = self.0.lock();
        match usize::try_from(self.0.length).unwrap_or(usize::MAX) - bytes.len() {
            // A sink that is full waits for nothing: whoever goes on writing is stopped at once.
            0 => Err(StreamError::Closed),
            room => Ok(room.min(64 << 10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::{Allowed, Need, Rights};

    fn granted(asked: &str, allowed: Option<&str>) -> Granted {
        let needs = [Need {
            capability: crate::rights::Capability::Http,
            scope: asked.split(' ').map(|host| host.parse().unwrap()).collect(),
            reason: String::new(),
            optional: true,
        }];
        let allowed = match allowed {
            Some(hosts) => Allowed::Only(Rights::parse(hosts).unwrap()),
            None => Allowed::Everything,
        };
        Granted::new("p", &needs, None, &allowed).unwrap()
    }

    #[test]
    fn addresses_are_judged_by_what_they_are() {
        const NAMED: &str = "is granted by no pattern, only by its name";
        let all = granted("*:*", None);
        for (granted, url, expected) in [
            (&all, "https://a.example/", "fine"),
            (&all, "http://a.example/", "is not HTTPS"),
            // What only looks like this machine.
            (&all, "http://127.evil.example/", "is not HTTPS"),
            (&all, "http://localhost.evil.example/", "is not HTTPS"),
            // This machine and its network, however they are written.
            (&all, "http://127.0.0.1/", NAMED),
            (&all, "http://2130706433/", NAMED),
            (&all, "http://0x7f.1/", NAMED),
            (&all, "http://localhost:80/", NAMED),
            (&all, "https://x.localhost./", NAMED),
            (&all, "https://169.254.169.254/", NAMED),
            (&all, "https://10.1.2.3/", NAMED),
            (&all, "https://100.64.0.1/", NAMED),
            (&all, "https://0.0.0.0/", NAMED),
            (&all, "https://[::1]/", NAMED),
            (&all, "https://[fd00::1]/", NAMED),
            (&all, "https://[fe80::1]/", NAMED),
            (&all, "https://[::ffff:10.0.0.1]/", NAMED),
            (&all, "https://8.8.8.8/", "fine"),
            (&all, "https://[2001:db8::1]/", "fine"),
            // Named by whom it is up to.
            (
                &granted("127.0.0.1:*", None),
                "http://127.0.0.1:81/",
                "fine",
            ),
            (
                &granted("*:*", Some("http:10.0.0.1")),
                "https://10.0.0.1/",
                "fine",
            ),
            (
                &granted("*:* 10.0.0.1", Some("http:*")),
                "https://10.0.0.1/",
                NAMED,
            ),
        ] {
            let got = match permit("p", granted, &Url::parse(url).unwrap(), None) {
                Ok(()) => "fine".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(got.contains(expected), "{url}: {got}");
        }
    }

    #[test]
    fn bodies_share_one_budget() {
        let granted = granted("a.example", None);
        let request = |url: &str| wit::Request {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            content_length: Some(REQUEST_BODY),
        };
        let bodies = Bodies::default();
        let mut exchanges: Vec<Exchange> = (0..3)
            .map(|_| Exchange::new(request("https://a.example/"), "p", &granted, &bodies))
            .collect();
        let (mut first, second) = (exchanges[0].body().unwrap(), exchanges[1].body().unwrap());
        let error = exchanges[2].body().map(drop).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("12582912 bytes, at most 8388608"),
            "{error}"
        );
        // Room is there again when nobody can write any more: not when it was sent.
        first
            .write(Bytes::from(vec![0; REQUEST_BODY as usize]))
            .unwrap();
        exchanges[0].take().unwrap();
        assert!(exchanges[2].body().is_err());
        drop((first, second));
        exchanges.remove(1);
        exchanges[1].body().unwrap();
        // What is not granted keeps nothing.
        let mut other = Exchange::new(request("https://b.example/"), "p", &granted, &bodies);
        assert_eq!(
            other.body().map(drop).unwrap_err().kind(),
            ErrorKind::Denied
        );
        let long = format!("https://a.example/{}", "x".repeat(ADDRESS));
        let mut long = Exchange::new(request(&long), "p", &granted, &bodies);
        assert_eq!(long.body().map(drop).unwrap_err().kind(), ErrorKind::Limit);
    }
}
