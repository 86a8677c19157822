//! Commits read from git's own server, and from servers that lie.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use ocm_content::tarball::{TarEvent, TarKind, TarReader};
use ocm_content::{Blob, ErrorKind, Limits, Result};
use ocm_repository::{Session, SessionConfig};
use ocm_specs::Digest;
use ocm_specs::descriptor::DigestSpec;
use ocm_testdata::git::GitRepository;
use ocm_testdata::web::{Answer, WebServer};
use serde_json::{Value, json};

fn session() -> Arc<Session> {
    let mut config = SessionConfig::new("/");
    config.limits.temp_folder = Some(std::env::temp_dir());
    config.client.retry.base = Duration::from_millis(1);
    Session::new(config).expect("a session")
}

fn access(server: &WebServer, fields: Value) -> Value {
    let mut access = json!({"type": "git", "repository": format!("{}/app.git", server.url())});
    let fields = fields.as_object().expect("fields").clone();
    access.as_object_mut().expect("an object").extend(fields);
    access
}

async fn read(session: &Session, access: &Value) -> Result<Bytes> {
    let commit = session.git_commit(access, None).await?;
    commit.archive.read(64 << 20).await
}

/// Paths with mode and content, as git has them.
type Files = BTreeMap<String, (String, Vec<u8>)>;

