//! A git server over HTTP ("smart", gitprotocol-http): what it can do, what its references name, and a pack of one commit.
//!
//! Version 2 of the protocol is asked for; servers that answer in the version of old are spoken to in that.
//!
//! *Invariant*: one commit is asked for, without its history where the server can do that, and nothing is sent but that.

use bytes::Bytes;
use ocm_content::spool::RandomAccess;
use ocm_content::{ByteStream, Error, Limits, Result, Spool};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use std::sync::Arc;
use url::Url;

use super::GIT;
use super::id::{Format, Id};
use super::packet::{Message, Packet, Packets, wrong};
use crate::oci::{Client, WebRequest};
use crate::remote::printable;

/// Largest list of references, in bytes: 64 MiB.
const REFERENCES_LIMIT: u64 = 64 << 20;
/// Longest text of a server that is repeated in a message, in characters.
const SHOWN: usize = 300;
/// Who is asking.
const AGENT: &str = concat!("agent=ocm/", env!("CARGO_PKG_VERSION"));

/// A repository on a server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    client: Client,
    /// Without a slash at its end.
    url: Url,
}

/// What a server says first.
#[derive(Debug)]
pub(super) struct Greeting {
    capabilities: Vec<String>,
    /// All references, in the version of old only.
    references: Option<Vec<Reference>>,
    format: Format,
}

/// A name and what it names; of a tag with a message the commit behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    name: String,
    id: Id,
}

impl Greeting {
    fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    fn can_shallow(&self) -> bool {
        let features = self
            .capabilities
            .iter()
            .find_map(|known| known.strip_prefix("fetch="));
        match features {
            Some(features) => features.split(' ').any(|feature| feature == "shallow"),
            None => self.can("shallow"),
        }
    }
}

