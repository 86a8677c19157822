//! Every operation of the registry client against every fault of a registry, at every place where it can strike.
//!
//! A cell is one operation and one fault, played twice: the fault strikes once, and the fault strikes every time. It ends in
//! the right content or in an error that names the operation, the host, what it was about and the attempts; nothing is
//! visible under a name that is not complete. The tables say which, a letter for each: `.` the right content, otherwise the
//! kind of the error.
//!
//! Time is virtual, and goes on only in small steps between which the sockets are looked at (`governed`), so that a silent
//! registry costs no real time and a busy machine looks silent to nobody.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocm_content::{
    Blob, ContentStore, Error, ErrorKind, MemoryStores, RawManifest, Result, Stores,
};
use ocm_repository::credentials::{Anonymous, Credential, CredentialSource, Secret};
use ocm_repository::oci::{Client, ClientConfig, RetryConfig, Timeouts};
use ocm_specs::Digest;
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_testdata::faults::{Entry, Fault, FaultyRegistry, Kind, Matching, Rule};
use ocm_testdata::registry::{Auth, RegistryConfig, Users};
use ocm_testdata::tell;

use super::{Knows, client, sample};

const ATTEMPTS: u32 = 3;
/// Bytes of the blob, and of a chunk of its upload: more than what counts as progress lies behind the middle.
const BLOB: usize = 200_000;
const CHUNK: usize = 90_000;
/// Where a body breaks that is to be resumed.
const BREAK: usize = 80_000;
const REPOSITORY: &str = "acme/x";
const TAG: &str = "1.0.0";

/// What a client does, by the request that the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    ReadBlob,
    /// Goes on reading behind a break.
    ResumeBlob,
    ReadManifest,
    ReadTag,
    ResolveTag,
    LookForBlob,
    ListTags,
    ListReferrers,
    ListRepositories,
    GetToken,
    BeginUpload,
    PutBlob,
    SendChunk,
    EndChunks,
    PutManifest,
    PutTag,
}

use Operation::*;

/// Those whose request or answer has a body that matters.
const WITH_BODY: [Operation; 12] = [
    ReadBlob,
    ResumeBlob,
    ReadManifest,
    ReadTag,
    ListTags,
    ListReferrers,
    ListRepositories,
    GetToken,
    PutBlob,
    SendChunk,
    PutManifest,
    PutTag,
];

/// Those whose answers are tried in all variants.
const WITH_REPLY: [Operation; 12] = [
    ReadBlob,
    ResumeBlob,
    ReadTag,
    ResolveTag,
    LookForBlob,
    ListTags,
    ListReferrers,
    BeginUpload,
    PutBlob,
    SendChunk,
    EndChunks,
    PutTag,
];

impl Operation {
    /// The requests that the fault strikes.
    fn requests(self) -> Matching {
        let (kind, method) = match self {
            ReadBlob | ResumeBlob => (Kind::Blob, "GET"),
            ReadManifest | ReadTag => (Kind::Manifest, "GET"),
            ResolveTag => (Kind::Manifest, "HEAD"),
            LookForBlob => (Kind::Blob, "HEAD"),
            ListTags => (Kind::Tags, "GET"),
            ListReferrers => (Kind::Referrers, "GET"),
            ListRepositories => (Kind::Catalog, "GET"),
            GetToken => (Kind::Token, "GET"),
            BeginUpload => (Kind::UploadStart, "POST"),
            PutBlob | EndChunks => (Kind::Upload, "PUT"),
            SendChunk => (Kind::Upload, "PATCH"),
            PutManifest | PutTag => (Kind::Manifest, "PUT"),
        };
        Rule::on(kind).method(method)
    }

    fn is_upload(self) -> bool {
        matches!(self, BeginUpload | PutBlob | SendChunk | EndChunks)
    }

    /// Does our side send the body?
    fn sends(self) -> bool {
        matches!(self, PutBlob | SendChunk | PutManifest | PutTag)
    }