async fn unpacked(archive: &Bytes) -> Files {
    let limits = Limits::new(Default::default());
    let stream = Blob::from_bytes("a/b", archive.clone())
        .open()
        .await
        .expect("it does");
    let tar: Vec<Bytes> = ocm_content::gzip::gunzip(stream, &limits)
        .try_collect()
        .await
        .expect("it does");
    let mut reader = TarReader::new();
    reader.feed(tar.concat().into());
    let (mut files, mut open) = (Files::new(), None);
    while let Some(event) = reader.next_event().expect("it does") {
        match event {
            TarEvent::Entry(entry) => {
                assert_eq!(
                    (entry.mtime, entry.uid, entry.gid),
                    (0, 0, 0),
                    "{}",
                    entry.path
                );
                let (mode, content) = match &entry.kind {
                    TarKind::File => (format!("100{:o}", entry.mode), Vec::new()),
                    TarKind::Symlink(target) => ("120000".to_owned(), target.clone().into_bytes()),
                    TarKind::Directory => {
                        assert!(entry.path.ends_with('/'));
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                files.insert(entry.path.clone(), (mode, content));
                open = Some(entry.path);
            }
            TarEvent::Data(data) => {
                let path = open.as_ref().expect("it does");
                files
                    .get_mut(path)
                    .expect("it does")
                    .1
                    .extend_from_slice(&data);
            }
            TarEvent::EntryEnd => open = None,
        }
    }
    reader.finish().expect("it does");
    files
}

/// The files of a commit as git tells them.
fn listed(repository: &GitRepository, commit: &str) -> Files {
    let mut files = Files::new();
    for line in repository
        .git(&["ls-tree", "-r", "--full-tree", commit])
        .lines()
    {
        let (about, path) = line.split_once('\t').expect("it does");
        let mut words = about.split(' ');
        let (mode, kind, id) = (
            words.next().expect("it does"),
            words.next().expect("it does"),
            words.next().expect("it does"),
        );
        if kind != "blob" {
            continue;
        }
        let path_of = |path: &str| repository.folder().join(path);
        let content = match mode {
            "120000" => std::fs::read_link(path_of(path))
                .expect("it does")
                .into_os_string()
                .into_encoded_bytes(),
            _ => {
                let hashed = repository.git(&["hash-object", path]);
                assert_eq!(hashed, id, "the working folder is at the commit");
                std::fs::read(path_of(path)).expect("it does")
            }
        };
        files.insert(path.to_owned(), (mode.to_owned(), content));
    }
    files
}

/// A repository with history, folders, a link, a program, similar large files, a branch and tags; and its last commit.
fn example(format: &str) -> Option<(Arc<GitRepository>, String)> {
    let repository = GitRepository::new(format)?;
    let lines = |last: &str| {
        let text: String = (0..4_000)
            .map(|n| format!("line {n} of a long text\n"))
            .collect();
        text + last
    };
    repository.put("README.md", "first\n");
    repository.put("large-1.txt", lines("one\n"));
    repository.commit("first");
    repository.git(&["tag", "-a", "v1.0", "-m", "a tag with a message"]);
    repository.put("README.md", "second\n");
    repository.put("large-2.txt", lines("two\n"));
    repository.put("large-3.txt", lines("three\n"));
    repository.put("src/deep/er/main.c", "int main() { return 0; }\n");
    repository.put("src-2/x", "sorted by git's rule\n");
    repository.put("empty", "");
    repository.put("run.sh", "#!/bin/sh\n");
    repository.put("noise", ocm_testdata::fixtures::noise(200_000, 1));
    let folder = repository.folder();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join("run.sh"), mode).expect("it does");
    std::os::unix::fs::symlink("../README.md", folder.join("src/link")).expect("it does");
    let commit = repository.commit("second");
    repository.git(&["tag", "v2.0"]);
    repository.git(&["branch", "side", "v1.0"]);
    // One pack with differences, as servers have it.
    repository.git(&[
        "repack",
        "-q",
        "-a",
        "-d",
        "-f",
        "--depth=10",
        "--window=10",
    ]);
    Some((Arc::new(repository), commit))
}

#[tokio::test]
async fn a_commit_has_the_files_that_git_says() {
    let mut archives = Vec::new();
    for (format, old) in [
        ("sha1", false),
        ("sha1", true),
        ("sha256", false),
        ("sha256", true),
    ] {
        let Some((repository, commit)) = example(format) else {
            return;
        };
        let server = repository.serve(old).await;
        let session = session();
        let access = access(&server, json!({"commit": commit}));
        let found = session.git_commit(&access, None).await.expect("it does");
        assert_eq!(found.commit, commit);
        assert!(
            server.log().is_empty(),
            "nothing is read before somebody reads"
        );
        assert_eq!(found.archive.media_type, "application/x-tgz");
        let archive = found.archive.read(64 << 20).await.expect("it does");
        let asked = server.log().len();
        assert_eq!(
            unpacked(&archive).await,
            listed(&repository, &commit),
            "{format}"
        );
        // A second reader gets what the first one has had.
        assert_eq!(
            found.archive.read(64 << 20).await.expect("it does"),
            archive
        );
        let rest: Vec<Bytes> = found
            .archive
            .open_at(100)
            .await
            .expect("it does")
            .try_collect()
            .await
            .expect("it does");
        assert_eq!(rest.concat(), archive[100..]);
        assert_eq!(server.log().len(), asked, "it is read once");
        assert_eq!(asked, 2, "{:?}", server.lines());
        drop(found);
        assert_eq!(session.limits().spool().used(), 0);
        archives.push(archive);
    }
    archives.dedup();
    assert_eq!(archives.len(), 1, "the same files are the same bytes");
}

#[tokio::test]
async fn references_name_commits() {
    let Some((repository, second)) = example("sha1") else {
        return;
    };
    let first = repository.git(&["rev-parse", "v1.0^{commit}"]);
    for old in [false, true] {
        let server = repository.serve(old).await;
        for (reference, expected) in [
            (json!({}), Some(&second)),
            (json!({"ref": "main"}), Some(&second)),
            (json!({"ref": "refs/heads/main"}), Some(&second)),
            (json!({"ref": "heads/side"}), Some(&first)),
            (json!({"ref": "v2.0"}), Some(&second)),
            (json!({"ref": "v1.0"}), Some(&first)),
            (json!({"ref": "refs/tags/v1.0"}), Some(&first)),
            // The commit decides, the reference says where it came from.
            (json!({"ref": "main", "commit": first}), Some(&first)),
            (json!({"ref": "v3.0"}), None),
            (json!({"ref": "mai"}), None),
        ] {
            let found = session()
                .git_commit(&access(&server, reference.clone()), None)
                .await;
            match (found, expected) {
                (Ok(found), Some(commit)) => assert_eq!(found.commit, *commit, "{reference}"),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                (found, _) => panic!("{reference}: {found:?}"),
            }
        }
        // Not the tip of anything: only the old version has to ask for leave.
        let archive = read(&session(), &access(&server, json!({"commit": first}))).await;
        match (archive, old) {
            (Ok(archive), _) => assert_eq!(unpacked(&archive).await.len(), 2),
            (Err(error), true) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            (Err(error), false) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_git_is_told() {
    let Some((repository, commit)) = example("sha1") else {
        return;
    };
    let server = repository.serve(false).await;
    let dumb = WebServer::files([(
        "/app.git/info/refs".to_owned(),
        Bytes::from_static(b"1234 refs/heads/main\n"),
    )])
    .await;
    let at =
        |url: String, commit: &str| json!({"type": "git", "repository": url, "commit": commit});
    for (access, kind, expected) in [
        (
            at(format!("{}/app.git", server.url()), &"1".repeat(40)),
            ErrorKind::NotFound,
            "the git server says: ",
        ),
        (
            at(format!("{}/app.git", server.url()), &"1".repeat(64)),
            ErrorKind::NotFound,
            "names commits by sha1",
        ),
        (
            at(format!("{}/other.git", server.url()), &commit),
            ErrorKind::NotFound,
            "the server answers 404",
        ),
        (
            at(format!("{}/app.git", dumb.url()), &commit),
            ErrorKind::Unsupported,
            "this is no git repository, or its server has no smart protocol",
        ),
        (
            at("git@github.com:acme/app".to_owned(), &commit),
            ErrorKind::Unsupported,
            "read over http",
        ),
        (
            at("ssh://git@github.com/acme/app".to_owned(), &commit),
            ErrorKind::Unsupported,
            "read over http",
        ),
        (
            at("file:///etc".to_owned(), &commit),
            ErrorKind::Unsupported,
            "read over http",
        ),
        (
            at("https://github.com/acme/app".to_owned(), "main"),
            ErrorKind::Invalid,
            "`main` is no commit",
        ),
    ] {
        let error = read(&session(), &access).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{access}: {error}");
        assert!(error.to_string().contains(expected), "{error}");
        if kind == ErrorKind::Unsupported {
            assert!(error.hint().is_some(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_stated_digest_is_what_is_read() {
    let Some((repository, commit)) = example("sha1") else {
        return;
    };
    let server = repository.serve(false).await;
    let access = access(&server, json!({"commit": commit}));
    let archive = read(&session(), &access).await.expect("it does");
    for (digest, fits) in [
        (Digest::sha256(&archive), true),
        (Digest::sha256(b"x"), false),
    ] {
        let stated = DigestSpec::new(&digest, false);
        let commit = session()
            .git_commit(&access, Some(&stated))
            .await
            .expect("it does");
        let found = commit.archive.read(64 << 20).await;
        assert_eq!(found.is_ok(), fits, "{found:?}");
        if let Err(error) = found {
            assert_eq!(error.kind(), ErrorKind::Mismatch);
        }
    }
}

/// What a server between us and git does to the n-th answer.
type Tamper = fn(Answer, &Bytes) -> Answer;

#[tokio::test]
async fn a_pack_that_breaks_is_read_again_and_a_false_one_is_refused() {
    let Some((repository, commit)) = example("sha1") else {
        return;
    };
    let real = repository.serve(false).await;
    let cases: [(&str, Tamper, usize, Option<ErrorKind>); 6] = [
        ("cut once", |answer, _| answer.cut(50_000), 1, None),
        (
            "cut always",
            |answer, _| answer.cut(50_000),
            99,
            Some(ErrorKind::Unavailable),
        ),
        ("busy once", |_, _| Answer::new(503), 1, None),
        (
            "flipped",
            |answer, body| {
                let mut body = body.to_vec();
                let middle = body.len() / 2;
                body[middle] ^= 1;
                answer.body(body)
            },
            99,
            Some(ErrorKind::Invalid),
        ),
        (
            "short",
            |answer, body| answer.body(body.slice(..body.len() - 4_000)),
            99,
            Some(ErrorKind::Invalid),
        ),
        (
            "no git",
            |answer, _| answer.body("<html>"),
            99,
            Some(ErrorKind::Invalid),
        ),
    ];
    for (name, tamper, times, expected) in cases {
        let left = Arc::new(AtomicUsize::new(times));
        let to = real.url();
        let client = session();
        let server = WebServer::start_with(move |asked| {
            let (left, to, client) = (left.clone(), to.clone(), client.clone());
            async move {
                let body = pass_on(&client, &to, &asked).await;
                let answer = Answer::ok(body.clone());
                let is_pack = asked.body.windows(5).any(|bytes| bytes == b"want ");
                let hit = is_pack
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                            left.checked_sub(1)
                        })
                        .is_ok();
                if hit { tamper(answer, &body) } else { answer }
            }
        })
        .await;
        let found = read(&session(), &access(&server, json!({"commit": commit}))).await;
        match (found, expected) {
            (Ok(archive), None) => {
                assert_eq!(
                    unpacked(&archive).await,
                    listed(&repository, &commit),
                    "{name}"
                );
            }
            (Err(error), Some(kind)) => {
                let kinds = [kind, ErrorKind::Mismatch];
                assert!(kinds.contains(&error.kind()), "{name}: {error}");
                assert!(
                    error
                        .to_string()
                        .contains("read git repository http://127.0.0.1"),
                    "{error}"
                );
            }
            (found, _) => panic!("{name}: {:?}", found.map(|bytes| bytes.len())),
        }
    }
}

/// Asks the real server the same, through the program's own client: a POST is a `wget` access, too.
async fn pass_on(session: &Session, to: &str, asked: &ocm_testdata::web::Asked) -> Bytes {
    use base64::Engine as _;
    let query = if asked.query.is_empty() {
        String::new()
    } else {
        format!("?{}", asked.query)
    };
    let mut access = json!({
        "type": "wget", "url": format!("{to}{}{query}", asked.path), "verb": asked.method,
        "header": {"Git-Protocol": "version=2", "Content-Type": asked.header("content-type")},
    });
    if !asked.body.is_empty() {
        access["body"] = json!(base64::engine::general_purpose::STANDARD.encode(&asked.body));
    }
    let content = session
        .remote_content(&access, None)
        .await
        .expect("it does");
    let ocm_content::Content::Blob(blob) = content else {
        panic!("a blob");
    };
    blob.read(64 << 20).await.expect("it does")
}
