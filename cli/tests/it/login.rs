//! `ocm login`, `ocm logout` and `ocm doctor credentials`, against registries that ask who is asking.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ocm_content::MemoryStores;
use ocm_registry::{Auth, Registry, RegistryConfig, Running, Users};
use ocm_testdata::peers::{DockerRegistry, installed};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::place::{Place, Ran};

const PASSWORD: &str = "secret";

async fn embedded(auth: impl FnOnce(Users) -> Auth) -> Running {
    let mut config = RegistryConfig::new(Arc::new(MemoryStores::new()));
    config.auth = auth(Users::one("jo", PASSWORD));
    Registry::bind(config, ([127, 0, 0, 1], 0).into())
        .await
        .unwrap()
}

/// Registries that ask in each way that there is.
async fn registries() -> (Vec<String>, Vec<Box<dyn std::any::Any>>) {
    let basic = embedded(|users| Auth::Basic { users }).await;
    let tokens = embedded(|users| Auth::Token {
        users,
        lifetime: Duration::from_secs(60),
        realm: None,
    })
    .await;
    let mut hosts = vec![basic.addr.to_string(), tokens.addr.to_string()];
    let mut running: Vec<Box<dyn std::any::Any>> = vec![Box::new(basic), Box::new(tokens)];
    if let Some(docker) = DockerRegistry::guarded().await {
        hosts.push(docker.host.clone());
        running.push(Box::new(docker));
    }
    (hosts, running)
}

async fn login(place: &Place, password: &str, arguments: &[&str]) -> Ran {
    let home = place.path("home").display().to_string();
    let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
    let environment = [("HOME", home.as_str()), ("PATH", path.as_str())];
    let ran = place
        .run_fed(&place.path(""), &environment, password, arguments)
        .await;
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!shown.contains(PASSWORD), "{shown}");
    ran
}

