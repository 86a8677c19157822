//! One broken promise per step type: each fails one check of the conformance kit and passes the others, as far as they
//! are not the same mistake. `Well` breaks none.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::{Deserialize, Serialize};
use ocm_plugin::{Content, Error, Info, Nothing, Outcome, Port, Sink, Source, Step, Transformer};

const BYTES: Port = Port::required("data", "any bytes");

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// How often; 0 is refused.
    #[serde(default = "once")]
    times: u64,
}

fn once() -> u64 {
    1
}

fn copy(source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
    while let Some(chunk) = source.next_chunk()? {
        sink.write_all(&chunk)?;
    }
    Ok(())
}

/// A type with one input and one output; what differs from `Well` is written out.
macro_rules! broken {
    ($name:ident, $documentation:literal, $example:literal, { $($item:item)* }) => {
        struct $name;

        impl Transformer for $name {
            const TYPE: &'static str = concat!(stringify!($name), "/v1");
            const DOCUMENTATION: &'static str = $documentation;
            const INPUTS: &'static [Port] = &[BYTES];
            const OUTPUTS: &'static [Port] = &[BYTES];
            const EXAMPLES: &'static [&'static str] = &[concat!(
                "- id: a1\n  type: ",
                stringify!($name),
                "/v1\n  spec:\n    data: ${get1.output.data}\n    ",
                $example,
                "\n"
            )];
            type Spec = Spec;
            type Config = Nothing;
            type Output = Nothing;

            $($item)*
        }
    };
}

broken!(Well, "Hands on what it gets.", "times: 1", {
    fn validate(spec: &Spec, _: &Nothing) -> Vec<Error> {
        let wrong = (spec.times == 0).then(|| Error::invalid_spec("this is not often").at("/times"));
        wrong.into_iter().collect()
    }

    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        copy(source, sink)
    }
});

broken!(WrongExample, "Has an example that no plan takes.", "often: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        copy(source, sink)
    }
});

broken!(Chokes, "Takes for granted that there is a byte.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let first = source.next_chunk()?;
        sink.write_all(&first.expect("there is always a byte"))?;
        copy(source, sink)
    }
});

broken!(CountsChunks, "Gives a byte per chunk.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        while source.next_chunk()?.is_some() {
            sink.write_all(b".")?;
        }
        Ok(())
    }
});

broken!(Whims, "Depends on what is random and calls itself deterministic.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let whim = std::hash::RandomState::new().build_hasher().finish();
        sink.write_all(&whim.to_le_bytes())?;
        copy(source, sink)
    }
});

broken!(Swallows, "Takes a failure of its input for the end.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        while let Ok(Some(chunk)) = source.next_chunk() {
            sink.write_all(&chunk)?;
        }
        Ok(())
    }
});

broken!(Renames, "Tells a failure of its input as one of the bytes.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        copy(source, sink).map_err(|error| Error::invalid_content(error.message))
    }
});

broken!(Deaf, "Does not notice that its reader left.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        while let Some(chunk) = source.next_chunk()? {
            let _ = sink.write_all(&chunk);
        }
        Ok(())
    }
});

broken!(Greedy, "Keeps its whole input in memory.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let mut all = Vec::new();
        source.read_to_end(&mut all)?;
        sink.write_all(&all)?;
        Ok(())
    }
});

broken!(Mispoints, "Names a field that is not there.", "times: 1", {
    fn validate(spec: &Spec, _: &Nothing) -> Vec<Error> {
        let wrong = (spec.times == 0).then(|| Error::invalid_spec("this is not often").at("/rules/3/times"));
        wrong.into_iter().collect()
    }

    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        copy(source, sink)
    }
});

broken!(Talks, "Writes to standard output.", "times: 1", {
    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        println!("hello from a plugin");
        copy(source, sink)
    }
});

#[derive(Serialize, JsonSchema, Default)]
#[serde(crate = "ocm_plugin::serde")]
#[schemars(crate = "ocm_plugin::schemars")]
struct Length {
    /// Bytes of the input.
    bytes: u64,
}

/// Fails no check, but those of fixtures that say something else.
struct Measure;

impl Transformer for Measure {
    const TYPE: &'static str = "Measure/v1";
    const DOCUMENTATION: &'static str = "Counts bytes, and gives all but the first one.";
    const INPUTS: &'static [Port] = &[BYTES];
    const OUTPUTS: &'static [Port] = &[BYTES];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Length;

    fn validate(spec: &Spec, _: &Nothing) -> Vec<Error> {
        let wrong = (spec.times != 1).then(|| Error::invalid_spec("once is enough").at("/times").with_hint("leave it out"));
        wrong.into_iter().collect()
    }

    fn run(step: &Step<Self>) -> Result<Outcome<Length>, Error> {
        let mut source = step.input("data")?.open()?;
        let mut bytes = 0;
        while let Some(chunk) = source.next_chunk()? {
            bytes += chunk.len() as u64;
        }
        if bytes == 0 {
            return Err(Error::invalid_content("there is no byte").in_port("data").at_byte(0));
        }
        let info = Info { media_type: "application/octet-stream".to_owned(), size: Some(bytes - 1), digest: None };
        Ok(Outcome::new(Length { bytes }).with("data", Content::lazy(info)))
    }

    fn transform(_: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        source.read_exact(&mut [0])?;
        copy(source, sink)
    }
}

ocm_plugin::plugin! {
    name: "broken",
    documentation: "Broken promises.",
    types: [Well, WrongExample, Chokes, CountsChunks, Whims, Swallows, Renames, Deaf, Greedy, Mispoints, Talks, Measure],
}
