//! One misdeed per step type, written against the bindings: the kit would not let one do most of this.
//!
//! What it does in `describe` follows from texts that tests replace in the built component by others of the same length.
#![cfg(target_family = "wasm")]

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;

use ocm_plugin::wasm::bindings::exports::ocm::transformer::transform::*;
use ocm_plugin::wasm::bindings::ocm::transformer::host::{self, Level, Stored};
use ocm_plugin::wasm::bindings::ocm::transformer::types::{ErrorKind, Port, StepType};
use ocm_plugin::wasm::bindings::wasi::io::streams::{OutputStream, StreamError};

struct Hostile;

ocm_plugin::wasm::bindings::export_bindings!(Hostile with_types_in ocm_plugin::wasm::bindings);

/// Which misdeed `describe` does.
static DESCRIBE: &str = "describe=well....";
static NAME: &str = "hostile-plugin";
static FIRST: &str = "HostileFirst/v1";
/// Room for other schemas.
static SCHEMA: &str = concat!(
    r#"{"type":"object","description":"................................................................................"#,
    "................................................................................................................",
    "................................................................................................................",
    "................................................................................................................",
    "................................................................................................................",
    r#""}"#
);

const RUN: &[&str] = &[
    "Loop", "Memory", "Panic", "Recurse", "Handles", "Log", "Huge", "NotJson", "NotFitting", "NotAnObject", "Exit", "Sleep",
    "Look", "Calls", "OtherPort", "Twice", "SameAsNothing", "NoDigest", "BigState", "OpenSink", "Missing", "Terminal",
    "BlockOnNothing", "OtherType", "Streams", "Opens", "ReadsNothing", "ReadsClosed", "TellsTheSame", "MemoryAtOnce",
    "ForgesContent",
];
const PRODUCE: &[&str] = &[
    "Bomb", "Overrun", "BigBlocking", "Half", "HalfErr", "Zeroes", "TooLong", "TooShort", "WrongDigest", "NeverEnds", "Swallows",
    "ForgetsSink", "WritesNothing", "HoldsInput",
];

fn fail(message: impl Into<String>) -> StepError {
    StepError { kind: ErrorKind::InvalidContent, message: message.into(), field: None, port: None, offset: None, hint: None }
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let room = [depth; 64];
    black_box(&room);
    recurse(depth + 1) + room[3]
}

fn endless() -> ! {
    let mut number = 0u64;
    loop {
        number = black_box(number + 1);
    }
}

fn all_memory() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
        black_box(&kept);
    }
}

fn step_type(name: &str, version: &str, required: bool) -> StepType {
    let port = |required| Port {
        name: "data".into(),
        documentation: "any bytes".into(),
        required,
        media_types: if name == "OtherType" { vec!["text/plain".into()] } else { vec![] },
    };
    StepType {
        name: name.into(),
        version: version.into(),
        documentation: "A misdeed.".into(),
        spec_schema: black_box(SCHEMA).into(),
        output_schema: r#"{"type":"object","properties":{"number":{"type":"integer"},"forged":{}}}"#.into(),
        inputs: vec![port(false)],
        outputs: vec![port(required)],
        deterministic: true,
        examples: vec![],
    }
}

fn outcome(output: &str, content: Content) -> Result<Outcome, StepError> {
    Ok(Outcome { output: output.into(), contents: vec![OutputPort { name: "data".into(), content }] })
}

fn lazy(size: Option<u64>, digest: Option<&str>) -> Content {
    let info = ContentInfo { media_type: "text/plain".into(), size, digest: digest.map(Into::into) };
    Content::Lazy(LazyContent { info, state: vec![] })
}

fn write(sink: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        match sink.check_write()? {
            0 => sink.subscribe().block(),
            permit => {
                let (part, rest) = bytes.split_at(bytes.len().min(permit as usize));
                sink.write(part)?;
                bytes = rest;
            }
        }
    }
    Ok(())
}

