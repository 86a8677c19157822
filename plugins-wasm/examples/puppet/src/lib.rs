//! Does what its spec says, host call by host call, whether that makes sense or not: a program of bytes for `run`, another
//! one for `produce`. The host must survive all of them.
//!
//! What it writes to a sink follows a pattern (byte `n` is `n % 251`), so that whoever reads can tell whether bytes were lost.
#![cfg(target_family = "wasm")]

use std::time::Duration;

use ocm_plugin::wasm::bindings::exports::ocm::transformer::transform::*;
use ocm_plugin::wasm::bindings::ocm::transformer::fetch::{Exchange, Request};
use ocm_plugin::wasm::bindings::ocm::transformer::host::{self, Input, Level, Stored};
use ocm_plugin::wasm::bindings::ocm::transformer::types::{Capability, ErrorKind, Need, Port, StepType};
use ocm_plugin::wasm::bindings::wasi::io::poll::{Pollable, poll};
use ocm_plugin::wasm::bindings::wasi::io::streams::{InputStream, OutputStream};

struct Puppet;

ocm_plugin::wasm::bindings::export_bindings!(Puppet with_types_in ocm_plugin::wasm::bindings);

/// What the program holds. Dropped in the order that it says, or in this one.
#[derive(Default)]
struct Held {
    inputs: Vec<Input>,
    pollables: Vec<Pollable>,
    streams: Vec<InputStream>,
    /// With how many bytes were written.
    sinks: Vec<(OutputStream, u64)>,
    stored: Vec<Stored>,
    exchanges: Vec<Exchange>,
    memory: Vec<Vec<u8>>,
}

/// The bytes that belong behind the first `from`.
fn pattern(from: u64, count: u64) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

fn fail(kind: u8, message: &str) -> StepError {
    let kind = match kind % 6 {
        0 => ErrorKind::InvalidSpec,
        1 => ErrorKind::InvalidContent,
        2 => ErrorKind::Denied,
        3 => ErrorKind::Unavailable,
        4 => ErrorKind::ContentIo,
        _ => ErrorKind::Internal,
    };
    let field = Some("/program".to_owned());
    StepError { kind, message: message.to_owned(), field, port: Some("data".to_owned()), offset: Some(1), hint: None }
}

/// One of them, if there is any.
fn one<T>(all: &mut [T], which: u8) -> Option<&mut T> {
    let count = all.len();
    all.get_mut(usize::from(which) % count.max(1))
}

fn take<T>(all: &mut Vec<T>, which: u8) -> Option<T> {
    if all.is_empty() { None } else { Some(all.remove(usize::from(which) % all.len())) }
}

