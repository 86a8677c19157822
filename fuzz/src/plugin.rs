//! The host of plugins, driven by a guest that does what the input says: host call by host call, in `run` and in `produce`.
//!
//! Whatever the guest does is its own step's error. What is read of an output is a prefix of what the guest wrote, and all
//! of it when the reading ends well; nothing of an instance is left when its reader has gone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use ocm_content::limits::LimitsConfig;
use ocm_content::{Blob, Content, Error, ErrorKind, Limits};
use ocm_engine::language::Validator;
use ocm_engine::{ContentRef, Context, StepContext, StepType};
use ocm_plugins_wasm::{
    Allowed, Granted, Host, HostConfig, Plugin, PluginLimits, Rights, check_schema,
};
use serde_json::json;

const PUPPET: &[u8] = include_bytes!("../../plugins-wasm/examples/prebuilt/puppet.wasm");

/// Operations of the guest that put other bytes into a sink than its pattern: zeroes, and those of an input.
const OTHER_BYTES: [u8; 4] = [13, 14, 15, 16];
/// Longest program, in bytes: a byte of it may stand for 255 calls of the host.
const PROGRAM: usize = 600;

struct Fixture {
    runtime: tokio::runtime::Runtime,
    host: Arc<Host>,
    step_type: Arc<dyn StepType>,
}

/// The guest, compiled once.
fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let mut limits = PluginLimits::default();
        limits.memory = 24 << 20;
        limits.handles = 64;
        limits.per_call = 1 << 20;
        limits.window = 64 << 10;
        limits.stall = Duration::from_millis(200);
        limits.output = 4 << 20;
        limits.log_lines = 20;
        let config = HostConfig {
            limits,
            ..HostConfig::default()
        };
        let host = Host::new(config);
        let step_type = runtime.block_on(async {
            let inspected = host.inspect(Bytes::from_static(PUPPET), None).await;
            let inspected = inspected.expect("a plugin");
            let needs = inspected.description.needs.clone();
            let granted = Granted::new("puppet", &needs, None, &Allowed::default());
            let plugin = Plugin::new(&host, inspected, granted.expect("it can do without"), None);
            let types = plugin.expect("a plugin").step_types();
            types.expect("it has one").remove(0)
        });
        Fixture {
            runtime,
            host,
            step_type,
        }
    })
}

/// What an input says: the sources, how the outputs are read, and the guest's programs.
struct Case<'d> {
    size: usize,
    chunk: usize,
    breaks: bool,
    from: u64,
    leaves_at: usize,
    run: &'d [u8],
    end: &'d [u8],
    produce: &'d [u8],
}

impl<'d> Case<'d> {
    fn read(data: &'d [u8]) -> Option<Self> {
        let (head, rest) = data.split_at_checked(6)?;
        let rest = &rest[..rest.len().min(PROGRAM)];
        let (end, rest) = rest.split_at(rest.len().min(usize::from(head[4] % 8)));
        let (run, produce) = rest.split_at(rest.len() * usize::from(head[5]) / 256);
        Some(Self {
            size: [0, 1, 1000, 70_000, 300_000][usize::from(head[0] % 5)],
            chunk: 1 << (head[1] % 18),
            breaks: head[1] >= 192,
            from: if head[2] >= 224 {
                u64::from(head[2]) * 11
            } else {
                0
            },
            leaves_at: match head[3] {
                0..=191 => usize::MAX,
                some => (usize::from(some) - 192) * 1000,
            },
            run,
            end,
            produce,
        })
    }

