//! Error answers in the form of the OCI distribution specification ("Error Codes").

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use ocm_content::{Error, ErrorKind};
use serde_json::json;

pub(crate) type Outcome<T = Response> = Result<T, Failure>;

/// A code of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Not of the specification: distribution's code for a bad `n`.
    PaginationNumberInvalid,
    /// Not of the specification: a fault on this side.
    Unknown,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// An answer that is not the one asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 405; `allowed` are the methods that work here.
    pub(crate) fn not_allowed(message: impl Into<String>, allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
            .with(ALLOW, HeaderValue::from_static(allowed))
    }

    /// 429, worth another try in a second.
    pub(crate) fn too_many(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            Code::TooManyRequests,
            message,
        )
        .with(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// A fault on this side. The client isn't told more: texts of stores may name local paths.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unknown,
            "the registry has a fault",
        )
    }

    /// What a store said. `missing` is the code for what it doesn't have.
    pub(crate) fn of_store(error: &Error, missing: Code) -> Self {
        let message = error.to_string();
        match error.kind() {
            ErrorKind::NotFound => Self::not_found(missing, "there is no such content here"),
            ErrorKind::Mismatch => Self::bad(Code::DigestInvalid, message),
            ErrorKind::Invalid => Self::bad(Code::ManifestInvalid, message),
            ErrorKind::Limit => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
            }
            ErrorKind::Denied => Self::new(
                StatusCode::FORBIDDEN,
                Code::Denied,
                "the store of this registry denies it",
            ),
            ErrorKind::Conflict => Self::new(StatusCode::CONFLICT, Code::Denied, message),
            ErrorKind::Unsupported => {
                Self::not_allowed("the store of this registry can't do that", "GET, HEAD")
            }
            ErrorKind::Unavailable => {
                tracing::warn!(%error, "store is unavailable");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Code::Unknown,
                    "the store of this registry is unavailable",
                )
                .with(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            _ => Self::internal(error),
        }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code.as_str(), "message": self.message });
        let body = json!({ "errors": [error] }).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}
