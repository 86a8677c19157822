//! Secrets are planted wherever a user may have some; then commands run well and badly, as talkative as they can be, and
//! nothing that they print or write has any of them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocm_content::MemoryStores;
use ocm_registry::{Auth, Registry, RegistryConfig, Running, Users};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::configuration::{descriptor, store};
use crate::place::{Place, Ran};

/// What nobody may see: each is found by this part, in plain text, as base64, as hex and with percent signs.
const MARK: &str = "xQz7secret";

/// A secret of its own for each place where one is planted, so that a leak says where it is from.
fn secret(place: &str) -> String {
    format!("{MARK}-{place}")
}

/// All spellings of the mark. Base64 has three, by where in a group of three bytes it begins.
fn spellings() -> Vec<String> {
    let mut all = vec![
        MARK.to_owned(),
        MARK.bytes().map(|byte| format!("{byte:02x}")).collect(),
        MARK.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ];
    for (shift, skip) in [("", 0), ("a", 2), ("ab", 3)] {
        let text = base64(format!("{shift}{MARK}").as_bytes());
        // What depends on its neighbours is cut off.
        let whole = (shift.len() + MARK.len()) / 3 * 4;
        all.push(text[skip..whole].to_owned());
    }
    all
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let padded = [
            group[0],
            group.get(1).copied().unwrap_or(0),
            group.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63] as char;
            out.push(if place <= group.len() { letter } else { '=' });
        }
    }
    out
}

#[test]
fn secrets_are_found_in_any_spelling() {
    assert_eq!(base64(b"jo:secret"), "am86c2VjcmV0");
    assert_eq!(base64(b"a"), "YQ==");
    for text in [
        secret("here"),
        base64(format!("jo:{MARK}").as_bytes()),
        base64(format!("user:{MARK}x").as_bytes()),
        base64(format!("any:{MARK}").as_bytes()),
    ] {
        assert!(
            spellings().iter().any(|one| text.contains(one.as_str())),
            "{text}"
        );
    }
}

/// A server for requests without body: a file that is behind a signed address, and a proxy that takes nobody.
async fn web() -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    let own = host.clone();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let signature = secret("location");
            let answer = match request.split(' ').nth(1).unwrap_or_default() {
                path if path.starts_with("/signed/denied") => {
                    "403 Forbidden\r\ncontent-length: 0".to_owned()
                }
                path if path.starts_with("/signed/good") => "200 OK\r\ncontent-length: 5".to_owned(),
                "/denied" => format!(
                    "307 Moved\r\nlocation: http://{own}/signed/denied?X-Amz-Signature={signature}\r\ncontent-length: 0"
                ),
                path if path.starts_with("/good") => format!(
                    "307 Moved\r\nlocation: http://{own}/signed/good?X-Amz-Signature={signature}\r\ncontent-length: 0"
                ),
                path if path.starts_with('/') => "500 Oops\r\ncontent-length: 0".to_owned(),
                _ => "407 Proxy\r\nproxy-authenticate: Basic realm=p\r\ncontent-length: 0".to_owned(),
            };
            let body = if answer.starts_with("200") { "hello" } else { "" };
            let text = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n{body}");
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (host, tasks)
}

async fn registry(tokens: bool) -> Running {
    let users = Users::one("jo", secret("registry"));
    let mut config = RegistryConfig::new(Arc::new(MemoryStores::new()));
    config.auth = match tokens {
        true => Auth::Token {
            users,
            lifetime: Duration::from_secs(60),
            realm: None,
        },
        false => Auth::Basic { users },
    };
    Registry::bind(config, ([127, 0, 0, 1], 0).into())
        .await
        .unwrap()
}

/// Accesses by a name, with a secret wherever a user may write one; the server answers none of them.
fn written(web: &str) -> Vec<(String, serde_json::Value)> {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let mut all = Vec::new();
    for path in ["denied", "oops"] {
        let user = format!("http://jo:{}@{web}", secret("user"));
        let signed = format!("http://{web}/{path}?X-Amz-Signature={}", secret("signed"));
        all.push((
            format!("request-{path}"),
            json!({"type": "wget", "url": format!("http://{web}/{path}"), "verb": "POST",
                "header": {"Authorization": [format!("Bearer {}", secret("header"))], "X-Api-Key": [secret("api")]},
                "body": secret("body")}),
        ));
        all.push((
            format!("signed-{path}"),
            json!({"type": "wget", "url": signed}),
        ));
        for (kind, place) in [("user", user), ("plain", format!("http://{web}"))] {
            let place = format!("{place}/{path}");
            for (name, access) in [
                ("wget", json!({"type": "wget", "url": place})),
                (
                    "helm",
                    json!({"type": "helm", "helmRepository": place, "helmChart": "x:1.0.0"}),
                ),
                (
                    "github",
                    json!({"type": "gitHub", "repoUrl": format!("{place}/x"), "commit": commit}),
                ),
                (
                    "git",
                    json!({"type": "git", "repository": format!("{place}.git"), "ref": "refs/heads/main", "commit": commit}),
                ),
            ] {
                all.push((format!("{name}-{kind}-{path}"), access));
            }
        }
    }
    all
}

