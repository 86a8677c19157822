//! A web server that answers as a function says: for registries that no registry would be.
//!
//! It can stand for any number of hosts when it is used as an HTTP proxy: requests come with the whole URL then.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, StatusCode};
use ocm_content::MemoryStores;
use ocm_registry::{Auth, Registry, RegistryConfig, Running};

/// One request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Whom it was meant for: `host[:port]`.
    pub host: String,
    /// Its path.
    pub path: String,
    /// Its query, without `?`.
    pub query: String,
    /// What it brought to be let in.
    pub authorization: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Answer {
    /// An answer of that status without headers and body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds a header, whatever bytes it has.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Its body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).expect("a test gives a valid status");
        for (name, value) in self.headers {
            let name: HeaderName = name.parse().expect("a test names a valid header");
            let value = HeaderValue::from_bytes(&value).expect("a test gives a valid value");
            response.headers_mut().append(name, value);
        }
        response
    }
}

/// Gives the answer to a request, or leaves it to the registry.
pub type Answering = Arc<dyn Fn(&Asked) -> Option<Answer> + Send + Sync>;

#[derive(Clone)]
struct Layer {
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Answering,
}

/// A registry on a free port of this machine that lies as a function says. Ends when it is dropped.
#[derive(Debug)]
pub struct Liar {
    /// The server.
    pub running: Running,
    /// What is in the registry behind the lies.
    pub stores: MemoryStores,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Liar {
    /// A registry in memory that is asked what `answer` has no answer to.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(auth: Auth, answer: Answering) -> io::Result<Self> {
        let stores = MemoryStores::new();
        let config = RegistryConfig {
            auth,
            ..RegistryConfig::new(Arc::new(stores.clone()))
        };
        let layer = Layer {
            asked: Arc::default(),
            answer,
        };
        let registry = Registry::new(config);
        let router = registry
            .routes()
            .layer(middleware::from_fn_with_state(layer.clone(), lie));
        let running = registry
            .serve(router, SocketAddr::from(([127, 0, 0, 1], 0)))
            .await?;
        Ok(Self {
            running,
            stores,
            asked: layer.asked,
        })
    }

    /// What it was asked so far, in the order in which it came.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Most bytes of a request's body: such registries are for small things.
const BODY: usize = 16 << 20;

async fn lie(State(layer): State<Layer>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // What breaks off is not answered.
    let body = axum::body::to_bytes(body, BODY).await.unwrap_or_default();
    let asked = asked(&head, &body);
    layer
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked.clone());
    let answer = (layer.answer)(&asked);
    match answer {
        Some(answer) => answer.response(),
        None => next.run(Request::from_parts(head, Body::from(body))).await,
    }
}

fn asked(head: &http::request::Parts, body: &[u8]) -> Asked {
    let text = |name: HeaderName| {
        let value = head.headers.get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let authority = head.uri.authority().map(ToString::to_string);
    Asked {
        method: head.method.to_string(),
        host: authority.or_else(|| text(HOST)).unwrap_or_default(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        authorization: text(AUTHORIZATION),
        body: body.to_vec(),
    }
}