impl Server {
    /// The repository at a URL.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] for anything but http and https.
    pub(super) fn new(client: Client, repository: &str) -> Result<Self> {
        let scp_like = !repository.contains("://")
            && repository
                .split_once(':')
                .is_some_and(|(host, _)| !host.contains('/') && host.contains('@'));
        let text = match repository.contains("://") || scp_like {
            true => repository.to_owned(),
            false => format!("https://{repository}"),
        };
        let parsed = Url::parse(&text).ok().filter(|url| url.has_host());
        let web = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = web.ok_or_else(|| {
            Error::unsupported(format!(
                "access.repository: `{}` is not read here: git is read over http and https",
                printable(repository)
            ))
            .with_hint("use the repository's https URL")
        })?;
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { client, url })
    }

    /// The URL, for messages.
    pub(super) fn shown(&self) -> &str {
        self.url.as_str()
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    fn request(&self, below: &str, query: Option<&str>, version: u8) -> WebRequest {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{below}", self.url.path()));
        url.set_query(query);
        let mut request = WebRequest::get(url, GIT).with_path(self.url.path());
        if version == 2 {
            let two = HeaderValue::from_static("version=2");
            request = request.header(HeaderName::from_static("git-protocol"), two);
        }
        request.doing = format!("read git repository {}", self.shown());
        request
    }

    fn post(&self, body: Bytes, greeting: &Greeting) -> WebRequest {
        let version = if greeting.references.is_some() { 0 } else { 2 };
        let kind = HeaderValue::from_static("application/x-git-upload-pack-request");
        let result = HeaderValue::from_static("application/x-git-upload-pack-result");
        let mut request = self
            .request("git-upload-pack", None, version)
            .header(CONTENT_TYPE, kind)
            .header(ACCEPT, result);
        request.method = Method::POST;
        request.body = Some(body);
        request
    }

    /// What to ask to find the place where requests go.
    pub(super) fn any_request(&self) -> WebRequest {
        self.request("info/refs", None, 2)
    }

    /// Asks the server what it can do.
    pub(super) async fn greet(&self) -> Result<Greeting> {
        let request = self.request("info/refs", Some("service=git-upload-pack"), 2);
        let page = self.client.page(&request, REFERENCES_LIMIT).await?;
        let body = page.success()?;
        let greeting = read_greeting(body).await;
        greeting.map_err(|error| error.context(request.doing))
    }

    /// The commit that a reference names now: a whole name, a tag, a branch, in this order; without one what `HEAD` names.
    pub(super) async fn resolve(&self, reference: Option<&str>) -> Result<Id> {
        let wanted = reference.unwrap_or("HEAD");
        if wanted.len() > 1024 || wanted.chars().any(|c| c.is_control() || c == ' ') {
            return Err(Error::invalid(format!(
                "access.ref: `{}` is no reference",
                wanted.escape_debug()
            )));
        }
        let names = [
            wanted.to_owned(),
            format!("refs/{wanted}"),
            format!("refs/tags/{wanted}"),
            format!("refs/heads/{wanted}"),
        ];
        let greeting = self.greet().await?;
        let references = match &greeting.references {
            Some(references) => references.clone(),
            None => self.list(&greeting, &names).await?,
        };
        let mut found = names
            .iter()
            .filter_map(|name| references.iter().find(|reference| reference.name == *name));
        found.next().map(|reference| reference.id).ok_or_else(|| {
            let error = Error::not_found(format!("the repository has no reference `{wanted}`"));
            error.context(format!("read git repository {}", self.shown()))
        })
    }

    async fn list(&self, greeting: &Greeting, names: &[String]) -> Result<Vec<Reference>> {
        let mut message = Message::default()
            .line("command=ls-refs")
            .line(AGENT)
            .line(&format!("object-format={}", greeting.format.as_str()))
            .delimiter()
            .line("peel");
        for name in names {
            message = message.line(&format!("ref-prefix {name}"));
        }
        let request = self.post(message.flush().bytes(), greeting);
        let page = self.client.page(&request, REFERENCES_LIMIT).await?;
        let mut packets = Packets::of(page.success()?);
        let mut references = Vec::new();
        while let Some(Packet::Data(line)) = packets.next().await? {
            let line = Packet::Data(line);
            let text = line.text().ok_or_else(|| wrong("a reference is no text"))?;
            refused(text)?;
            // An empty repository has a HEAD that names nothing.
            if text.starts_with("unborn ") {
                continue;
            }
            let mut words = text.split(' ');
            let id = words.next().and_then(Id::parse);
            let (Some(id), Some(name)) = (id, words.next()) else {
                return Err(wrong("a reference has no name"));
            };
            let peeled = words.find_map(|word| Id::parse(word.strip_prefix("peeled:")?));
            references.push(Reference {
                name: name.to_owned(),
                id: peeled.unwrap_or(id),
            });
        }
        Ok(references)
    }

    /// Reads the pack with a commit and all that it has, and keeps it.
    pub(super) async fn pack(&self, commit: Id, limits: &Arc<Limits>) -> Result<RandomAccess> {
        let greeting = self.greet().await?;
        if greeting.format != commit.format() {
            return Err(Error::not_found(format!(
                "commit {commit} is not there: the repository names commits by {}",
                greeting.format.as_str()
            )));
        }
        let request = self.post(wish(&greeting, commit), &greeting);
        let (_, stream) = self.client.stream(&request).await?;
        let pack = read_pack(stream, &greeting, limits).await;
        pack.map_err(|error| error.context(format!("{}: commit {commit}", request.doing)))
    }
}

/// The message that asks for a commit.
fn wish(greeting: &Greeting, commit: Id) -> Bytes {
    let shallow = greeting.can_shallow();
    if greeting.references.is_none() {
        let mut message = Message::default()
            .line("command=fetch")
            .line(AGENT)
            .line(&format!("object-format={}", greeting.format.as_str()))
            .delimiter()
            .line("no-progress")
            .line("ofs-delta");
        if shallow {
            message = message.line("deepen 1");
        }
        let message = message.line(&format!("want {commit}")).line("done");
        return message.flush().bytes();
    }
    let mut want = format!("want {commit}");
    for capability in ["side-band-64k", "ofs-delta", "no-progress", "shallow"] {
        if greeting.can(capability) {
            want = format!("{want} {capability}");
        }
    }
    if greeting.format != Format::Sha1 {
        want = format!("{want} object-format={}", greeting.format.as_str());
    }
    let mut message = Message::default().line(&format!("{want} {AGENT}"));
    if shallow {
        message = message.line("deepen 1");
    }
    message.flush().line("done").bytes()
}