/// Files with secrets in all kinds of configuration, right and wrong.
fn plant(place: &Place, hosts: &[String], web: &str) {
    let consumer = |identity: &str, credentials: &str| {
        format!("  - {{identity: {{{identity}}}, credentials: [{credentials}]}}\n")
    };
    let file = |name: &str, consumers: &[String]| {
        let consumers = consumers.concat();
        place.put(
            name,
            format!(
                "type: generic.config.ocm.software/v1\nconfigurations:\n\
                 - {{type: http.config.ocm.software, retry: {{maxRetries: -1}}}}\n\
                 - type: credentials.config.ocm.software/v1\n  consumers:\n{consumers}"
            ),
        );
    };
    let of = |host: &str| {
        let (name, port) = host.split_once(':').unwrap();
        format!("type: OCIRegistry, hostname: '{name}', port: '{port}'")
    };
    let direct = |name: &str, value: &str| {
        format!("{{type: Credentials/v1, properties: {{username: jo, {name}: {value}}}}}")
    };
    let (name, port) = web.split_once(':').unwrap();
    let others: Vec<String> = ["Wget", "HelmChartRepository", "GitHubRepository", "Git"]
        .iter()
        .map(|kind| {
            let identity = format!("type: {kind}, hostname: '{name}', port: '{port}'");
            let property = if *kind == "GitHubRepository" {
                "token"
            } else {
                "password"
            };
            consumer(&identity, &direct(property, &secret(kind)))
        })
        .collect();
    file("others", &others);
    let password = secret("registry");
    let good: Vec<String> = hosts
        .iter()
        .map(|host| consumer(&of(host), &direct("password", &password)))
        .collect();
    file("good", &good);
    for (name, credentials) in [
        ("wrong", direct("password", &secret("wrong"))),
        (
            "bearer",
            format!(
                "{{type: OCICredentials/v1, accessToken: {}}}",
                secret("access")
            ),
        ),
        (
            "refresh",
            format!(
                "{{type: OCICredentials/v1, refreshToken: {}}}",
                secret("refresh")
            ),
        ),
        ("identity", direct("identityToken", &secret("identity"))),
        (
            "control",
            direct("password", &format!("\"a\\n{}\"", secret("control"))),
        ),
        (
            "vault",
            format!("{{type: Vault/v1, token: {}}}", secret("vault")),
        ),
        ("list", direct("password", &format!("[{}]", secret("list")))),
        (
            "map",
            direct("password", &format!("{{a: {}}}", secret("map"))),
        ),
        ("untyped", format!("{{password: {}}}", secret("untyped"))),
        ("text", secret("text")),
        ("cert", direct("certificate", &secret("certificate"))),
        (
            "pair",
            format!(
                "{{type: Credentials, properties: {{certificate: {}, privateKey: {}}}}}",
                secret("certificate"),
                secret("key")
            ),
        ),
    ] {
        let all: Vec<String> = hosts
            .iter()
            .map(|host| consumer(&of(host), &credentials))
            .collect();
        file(name, &all);
    }
    let key = format!(
        "\"-----BEGIN PRIVATE KEY-----\\n{}\\n-----END PRIVATE KEY-----\"",
        secret("rsa")
    );
    let signer = "type: RSA/v1alpha1, algorithm: RSASSA-PSS, signature: default";
    let key = format!("{{type: RSACredentials/v1, privateKeyPEM: {key}}}");
    file("rsa", &[consumer(signer, &key)]);
    file(
        "syntax",
        &[format!(
            "  - {{identity: {{a: b}}, credentials: [{{password: \"{}\n",
            secret("syntax")
        )],
    );
    place.put(
        "yaml",
        format!(
            "type: x\npassword: {}: {}\n",
            secret("yaml"),
            secret("yaml")
        ),
    );
    place.put("tab", format!("type: x\n\tpassword: {}\n", secret("tab")));
    place.put(
        "twice",
        format!("type: x\npassword: {0}\npassword: {0}\n", secret("twice")),
    );
    place.put(
        "json",
        format!("{{\"password\": \"{}\", }} x", secret("json")),
    );
    place.put(
        "anchor",
        format!("type: *{}\n", secret("anchor").replace('-', "_")),
    );
    // Docker's, and the programs that it asks.
    std::fs::create_dir_all(place.path("home/.docker")).unwrap();
    std::fs::create_dir_all(place.path("bin")).unwrap();
    for (name, script) in [
        (
            "good",
            format!(
                "echo '{{\"Username\":\"jo\",\"Secret\":\"{}\"}}'",
                secret("registry")
            ),
        ),
        (
            "failing",
            format!(
                "echo '{{\"Username\":\"jo\",\"Secret\":\"{0}\"}}'; echo {0} >&2; exit 1",
                secret("failing")
            ),
        ),
        ("odd", format!("echo 'Secret={}'", secret("odd"))),
        (
            "token",
            format!(
                "echo '{{\"Username\":\"<token>\",\"Secret\":\"{}\"}}'",
                secret("helper-token")
            ),
        ),
    ] {
        let path = place.path(&format!("bin/docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        place.put(
            &format!("docker-{name}"),
            json!({"credsStore": name}).to_string(),
        );
    }
    let auth = |host: &String| {
        (
            host.clone(),
            json!({"auth": base64(format!("jo:{}", secret("docker")).as_bytes())}),
        )
    };
    let auths: BTreeMap<String, _> = hosts.iter().map(auth).collect();
    place.put("docker-auths", json!({"auths": auths}).to_string());
    let auths: BTreeMap<&String, _> = hosts
        .iter()
        .map(|host| {
            (
                host,
                json!({"identitytoken": secret("docker-id"), "registrytoken": ""}),
            )
        })
        .collect();
    place.put("docker-tokens", json!({"auths": auths}).to_string());
    place.put(
        "docker-broken",
        format!(
            "{{\"auths\": {{\"h\": {{\"auth\": \"{}\"}}}}",
            secret("docker-broken")
        ),
    );
    place.put(
        "docker-malformed",
        json!({"auths": {"h": {"auth": secret("docker-malformed")}}}).to_string(),
    );
}

/// Runs commands and remembers what they said.
struct Listener<'a> {
    place: &'a Place,
    said: Vec<(String, String)>,
    codes: BTreeMap<i32, usize>,
}

