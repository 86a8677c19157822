//! A server that says what a test tells it to, byte by byte: it can lie, cut and stall where a framework would not.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What to answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum End {
    #[default]
    Well,
    /// The connection is closed.
    Cut,
    /// Nothing more comes, and the connection stays.
    Stall,
}

impl Reply {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces another length than the body has.
    pub(super) fn length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Closes the connection after the body.
    pub(super) fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// Closes the connection in place of an answer.
    pub(super) fn none() -> Self {
        Self::new(0).cut()
    }

    /// Goes silent after the body.
    pub(super) fn stall(mut self) -> Self {
        self.end = End::Stall;
        self
    }
}

/// A running server. It ends when dropped.
pub(super) struct Server {
    pub(super) host: String,
    log: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers each request by `answer`, which gets the request and how many came before it.
    pub(super) async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request, usize) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), log.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer.clone(), seen.clone()));
            }
        });
        Self {
            host,
            log,
            _tasks: tasks,
        }
    }

    /// All requests so far, in the order they came.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.log
            .lock()
            .expect("no test panics under this lock")
            .clone()
    }

    /// Method and target of each.
    pub(super) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

async fn serve<F, R>(mut stream: TcpStream, answer: Arc<F>, log: Arc<Mutex<Vec<Request>>>)
where
    F: Fn(Request, usize) -> R + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer).await {
        let before = {
            let mut log = log.lock().expect("no test panics under this lock");
            log.push(request.clone());
            log.len() - 1
        };
        let head = request.method == "HEAD";
        let reply = answer(request, before).await;
        if reply.status == 0 {
            return;
        }
        let mut text = format!("HTTP/1.1 {} Whatever\r\n", reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = reply.length.unwrap_or(reply.body.len());
        text.push_str(&format!("content-length: {length}\r\n\r\n"));
        let mut bytes = text.into_bytes();
        if !head {
            bytes.extend_from_slice(&reply.body);
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match reply.end {
            End::Well => {}
            End::Cut => return,
            End::Stall => std::future::pending().await,
        }
    }
}

/// Reads one request; `None` when the connection ends.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let mut request = Request {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        ..Request::default()
    };
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        request
            .headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = request
        .header("content-length")
        .map_or(Some(0), |text| text.parse().ok())?;
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    request.body = buffer.drain(..length).collect();
    Some(request)
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16 << 10];
    let length = stream.read(&mut chunk).await.ok()?;
    buffer.extend_from_slice(&chunk[..length]);
    (length > 0).then_some(())
}
