//! The smallest steps that use every part of the contract: bytes passed on in three ways, bytes changed, bytes counted
//! before they are handed on, two outputs.

#![forbid(unsafe_code)]

use std::io::Write;

use ocm_plugin::serde::{Deserialize, Serialize};
use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::{Content, Error, Info, Nothing, Outcome, Port, Sink, Source, Step, Transformer};

const BYTES: Port = Port::required("data", "any bytes");

/// How bytes go through.
#[derive(Deserialize, JsonSchema, Clone, Copy, Default, PartialEq)]
#[serde(crate = "ocm_plugin::serde", rename_all = "lowercase")]
#[schemars(crate = "ocm_plugin::schemars")]
enum Way {
    /// The input itself: nothing enters the plugin.
    Same,
    /// Moved by the host from stream to stream.
    Splice,
    /// Read and written.
    #[default]
    Copy,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct IdentitySpec {
    /// How the bytes go through.
    #[serde(default)]
    way: Way,
}

struct Identity;

impl Transformer for Identity {
    const TYPE: &'static str = "Identity/v1alpha1";
    const DOCUMENTATION: &'static str = "Hands on what it gets.";
    const INPUTS: &'static [Port] = &[BYTES];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the same bytes")];
    const EXAMPLES: &'static [&'static str] =
        &["- id: identity1\n  type: Identity/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    way: splice\n"];
    type Spec = IdentitySpec;
    type Config = Nothing;
    type Output = Nothing;

    fn run(step: &Step<Self>) -> Result<Outcome<Nothing>, Error> {
        let content = match step.spec.way {
            Way::Same => Content::same_as("data"),
            // What is known of the input holds for the output: the host checks it.
            _ => Content::lazy(step.input("data")?.info()),
        };
        Ok(Outcome::new(Nothing {}).with("data", content))
    }

    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        if step.spec.way == Way::Splice {
            return sink.pass_on(source);
        }
        while let Some(chunk) = source.next_chunk()? {
            sink.write_all(&chunk)?;
        }
        Ok(())
    }
}

struct Rot13;

impl Transformer for Rot13 {
    const TYPE: &'static str = "Rot13/v1alpha1";
    const DOCUMENTATION: &'static str = "Rotates ASCII letters by thirteen places.";
    const INPUTS: &'static [Port] = &[BYTES];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the rotated bytes")];
    const EXAMPLES: &'static [&'static str] =
        &["- id: rot1\n  type: Rot13/v1alpha1\n  spec:\n    data: ${get1.output.data}\n"];
    type Spec = Nothing;
    type Config = Nothing;
    type Output = Nothing;

    fn transform(_step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        while let Some(mut chunk) = source.next_chunk()? {
            for byte in &mut chunk {
                *byte = match *byte {
                    b'a'..=b'z' => (*byte - b'a' + 13) % 26 + b'a',
                    b'A'..=b'Z' => (*byte - b'A' + 13) % 26 + b'A',
                    other => other,
                };
            }
            sink.write_all(&chunk)?;
        }
        Ok(())
    }
}

#[derive(Serialize, JsonSchema, Default)]
#[serde(crate = "ocm_plugin::serde")]
#[schemars(crate = "ocm_plugin::schemars")]
struct Counted {
    /// Bytes of the input.
    bytes: u64,
    /// Line feeds among them.
    lines: u64,
}

struct Count;