impl Listener<'_> {
    /// Runs a command as talkative as it can be, in each way of talking.
    async fn run(&mut self, environment: &[(&str, &str)], stdin: &str, line: &[&str]) -> i32 {
        let home = self.place.path("home").display().to_string();
        let path = format!("{}:/usr/bin:/bin", self.place.path("bin").display());
        let mut all = vec![
            ("HOME", home.as_str()),
            ("PATH", path.as_str()),
            ("RUST_BACKTRACE", "full"),
            ("RUST_LOG", "trace"),
        ];
        all.extend(environment);
        let mut code = 0;
        for format in ["text", "json"] {
            let talk = [line, &["--loglevel", "trace", "--logformat", format]].concat();
            let folder = self.place.path("");
            let ran: Ran = self.place.run_fed(&folder, &all, stdin, &talk).await;
            *self.codes.entry(ran.code).or_default() += 1;
            assert!(
                !ran.stderr.contains("panicked at"),
                "{talk:?}: {}",
                ran.stderr
            );
            code = ran.code;
            let said = format!("{}{}", ran.stdout, ran.stderr);
            self.said
                .push((format!("{environment:?} {talk:?} -> {code}"), said));
        }
        code
    }

    fn leaks(&self, planted: &[PathBuf]) -> Vec<String> {
        let spellings = spellings();
        let has_secret = |text: &str| spellings.iter().any(|one| text.contains(one.as_str()));
        let mut leaks: Vec<String> = self
            .said
            .iter()
            .filter(|(_, said)| has_secret(said))
            .map(|(line, said)| {
                let lines = said.lines().filter(|line| has_secret(line));
                format!("{line}\n{}", lines.collect::<Vec<_>>().join("\n"))
            })
            .collect();
        for (path, bytes) in self.place.files() {
            if !planted.contains(&path) && has_secret(&String::from_utf8_lossy(&bytes)) {
                leaks.push(format!("the file {}", path.display()));
            }
        }
        leaks
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_printed_or_written_has_a_secret() {
    let place = Place::new();
    let (tokens, basic) = (registry(true).await, registry(false).await);
    let hosts = [tokens.addr.to_string(), basic.addr.to_string()];
    let (web, _server) = web().await;
    store(
        &place,
        "./archive",
        descriptor("acme.org/app", "1.0.0", &[]),
    )
    .await;
    let mut remote = descriptor("acme.org/web", "1.0.0", &[]);
    let resource = |name: &str| {
        json!({"name": name, "version": "1.0.0", "type": "blob", "relation": "external",
            "access": {"type": "wget", "url": format!("http://{web}/{name}"), "mediaType": "text/plain"}})
    };
    remote["component"]["resources"] =
        json!([resource("good"), resource("denied"), resource("oops")]);
    store(&place, "./archive", remote).await;
    let written = written(&web);
    for (name, access) in &written {
        let mut component = descriptor(&format!("acme.org/{name}"), "1.0.0", &[]);
        component["component"]["resources"] = json!([
            {"name": "it", "version": "1.0.0", "type": "blob", "relation": "external", "access": access}
        ]);
        store(&place, "./archive", component).await;
    }
    plant(&place, &hosts, &web);
    let planted: Vec<PathBuf> = place.files().into_keys().collect();
    let mut listener = Listener {
        place: &place,
        said: Vec::new(),
        codes: BTreeMap::new(),
    };
    let app = "./archive//acme.org/app:1.0.0";
    let remote_app = "./archive//acme.org/web:1.0.0";

    // Registries, with right, wrong and odd credentials of all kinds.
    for host in &hosts {
        let there = format!("http://{host}");
        let reference = format!("{there}//acme.org/app:1.0.0");
        let transfer = [
            "transfer",
            "cv",
            app,
            &there,
            "--config",
            "good",
            "--report",
            "report.json",
        ];
        assert_eq!(listener.run(&[], "", &transfer).await, 0);
        let get = ["get", "cv", &reference, "--config", "good", "-o", "json"];
        assert_eq!(listener.run(&[], "", &get).await, 0);
        for config in [
            "good", "wrong", "bearer", "refresh", "identity", "control", "vault", "list", "map",
            "untyped", "text", "cert", "pair", "rsa",
        ] {
            for line in [
                &["get", "cv", &reference][..],
                &["doctor", "credentials", &reference, "-o", "json"],
            ] {
                listener
                    .run(&[], "", &[line, &["--config", config]].concat())
                    .await;
            }
        }
        let wrong = [
            "transfer", "cv", app, &there, "--config", "wrong", "-o", "json",
        ];
        assert_eq!(listener.run(&[], "", &wrong).await, 6);
        for docker in [
            "auths",
            "tokens",
            "broken",
            "malformed",
            "good",
            "failing",
            "odd",
            "token",
        ] {
            let file = place
                .path(&format!("docker-{docker}"))
                .display()
                .to_string();
            let environment = [("REGISTRY_AUTH_FILE", file.as_str())];
            listener
                .run(&environment, "", &["get", "cv", &reference])
                .await;
            listener
                .run(&environment, "", &["doctor", "credentials", &reference])
                .await;
            let text = std::fs::read_to_string(&file).unwrap();
            let environment = [("DOCKER_AUTH_CONFIG", text.as_str())];
            listener
                .run(&environment, "", &["get", "cv", &reference])
                .await;
        }
        // Log-ins, which write what they are told into the file that is for it and nowhere else.
        for (password, code) in [(secret("registry"), 0), (secret("typed"), 6)] {
            let login = [
                "login",
                &there,
                "-u",
                "jo",
                "--password-stdin",
                "--authfile",
                "docker-auths",
            ];
            assert_eq!(listener.run(&[], &password, &login).await, code);
            let login = [
                "login",
                &there,
                "-u",
                "jo",
                "-p",
                &password,
                "--authfile",
                "docker-auths",
            ];
            assert_eq!(listener.run(&[], "", &login).await, code);
        }
        let bad = [
            "login",
            &there,
            "-u",
            "jo",
            "--password-stdin",
            "--authfile",
            "docker-broken",
        ];
        assert_eq!(listener.run(&[], &secret("typed"), &bad).await, 3);
        assert_eq!(
            listener
                .run(&[], "", &["logout", &there, "--authfile", "docker-auths"])
                .await,
            0
        );
    }

    // Files that are wrong.
    for config in [
        "good", "wrong", "list", "map", "untyped", "text", "pair", "rsa", "syntax", "yaml", "tab",
        "twice", "json", "anchor",
    ] {
        listener
            .run(&[], "", &["get", "config", "--config", config])
            .await;
        listener
            .run(
                &[],
                "",
                &["get", "config", "--config", config, "-o", "json"],
            )
            .await;
        listener
            .run(
                &[],
                "",
                &["sign", "cv", app, "--config", config, "--dry-run"],
            )
            .await;
        listener
            .run(&[("OCM_CONFIG", config)], "", &["get", "cv", app])
            .await;
        listener
            .run(&[], "", &["transfer", "--transfer-spec", config])
            .await;
    }
    let key = place.path("rsa").display().to_string();
    listener
        .run(&[], "", &["sign", "cv", app, "--private-key", &key])
        .await;
    listener
        .run(&[], "", &["verify", "cv", app, "--public-key", &key])
        .await;

    // Proxies, and names and passwords in front of hosts.
    let proxy = format!("http://jo:{}@{web}", secret("proxy"));
    let dead = format!("http://jo:{}@127.0.0.1:1", secret("proxy"));
    let odd = format!("http://jo:{}@[nonsense", secret("proxy"));
    let socks = format!("socks5://jo:{}@127.0.0.1:1", secret("proxy"));
    for proxy in [&proxy, &dead, &odd, &socks] {
        let environment = [
            ("HTTP_PROXY", proxy.as_str()),
            ("https_proxy", proxy.as_str()),
        ];
        for host in ["http://plain.example", "https://tls.example"] {
            let reference = format!("{host}//acme.org/app:1.0.0");
            let config = ["--config", "good"];
            let code = listener
                .run(
                    &environment,
                    "",
                    &[&["get", "cv", &reference][..], &config].concat(),
                )
                .await;
            assert_ne!(code, 0);
        }
    }
    let userinfo = format!("jo:{}@{}", secret("userinfo"), hosts[0]);
    let with_scheme = format!("http://{userinfo}");
    for place in [&userinfo, &with_scheme] {
        let reference = format!("{place}//acme.org/app:1.0.0");
        let image = format!("{place}/acme/app:1.0.0");
        let alias = format!("h.example={place}");
        for line in [
            &["get", "cv", &reference][..],
            &["get", "cv", place],
            &["doctor", "credentials", &reference],
            &["doctor", "credentials", &image],
            &["transfer", "cv", app, place],
            &["transfer", "cv", &reference, "./other"],
            &["get", "cv", "acme.org/app:1.0.0", "--lookup", place],
            &["hash", "cv", place],
            &["describe", "cv", &format!("{place}/x:1@y")],
            &["sign", "cv", &format!("nonsense::{reference}")],
            &["login", place, "-u", "jo", "--password-stdin"],
            &["logout", place],
            &[
                "get",
                "cv",
                "h.example//acme.org/app:1.0.0",
                "--host-alias",
                &alias,
            ],
            &[
                "get",
                "cv",
                "h.example//acme.org/app:1.0.0",
                "--plain-http",
                place,
            ],
        ] {
            listener.run(&[], &secret("typed"), line).await;
        }
    }

    // Signed addresses that a server leads to.
    for (name, code) in [("good", 0), ("denied", 6), ("oops", 7)] {
        let file = format!("out-{name}");
        let download = [
            "download",
            "resource",
            remote_app,
            "--identity",
            &format!("name={name}"),
            "--output",
            &file,
            "--config",
            "good",
        ];
        let found = listener.run(&[], "", &download[..]).await;
        assert!(
            found == code || found == 8,
            "{name}: {found}, {:?}",
            listener.said.last()
        );
    }

    // Accesses that have secrets in them, and those that get some from the configuration.
    for (name, _) in &written {
        let reference = format!("./archive//acme.org/{name}:1.0.0");
        let (file, target) = (format!("out-{name}"), format!("./copy-{name}"));
        let download = ["download", "resource", &reference, "--identity", "name=it"];
        let download = [&download[..], &["--output", &file, "--config", "others"]].concat();
        let transfer = ["transfer", "cv", &reference, &target, "--copy-resources"];
        let transfer = [&transfer[..], &["--config", "others"]].concat();
        for line in [download, transfer] {
            let code = listener.run(&[], "", &line).await;
            assert_ne!(code, 0, "{name}: the server gives nothing away");
        }
    }

    let leaks = listener.leaks(&planted);
    assert!(
        leaks.is_empty(),
        "{} leaks:\n{}",
        leaks.len(),
        leaks.join("\n\n")
    );
    let runs: usize = listener.codes.values().sum();
    {
        eprintln!(
            "{runs} runs without a leak, by exit code: {:?}",
            listener.codes
        );
    }
    assert!(
        runs > 300 && listener.codes.len() > 5,
        "{:?}",
        listener.codes
    );
}
