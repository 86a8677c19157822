//! A step type for ocm. The one function to fill is `transform`: it reads a stream and writes a stream.

#![forbid(unsafe_code)]

use std::io::Write;

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::Deserialize;
use ocm_plugin::{Error, Nothing, Port, Sink, Source, Step, Transformer};

/// Inputs of the step besides its ports. Comments are shown to users.
#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// The byte that is replaced.
    from: char,
    /// What stands in its place.
    to: char,
}

struct @TYPE@;

impl Transformer for @TYPE@ {
    const TYPE: &'static str = "@TYPE@/v1alpha1";
    const DOCUMENTATION: &'static str = "Replaces a byte by another.";
    const INPUTS: &'static [Port] = &[Port::required("data", "any bytes")];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the changed bytes")];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: replace1\n  type: @TYPE@/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    from: a\n    to: b\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Nothing;

    fn validate(spec: &Spec, _config: &Nothing) -> Vec<Error> {
        let fields = [("/from", spec.from), ("/to", spec.to)];
        let wrong = fields.into_iter().filter(|(_, character)| !character.is_ascii());
        wrong.map(|(field, _)| Error::invalid_spec("this is not one byte").at(field)).collect()
    }

    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let (from, to) = (step.spec.from as u8, step.spec.to as u8);
        while let Some(mut chunk) = source.next_chunk()? {
            for byte in chunk.iter_mut().filter(|byte| **byte == from) {
                *byte = to;
            }
            sink.write_all(&chunk)?;
        }
        Ok(())
    }
}

ocm_plugin::plugin! {
    name: "@NAME@",
    documentation: "Step types for ocm.",
    types: [@TYPE@],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_replaced() {
        let ran = ocm_plugin::testing::run::<@TYPE@>(r#"{"from": "a", "to": "b"}"#, &[("data", b"banana")]).unwrap();
        assert_eq!(ran.contents["data"], b"bbnbnb");
    }

    #[test]
    fn what_is_no_byte_is_refused() {
        let error = ocm_plugin::testing::run::<@TYPE@>(r#"{"from": "ä", "to": "b"}"#, &[("data", b"")]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("/from"));
    }
}