impl Held {
    /// Does one thing. Each has two arguments; what host calls answer is looked at only to go on.
    fn step(&mut self, what: u8, a: u8, b: u8) -> Result<(), StepError> {
        let length = 1u64 << (b % 20);
        match what % 34 {
            0 | 1 => {
                let offset = if a % 4 == 0 { u64::from(b) * 137 } else { 0 };
                if let Some(stream) = one(&mut self.inputs, a).and_then(|input| input.open(offset).ok()) {
                    self.streams.push(stream);
                }
            }
            2 => drop(one(&mut self.streams, a).map(|stream| stream.read(length))),
            3 => drop(one(&mut self.streams, a).map(|stream| stream.blocking_read(length))),
            4 => drop(one(&mut self.streams, a).map(|stream| stream.skip(length))),
            5 => drop(one(&mut self.streams, a).map(|stream| stream.blocking_skip(length))),
            6 | 7 => self.write(a, Some(length)),
            8 => self.write(a, None),
            9 => drop(one(&mut self.sinks, a).map(|(sink, _)| sink.check_write())),
            10 => {
                if let Some((sink, written)) = one(&mut self.sinks, a) {
                    let bytes = pattern(*written, u64::from(b) * 20);
                    if sink.blocking_write_and_flush(&bytes).is_ok() {
                        *written += bytes.len() as u64;
                    }
                }
            }
            11 => drop(one(&mut self.sinks, a).map(|(sink, _)| sink.flush())),
            12 => drop(one(&mut self.sinks, a).map(|(sink, _)| sink.blocking_flush())),
            13 => drop(one(&mut self.sinks, a).map(|(sink, _)| sink.write_zeroes(length))),
            14 => drop(one(&mut self.sinks, a).map(|(sink, _)| sink.blocking_write_zeroes_and_flush(u64::from(b) * 20))),
            15 | 16 => {
                if let (Some((sink, _)), Some(stream)) = (one(&mut self.sinks, a), one(&mut self.streams, b)) {
                    let _ = if what % 2 == 0 { sink.splice(stream, 1 << 16) } else { sink.blocking_splice(stream, 1 << 16) };
                }
            }
            17 => self.pollables.extend(one(&mut self.streams, a).map(|stream| stream.subscribe())),
            18 => self.pollables.extend(one(&mut self.sinks, a).map(|(sink, _)| sink.subscribe())),
            19 => drop(one(&mut self.pollables, a).map(|pollable| pollable.ready())),
            20 => drop(one(&mut self.pollables, a).map(|pollable| pollable.block())),
            21 => {
                let all: Vec<&Pollable> = self.pollables.iter().take(usize::from(b)).collect();
                poll(&all);
            }
            22 => drop(take(&mut self.streams, a)),
            23 => drop(take(&mut self.sinks, a)),
            24 => drop(take(&mut self.pollables, a)),
            25 => match b % 3 {
                0 => drop(take(&mut self.inputs, a)),
                1 => drop(take(&mut self.stored, a)),
                _ => drop(take(&mut self.exchanges, a)),
            },
            26 => self.stored.push(Stored::new(&"m".repeat(usize::from(b)))),
            27 => {
                let sink = one(&mut self.stored, a).and_then(|stored| stored.sink().ok());
                self.sinks.extend(sink.map(|sink| (sink, 0)));
            }
            28 => {
                let level = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error][usize::from(a % 5)];
                host::log(level, &"\u{1b}l".repeat(usize::from(b)));
                host::progress("on it", u64::from(a), (b % 2 == 0).then_some(u64::MAX));
            }
            29 => drop(one(&mut self.inputs, a).map(|input| input.info())),
            30 => self.fetch(a, b),
            31 => return Err(fail(a, "as asked")),
            32 => match a % 8 {
                0 => panic!("as asked"),
                1 => std::process::exit(i32::from(b)),
                2 => std::thread::sleep(Duration::from_millis(u64::from(b) % 8)),
                3 => eprintln!("{b}"),
                4 => self.memory.push(vec![b; usize::from(b) << 14]),
                5 => self.pollables.clear(),
                6 => drop(std::hint::black_box((0..u64::from(b) << 12).fold(7u64, |sum, n| sum.wrapping_mul(31) ^ n))),
                _ => drop(std::time::SystemTime::now()),
            },
            _ => {}
        }
        Ok(())
    }

    /// Writes what is allowed of `length`, or more than is allowed.
    fn write(&mut self, which: u8, length: Option<u64>) {
        let Some((sink, written)) = one(&mut self.sinks, which) else { return };
        let permit = sink.check_write().unwrap_or(0);
        let count = match length {
            Some(length) => permit.min(length),
            None => permit + 1,
        };
        if sink.write(&pattern(*written, count)).is_ok() {
            *written += count;
        }
    }

    fn fetch(&mut self, a: u8, b: u8) {
        match a % 3 {
            0 => self.exchanges.push(Exchange::new(&Request {
                method: ["GET", "POST", "", "BREW"][usize::from(b) % 4].to_owned(),
                url: ["https://a.example/", "http://127.0.0.1:1/", "", "https://u:p@b.example/%"][usize::from(b / 4) % 4].to_owned(),
                headers: vec![(["x", "host", "", "a b"][usize::from(b / 16) % 4].to_owned(), "\r\n".to_owned())],
                content_length: (b % 2 == 1).then_some(u64::from(b) << (b % 60)),
            })),
            1 => {
                let body = one(&mut self.exchanges, b).and_then(|exchange| exchange.body().ok());
                self.sinks.extend(body.map(|sink| (sink, 0)));
            }
            _ => {
                if let Some(Ok(response)) = one(&mut self.exchanges, b).map(|exchange| exchange.response()) {
                    self.streams.push(response.body);
                }
            }
        }
    }

    /// Runs a program: an operation and its two arguments, again and again; `33` repeats the one before.
    fn run(&mut self, program: &[u8]) -> Result<(), StepError> {
        let mut before = [255, 0, 0];
        for step in program.chunks(3) {
            let step = [step[0], step.get(1).copied().unwrap_or(0), step.get(2).copied().unwrap_or(0)];
            if step[0] % 34 == 33 {
                for _ in 0..step[1] {
                    self.step(before[0], before[1], before[2])?;
                }
            } else {
                self.step(step[0], step[1], step[2])?;
                before = step;
            }
        }
        Ok(())
    }
}