impl Guest for Hostile {
    fn describe() -> Plugin {
        match black_box(DESCRIBE) {
            "describe=endless!" => endless(),
            "describe=memory!!" => all_memory(),
            "describe=crash!!!" => panic!("no description today"),
            "describe=recurse!" => drop(recurse(0)),
            "describe=sleep!!!" => std::thread::sleep(std::time::Duration::from_secs(3600)),
            "describe=exit!!!!" => std::process::exit(3),
            _ => {}
        }
        let (first, version) = black_box(FIRST).split_once('/').unwrap_or_default();
        let mut steps = vec![step_type(first, version, false)];
        steps.extend(RUN.iter().chain(PRODUCE).map(|name| step_type(name, "v1", *name == "Missing")));
        if black_box(DESCRIBE) == "describe=nothing!" {
            steps.clear();
        }
        let version = match black_box(DESCRIBE) {
            // Another one whenever it is asked.
            "describe=unstable" => std::hash::RandomState::new().build_hasher().finish().to_string(),
            _ => "0.1.0".into(),
        };
        Plugin {
            name: black_box(NAME).into(),
            version,
            documentation: "Misdeeds.".into(),
            config_schema: String::new(),
            needs: vec![],
            steps,
        }
    }

    fn validate(step_type: String, _: Json, _: Json) -> Vec<StepError> {
        if step_type == "HostileFirst/v1" {
            endless();
        }
        vec![]
    }

