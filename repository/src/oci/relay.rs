//! Requests on behalf of code that is not ours: one hop, any answer.
//!
//! *Invariants*: no redirect is followed, so that who asks can judge each hop; credentials are those configured for the
//! URL's own host and are added here, behind the back of who asks.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use ocm_content::{ByteStream, Error, Result};
use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use url::Url;

use super::client::{Call, Client, Payload, Redirects, Reply};
use super::endpoint::{Endpoint, shown};
use super::errors::{Failure, is_passing};

/// The type of consumer whose credentials are used.
const CONSUMER: &str = "HTTP";

/// An answer, whatever its status.
pub struct Relayed {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values as far as they are text.
    pub headers: Vec<(String, String)>,
    /// The body, as it arrives.
    pub body: ByteStream,
}

impl Client {
    /// Sends a request and gives its answer. Reads are tried again as our own are; what may change something is sent once.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for what is no request, [`ocm_content::ErrorKind::Denied`] when credentials did not
    /// do, and what the way there gives.
    pub async fn relay(
        &self,
        method: &str,
        url: &Url,
        headers: &[(String, String)],
        body: Option<Bytes>,
    ) -> Result<Relayed> {
        let wrong =
            |what: &str| Error::invalid(format!("{what} of the request is not one of HTTP"));
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong("the method"))?;
        let inner = self.inner();
        let (endpoint, target) = Endpoint::web(&inner.config, url, CONSUMER)?;
        let path = url.path().trim_matches('/').to_owned();
        let doing = format!("{method} {}", shown(url));
        let mut call = Call::new(&endpoint.into(), &path, method.clone(), target, doing);
        call.redirects = Redirects::Return;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("a header"))?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong("a header"))?;
            call.headers.append(name, value);
        }
        let is_read = matches!(method, Method::GET | Method::HEAD);
        let mut failed = 0;
        let response = loop {
            let payload = body.clone().map_or(Payload::None, Payload::Bytes);
            let failure = match inner.attempt(&call, payload).await {
                Ok(Reply { mut response, .. }) if is_read && is_passing(response.status()) => {
                    let (status, headers) = (response.status(), response.headers().clone());
                    let text = inner.error_body(&mut response).await;
                    Failure::answered(status, &headers, &text)
                }
                Ok(Reply { response, .. }) => break response,
                Err(failure) => failure,
            };
            if !is_read {
                return Err(call.blame(failure.error, 1));
            }
            failed += 1;
            inner.pause(&call, failure, failed).await?;
        };
        let names = response.headers().iter();
        let headers = names.filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Relayed {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response
                .bytes_stream()
                .map_err(move |error| call.blame(Failure::transport(error).error, 1))
                .boxed(),
        })
    }
}