fn config(place: &Place) -> Value {
    let text = std::fs::read(place.path("home/.docker/config.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_takes_is_kept_and_forgotten() {
    let place = Place::new();
    let (hosts, _running) = registries().await;
    std::fs::create_dir_all(place.path("home/.docker")).unwrap();
    place.put(
        "home/.docker/config.json",
        r#"{"currentContext":"here","auths":{"other.example":{"auth":"eDp5"}}}"#,
    );
    for host in &hosts {
        let list = ["get", "cv", &format!("{host}//acme.org/x")];
        let refused = login(&place, "", &list).await.code(6).stderr;
        assert!(
            refused.contains("no credentials are configured")
                && refused.contains(&format!(
                    "hostname=127.0.0.1,path=component-descriptors/acme.org/x,port={}",
                    host.split(':').next_back().unwrap()
                ))
                && refused.contains("ocm login")
                && refused.contains("ocm doctor credentials"),
            "{refused}"
        );
        let before = config(&place);
        let args = ["login", "-u", "jo", "--password-stdin", host];
        let wrong = login(&place, "wrong\n", &args).await.code(6).stderr;
        assert!(wrong.contains("nothing was stored"), "{wrong}");
        assert_eq!(config(&place), before);
        // As the design has it: `echo TOKEN | ocm login`.
        login(&place, &format!("{PASSWORD}\n"), &args).await.ok();
        let stored = config(&place);
        assert_eq!(stored["auths"][host.as_str()]["auth"], "am86c2VjcmV0");
        assert_eq!(stored["currentContext"], "here");
        assert_eq!(stored["auths"]["other.example"], json!({"auth": "eDp5"}));
        let file = std::fs::metadata(place.path("home/.docker/config.json")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        // It is let in, and there is nothing.
        login(&place, "", &list).await.code(4);
        let reference = format!("{host}/acme/x:1");
        let doctor = ["doctor", "credentials", &reference, "-o", "json"];
        let found = login(&place, "", &doctor).await.ok().json();
        let used = found["used"]["place"].as_str().unwrap();
        assert!(used.ends_with(".docker/config.json"), "{found}");
        assert_eq!(found["identity"]["path"], "acme/x");
        login(&place, "", &["logout", host]).await.ok();
        assert!(config(&place)["auths"].get(host.as_str()).is_none());
        login(&place, "", &list).await.code(6);
        let again = login(&place, "", &["logout", host]).await.ok().stderr;
        assert!(again.contains("there are no credentials"), "{again}");
    }
    assert_eq!(
        config(&place)["auths"],
        json!({"other.example": {"auth": "eDp5"}})
    );
    // No staged file is left.
    let names: Vec<_> = std::fs::read_dir(place.path("home/.docker"))
        .unwrap()
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_come_from_where_they_are_said_to() {
    let place = Place::new();
    let (hosts, _running) = registries().await;
    let host = hosts[0].as_str();
    let given = login(&place, "", &["login", host, "-u", "jo", "-p", "secret"]).await;
    assert!(given.ok().stderr.contains("--password-stdin is safer"));
    assert_eq!(config(&place)["auths"][host]["auth"], "am86c2VjcmV0");
    let missing = login(&place, "", &["login", host, "-u", "jo"])
        .await
        .code(2);
    assert!(missing.stderr.contains("--password-stdin"));
    login(&place, "", &["login", host, "-u", "jo", "--password-stdin"])
        .await
        .code(2);
    let both = ["login", host, "-u", "jo", "-p", "x", "--password-stdin"];
    login(&place, "", &both).await.code(2);
    // A registry that is not there, with and without a look.
    let dead = "127.0.0.1:1";
    let args = ["login", dead, "-u", "jo", "--password-stdin"];
    let unseen = login(&place, "secret", &args).await.code(7).stderr;
    assert!(unseen.contains("--no-verify"), "{unseen}");
    login(&place, "secret", &[&args[..], &["--no-verify"]].concat())
        .await
        .ok();
    assert!(config(&place)["auths"].get(dead).is_some());
    // One that asks nobody.
    let open = embedded(|_| Auth::None).await;
    let open_host = open.addr.to_string();
    let args = ["login", &open_host, "-u", "jo", "--password-stdin"];
    let warned = login(&place, "secret", &args).await.ok().stderr;
    assert!(warned.contains("could not be checked"), "{warned}");
    // A file of one's own, and one that is broken.
    let file = [
        "login",
        host,
        "-u",
        "jo",
        "--password-stdin",
        "--authfile",
        "mine",
    ];
    login(&place, "secret", &file).await.ok();
    assert!(place.path("mine").is_file());
    place.put("mine", "{ broken");
    login(&place, "secret", &file).await.code(3);
    assert_eq!(std::fs::read(place.path("mine")).unwrap(), b"{ broken");
    let odd = login(
        &place,
        "secret",
        &["login", "u:secret@h", "-u", "jo", "--password-stdin"],
    );
    odd.await.code(2);
}

/// At a terminal the password is asked for, and not shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked() {
    if !installed("script") {
        return;
    }
    let place = Place::new();
    let registry = embedded(|users| Auth::Basic { users }).await;
    let host = registry.addr.to_string();
    let line = format!("{} login {host} -u jo", env!("CARGO_BIN_EXE_ocm"));
    let mut terminal = tokio::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("HOME", place.path("home"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (
        terminal.stdin.take().unwrap(),
        terminal.stdout.take().unwrap(),
    );
    let talk = async {
        let mut shown = String::new();
        let mut typed = false;
        let mut buffer = [0; 1024];
        loop {
            let length = screen.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return shown;
            }
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
            if !typed && shown.contains("Password of jo at ") {
                typed = true;
                keys.write_all(format!("{PASSWORD}\n").as_bytes())
                    .await
                    .unwrap();
            }
        }
    };
    let shown = tokio::time::timeout(Duration::from_secs(60), talk)
        .await
        .expect("it ends");
    assert!(terminal.wait().await.unwrap().success(), "{shown}");
    assert!(
        shown.contains("logged in") && !shown.contains(PASSWORD),
        "{shown}"
    );
    assert_eq!(
        config(&place)["auths"][&host]["auth"].as_str(),
        Some("am86c2VjcmV0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_keep_what_they_are_for() {
    let place = Place::new();
    let (hosts, _running) = registries().await;
    let host = hosts[0].as_str();
    for folder in ["home/.docker", "bin", "kept"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    // A keeper that works as Docker's own do, and finds its folder by a variable that only it knows.
    let keeper = "#!/bin/sh\nread -r line\ncd \"$HOME/../kept\"\ncase $1 in\n\
        store) echo \"$line\" > all ;;\n\
        get) test -f all || { echo credentials not found in native keychain; exit 1; }; cat all ;;\n\
        erase) rm all ;;\nesac\n";
    place.put("bin/docker-credential-keeper", keeper);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.path("bin/docker-credential-keeper"), mode).unwrap();
    for document in [
        json!({"credsStore": "keeper"}),
        json!({"credHelpers": {host: "keeper"}}),
    ] {
        place.put("home/.docker/config.json", document.to_string());
        let args = ["login", host, "-u", "jo", "--password-stdin"];
        login(&place, PASSWORD, &args).await.ok();
        let mut expected = document.clone();
        expected["auths"] = json!({host: {}});
        assert_eq!(config(&place), expected);
        assert!(place.path("kept/all").is_file());
        let reference = format!("{host}//acme.org/x");
        login(&place, "", &["get", "cv", &reference]).await.code(4);
        let ask = ["doctor", "credentials", &reference];
        let doctor = login(&place, "", &ask).await.ok().stdout;
        assert!(
            doctor.contains("keeper: it has user `jo` and password"),
            "{doctor}"
        );
        login(&place, "", &["logout", host]).await.ok();
        assert!(!place.path("kept/all").exists());
        let nothing = login(&place, "", &ask).await.ok().stdout;
        assert!(
            nothing.contains("used: none") && nothing.contains("ocm login 127.0.0.1:"),
            "{nothing}"
        );
    }
    place.put("home/.docker/config.json", r#"{"credsStore": "absent"}"#);
    let args = ["login", host, "-u", "jo", "--password-stdin"];
    let absent = login(&place, PASSWORD, &args).await.code(4).stderr;
    assert!(absent.contains("docker-credential-absent"), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_was_considered() {
    let place = Place::new();
    place.put(
        "config",
        "type: credentials.config.ocm.software\nconsumers:\n\
         - {identity: {type: OCIRegistry, hostname: r.example}, credentials: [{type: Credentials, properties: {username: all, password: hunter2}}]}\n\
         - {identity: {type: OCIRegistry, hostname: r.example, path: acme/*}, credentials: [{type: OCICredentials/v1, accessToken: hunter2}]}\n\
         - {identity: {type: OCIRegistry, hostname: r.example, port: 5000}, credentials: [{type: Credentials, properties: {username: port, password: hunter2}}]}\n\
         - {identity: {type: OCIRegistry, hostname: s.example}, credentials: [{type: Vault, x: y}]}\n\
         - {identity: {type: Wget, hostname: r.example}, credentials: [{type: Credentials, properties: {username: w, password: hunter2}}]}\n",
    );
    let doctor = async |reference: &str| {
        let arguments = ["doctor", "credentials", reference, "--config", "config"];
        let text = place.run(&arguments).await.ok().stdout;
        assert!(!text.contains("hunter2"), "{text}");
        text.replace(&place.path("").display().to_string(), "")
    };
    assert_eq!(
        doctor("r.example/acme//acme.org/x:1.0.0").await,
        "looked for: hostname=r.example,path=acme/component-descriptors/acme.org/x,scheme=https,type=OCIRegistry\n\
         - config: consumers[0].identity\n    hostname=r.example,type=OCIRegistry: another entry fits better\n\
         * config: consumers[1].identity\n    hostname=r.example,path=acme/*,type=OCIRegistry: fits best: an access token\n\
         - config: consumers[2].identity\n    hostname=r.example,port=5000,type=OCIRegistry: another scheme or port\n\
         - config: consumers[3].identity\n    hostname=s.example,type=OCIRegistry: another host\n\
         - config: consumers[4].identity\n    hostname=r.example,type=Wget: another type\n\
         used: config: consumers[1].identity, hostname=r.example,path=acme/*,type=OCIRegistry\n"
    );
    let nothing = doctor("s.example/x:1").await;
    assert!(
        nothing.contains("fits best, but has nothing that a registry takes")
            && nothing.contains("used: none, requests are anonymous"),
        "{nothing}"
    );
    assert!(doctor("r.example").await.contains("fits best: user `all`"));
    assert!(
        doctor("./archive//acme.org/x:1.0.0")
            .await
            .contains("an archive")
    );
    place
        .run(&["doctor", "credentials", "unknown::x"])
        .await
        .code(2);
}