impl Transformer for Count {
    const TYPE: &'static str = "Count/v1alpha1";
    const DOCUMENTATION: &'static str =
        "Counts bytes and lines.\n\nThe counts are values that other steps can use, so the bytes are read while the step runs.";
    const INPUTS: &'static [Port] = &[BYTES];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the same bytes, kept by the host")];
    const EXAMPLES: &'static [&'static str] =
        &["- id: count1\n  type: Count/v1alpha1\n  spec:\n    data: ${get1.output.data}\n"];
    type Spec = Nothing;
    type Config = Nothing;
    type Output = Counted;

    fn run(step: &Step<Self>) -> Result<Outcome<Counted>, Error> {
        let input = step.input("data")?;
        let mut counted = Counted::default();
        let stored = Content::stored(&input.info().media_type, |sink| {
            let mut source = input.open()?;
            while let Some(chunk) = source.next_chunk()? {
                counted.bytes += chunk.len() as u64;
                counted.lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
                sink.write_all(&chunk)?;
            }
            Ok(())
        })?;
        Ok(Outcome::new(counted).with("data", stored))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct SplitSpec {
    /// Where the second part starts, in bytes; 0 is refused.
    at: u64,
}

struct Split;

impl Transformer for Split {
    const TYPE: &'static str = "Split/v1alpha1";
    const DOCUMENTATION: &'static str = "Cuts bytes in two.";
    const INPUTS: &'static [Port] = &[BYTES];
    const OUTPUTS: &'static [Port] = &[Port::required("head", "the first bytes"), Port::required("tail", "the rest")];
    const EXAMPLES: &'static [&'static str] =
        &["- id: split1\n  type: Split/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    at: 10\n"];
    type Spec = SplitSpec;
    type Config = Nothing;
    type Output = Nothing;

    fn validate(spec: &SplitSpec, _config: &Nothing) -> Vec<Error> {
        if spec.at > 0 {
            return Vec::new();
        }
        vec![Error::invalid_spec("the first part would be empty").at("/at").with_hint("write 1 or more")]
    }

    fn run(step: &Step<Self>) -> Result<Outcome<Nothing>, Error> {
        let media_type = step.input("data")?.info().media_type;
        let info = Info { media_type, ..Info::default() };
        // The place travels as state, though `produce` could read it from the spec: to show how.
        let state = step.spec.at.to_le_bytes().to_vec();
        Ok(Outcome::new(Nothing {})
            .with("head", Content::lazy_with(info.clone(), state.clone()))
            .with("tail", Content::lazy_with(info, state)))
    }

    fn produce(step: &Step<Self>, port: &str, state: &[u8], sink: &mut Sink) -> Result<(), Error> {
        let at = state.try_into().map(u64::from_le_bytes).map_err(|_| Error::internal("the state is no number"))?;
        let mut source = step.input("data")?.open()?;
        let mut seen: u64 = 0;
        while let Some(chunk) = source.next_chunk()? {
            let cut = usize::try_from(at.saturating_sub(seen)).map_or(chunk.len(), |cut| cut.min(chunk.len()));
            seen += chunk.len() as u64;
            let (head, tail) = chunk.split_at(cut);
            sink.write_all(if port == "head" { head } else { tail })?;
            if port == "head" && seen >= at {
                break;
            }
        }
        if seen < at {
            return Err(Error::invalid_content(format!("there are only {seen} bytes")).in_port("data").at_byte(seen));
        }
        Ok(())
    }
}

ocm_plugin::plugin! {
    name: "basics",
    documentation: "The smallest steps that use every part of the contract.",
    types: [Identity, Rot13, Count, Split],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::testing::{run, run_in_chunks};

    use super::*;

    #[test]
    fn bytes_come_out_as_they_should_in_any_chunks() {
        for chunk in [1, 7, 4096] {
            let data = b"Hello, World\n".repeat(100);
            let same = run_in_chunks::<Identity>("{}", &[("data", &data)], chunk).unwrap();
            assert_eq!(same.contents["data"], data);
            let once = run_in_chunks::<Rot13>("{}", &[("data", &data)], chunk).unwrap();
            let twice = run_in_chunks::<Rot13>("{}", &[("data", &once.contents["data"])], chunk).unwrap();
            assert_ne!(once.contents["data"], data);
            assert_eq!(twice.contents["data"], data);
            let counted = run_in_chunks::<Count>("{}", &[("data", &data)], chunk).unwrap();
            assert_eq!(counted.output, ocm_plugin::serde_json::json!({"bytes": 1300, "lines": 100}));
            let split = run_in_chunks::<Split>(r#"{"at": 10}"#, &[("data", &data)], chunk).unwrap();
            assert_eq!(split.contents["head"], data[..10]);
            assert_eq!(split.contents["tail"], data[10..]);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let error = run::<Split>(r#"{"at": 0}"#, &[("data", b"x")]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("/at"));
        let error = run::<Split>(r#"{"at": 9}"#, &[("data", b"x")]).unwrap_err();
        assert_eq!((error.port.as_deref(), error.offset), (Some("data"), Some(1)));
    }
}
