//! Registries that want more than they may have: time, memory, credentials.
//!
//! One server is all hosts, as the proxy of the program: what goes where, and what it brings along, is seen there.

use std::sync::{Arc, LazyLock};

use futures::{StreamExt as _, stream};
use ocm_content::{RawManifest, Stores as _};
use ocm_registry::Auth;
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_INDEX, OCI_MANIFEST};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_testdata::fixtures::{self, Fixture};
use ocm_testdata::liar::{Answer, Answering, Asked, Liar};
use serde_json::{Value, json};

use super::{baseline, finish, harm, short};
use crate::bad_input::{AT_ONCE, blunders, complain, visible};
use crate::bad_registries::{DOWN, SECRET, UP, ZERO, tokens, users};
use crate::place::Place;

/// The host that credentials are configured for.
const HOST: &str = "registry.example";
/// The host that wants them.
const EVIL: &str = "evil.example";

/// Few and short pauses, and patience with a busy machine.
const HTTP: &str = "{type: http.config.ocm.software/v1alpha1, timeout: 10s, retry: {maxRetries: 1, minWait: 1ms, maxWait: 5ms}}";

static IMAGE: LazyLock<Fixture> = LazyLock::new(|| fixtures::image(2, 3000));

/// What is asked of the registry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// An image is taken from it.
    Down,
    /// A component version is put into it.
    Up,
    /// Versions of a component are listed.
    List,
}

struct Row {
    name: &'static str,
    what: What,
    auth: Auth,
    answer: Answering,
    code: i32,
    says: Vec<&'static str>,
    /// Must the other host have been asked, so that the row shows something?
    lured: bool,
}

fn lie(
    name: &'static str,
    what: What,
    code: i32,
    says: &[&'static str],
    answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
) -> Row {
    Row {
        name,
        what,
        auth: Auth::None,
        answer: Arc::new(answer),
        code,
        says: says.to_vec(),
        lured: false,
    }
}

impl Row {
    fn auth(self, auth: Auth) -> Self {
        Self { auth, ..self }
    }

    fn lured(self) -> Self {
        Self {
            lured: true,
            ..self
        }
    }
}

/// An answer to every question of that method and with that in its path; the registry has the others.
fn to(
    method: &'static str,
    part: &'static str,
    answer: impl Fn(&Asked) -> Answer,
) -> impl Fn(&Asked) -> Option<Answer> {
    move |asked| {
        (asked.method == method && asked.host == HOST && asked.path.contains(part))
            .then(|| answer(asked))
    }
}

/// A manifest in place of the image's, by tag; by digest it is there, too.
fn root(bytes: Vec<u8>, media_type: &'static str) -> impl Fn(&Asked) -> Option<Answer> {
    let digest = Digest::sha256(&bytes).to_string();
    move |asked| {
        let named = asked.path.ends_with("/1.0.0") || asked.path.ends_with(&digest);
        let is_root = named && asked.path.contains("/manifests/");
        is_root.then(|| {
            Answer::status(200)
                .header("content-type", media_type)
                .header("docker-content-digest", digest.clone())
                .body(if asked.method == "HEAD" {
                    Vec::new()
                } else {
                    bytes.clone()
                })
        })
    }
}

fn manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest = serde_json::from_slice(&IMAGE.root.bytes).unwrap();
    change(&mut manifest);
    manifest.to_string().into_bytes()
}

fn index(links: Vec<Descriptor>) -> Vec<u8> {
    Manifest::index(links).to_bytes()
}

/// The link to something that nobody has.
fn nothing(number: u64) -> Descriptor {
    let digest = Digest::new(ocm_specs::Algorithm::Sha256, &format!("{number:064x}")).unwrap();
    Descriptor::new(OCI_MANIFEST, digest, 500)
}

/// A list of referrers.
fn referrers(links: Vec<Descriptor>) -> Answer {
    Answer::status(200)
        .header("content-type", OCI_INDEX)
        .body(index(links))
}