    /// What an error says, one of these: what was done, to what, where.
    fn words(self, content: &Content, host: &str) -> Vec<String> {
        let (blob, manifest) = (&content.link.digest, &content.manifest.digest);
        let there = format!("{host}/{REPOSITORY}");
        match self {
            // The second is said by whoever compares what came with the digest.
            ReadBlob | ResumeBlob => vec![
                format!("read blob {blob} of {there}"),
                format!("read {blob} from oci://{there}"),
            ],
            ReadManifest => vec![format!("read manifest {manifest} of {there}")],
            // The token was for this.
            ReadTag | GetToken => vec![format!("read manifest {TAG} of {there}")],
            ResolveTag => vec![format!("look for manifest {TAG} of {there}")],
            LookForBlob => vec![format!("look for blob {blob} of {there}")],
            ListTags => vec![format!("list tags of {there}")],
            ListReferrers => vec![format!("list referrers of {manifest} of {there}")],
            ListRepositories => vec![format!("list repositories of {host}")],
            BeginUpload => vec![
                format!("look for blob {blob} or open an upload to {there}"),
                format!("open an upload of blob {blob} to {there}"),
            ],
            PutBlob | SendChunk | EndChunks => vec![format!("push blob {blob} to {there}")],
            PutManifest => vec![format!("write manifest {manifest} to {there}")],
            PutTag => vec![format!("write manifest {TAG} to {there}")],
        }
    }
}

/// What is read and written.
struct Content {
    bytes: Bytes,
    link: Descriptor,
    manifest: RawManifest,
    referrer: RawManifest,
}

impl Content {
    fn new() -> Self {
        let bytes = Bytes::from(sample(BLOB));
        let link = Descriptor::of("application/x-test", &bytes);
        let manifest = RawManifest::write(&Manifest::image(link.clone(), vec![link.clone()]));
        let mut referrer = Manifest::image(link.clone(), Vec::new());
        referrer.subject = Some(manifest.descriptor());
        Self {
            referrer: RawManifest::write(&referrer),
            manifest,
            link,
            bytes,
        }
    }

    /// Puts the blob there, and the manifest under its tag with its referrer.
    async fn fill(&self, store: &Arc<dyn ContentStore>, blob_only: bool) {
        store.push(&self.blob(), &[]).await.unwrap();
        if !blob_only {
            store.put_manifest(&self.manifest, Some(TAG)).await.unwrap();
            store.put_manifest(&self.referrer, None).await.unwrap();
        }
    }

    fn blob(&self) -> Blob {
        Blob::from_bytes("application/x-test", self.bytes.clone())
    }

    /// Bytes of the body that a fault of this operation strikes.
    fn length(&self, operation: Operation) -> u64 {
        let length = match operation {
            ReadBlob | PutBlob => BLOB,
            ResumeBlob => BLOB - BREAK,
            SendChunk => CHUNK,
            ReadManifest | ReadTag | PutManifest | PutTag => self.manifest.bytes.len(),
            ListTags => r#"{"name":"acme/x","tags":["1.0.0"]}"#.len(),
            ListReferrers => 200,
            ListRepositories => r#"{"repositories":["acme/x"]}"#.len(),
            GetToken => 60,
            _ => 0,
        };
        length as u64
    }
}

/// How long anything waits: short, since virtual time goes in steps.
fn patient() -> ClientConfig {
    let while_ = Duration::from_secs(2);
    ClientConfig {
        timeouts: Timeouts {
            connect: while_,
            answer: while_,
            commit: while_,
            stall: while_,
            ..Timeouts::default()
        },
        retry: RetryConfig {
            attempts: ATTEMPTS,
            ..RetryConfig::default()
        },
        ..ClientConfig::default()
    }
}

/// Lets virtual time go on in small steps only, with real time for the sockets in each.
async fn governed<T>(work: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            tokio::time::sleep(Duration::from_millis(25)).await;
            std::thread::sleep(Duration::from_micros(60));
        }
    };
    tokio::select! {
        result = work => result,
        () = time => unreachable!("time does not end"),
    }
}

/// What went wrong, and whether that was in reading what the operation had named.
struct Broken {
    error: Error,
    after: bool,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self {
            error,
            after: false,
        }
    }
}