    /// Content of an input: the same pattern as that of the guest.
    fn blob(&self, name: &str) -> Blob {
        let bytes: Bytes = (0..self.size).map(pattern).collect::<Vec<u8>>().into();
        if !self.breaks {
            return Blob::from_bytes(name, bytes);
        }
        let source = Breaks {
            bytes,
            chunk: self.chunk,
        };
        Blob::new(name, Arc::new(source))
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// Gives its bytes in chunks, and then an error.
#[derive(Debug)]
struct Breaks {
    bytes: Bytes,
    chunk: usize,
}

impl ocm_content::Source for Breaks {
    fn open(
        &self,
        offset: u64,
    ) -> futures::future::BoxFuture<'static, Result<ocm_content::ByteStream, Error>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        let rest = self.bytes.slice(start..);
        let chunks: Vec<_> = (0..rest.len().div_ceil(self.chunk))
            .map(|at| Ok(rest.slice(at * self.chunk..rest.len().min((at + 1) * self.chunk))))
            .chain([Err(Error::new(ErrorKind::Unavailable, "the source broke"))])
            .collect();
        Box::pin(
            async move { Ok(futures::stream::iter(chunks).boxed() as ocm_content::ByteStream) },
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Is it one that users can be shown? A guest's mistake is never one of the host.
fn check_error(kind: ErrorKind, message: &str, hint: Option<&str>) {
    assert!(!message.contains("the WebAssembly engine"), "{message}");
    let theirs = hint.is_some_and(|hint| hint.contains("fault of the plugin"));
    assert!(kind != ErrorKind::Internal || theirs, "{message}: {hint:?}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

async fn read(content: Content, case: &Case<'_>, plain: bool) {
    let Content::Blob(blob) = content else {
        panic!("bytes are asked for");
    };
    let opened = match case.from {
        0 => blob.open().await,
        from => blob.open_at(from).await,
    };
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(error) => return check_error(error.kind(), &error.to_string(), error.hint()),
    };
    let mut at = usize::try_from(case.from).expect("small");
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return check_error(error.kind(), &error.to_string(), error.hint()),
        };
        for byte in chunk {
            assert!(!plain || byte == pattern(at), "byte {at} is {byte}");
            at += 1;
        }
        if at >= case.leaves_at {
            return;
        }
    }
    assert!(case.from > 0 || blob.size.is_none_or(|size| size == at as u64));
}

async fn run(step_type: &dyn StepType, case: &Case<'_>) {
    let limits = Limits::new(LimitsConfig {
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    });
    let cx = StepContext::alone(Context::new(limits.clone(), Arc::new(())), "puppet1");
    let input = |name: &str| cx.sibling(name).offer("data", case.blob(name));
    let spec = json!({
        "run": hex(case.run), "end": hex(case.end), "produce": hex(case.produce),
        "data": input("give1"), "other": input("give2"),
    });
    let outcome = match step_type.run(cx.clone(), spec).await {
        Ok(outcome) => outcome,
        Err(error) => return check_error(error.kind(), &error.to_string(), error.error.hint()),
    };
    assert_eq!(outcome.output["inputs"], 2);
    let plain = |program: &[u8]| {
        !program
            .chunks(3)
            .any(|step| OTHER_BYTES.contains(&(step[0] % 34)))
    };
    let plain = plain(case.run) && plain(case.produce);
    for port in ["data", "other"] {
        let Some(reference) = outcome.output.get(port) else {
            continue;
        };
        let reference: ContentRef = serde_json::from_value(reference.clone()).expect("content");
        let content = cx.content(&reference).await.expect("it was offered");
        read(content, case, plain).await;
    }
    drop((outcome, cx));
    assert_eq!(limits.spool().used(), 0);
}

/// Runs one step of the guest and reads what it gives.
pub(super) fn plugin_host(data: &[u8]) {
    let Some(case) = Case::read(data) else { return };
    let Fixture {
        runtime,
        host,
        step_type,
    } = fixture();
    runtime.block_on(async {
        let ended =
            tokio::time::timeout(Duration::from_secs(60), run(step_type.as_ref(), &case)).await;
        assert!(ended.is_ok(), "a run ends");
        for _ in 0..1000 {
            if host.usage().instances() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((host.usage().instances(), host.usage().memory()), (0, 0));
    });
}

/// Rights as users and specs write them: what is shown reads back as the same.
pub(super) fn plugin_rights(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(read) = Rights::parse(text) else {
        return;
    };
    for host in &read.http {
        let _ = host.matches("a.example", None);
        let _ = host.matches("", Some(443));
    }
    if !read.is_empty() {
        let again = Rights::parse(&read.to_string()).expect("it reads back");
        assert_eq!(again, read);
    }
}

/// A schema from a plugin, and a value that it judges if it is one that is taken: the two are apart by a zero byte.
pub(super) fn plugin_schema(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    let Some((schema, value)) = text.and_then(|text| text.split_once('\0')) else {
        return;
    };
    let Ok(schema) = check_schema("the schema", schema) else {
        return;
    };
    let validator = Validator::new(&schema).expect("it was taken");
    if let Ok(value) = serde_json::from_str(value) {
        for mistake in validator.validate_value(&value) {
            assert!(!mistake.message.is_empty());
        }
    }
}