/// The program in the spec below that name, in hexadecimal digits.
fn program(spec: &str, name: &str) -> Vec<u8> {
    let digits = spec.split(&format!("\"{name}\":\"")).nth(1).and_then(|rest| rest.split('"').next());
    let digits = digits.unwrap_or_default().as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What an output is made of, and what is said of it: the program in the spec below `end`.
fn content(held: &mut Held, how: u8, what: u8, state: &[u8]) -> Content {
    match how % 4 {
        0 | 1 => {
            let media_type = ["text/plain", "", "\u{1b}", "application/octet-stream"][usize::from(what % 4)].to_owned();
            let size = (how >= 128).then_some(u64::from(what) * 100);
            let digest = (what >= 192).then(|| "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned());
            Content::Lazy(LazyContent { info: ContentInfo { media_type, size, digest }, state: state.to_vec() })
        }
        2 => match take(&mut held.stored, what) {
            Some(stored) => Content::Stored(stored),
            None => Content::SameAs("data".to_owned()),
        },
        _ => Content::SameAs(["data", "other", "nothing"][usize::from(what % 3)].to_owned()),
    }
}

impl Guest for Puppet {
    fn describe() -> Plugin {
        let port = |name: &str| Port { name: name.into(), documentation: "bytes".into(), required: false, media_types: vec![] };
        let object = r#"{"type":"object","properties":{"run":{"type":"string"},"end":{"type":"string"},"produce":{"type":"string"}}}"#;
        Plugin {
            name: "puppet".into(),
            version: "0.1.0".into(),
            documentation: "Does what its spec says.".into(),
            config_schema: String::new(),
            needs: vec![Need { capability: Capability::Http, scope: vec!["*.example".into()], reason: "to be refused".into(), optional: true }],
            steps: vec![StepType {
                name: "Puppet".into(),
                version: "v1".into(),
                documentation: "Does what its spec says.".into(),
                spec_schema: object.into(),
                output_schema: r#"{"type":"object","properties":{"inputs":{"type":"integer"}}}"#.into(),
                inputs: vec![port("data"), port("other")],
                outputs: vec![port("data"), port("other")],
                deterministic: true,
                examples: vec![],
            }],
        }
    }

    fn validate(_: String, spec: Json, _: Json) -> Vec<StepError> {
        match program(&spec, "run").first() {
            Some(250) => vec![fail(0, "not this one")],
            _ => vec![],
        }
    }

    fn run(step: Step) -> Result<Outcome, StepError> {
        let mut held = Held::default();
        let count = step.inputs.len();
        held.inputs.extend(step.inputs.into_iter().map(|input| input.content));
        held.run(&program(&step.spec, "run"))?;
        let end = program(&step.spec, "end");
        let output = match end.first() {
            Some(7) => "{".to_owned(),
            Some(9) => "{\"inputs\":\"many\"}".to_owned(),
            _ => format!("{{\"inputs\":{count}}}"),
        };
        let mut contents = Vec::new();
        for (how, name) in end[end.len().min(1)..].chunks_exact(2).zip(["data", "other", "data", "third"]) {
            contents.push(OutputPort { name: name.to_owned(), content: content(&mut held, how[0], how[1], name.as_bytes()) });
        }
        // Sinks have to be gone by now; a program that keeps streams open may.
        if end.first().is_some_and(|end| end % 2 == 0) {
            held.pollables.clear();
            held.sinks.clear();
        }
        std::mem::forget((held.pollables, held.sinks));
        Ok(Outcome { output, contents })
    }

    fn produce(step: Step, port: String, state: Vec<u8>, sink: OutputStream) -> Result<(), StepError> {
        if state != port.as_bytes() {
            return Err(fail(5, "the state is not what `run` gave"));
        }
        let mut held = Held::default();
        held.inputs.extend(step.inputs.into_iter().map(|input| input.content));
        held.sinks.push((sink, 0));
        held.run(&program(&step.spec, "produce"))
    }
}