impl Broken {
    fn after(error: Error) -> Self {
        Self { error, after: true }
    }
}

/// How one operation went against one registry.
struct Played {
    result: Result<(), Broken>,
    log: Vec<Entry>,
    host: String,
}

/// Plays an operation in a registry of its own.
async fn play(content: &Content, operation: Operation, fault: Fault, always: bool) -> Played {
    let stores = MemoryStores::new();
    let store = stores.store(REPOSITORY).unwrap();
    if !operation.is_upload() {
        content
            .fill(&store, matches!(operation, PutManifest | PutTag))
            .await;
    }
    let mut config = RegistryConfig::new(Arc::new(stores.clone()));
    let users = Users::one("joe", "secret");
    if operation == GetToken {
        config.auth = Auth::Token {
            users,
            lifetime: Duration::from_secs(3600),
            realm: None,
        };
    }
    let registry = FaultyRegistry::over(config, []).await.unwrap();
    let times = if always { u64::MAX } else { 1 };
    let requests = operation.requests();
    let mut rules = Vec::new();
    let first = match operation {
        ResumeBlob => {
            let after = BREAK as u64;
            rules.push(requests.clone().nth(1).then(Fault::CutResponse { after }));
            2
        }
        _ => 1,
    };
    let last = (first - 1_u64).saturating_add(times);
    rules.push(requests.times(first..=last).then(fault));
    registry.set(rules);
    let mut config = patient();
    if matches!(operation, SendChunk | EndChunks) {
        config.chunk_threshold = 0;
        config.chunk_size = CHUNK as u64;
    }
    // A challenge in mid-run is answered with these.
    let knows = Credential::Basic {
        username: "joe".to_owned(),
        password: Secret::new("secret"),
    };
    let credentials: Box<dyn CredentialSource> = match operation {
        GetToken | ReadTag | PutBlob => Box::new(Knows(knows)),
        _ => Box::new(Anonymous),
    };
    let client = client(config, Boxed(credentials));
    let work = perform(content, operation, &client, registry.host());
    let result = governed(work).await;
    if result.is_ok() {
        check(content, operation, &store).await;
    }
    nothing_half_written(content, &store).await;
    Played {
        result,
        log: registry.log.entries(),
        host: registry.host(),
    }
}

#[derive(Debug)]
struct Boxed(Box<dyn CredentialSource>);

#[async_trait::async_trait]
impl CredentialSource for Boxed {
    async fn credential(
        &self,
        identity: &ocm_repository::credentials::Identity,
    ) -> Result<Option<Credential>> {
        self.0.credential(identity).await
    }
}

/// Does it, and compares what it gives.
async fn perform(
    content: &Content,
    operation: Operation,
    client: &Client,
    host: String,
) -> Result<(), Broken> {
    let store = client.store(&host, REPOSITORY)?;
    match operation {
        ReadBlob | ResumeBlob => {
            let bytes = store.fetch(&content.link).read(1 << 20).await?;
            assert!(bytes == content.bytes);
        }
        ReadManifest => {
            let digest = content.manifest.digest.to_string();
            assert_eq!(store.manifest(&digest).await?, content.manifest);
        }
        ReadTag | GetToken => assert_eq!(store.manifest(TAG).await?, content.manifest),
        // Lists and heads are believed, what they name is verified: so it is read.
        ResolveTag => {
            let digest = store.resolve(TAG).await?.digest.to_string();
            let found = store.manifest(&digest).await.map_err(Broken::after)?;
            assert_eq!(found, content.manifest);
        }
        LookForBlob => {
            assert_eq!(store.blob_size(&content.link.digest).await?, BLOB as u64);
        }
        ListTags => {
            let tags = store.tags().await?;
            if tags.is_empty() {
                return Err(Broken::after(nothing(&host)));
            }
            for tag in tags {
                let found = store.manifest(&tag).await.map_err(Broken::after)?;
                assert_eq!(found, content.manifest);
            }
        }
        ListReferrers => {
            let found = store.referrers(&content.manifest.digest).await?;
            if found.is_empty() {
                return Err(Broken::after(nothing(&host)));
            }
            for link in found {
                let read = store.manifest(&link.digest.to_string()).await;
                assert_eq!(read.map_err(Broken::after)?, content.referrer);
            }
        }
        ListRepositories => {
            let names = client.catalog(&host).await?;
            assert_eq!(names.len(), 1);
            for name in names {
                let store = client.store(&host, &name).map_err(Broken::after)?;
                store.manifest(TAG).await.map_err(Broken::after)?;
            }
        }
        BeginUpload | PutBlob | SendChunk | EndChunks => {
            let pushed = store.push(&content.blob(), &[]).await?;
            assert_eq!(pushed.descriptor, content.link);
        }
        PutManifest => store.put_manifest(&content.manifest, None).await?,
        PutTag => store.put_manifest(&content.manifest, Some(TAG)).await?,
    }
    Ok(())
}