fn tags(names: &[&str]) -> Answer {
    let list = json!({"name": "component-descriptors/acme.org/demo", "tags": names});
    Answer::status(200).body(list.to_string())
}

fn redirect(to: impl Into<Vec<u8>>) -> Answer {
    Answer::status(307).header("location", to)
}

fn challenge(text: &str) -> Answer {
    Answer::status(401).header("www-authenticate", text)
}

/// Nested so deep.
fn tower(depth: usize) -> Vec<RawManifest> {
    let mut levels = vec![IMAGE.root.clone()];
    for _ in 0..depth {
        let below = levels.last().unwrap().descriptor();
        levels.push(RawManifest::write(&Manifest::index(vec![below])));
    }
    levels
}

/// An index of 1,000 indexes of 1,000 manifests each, behind those of its children that there are: whoever reads more than ten
/// finds nothing.
fn wide() -> Vec<RawManifest> {
    let below = |number: u64| {
        let links = (0..1000).map(|n| nothing(number * 1000 + n)).collect();
        RawManifest::write(&Manifest::index(links))
    };
    let mut all: Vec<RawManifest> = (1..=10).map(below).collect();
    let mut links: Vec<Descriptor> = all.iter().map(RawManifest::descriptor).collect();
    let missing = (0..990).map(nothing);
    links.extend(missing.map(|link| Descriptor {
        media_type: OCI_INDEX.to_owned(),
        ..link
    }));
    all.push(RawManifest::write(&Manifest::index(links)));
    all
}

/// Different manifests of a mebibyte each.
fn large(count: usize) -> Vec<RawManifest> {
    let empty = || Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
    let one = |number: usize| {
        let mut manifest = Manifest::image(empty(), vec![]);
        let note = format!("{number}{}", "x".repeat(1 << 20));
        manifest.annotations = Some([("note".to_owned(), note)].into());
        RawManifest::write(&manifest)
    };
    (0..count).map(one).collect()
}

/// Serves these manifests by digest, the last one by tag.
fn serve(manifests: Vec<RawManifest>) -> impl Fn(&Asked) -> Option<Answer> {
    move |asked| {
        if !asked.path.contains("/manifests/") {
            return None;
        }
        let root = manifests
            .last()
            .filter(|_| asked.path.ends_with("/manifests/1.0.0"));
        let found = root.or_else(|| {
            let wanted = |raw: &&RawManifest| asked.path.ends_with(&raw.digest.to_string());
            manifests.iter().find(wanted)
        })?;
        let answer = Answer::status(200)
            .header("content-type", found.media_type.clone())
            .header("docker-content-digest", found.digest.to_string());
        Some(if asked.method == "HEAD" {
            answer
        } else {
            answer.body(found.bytes.to_vec())
        })
    }
}