async fn read_greeting(body: Bytes) -> Result<Greeting> {
    let mut packets = Packets::of(body);
    let no_git = || {
        Error::unsupported("this is no git repository, or its server has no smart protocol")
            .with_hint("check the URL: `git ls-remote URL` should list its references")
    };
    let mut first = packets
        .next()
        .await
        .map_err(|_| no_git())?
        .ok_or_else(no_git)?;
    if first
        .text()
        .is_some_and(|text| text.starts_with("# service="))
    {
        packets.expect().await?;
        first = packets.expect().await?;
    }
    if first.text() == Some("version 2") {
        let mut capabilities = Vec::new();
        while let Some(packet @ Packet::Data(_)) = packets.next().await? {
            capabilities.extend(packet.text().map(str::to_owned));
        }
        return Ok(Greeting {
            format: format_of(&capabilities)?,
            capabilities,
            references: None,
        });
    }
    old_greeting(first, packets).await
}

/// The greeting of version 0: all references, and what the server can do behind the first.
async fn old_greeting(first: Packet, mut packets: Packets) -> Result<Greeting> {
    let mut capabilities = Vec::new();
    let mut references: Vec<Reference> = Vec::new();
    let mut next = Some(first);
    while let Some(packet @ Packet::Data(_)) = next {
        let text = packet
            .text()
            .ok_or_else(|| wrong("a reference is no text"))?;
        refused(text)?;
        let (line, can) = text.split_once('\0').unwrap_or((text, ""));
        if !can.is_empty() {
            capabilities = can.split(' ').map(str::to_owned).collect();
        }
        let parsed = line
            .split_once(' ')
            .and_then(|(id, name)| Some((Id::parse(id)?, name)));
        match (parsed, references.last_mut()) {
            // What a tag with a message is about.
            (Some((id, name)), Some(last)) if name.strip_suffix("^{}") == Some(&last.name) => {
                last.id = id;
            }
            (Some((id, name)), _) => references.push(Reference {
                name: name.to_owned(),
                id,
            }),
            // `version 1` comes before the references, `shallow` lines behind them.
            (None, _) if line.starts_with("version ") || line.starts_with("shallow ") => {}
            (None, _) => return Err(wrong("a reference has no name")),
        }
        next = packets.next().await?;
    }
    Ok(Greeting {
        format: format_of(&capabilities)?,
        capabilities,
        references: Some(references),
    })
}

fn format_of(capabilities: &[String]) -> Result<Format> {
    let mut named = capabilities
        .iter()
        .filter_map(|can| can.strip_prefix("object-format="));
    match named.next() {
        None | Some("sha1") => Ok(Format::Sha1),
        Some("sha256") => Ok(Format::Sha256),
        Some(other) => Err(Error::unsupported(format!(
            "the repository names objects by `{}`, which is not known here",
            other.escape_debug()
        ))),
    }
}

/// A line that says why nothing comes.
fn refused(line: &str) -> Result<()> {
    match line.strip_prefix("ERR ") {
        Some(why) => Err(server_says(why)),
        None => Ok(()),
    }
}

fn server_says(why: &str) -> Error {
    let shown: String = why
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    let message = format!("the git server says: {shown}");
    if why.contains("not our ref") || why.contains("unadvertised object") {
        return Error::not_found(message).with_hint(
            "the commit is not in the repository, or its server hands out tips of branches and tags only",
        );
    }
    Error::invalid(message)
}

/// Reads up to the pack and keeps that.
async fn read_pack(
    stream: ByteStream,
    greeting: &Greeting,
    limits: &Arc<Limits>,
) -> Result<RandomAccess> {
    let mut packets = Packets::new(stream);
    let banded = greeting.references.is_none() || greeting.can("side-band-64k");
    if !banded {
        return Err(Error::unsupported(
            "the git server is too old: it does not know side-band-64k",
        ));
    }
    // Sections before the pack: which commits have no parents here, and that nothing is in common.
    loop {
        let packet = packets.expect().await?;
        let Some(text) = packet.text() else {
            continue;
        };
        refused(text)?;
        let begins = match greeting.references {
            None => text == "packfile",
            Some(_) => text == "NAK",
        };
        if begins {
            break;
        }
    }
    let mut kept = Spool::new(limits);
    loop {
        let Packet::Data(mut line) = packets.expect().await? else {
            break;
        };
        if line.is_empty() {
            return Err(wrong("a line of the pack is empty"));
        }
        match line.split_to(1)[0] {
            1 => kept.write(line).await?,
            // How far it is.
            2 => {}
            3 => return Err(server_says(&String::from_utf8_lossy(&line))),
            _ => return Err(wrong("a line of the pack is of no known kind")),
        }
    }
    Ok(kept.into_random())
}