/// What a registry without a list, or without the repository, comes to: nothing is lost, there was nothing to be found.
fn nothing(host: &str) -> Error {
    Error::not_found(format!("{host}/{REPOSITORY} lists nothing"))
}

/// What was written is there.
async fn check(content: &Content, operation: Operation, store: &Arc<dyn ContentStore>) {
    if operation.is_upload() {
        let found = store.fetch(&content.link).read(1 << 20).await.unwrap();
        assert!(found == content.bytes);
    }
    if operation.sends() && !operation.is_upload() {
        let name = match operation {
            PutTag => TAG.to_owned(),
            _ => content.manifest.digest.to_string(),
        };
        assert_eq!(store.manifest(&name).await.unwrap(), content.manifest);
    }
}

/// A blob that is there is right, and a manifest that is there has its parts.
async fn nothing_half_written(content: &Content, store: &Arc<dyn ContentStore>) {
    let there = store.exists(&content.link).await.unwrap();
    if there {
        let found = store.fetch(&content.link).read(1 << 20).await.unwrap();
        assert!(found == content.bytes);
    }
    for name in store.tags().await.unwrap() {
        assert_eq!(store.manifest(&name).await.unwrap(), content.manifest);
        assert!(there);
    }
}

fn letter(result: &Result<(), Broken>) -> char {
    match result {
        Ok(()) => '.',
        Err(broken) => match broken.error.kind() {
            ErrorKind::NotFound => 'n',
            ErrorKind::Denied => 'd',
            ErrorKind::Mismatch => 'm',
            ErrorKind::Conflict => 'c',
            ErrorKind::Unavailable => 'u',
            ErrorKind::Limit => 'l',
            ErrorKind::Unsupported => 's',
            ErrorKind::Invalid => 'i',
            _ => '!',
        },
    }
}

/// Failures that a request was made again after are told as attempts.
fn miscounted(error: &Error, log: &[Entry]) -> Option<String> {
    let text = error.to_string();
    let told = text.split(" attempts)").next().and_then(|head| {
        let count = head.rsplit('(').next()?;
        count.parse::<usize>().ok()
    });
    let struck = log.iter().filter(|entry| entry.faulty).count();
    let is_repeated = error.kind() == ErrorKind::Unavailable && struck > 1;
    (is_repeated && told != Some(struck.min(ATTEMPTS as usize)))
        .then(|| format!("struck {struck} times, and {told:?} attempts are told"))
}

/// Plays one cell once or always; gives its letter, and what is wrong with it.
async fn outcome(
    content: &Content,
    operation: Operation,
    fault: Fault,
    always: bool,
) -> (char, Option<String>) {
    let name = format!("{operation:?} {}", if always { "always" } else { "once" });
    let shown = format!("{fault:?}");
    let shown: String = shown.chars().take(120).collect();
    let Played { result, log, host } = play(content, operation, fault, always).await;
    let mut wrong = Vec::new();
    if log.len() > 7 * ATTEMPTS as usize {
        wrong.push(format!("{} requests", log.len()));
    }
    if let Err(broken) = &result {
        let text = broken.error.to_string();
        let words = match broken.after {
            true => vec!["read manifest ".to_owned(), "lists nothing".to_owned()],
            false => operation.words(content, &host),
        };
        if !words.iter().any(|words| text.contains(words)) || !text.contains(&host) {
            wrong.push(format!("none of {words:?}"));
        }
        wrong.extend(miscounted(&broken.error, &log).filter(|_| always));
    }
    let letter = letter(&result);
    let wrong = (!wrong.is_empty()).then(|| {
        let error = result.err().map(|broken| broken.error.to_string());
        format!(
            "{name} {shown}: {}: {}",
            wrong.join(", "),
            error.unwrap_or_default()
        )
    });
    (letter, wrong)
}

