//! Asks a web server, to show how rights work: it asks for `http`, and whoever runs it decides.

#![forbid(unsafe_code)]

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::{Deserialize, Serialize};
use ocm_plugin::{Error, Need, Nothing, Outcome, Step, Transformer};

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// What to ask for.
    url: String,
    /// Sent as the body of a POST; a GET without.
    body: Option<String>,
    /// A header to send.
    header: Option<String>,
}

#[derive(Serialize, JsonSchema, Default)]
#[serde(crate = "ocm_plugin::serde")]
#[schemars(crate = "ocm_plugin::schemars")]
struct Answer {
    /// The status.
    status: u16,
    /// The first bytes of the body.
    body: String,
}

struct Probe;

impl Transformer for Probe {
    const TYPE: &'static str = "Probe/v1alpha1";
    const DOCUMENTATION: &'static str = "Asks a web server.";
    const EXAMPLES: &'static [&'static str] =
        &["- id: probe1\n  type: Probe/v1alpha1\n  spec:\n    url: https://status.example/ready\n"];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Answer;

    #[cfg(target_family = "wasm")]
    fn run(step: &Step<Self>) -> Result<Outcome<Answer>, Error> {
        use std::io::Read;
        let headers: Vec<(&str, &str)> = step.spec.header.iter().map(|name| (name.as_str(), "given")).collect();
        let body = step.spec.body.as_ref().map(|body| body.as_bytes());
        let method = if body.is_some() { "POST" } else { "GET" };
        let response = ocm_plugin::http::request(method, &step.spec.url, &headers, body)?;
        let mut text = Vec::new();
        response.body.take(1000).read_to_end(&mut text)?;
        Ok(Outcome::new(Answer { status: response.status, body: String::from_utf8_lossy(&text).into_owned() }))
    }

    #[cfg(not(target_family = "wasm"))]
    fn run(step: &Step<Self>) -> Result<Outcome<Answer>, Error> {
        let Spec { url, body, header } = &step.spec;
        Err(Error::internal(format!("{url} {body:?} {header:?}: only the host makes requests")))
    }
}

ocm_plugin::plugin! {
    name: "probe",
    documentation: "Asks a web server.",
    needs: &[Need::Http(&["127.0.0.1:*", "*.acme.example"], "to ask what the steps name", false)],
    types: [Probe],
}