fn place(liar: &Liar) -> (Place, Vec<(&'static str, String)>) {
    let place = Place::new();
    place.put("conf.txt", "level: info\n".repeat(1000));
    let docker = json!({"auths": {HOST: {"username": "alice", "password": SECRET}}});
    place.put("config.yaml", format!(
        "type: generic.config.ocm.software/v1\nconfigurations:\n- {HTTP}\n- {{type: credentials.config.ocm.software/v1, repositories: [{{repository: {{type: DockerConfig/v1, dockerConfig: '{docker}'}}}}]}}\n"
    ));
    let proxy = format!("http://{}", liar.running.addr);
    (place, vec![("HTTP_PROXY", proxy)])
}

async fn check(what: &str, at_least: usize, rows: Vec<Row>) {
    let count = rows.len();
    let baseline = baseline().await;
    let failed: Vec<String> = stream::iter(rows)
        .map(|row| async move {
            let liar = Liar::start(row.auth.clone(), row.answer.clone())
                .await
                .unwrap();
            let store = liar.stores.store("acme/image").unwrap();
            IMAGE.push(&store, Some("1.0.0")).await.unwrap();
            let (place, variables) = place(&liar);
            let mut arguments: Vec<&str> = match row.what {
                What::List => vec!["get", "cv", "registry.example//acme.org/demo"],
                _ => vec!["transfer", "--transfer-spec", "spec.yaml"],
            };
            arguments.extend([
                "--config",
                "config.yaml",
                "--loglevel",
                "trace",
                "--plain-http",
                HOST,
                "--plain-http",
                EVIL,
            ]);
            let spec = if row.what == What::Up { UP } else { DOWN };
            place.put(
                "spec.yaml",
                spec.replace("source.example", HOST)
                    .replace("target.example", HOST),
            );
            let (ran, cost) = place.run_measured(&arguments, &variables).await;
            let mut wrong = blunders(&ran, row.code, &row.says);
            wrong.extend(harm(&ran, cost, baseline));
            if row.code != 0 {
                wrong.extend(visible(&place.path("target"), true));
            }
            let asked = liar.asked();
            wrong.extend(betrayed(&asked));
            if row.lured && !asked.iter().any(|asked| asked.host != HOST) {
                wrong.push("nobody else was asked".to_owned());
            }
            if asked.len() > 2_000 {
                wrong.push(format!("{} requests", asked.len()));
            }
            for text in [&ran.stdout, &ran.stderr] {
                if text.contains(SECRET) {
                    wrong.push("the password is said".to_owned());
                }
            }
            complain(row.name, &wrong, &short(ran))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    finish(what, count, at_least, &failed);
}

/// Credentials that went where they do not belong.
fn betrayed(asked: &[Asked]) -> Vec<String> {
    // Without TLS a token service may be at another port of the same host.
    let elsewhere = asked
        .iter()
        .filter(|asked| asked.host.split(':').next() != Some(HOST));
    elsewhere
        .filter(|asked| {
            let said = [asked.path.as_bytes(), asked.query.as_bytes(), &asked.body].concat();
            asked.authorization.is_some()
                || said.windows(SECRET.len()).any(|it| it == SECRET.as_bytes())
        })
        .map(|asked| {
            format!(
                "{} has the credentials: {} {}",
                asked.host, asked.method, asked.path
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists() {
    use What::{Down, List};
    let next = |answer: Answer, asked: &Asked, more: bool| {
        let number: u64 = asked
            .query
            .rsplit('=')
            .next()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0);
        let next = if more { number + 1 } else { 0 };
        answer.header(
            "link",
            format!("<{}?n=1000&last={next}>; rel=\"next\"", asked.path),
        )
    };
    let pages = |count: u64| (0..count).map(nothing).collect::<Vec<_>>();
    check(
        "lists",
        21,
        vec![
            lie(
                "tags without end",
                List,
                1,
                &["list", HOST],
                to("GET", "/tags/list", move |asked| {
                    let names: Vec<String> = (0..1000)
                        .map(|n| format!("{}-{n}", asked.query.len() + n))
                        .collect();
                    let names: Vec<String> = names
                        .iter()
                        .map(|name| format!("{name}.{}", asked.query.rsplit('=').next().unwrap()))
                        .collect();
                    next(
                        tags(&names.iter().map(String::as_str).collect::<Vec<_>>()),
                        asked,
                        true,
                    )
                }),
            ),
            lie(
                "pages without tags without end",
                List,
                1,
                &["list", HOST],
                to("GET", "/tags/list", move |asked| {
                    next(tags(&[]), asked, true)
                }),
            ),
            lie(
                "the same tag without end",
                List,
                1,
                &["list", HOST],
                to("GET", "/tags/list", move |asked| {
                    next(tags(&["1.0.0"]), asked, true)
                }),
            ),
            lie(
                "pages in a circle",
                List,
                3,
                &["circle", HOST],
                to("GET", "/tags/list", move |asked| {
                    next(tags(&["1.0.0"]), asked, false)
                }),
            ),
            lie(
                "a page of 9 MiB",
                List,
                1,
                &[HOST],
                to("GET", "/tags/list", |_| {
                    Answer::status(200).body(vec![b' '; 9 << 20])
                }),
            ),
            lie(
                "a list that is none",
                List,
                3,
                &["list", HOST],
                to("GET", "/tags/list", |_| Answer::status(200).body("<html>")),
            ),
            lie(
                "a list that is deep",
                List,
                3,
                &["list", HOST],
                to("GET", "/tags/list", |_| {
                    Answer::status(200).body("[".repeat(1 << 20))
                }),
            ),
            lie(
                "tags that lead out",
                List,
                4,
                &["acme.org/demo"],
                to("GET", "/tags/list", |_| {
                    tags(&["../../../etc/passwd", "..", "", "a/b"])
                }),
            ),
            lie(
                "tags that terminals obey",
                List,
                4,
                &["acme.org/demo"],
                to("GET", "/tags/list", |_| {
                    tags(&["1.0.0\u{1b}[2J", "\u{202e}0.0.1"])
                }),
            ),
            lie(
                "a tag that nobody has",
                List,
                4,
                &["1.0.0"],
                to("GET", "/tags/list", |_| tags(&["1.0.0"])),
            ),
            lie(
                "referrers without end",
                Down,
                1,
                &["list referrers", HOST],
                to("GET", "/referrers/", move |asked| {
                    let start: u64 = asked
                        .query
                        .rsplit('=')
                        .next()
                        .unwrap_or_default()
                        .parse()
                        .unwrap_or(0);
                    let links = (0..1000).map(|n| nothing(start * 1000 + n)).collect();
                    next(referrers(links), asked, true)
                }),
            ),
            lie(
                "pages without referrers without end",
                Down,
                1,
                &["list referrers", HOST],
                to("GET", "/referrers/", move |asked| {
                    next(referrers(vec![]), asked, true)
                }),
            ),
            lie(
                "referrers with very long notes without end",
                Down,
                1,
                &["list referrers", HOST],
                to("GET", "/referrers/", move |asked| {
                    let start: u64 = asked
                        .query
                        .rsplit('=')
                        .next()
                        .unwrap_or_default()
                        .parse()
                        .unwrap_or(0);
                    let mut link = nothing(start);
                    link.annotations = Some([("note".to_owned(), "x".repeat(7 << 20))].into());
                    next(referrers(vec![link]), asked, true)
                }),
            ),
            lie(
                "60,000 referrers on one page",
                Down,
                1,
                &[HOST],
                to("GET", "/referrers/", move |_| referrers(pages(60_000))),
            ),
            lie(
                "10,000 referrers",
                Down,
                1,
                &["more than 2000 manifests"],
                to("GET", "/referrers/", move |_| referrers(pages(10_000))),
            ),
            lie(
                "100 referrers of a mebibyte",
                Down,
                1,
                &["bytes of manifests"],
                {
                    let large = large(100);
                    let links: Vec<_> = large.iter().map(RawManifest::descriptor).collect();
                    let list = to("GET", "/referrers/", move |asked| {
                        let of_image = asked.path.ends_with(&IMAGE.root.digest.to_string());
                        referrers(if of_image { links.clone() } else { vec![] })
                    });
                    let manifests = serve([large, vec![IMAGE.root.clone()]].concat());
                    move |asked| list(asked).or_else(|| manifests(asked))
                },
            ),
            lie(
                "referrers that are no list",
                Down,
                3,
                &["list referrers", HOST],
                to("GET", "/referrers/", |_| Answer::status(200).body("true")),
            ),
            lie(
                "the image refers to itself",
                Down,
                0,
                &[],
                to("GET", "/referrers/", |_| {
                    referrers(vec![IMAGE.root.descriptor()])
                }),
            ),
            lie(
                "a referrer that nobody has",
                Down,
                4,
                &["sha256:"],
                to("GET", "/referrers/", |_| referrers(vec![nothing(7)])),
            ),
            lie(
                "referrers of referrers for ever",
                Down,
                1,
                &["referrers"],
                |asked| {
                    // Each has one that refers to it, with a number that is one higher.
                    let of = |number: u64| {
                        let mut manifest = Manifest::image(
                            Descriptor::of("application/vnd.oci.empty.v1+json", b"{}"),
                            vec![],
                        );
                        manifest.annotations =
                            Some([("number".to_owned(), number.to_string())].into());
                        RawManifest::write(&manifest)
                    };
                    let all: Vec<RawManifest> = (0..30).map(of).collect();
                    if let Some((_, subject)) = asked.path.split_once("/referrers/") {
                        let at = all.iter().position(|raw| raw.digest.to_string() == subject);
                        return Some(referrers(vec![
                            all[at.map_or(0, |at| at + 1) % 30].descriptor(),
                        ]));
                    }
                    let found = all
                        .iter()
                        .find(|raw| asked.path.ends_with(&raw.digest.to_string()))?;
                    Some(
                        Answer::status(200)
                            .header("content-type", OCI_MANIFEST)
                            .body(found.bytes.to_vec()),
                    )
                },
            ),
            lie("referrers that refer in a circle", Down, 0, &[], |asked| {
                let config = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
                let raw = RawManifest::write(&Manifest::image(config, vec![]));
                if asked.path.contains("/referrers/") {
                    return Some(referrers(vec![raw.descriptor(), IMAGE.root.descriptor()]));
                }
                if asked.path.ends_with(&raw.digest.to_string()) {
                    return Some(
                        Answer::status(200)
                            .header("content-type", OCI_MANIFEST)
                            .body(raw.bytes.to_vec()),
                    );
                }
                asked
                    .path
                    .ends_with(Digest::sha256(b"{}").hex())
                    .then(|| Answer::status(200).body("{}"))
            }),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents() {
    use What::Down;
    let one = || IMAGE.root.descriptor();
    let image = |change: fn(&mut Value)| root(manifest(change), OCI_MANIFEST);
    check("manifests", 30, vec![
        lie("good", Down, 0, &[], |_| None),
        lie("an index of 30,000", Down, 1, &[HOST], root(index((0..30_000).map(nothing).collect()), OCI_INDEX)),
        lie("an index of 3,000", Down, 1, &["more than 2000 manifests"], root(index((0..3_000).map(nothing).collect()), OCI_INDEX)),
        lie("an index of the same 10,000 times", Down, 0, &[], root(index(vec![IMAGE.root.descriptor(); 10_000]), OCI_INDEX)),
        lie("an index of 1,000 indexes of 1,000", Down, 1, &["more than 2000 manifests"], serve(wide())),
        lie("an index of 100 manifests of a mebibyte", Down, 1, &["bytes of manifests"], serve({
            let large = large(100);
            let links = large.iter().map(RawManifest::descriptor).collect();
            [large, vec![RawManifest::write(&Manifest::index(links))]].concat()
        })),
        lie("an index nine levels deep", Down, 1, &["deeper than 8"], serve(tower(12))),
        lie("an index that is its own child", Down, 5, &["sha256:"], |asked| {
            // The child has another digest than its bytes: the same document again.
            let bytes = index(vec![nothing(1)]);
            let found = asked.path.contains("/manifests/");
            found.then(|| Answer::status(200).header("content-type", OCI_INDEX).body(bytes))
        }),
        lie("a manifest of 5 MiB", Down, 1, &[HOST], root(vec![b' '; 5 << 20], OCI_MANIFEST)),
        lie("a manifest that is deep", Down, 3, &[HOST], root("[".repeat(1 << 20).into(), OCI_MANIFEST)),
        lie("a manifest that is null", Down, 3, &[HOST], root("null".into(), OCI_MANIFEST)),
        lie("a manifest of schema 1", Down, 1, &[HOST, "schema version"], root(br#"{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[]}"#.to_vec(), "application/vnd.docker.distribution.manifest.v1+prettyjws")),
        lie("manifest and index in one", Down, 3, &[HOST, "in one"], image(|it| it["manifests"] = json!([]))),
        lie("a digest by another algorithm", Down, 3, &[HOST], image(|it| it["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e"))),
        lie("a digest that leads out", Down, 3, &[HOST], image(|it| it["layers"][0]["digest"] = json!("sha256:../../../../../etc/passwd"))),
        lie("a size below zero", Down, 3, &[HOST], image(|it| it["layers"][0]["size"] = json!(-1))),
        lie("a size beyond", Down, 3, &[HOST], image(|it| it["layers"][0]["size"] = json!(1e30))),
        lie("a layer of 8 EiB", Down, 5, &["sha256:"], image(|it| it["layers"][0]["size"] = json!(i64::MAX))),
        lie("a layer of a byte", Down, 5, &["sha256:"], image(|it| it["layers"][0]["size"] = json!(1))),
        lie("a layer that is a manifest", Down, 0, &[], image(|it| {
            it["layers"] = json!([{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": it["layers"][0]["digest"], "size": it["layers"][0]["size"]}]);
        })),
        lie("one digest, two meanings", Down, 3, &["says two things"], root(index(vec![one(), Descriptor { media_type: OCI_INDEX.to_owned(), ..one() }]), OCI_INDEX)),
        lie("a foreign layer at another place", Down, 0, &[], image(|it| {
            it["layers"][0]["urls"] = json!(["http://evil.example/layer"]);
            it["layers"][0]["digest"] = json!(ZERO);
        })),
        lie("data in place of content", Down, 4, &["sha256:"], image(|it| {
            it["layers"][0]["data"] = json!("ZXZpbA==");
            it["layers"][0]["digest"] = json!(ZERO);
            it["layers"][0]["size"] = json!(4);
        })),
        lie("a subject that is the manifest of another repository", Down, 0, &[], image(|it| {
            it["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": ZERO, "size": 5});
        })),
        lie("a tag that changes between two looks", Down, 5, &["sha256:"], |asked| {
            // The first look gives one digest, what is read then has another.
            if !asked.path.contains("/manifests/") {
                return None;
            }
            let first = manifest(|it| it["annotations"] = json!({"turn": "1"}));
            let second = manifest(|it| it["annotations"] = json!({"turn": "2"}));
            let seen = if asked.method == "HEAD" { &first } else { &second };
            let answer = Answer::status(200)
                .header("content-type", OCI_MANIFEST)
                .header("content-length", seen.len().to_string())
                    .header("docker-content-digest", Digest::sha256(seen).to_string());
            Some(if asked.method == "HEAD" { answer } else { answer.body(second) })
        }),
        lie("compressed where nobody asked for it", Down, 5, &["sha256:"], to("GET", "/blobs/", |_| {
            Answer::status(200).header("content-encoding", "gzip").body(fixtures::gzip(&vec![0; 64 << 20]).to_vec())
        })),
        lie("a body of 64 MiB in place of a layer", Down, 5, &["sha256:"], to("GET", "/blobs/", |_| Answer::status(200).body(vec![0; 64 << 20]))),
        lie("an error of 8 MiB that terminals obey", Down, 6, &[HOST, "403"], to("GET", "/manifests/", |_| {
            let text = "\u{1b}[2J\u{202e}".repeat(1 << 20);
            Answer::status(403).body(json!({"errors": [{"code": "DENIED", "message": text}]}).to_string())
        })),
        lie("a short error that terminals obey", Down, 6, &[HOST, "403"], to("GET", "/manifests/", |_| {
            Answer::status(403).body(json!({"errors": [{"code": "DENIED\u{1b}[2J", "message": "\u{1b}]0;x\u{7}\u{202e}\r\n"}]}).to_string())
        })),
        lie("warnings that terminals obey", Down, 4, &[HOST], to("HEAD", "/", |_| Answer::status(404).header("warning", b"299 - \"\x9b2J\xff\"".to_vec()))),
        lie("a header of a mebibyte", Down, 7, &[HOST], to("GET", "/manifests/", |_| Answer::status(200).header("x", vec![b'x'; 1 << 20]))),
        lie("10,000 headers", Down, 7, &[HOST], to("GET", "/manifests/", |_| {
            (0..10_000).fold(Answer::status(200), |answer, n| answer.header(&format!("x-{n}"), "x"))
        })),
        lie("no content", Down, 3, &[HOST], to("GET", "/manifests/", |_| Answer::status(204))),
        lie("not modified", Down, 3, &[HOST], to("GET", "/manifests/", |_| Answer::status(304))),
        lie("a part where the whole was asked for", Down, 3, &["206"], to("GET", "/blobs/", |_| {
            Answer::status(206).header("content-range", "bytes 5-9/10").body("12345")
        })),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phishing() {
    use What::{Down, List, Up};
    let basic = || Auth::Basic {
        users: users(SECRET),
    };
    let stolen = |asked: &Asked| Answer::status(200).body(format!("stolen {}", asked.path));
    let realm = |name, realm: &'static str, says: &[&'static str], code| {
        lie(
            name,
            Down,
            code,
            says,
            to("GET", "/v2/", move |_| {
                challenge(&format!("Bearer realm=\"{realm}\",service=\"x\""))
            }),
        )
    };
    let evil = move |asked: &Asked| (asked.host != HOST).then(|| stolen(asked));
    check("lures", 24, vec![
        realm("a realm elsewhere", "http://evil.example/token", &[EVIL], 3),
        realm("a realm at another port", "http://registry.example:81/token", &[HOST], 1).lured(),
        realm("a realm with a name in front", "http://registry.example@evil.example/token", &[EVIL], 3),
        realm("a realm that begins alike", "http://registry.example.evil.example/token", &[EVIL], 3),
        realm("a realm on this machine", "http://127.0.0.1:1/token", &["127.0.0.1"], 3),
        realm("a realm of the cloud", "http://169.254.169.254/latest/meta-data", &["169.254.169.254"], 3),
        realm("a realm that is a file", "file:///etc/passwd", &[HOST], 3),
        realm("a realm that is none", "javascript:alert(1)", &[HOST], 3),
        realm("a realm that is no URL", "::", &[HOST], 6),
        lie("no realm", Down, 6, &[HOST], to("GET", "/v2/", |_| challenge("Bearer service=\"x\""))),
        lie("10,000 challenges", Down, 6, &[HOST], to("GET", "/v2/", |_| challenge(&"Basic realm=x, ".repeat(1_000)))).auth(basic()),
        lie("the token service redirects", Down, 3, &["token"], to("GET", "/token", |_| redirect("http://evil.example/token"))).auth(tokens(SECRET)),
        lie("a token of 2 MiB", Down, 1, &["token"], to("GET", "/token", |_| Answer::status(200).body(json!({"token": "x".repeat(2 << 20)}).to_string()))).auth(tokens(SECRET)),
        lie("a token with a header in it", Down, 3, &["token"], to("GET", "/token", |_| Answer::status(200).body(json!({"token": "x\r\nevil: yes"}).to_string()))).auth(tokens(SECRET)),
        lie("a token that is none", Down, 3, &["token"], to("GET", "/token", |_| Answer::status(200).body("[]"))).auth(tokens(SECRET)),
        lie("a token that never does", Down, 6, &[HOST], to("GET", "/token", |_| Answer::status(200).body(json!({"token": "x", "expires_in": -5}).to_string()))).auth(tokens(SECRET)),
        lie("a blob elsewhere", Down, 5, &["sha256:"], move |asked: &Asked| {
            evil(asked).or_else(|| (asked.path.contains("/blobs/") && asked.method == "GET").then(|| redirect(format!("http://evil.example{}", asked.path))))
        }).auth(basic()).lured(),
        lie("a blob elsewhere that asks who is there", Down, 6, &[HOST], move |asked: &Asked| {
            if asked.host != HOST {
                return Some(challenge("Basic realm=\"registry.example\""));
            }
            (asked.path.contains("/blobs/") && asked.method == "GET").then(|| redirect(format!("http://evil.example{}", asked.path)))
        }).auth(basic()).lured(),
        lie("a blob elsewhere that sends for a token", Down, 6, &[HOST], move |asked: &Asked| {
            if asked.host != HOST {
                return Some(challenge("Bearer realm=\"http://evil.example/token\",service=\"registry.example\""));
            }
            (asked.path.contains("/blobs/") && asked.method == "GET").then(|| redirect(format!("http://evil.example{}", asked.path)))
        }).auth(basic()).lured(),
        lie("a manifest elsewhere", Down, 3, &[HOST], move |asked: &Asked| {
            evil(asked).or_else(|| (asked.path.contains("/manifests/")).then(|| redirect(format!("http://evil.example{}", asked.path))))
        }).auth(basic()).lured(),
        lie("there and back", Down, 3, &["redirects more than"], move |asked: &Asked| {
            let other = if asked.host == HOST { EVIL } else { HOST };
            asked.path.contains("/blobs/").then(|| redirect(format!("http://{other}{}", asked.path)))
        }).auth(basic()).lured(),
        lie("a redirect with a password", Down, 3, &[HOST], to("GET", "/blobs/", |_| redirect("http://alice:x@evil.example/"))),
        lie("a redirect to a file", Down, 3, &[HOST], to("GET", "/blobs/", |_| redirect("file:///etc/passwd"))),
        lie("a redirect to this machine", Down, 3, &["this machine"], to("GET", "/blobs/", |_| redirect("http://127.0.0.1:1/x"))),
        lie("a redirect that is no text", Down, 3, &[HOST], to("GET", "/blobs/", |_| redirect(b"\xff\xfe".to_vec()))),
        lie("a next page elsewhere", List, 3, &["another place", EVIL], to("GET", "/tags/list", |_| tags(&["1.0.0"]).header("link", "<http://evil.example/v2/x/tags/list?last=1>; rel=next"))).auth(basic()),
        lie("a next page with a password", List, 3, &["another place"], to("GET", "/tags/list", |_| tags(&["1.0.0"]).header("link", "<http://a:b@registry.example/v2/x>; rel=next"))),
        lie("a next page of referrers elsewhere", Down, 3, &["another place", EVIL], to("GET", "/referrers/", |_| referrers(vec![]).header("link", "<//evil.example/x>; rel=next"))).auth(basic()),
        lie("an upload elsewhere", Up, 3, &["another place", EVIL], to("POST", "/uploads", |_| Answer::status(202).header("location", "http://evil.example/upload"))).auth(basic()),
        lie("an upload at another port", Up, 3, &["another place"], to("POST", "/uploads", |_| Answer::status(202).header("location", "http://registry.example:81/upload"))).auth(basic()),
        lie("an upload without a place", Up, 3, &[HOST], to("POST", "/uploads", |_| Answer::status(202))),
        lie("an upload that is no URL", Up, 3, &[HOST], to("POST", "/uploads", |_| Answer::status(202).header("location", "http://["))),
        lie("an upload that is redirected", Up, 3, &[HOST, "leads elsewhere"], to("POST", "/uploads", |_| redirect("http://evil.example/upload"))).auth(basic()),
        lie("a manifest's upload that is redirected", Up, 3, &[HOST, "leads elsewhere"], to("PUT", "/manifests/", |_| redirect("http://evil.example/upload"))).auth(basic()),
        lie("a mount that is none", Up, 3, &[HOST], |asked: &Asked| {
            let uploads = asked.method == "POST" && asked.path.contains("/uploads");
            uploads.then(|| Answer::status(201).header("location", "/v2/x/blobs/y"))
        }),
    ])
    .await;
}