/// Plays all faults for each operation and compares the rows with what is expected.
async fn table(
    what: &str,
    operations: &[Operation],
    faults: impl Fn(&Content, Operation) -> Vec<Fault>,
    expected: &[(&str, &str)],
) {
    let content = Content::new();
    let (mut found, mut wrong, mut cells) = (Vec::new(), Vec::new(), 0);
    for operation in operations {
        let (mut once, mut always) = (String::new(), String::new());
        for fault in faults(&content, *operation) {
            cells += 1;
            for (strikes, row) in [(false, &mut once), (true, &mut always)] {
                let cell = outcome(&content, *operation, fault.clone(), strikes);
                let (letter, problem) = cell.await;
                row.push(letter);
                wrong.extend(problem);
            }
        }
        found.push((once, always));
    }
    tell(&format!("{what}: {cells} cells, each once and always"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lines = |rows: Vec<(&str, &str)>| -> Vec<String> {
        let rows = operations.iter().zip(rows);
        rows.map(|(operation, (once, always))| format!("{operation:?} {once} {always}"))
            .collect()
    };
    let found = found.iter().map(|(once, always)| (&**once, &**always));
    let (found, expected) = (lines(found.collect()), lines(expected.to_vec()));
    assert_eq!(found, expected, "{}", found.join("\n"));
}

/// First, middle and last byte, and at each: cut, stalled, one bit wrong, and ended as if that were all.
fn body_faults(content: &Content, operation: Operation) -> Vec<Fault> {
    let length = content.length(operation);
    let mut faults = Vec::new();
    for at in [0, length / 2, length - 1] {
        faults.extend(match operation.sends() {
            true => [
                Fault::CutRequest { after: at },
                Fault::StallRequest { after: at },
                Fault::FlipRequestBit { offset: at },
                Fault::ShortRequest { after: at },
            ],
            false => [
                Fault::CutResponse { after: at },
                Fault::Stall { after: at },
                Fault::FlipBit { offset: at },
                Fault::ShortResponse { after: at },
            ],
        });
    }
    faults
}

/// Reading: what breaks off or stalls is gone on with, as long as it goes on; what is wrong is found, and a list is as good as
/// what it names. Writing: what arrived wrong is sent again; a document that is none any more, or that names what is not
/// there, is refused for good.
#[tokio::test(start_paused = true)]
async fn every_fault_of_a_body() {
    let expected = [
        // ReadBlob
        ("..mm..mm..mm", "uumm..mm..mm"),
        // ResumeBlob
        ("..m...m...m.", "uumu..m...mu"),
        // ReadManifest
        ("..mm..mm..mm", "uummuummuumm"),
        // ReadTag
        ("..mm..mm..mm", "uummuummuumm"),
        // ListTags
        ("..ii..ii..ii", "uuiiuuiiuuii"),
        // ListReferrers
        ("..ii...i..ni", "uuiiuu.iuuni"),
        // ListRepositories
        ("..ii..ii..ii", "uuiiuuiiuuii"),
        // GetToken
        ("..ii..di..di", "uuiiuudiuudi"),
        // PutBlob
        ("............", "uummuummuumm"),
        // SendChunk
        ("............", "uumiuumiuumi"),
        // PutManifest
        ("..ii...i..ii", "uuiiuumiuuii"),
        // PutTag
        ("..ii..ni..ii", "uuiiuuniuuii"),
    ];
    table("faults of bodies", &WITH_BODY, body_faults, &expected).await;
}

const HUGE: usize = 2 << 20;

/// Answers that are none, or not what was asked for.
fn reply_faults(_: &Content, _: Operation) -> Vec<Fault> {
    let status = Fault::status;
    let code = |code: u16, name: &str| {
        status(code).body(&format!(
            r#"{{"errors":[{{"code":"{name}","message":"so it is"}}]}}"#
        ))
    };
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let header = |name: &str, value: String| Fault::Header {
        name: name.to_owned(),
        value,
    };
    vec![
        code(400, "UNSUPPORTED"),
        status(401),
        status(401).header("www-authenticate", r#"Basic realm="here""#),
        code(403, "DENIED"),
        status(404),
        status(405),
        status(408),
        status(409),
        status(413),
        status(429).header("retry-after", "1"),
        status(429)
            .header("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT")
            .header("date", date),
        status(429).header("retry-after", "86400"),
        status(500),
        status(502).body("<html>bad gateway"),
        status(503).header("retry-after", "soon"),
        status(504),
        Fault::Reset,
        Fault::Silence,
        header("x-huge", "x".repeat(HUGE)),
        header(
            "docker-content-digest",
            Digest::sha256(b"something else").to_string(),
        ),
        Fault::Redirect {
            to: "http://127.0.0.1:9".to_owned(),
        },
        status(307).header("location", "?again=1"),
    ]
}

/// Where writing is led elsewhere it ends, and so does what asks for more patience than there is. A registry that does not
/// know lists of tags or referrers has none; one whose answer to a blob can't be read has the blob.
#[tokio::test(start_paused = true)]
async fn every_fault_of_an_answer() {
    let expected = [
        // ReadBlob
        ("sd.dns.cl..u..........", "sdddnsucluuuuuuuuuu.ui"),
        // ResumeBlob
        ("sd.dns.cl..u..........", "sdddnsucluuuuuuuuuu.ui"),
        // ReadTag
        ("sd.dns.cl..u.......m..", "sdddnsucluuuuuuuuuumui"),
        // ResolveTag
        ("id.dn..cl..u.......n..", "idddn.ucluuuuuuuuuunui"),
        // LookForBlob
        ("id.dns.cl..u..........", "idddnsucluuuuuuuuuu.ui"),
        // ListTags
        ("sd.dns.cl..u..........", "sdddnsucluuuuuuuuuu.ui"),
        // ListReferrers
        ("nd.dnn.cl..u..........", "ndddnnucluuuuuuuuuu.ui"),
        // BeginUpload
        (".d.d...cl..u........ii", "sdddnsucluuuuuuuuuu.ii"),
        // PutBlob
        ("sd.d.s.cl..u.......mii", "sdddnsucluuuuuuuuu.mii"),
        // SendChunk
        ("sd.d.s.cl..u........ii", "sdddnsucluuuuuuuuuu.ii"),
        // EndChunks
        ("sd.d.s.cl..u.......mii", "sdddusucluuuuuuuuu.mii"),
        // PutTag
        ("sd.dns.cl..u........ii", "sdddnsucluuuuuuuuuumii"),
    ];
    table("faults of answers", &WITH_REPLY, reply_faults, &expected).await;
}

/// What was asked is done, and nobody learns of it: the connection closes, or nothing comes.
#[tokio::test(start_paused = true)]
async fn every_lost_answer() {
    let content = Content::new();
    let mut cells = 0;
    for (operation, most) in [(PutBlob, 5), (PutManifest, 2), (PutTag, 2)] {
        for fault in [Fault::LoseResponse, Fault::WithholdResponse] {
            cells += 1;
            let name = format!("{operation:?} {fault:?}");
            let played = play(&content, operation, fault, false).await;
            let error = played.result.err().map(|broken| broken.error.to_string());
            assert_eq!(error, None, "{name}");
            assert!(played.log.len() <= most, "{name}: {:?}", played.log);
            let sent = played.log.iter().filter(|entry| entry.method == "PUT");
            let again = usize::from(operation != PutBlob);
            assert_eq!(sent.count(), 1 + again, "{name}: a blob is not sent twice");
        }
    }
    tell(&format!("lost answers: {cells} cells"));
}
