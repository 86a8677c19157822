//! What a URL gives.

use base64::Engine as _;
use bytes::Bytes;
use ocm_content::{Blob, Error, Result};
use ocm_specs::Digest;
use ocm_specs::access::remote::Wget;
use reqwest::Method;
use reqwest::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, RANGE,
    TRANSFER_ENCODING, UPGRADE,
};
use url::Url;

use super::{WGET, printable};
use crate::oci::{Expected, WebRequest};
use crate::session::Session;

/// Headers that belong to the connection or say which part of the content is meant.
const OURS: [HeaderName; 7] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    RANGE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Methods that do not ask for content.
const OTHER: [Method; 4] = [
    Method::HEAD,
    Method::CONNECT,
    Method::TRACE,
    Method::OPTIONS,
];

pub(super) async fn content(
    session: &Session,
    wget: &Wget<'_>,
    digest: Option<Digest>,
) -> Result<Blob> {
    let request = request(wget)?;
    let expected = Expected {
        media_type: wget.media_type.map(str::to_owned),
        digest,
    };
    session.client().content(request, expected).await
}

fn request(wget: &Wget<'_>) -> Result<WebRequest> {
    let url = Url::parse(wget.url).map_err(|error| {
        Error::invalid(format!("access.url: `{}`: {error}", printable(wget.url)))
    })?;
    let mut request = WebRequest::get(url, WGET);
    for (name, value) in &wget.header {
        let invalid = || {
            Error::invalid(format!(
                "access.header: `{}` is no header that can be sent",
                name.escape_debug()
            ))
        };
        let name = HeaderName::try_from(*name).map_err(|_| invalid())?;
        if OURS.contains(&name) || name.as_str().starts_with("proxy-") {
            return Err(invalid().with_hint("it belongs to the connection; leave it out"));
        }
        let mut value = HeaderValue::try_from(*value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let verb = wget.verb.to_ascii_uppercase();
    request.method = Method::from_bytes(verb.as_bytes())
        .ok()
        .filter(|method| !OTHER.contains(method))
        .ok_or_else(|| {
            Error::invalid(format!(
                "access.verb: `{}` is no method that asks for content",
                wget.verb.escape_debug()
            ))
        })?;
    if let Some(body) = wget.body {
        let decoded = base64::engine::general_purpose::STANDARD.decode(body);
        let decoded = decoded.map_err(|_| Error::invalid("access.body is no base64"))?;
        request.body = Some(Bytes::from(decoded));
    }
    request.follow = !wget.no_redirect;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use ocm_specs::access::remote::Remote;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_can_not_be_asked_is_told() {
        for (fields, expected) in [
            (json!({"url": "a b"}), "access.url: `a b`"),
            (json!({"url": "//u:secret@h/x?sig=1"}), "access.url: `h/x`"),
            (
                json!({"url": "https://h", "verb": "HEAD"}),
                "access.verb: `HEAD`",
            ),
            (
                json!({"url": "https://h", "verb": "A B"}),
                "access.verb: `A B`",
            ),
            (
                json!({"url": "https://h", "body": "%"}),
                "access.body is no base64",
            ),
            (
                json!({"url": "https://h", "header": {"Host": ["x"]}}),
                "access.header: `Host`",
            ),
            (
                json!({"url": "https://h", "header": {"A": ["x\ny"]}}),
                "access.header: `A`",
            ),
            (
                json!({"url": "https://h", "header": {"Proxy-Authorization": ["x"]}}),
                "access.header: `Proxy-Authorization`",
            ),
        ] {
            let mut access: Value = json!({"type": "wget"});
            access
                .as_object_mut()
                .expect("an object")
                .extend(fields.as_object().expect("an object").clone());
            let Ok(Some(Remote::Wget(wget))) = Remote::parse(&access) else {
                panic!("{access}");
            };
            let error = request(&wget).expect_err("it can't be asked");
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