    fn run(step: Step) -> Result<Outcome, StepError> {
        match step.step_type.trim_end_matches("/v1") {
            "Loop" => endless(),
            "Memory" => all_memory(),
            "Panic" => panic!("index 7 out of range in rule `x`"),
            "Recurse" => Err(fail(recurse(0).to_string())),
            "Handles" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(Stored::new("text/plain"));
                }
            }
            "Streams" => {
                let mut kept = Vec::new();
                loop {
                    kept.push(step.inputs[0].content.open(0));
                }
            }
            "Opens" => loop {
                drop(black_box(step.inputs[0].content.open(0)));
            },
            "ReadsNothing" => {
                let source = step.inputs[0].content.open(0)?;
                loop {
                    black_box(source.read(0)).ok();
                }
            }
            "ReadsClosed" => {
                let source = step.inputs[0].content.open(0)?;
                loop {
                    black_box(source.blocking_read(1 << 16)).ok();
                }
            }
            "TellsTheSame" => loop {
                host::progress("nearly done", 99, Some(100));
            },
            "MemoryAtOnce" => {
                // Nearly all that there can be.
                black_box(core::arch::wasm32::memory_grow::<0>(60_000));
                Err(fail("it was refused, and nobody knows why"))
            }
            "ForgesContent" => outcome(r#"{"forged": {"uri": "secret.txt"}}"#, lazy(None, None)),
            "Log" => {
                for _ in 0..20_000 {
                    host::log(Level::Info, &"x".repeat(1 << 14));
                    host::log(Level::Warn, "\u{1b}[31mred\nalert");
                }
                outcome("{}", lazy(None, None))
            }
            "Huge" => Ok(Outcome { output: "x".repeat(64 << 20), contents: vec![] }),
            "NotJson" => Ok(Outcome { output: "{".into(), contents: vec![] }),
            "NotFitting" => Ok(Outcome { output: r#"{"number": "seven"}"#.into(), contents: vec![] }),
            "NotAnObject" => Ok(Outcome { output: "7".into(), contents: vec![] }),
            "Exit" => std::process::exit(3),
            "Sleep" => {
                std::thread::sleep(std::time::Duration::from_secs(3600));
                Err(fail("slept"))
            }
            "Look" => Err(fail(look())),
            "Calls" => {
                loop {
                    black_box(step.inputs[0].content.info());
                }
            }
            "OtherPort" => Ok(Outcome {
                output: "{}".into(),
                contents: vec![OutputPort { name: "secret".into(), content: lazy(None, None) }],
            }),
            "Twice" => Ok(Outcome {
                output: "{}".into(),
                contents: ["data", "data"]
                    .map(|name| OutputPort { name: name.into(), content: lazy(None, None) })
                    .into(),
            }),
            "SameAsNothing" => outcome("{}", Content::SameAs("give1/data".into())),
            "NoDigest" => outcome("{}", lazy(Some(1), Some("sha256:zz"))),
            "BigState" => {
                let info = ContentInfo { media_type: String::new(), size: None, digest: None };
                outcome("{}", Content::Lazy(LazyContent { info, state: vec![0; 100_000] }))
            }
            "OpenSink" => {
                let stored = Stored::new("text/plain");
                let sink = stored.sink()?;
                write(&sink, b"half").ok();
                std::mem::forget(sink);
                outcome("{}", Content::Stored(stored))
            }
            "Missing" => Ok(Outcome { output: "{}".into(), contents: vec![] }),
            "Terminal" => Err(StepError {
                field: Some("\u{1b}[2J".repeat(1000)),
                hint: Some("\u{7}".repeat(5000)),
                ..fail("\u{1b}[31mred\r\n".repeat(1000))
            }),
            "BlockOnNothing" => {
                ocm_plugin::wasm::bindings::wasi::io::poll::poll(&[]);
                Err(fail("polled nothing"))
            }
            "OtherType" => {
                let info = ContentInfo { media_type: "text/html".into(), size: None, digest: None };
                outcome("{}", Content::Lazy(LazyContent { info, state: vec![] }))
            }
            "TooLong" => outcome("{}", lazy(Some(10), None)),
            "TooShort" => outcome("{}", lazy(Some(30), None)),
            "WrongDigest" => {
                let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
                outcome("{}", lazy(Some(20), Some(digest)))
            }
            name if PRODUCE.contains(&name) => outcome("{}", lazy(None, None)),
            _ => Err(fail("no such misdeed")),
        }
    }

    fn produce(step: Step, _: String, _: Vec<u8>, sink: OutputStream) -> Result<(), StepError> {
        match step.step_type.trim_end_matches("/v1") {
            "Bomb" => {
                let zeroes = vec![0u8; 65536];
                while write(&sink, &zeroes).is_ok() {}
                Err(fail("nobody reads"))
            }
            "Overrun" => {
                sink.check_write().ok();
                sink.write(&vec![0; 2 << 20]).ok();
                Ok(())
            }
            "BigBlocking" => {
                sink.blocking_write_and_flush(&[0; 5000]).ok();
                Ok(())
            }
            "Half" => {
                write(&sink, &[65; 4096]).ok();
                panic!("died half way")
            }
            "HalfErr" => {
                write(&sink, &[65; 4096]).ok();
                Err(fail("a bad rule"))
            }
            "Zeroes" => {
                sink.write_zeroes(1 << 40).ok();
                Ok(())
            }
            "NeverEnds" => {
                write(&sink, &[65; 10]).ok();
                endless()
            }
            "Swallows" => {
                if let Ok(source) = step.inputs[0].content.open(0) {
                    while let Ok(chunk) = source.blocking_read(65536) {
                        write(&sink, &chunk).ok();
                    }
                }
                Ok(())
            }
            "WritesNothing" => loop {
                sink.write(&[]).ok();
            },
            "HoldsInput" => {
                // Asked for, and never read.
                let source = step.inputs[0].content.open(0)?;
                write(&sink, &[65; 20]).ok();
                drop(sink);
                std::mem::forget(source);
                Ok(())
            }
            "ForgetsSink" => {
                write(&sink, &[65; 20]).ok();
                std::mem::forget(sink);
                Ok(())
            }
            _ => write(&sink, &[65; 20]).map_err(|_| fail("nobody reads")),
        }
    }
}

/// Everything that is not there.
fn look() -> String {
    let seed = std::hash::RandomState::new().build_hasher().finish();
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|since| since.as_secs());
    format!(
        "file {:?} write {:?} env {:?} args {:?} tcp {} udp {} time {:?} seed {seed}",
        std::fs::read("/etc/passwd").map(|bytes| bytes.len()).is_err(),
        std::fs::write("/tmp/x", "y").is_err(),
        std::env::vars().count(),
        std::env::args().count(),
        std::net::TcpStream::connect("127.0.0.1:80").is_err(),
        std::net::UdpSocket::bind("0.0.0.0:0").is_err(),
        time.unwrap_or_default(),
    )
}
