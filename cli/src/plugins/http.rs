//! Requests of plugins, made by the client of the session.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_content::Error;
use ocm_plugins_wasm::{Http, HttpRequest, HttpResponse};
use ocm_repository::Session;

struct Requests(Arc<Session>);

/// Makes requests with that session's retries, limits, proxies and credentials.
pub(crate) fn requests(session: &Arc<Session>) -> Arc<dyn Http> {
    Arc::new(Requests(session.clone()))
}

impl Http for Requests {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, Error>> {
        let session = self.0.clone();
        async move {
            let HttpRequest {
                method,
                url,
                headers,
                body,
            } = request;
            let answer = session
                .client()
                .relay(&method, &url, &headers, body)
                .await?;
            Ok(HttpResponse {
                status: answer.status,
                headers: answer.headers,
                body: answer.body,
            })
        }
        .boxed()
    }
}
