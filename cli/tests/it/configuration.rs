//! Configuration files: where they are looked for, what they say, and what of it is shown.

use ocm_repository::Existing;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_testdata::peers::vector;
use serde_json::{Value, json};

use crate::place::Place;

pub(crate) fn descriptor(name: &str, version: &str, references: &[(&str, &str)]) -> Value {
    let references: Vec<Value> = references
        .iter()
        .map(|(name, version)| {
            json!({"name": name.rsplit('/').next(), "componentName": name, "version": version})
        })
        .collect();
    json!({"meta": {"schemaVersion": "v2"}, "component": {
        "name": name, "version": version, "provider": "acme", "repositoryContexts": [],
        "sources": [], "resources": [], "componentReferences": references,
    }})
}

pub(crate) async fn store(place: &Place, repository: &str, document: Value) {
    let spec: RepositorySpec = repository.parse().unwrap();
    let session = place.session();
    let repository = session.repository(&spec, true).await.unwrap();
    let descriptor = ComponentDescriptor::from_value(document).unwrap();
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    prepared.await.unwrap().publish().await.unwrap();
}

/// An application in one archive, what it references in two others.
async fn scattered() -> Place {
    let place = Place::new();
    let app = descriptor(
        "acme.org/app",
        "1.0.0",
        &[("acme.org/lib", "1.0.0"), ("other.org/x", "2.0.0")],
    );
    store(&place, "./app", app).await;
    store(&place, "./lib", descriptor("acme.org/lib", "1.0.0", &[])).await;
    store(&place, "./lib", descriptor("acme.org/lib", "1.1.0", &[])).await;
    store(&place, "./other", descriptor("other.org/x", "2.0.0", &[])).await;
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_found_where_the_configuration_says() {
    let place = scattered().await;
    // v2: by patterns, and the first repository does not have it.
    place.put(
        "v2",
        "type: generic.config.ocm.software/v1\nconfigurations:\n- type: resolvers.config.ocm.software/v1alpha1\n  resolvers:\n  \
         - {repository: {type: CommonTransportFormat/v1, filePath: ./other}, componentNamePattern: 'acme.org/*'}\n  \
         - {repository: {type: CommonTransportFormat/v1, filePath: ./gone}, componentNamePattern: 'acme.org/*'}\n  \
         - {repository: {type: CommonTransportFormat/v1, filePath: ./lib}, componentNamePattern: 'acme.org/*', versionConstraint: '<2'}\n  \
         - {repository: ./other, componentNamePattern: '{other,more}.org/*'}\n",
    );
    // v1: by prefix and priority.
    place.put(
        "v1",
        "type: generic.config.ocm.software/v1\nconfigurations:\n- type: ocm.config.ocm.software\n  resolvers:\n  \
         - {repository: {type: CTF, filePath: ./lib}, prefix: acme.org}\n  \
         - {repository: {type: CTF, filePath: ./other}, priority: 100}\n",
    );
    let app = "./app//acme.org/app:1.0.0";
    let all = ["get", "cv", app, "--recursive", "-o", "tree"];
    let expected = "acme.org/app:1.0.0  (acme)\n├─ lib: acme.org/lib:1.0.0  (acme)\n└─ x: other.org/x:2.0.0  (acme)\n";
    for more in [
        &["--config", "v2"][..],
        &["--config", "v1"],
        &["--lookup", "./lib", "--lookup", "./other"],
        &["--config", "v2", "--lookup", "./app"],
    ] {
        let found = place.run(&[&all[..], more].concat()).await.ok();
        assert_eq!(found.stdout, expected, "{more:?}");
        let hash = ["hash", "cv", app];
        place.run(&[&hash[..], more].concat()).await.ok();
    }
    // Nowhere: every place is told.
    let lost = [&all[..], &["--lookup", "./other"]].concat();
    let lost = place.run(&lost).await.code(4).stderr;
    for part in ["acme.org/lib:1.0.0", "/app", "/other", "--lookup"] {
        assert!(lost.contains(part), "{part}: {lost}");
    }
    // Without a repository.
    let bare = |arguments: &'static [&'static str]| {
        let place = &place;
        async move { place.run(&[&["get", "cv"], arguments].concat()).await }
    };
    let one = bare(&["acme.org/lib:1.1.0", "--config", "v2", "-o", "json"]).await;
    assert_eq!(one.ok().json()[0]["component"]["version"], "1.1.0");
    let newest = bare(&["acme.org/lib", "--config", "v1", "--latest", "-o", "json"]).await;
    assert_eq!(newest.ok().json()[0]["component"]["version"], "1.1.0");
    let some = [
        "acme.org/lib",
        "--lookup",
        "./lib",
        "--semver-constraint",
        "~1.0 || >=3",
    ];
    let some = place.run(&[&["get", "cv"], &some[..]].concat()).await.ok();
    assert!(some.stdout.contains("1.0.0") && !some.stdout.contains("1.1.0"));
    bare(&["acme.org/lib:7.0.0", "--lookup", "./lib"])
        .await
        .code(4);
    place
        .run(&["hash", "cv", "acme.org/lib", "--config", "v1"])
        .await
        .ok();
    place.run(&["hash", "cv", "acme.org/lib"]).await.code(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_count_when_they_are_named() {
    let place = scattered().await;
    place.put(
        "config",
        "type: generic.config.ocm.software/v1\nsets:\n  air:\n    description: behind the gap\n    configurations:\n    \
         - {type: ocm.config.ocm.software, resolvers: [{repository: {type: CTF, filePath: ./lib}}]}\n",
    );
    let get = ["get", "cv", "acme.org/lib:1.0.0", "--config", "config"];
    place
        .run(&[&get[..], &["--config-set", "air"]].concat())
        .await
        .ok();
    let without = place.run(&get).await;
    assert_ne!(without.code, 0);
    let unknown = [&get[..], &["--config-set", "sea"]].concat();
    let unknown = place.run(&unknown).await.code(4).stderr;
    assert!(unknown.contains("has a set `sea`"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_looked_for_in_order() {
    let place = scattered().await;
    let resolver = |archive: &str| {
        format!("type: ocm.config.ocm.software\nresolvers: [{{repository: ./{archive}}}]\n")
    };
    let home = place.path("home").display().to_string();
    for folder in ["home/.config/ocm", "home/.ocm", "xdg/ocm"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    let get = ["get", "cv", "acme.org/lib:1.0.0"];
    let environment = [("HOME", home.as_str()), ("OCM_CONFIG", "named")];
    place.run_with(&environment, &get).await.code(2);
    for path in [
        "named",
        "home/.config/ocm/config",
        "home/.config/.ocmconfig",
        "home/.ocm/config",
        "home/.ocmconfig",
    ] {
        place.put(path, resolver("lib"));
        place.run_with(&environment, &get).await.ok();
        // A broken one is left out with a word, unless it was named.
        place.put(path, "type: ocm.config.ocm.software\nresolvers: {}\n");
        let left_out = place.run_with(&environment, &get).await.code(2).stderr;
        assert!(
            left_out.contains("warning: configuration left out: ")
                && left_out.contains(path)
                && left_out.contains("resolvers: expected a list"),
            "{left_out}"
        );
        let named = [&get[..], &["--config", path]].concat();
        place.run_with(&environment, &named).await.code(3);
        std::fs::remove_file(place.path(path)).unwrap();
    }
    // One of the current folder only where that is wanted.
    place.put(".ocmconfig", resolver("lib"));
    let refused = place.run_with(&environment, &get).await.code(2).stderr;
    assert!(
        refused.contains(".ocmconfig is not read")
            && refused.contains("OCM_CONFIG_FROM_WORKING_DIRECTORY=1"),
        "{refused}"
    );
    let wanted = [("OCM_CONFIG_FROM_WORKING_DIRECTORY", "1")];
    place.run_with(&wanted, &get).await.ok();
    let named = [&get[..], &["--config", ".ocmconfig"]].concat();
    place.run(&named).await.ok();
    // It is read like any other when it is the one at home.
    let here = place.path("").display().to_string();
    let here = here.trim_end_matches('/');
    let at_home = place.run_with(&[("HOME", here)], &get).await.ok().stderr;
    assert!(!at_home.contains("not read"), "{at_home}");
}

/// Where Docker and podman keep log-ins, the place that counts most first.
#[tokio::test(flavor = "multi_thread")]
async fn log_ins_are_looked_for_in_order() {
    let place = Place::new();
    let at = |path: &str| place.path(path).display().to_string();
    let log_in = |user: &str| json!({"r.example": {"username": user, "password": "hunter2"}});
    let files = [
        "named.json",
        "docker/config.json",
        "run/containers/auth.json",
        "xdg/containers/auth.json",
        "home/.docker/config.json",
        "home/.config/containers/auth.json",
        "home/.dockercfg",
    ];
    let text = json!({"auths": log_in("DOCKER_AUTH_CONFIG")}).to_string();
    let (home, named, docker) = (at("home"), at("named.json"), at("docker"));
    let (run, xdg, empty) = (at("run"), at("xdg"), at("empty"));
    let everything = [
        ("HOME", home.as_str()),
        ("REGISTRY_AUTH_FILE", &named),
        ("DOCKER_CONFIG", &docker),
        ("XDG_RUNTIME_DIR", &run),
        ("XDG_CONFIG_HOME", &xdg),
        ("DOCKER_AUTH_CONFIG", &text),
    ];
    let at_home = [("HOME", home.as_str()), ("XDG_RUNTIME_DIR", &empty)];
    for (environment, winners) in [
        (
            &everything[..],
            &[
                "DOCKER_AUTH_CONFIG",
                "named.json",
                "docker/config.json",
                "run/containers/auth.json",
                "xdg/containers/auth.json",
                "home/.dockercfg",
            ][..],
        ),
        (
            &at_home,
            &[
                "home/.docker/config.json",
                "home/.config/containers/auth.json",
                "home/.dockercfg",
            ],
        ),
    ] {
        for file in files {
            let document = match file.ends_with(".dockercfg") {
                true => log_in(file),
                false => json!({"auths": log_in(file)}),
            };
            std::fs::create_dir_all(place.path(file).parent().unwrap()).unwrap();
            place.put(file, document.to_string());
        }
        let mut environment = environment.to_vec();
        for winner in winners {
            let ask = ["doctor", "credentials", "r.example"];
            let found = place.run_with(&environment, &ask).await.ok().stdout;
            let used = found.lines().last().unwrap_or_default();
            let user = format!("fits best: user `{winner}`");
            assert!(
                used.starts_with("used: ") && used.contains(winner) && found.contains(&user),
                "{winner}: {found}"
            );
            // The next one is asked when this one is gone.
            environment.retain(|(name, _)| name != winner);
            let _ = std::fs::remove_file(place.path(winner));
        }
        let ask = ["doctor", "credentials", "r.example"];
        let nothing = place.run_with(&environment, &ask).await.ok().stdout;
        assert!(nothing.contains("used: none"), "{nothing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_secrets() {
    let place = Place::new();
    place.put(
        "one",
        "type: generic.config.ocm.software/v1\nconfigurations:\n\
         - {type: http.config.ocm.software/v1alpha1, timeout: 1m}\n\
         - type: generic.config.ocm.software/v1\n  configurations: [{type: inner.config, url: 'https://jo:hunter2@h/?sig=hunter2'}]\n\
         - {type: attributes.config.ocm.software, attributes: {cache: ~/c}}\n",
    );
    place.put(
        "two",
        "type: credentials.config.ocm.software\nconsumers:\n- identity: {type: OCIRegistry, hostname: h, port: 5000}\n  \
         credentials: [{type: Credentials/v1, properties: {username: jo, password: hunter2}}]\n",
    );
    let get = ["get", "config", "--config", "one", "--config", "two", "-o"];
    let shown = async |format: &str| {
        let ran = place.run(&[&get[..], &[format]].concat()).await.ok();
        assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
        ran
    };
    let document = shown("json").await.json();
    let kinds: Vec<&str> = document["configurations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "http.config.ocm.software/v1alpha1",
            "attributes.config.ocm.software",
            "inner.config",
            "credentials.config.ocm.software",
        ]
    );
    let consumer = &document["configurations"][3]["consumers"][0];
    assert_eq!(
        consumer["credentials"][0]["properties"],
        json!({"username": "jo", "password": "***"})
    );
    assert_eq!(shown("ndjson").await.json(), document);
    assert_eq!(shown("ndjson").await.stdout.lines().count(), 1);
    // What is printed as YAML is a configuration again.
    place.put("three", shown("yaml").await.stdout);
    let again = ["get", "config", "--config", "three", "-o", "json"];
    assert_eq!(place.run(&again).await.ok().json(), document);
    let none = place
        .run(&["get", "config", "-o", "json"])
        .await
        .ok()
        .json();
    assert_eq!(none["configurations"], json!([]));
}

/// Every shared file is read as the programs that it is from read it.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_both_go_programs_are_read() {
    let Some(folder) = vector("config") else {
        return;
    };
    let place = Place::new();
    std::fs::create_dir_all(place.path("home/.docker")).unwrap();
    let docker = std::fs::read(folder.join("dockerconfig.json")).unwrap();
    place.put("home/.docker/config.json", docker);
    let home = place.path("home").display().to_string();
    let doctor = async |file: &str, reference: &str| {
        let path = folder.join(file).display().to_string();
        let arguments = [
            "doctor",
            "credentials",
            reference,
            "--config",
            &path,
            "-o",
            "json",
        ];
        let environment = [("HOME", home.as_str())];
        let found = place.run_with(&environment, &arguments).await.ok().json();
        let used = found["considered"].as_array().unwrap().iter();
        let mut used = used.filter(|one| one["used"] == true);
        used.next().map_or("none".to_owned(), |one| {
            let place = one["place"].as_str().unwrap().replace(&path, file);
            let place = place.replace(&home, "~");
            let entry = one["entry"].as_str().unwrap();
            format!("{place} {entry} {}", one["reason"].as_str().unwrap())
        })
    };
    for (file, reference, expected) in [
        (
            "ocmconfig-ghcr.yaml",
            "ghcr.io/acme//acme.org/x:1.0.0",
            "ocmconfig-ghcr.yaml: configurations[0].consumers[0].identity hostname=ghcr.io,type=OCIRegistry fits best: user `ghcr-user` and password",
        ),
        (
            "ocmconfig-mixed.yaml",
            "ghcr.io/acme/image:1",
            "~/.docker/config.json auths: https://ghcr.io fits best: user `mandelsoft` and password",
        ),
        (
            "ocmconfig-two-ports.yaml",
            "http://localhost:31002//acme.org/x",
            "ocmconfig-two-ports.yaml: configurations[0].consumers[0].identity hostname=localhost,port=31002,scheme=http,type=OCIRegistry fits best: user `admin` and password",
        ),
        (
            "ocmconfig-two-ports.yaml",
            "http://localhost:31003//acme.org/x",
            "none",
        ),
        (
            "ocmconfig-v1-simple.yaml",
            "docker.io/library/alpine:3",
            "~/.docker/config.json auths: https://index.docker.io/v1/ fits best: user `mandelsoft` and password",
        ),
        ("ocmconfig-v1-keys.yaml", "other.example", "none"),
        ("sign.yaml", "other.example", "none"),
        ("verify.yaml", "other.example", "none"),
        (
            "dockerconfig.json",
            "ghcr.io",
            "~/.docker/config.json auths: https://ghcr.io fits best: user `mandelsoft` and password",
        ),
    ] {
        assert_eq!(
            doctor(file, reference).await,
            expected,
            "{file} {reference}"
        );
    }
    // All entries are kept, those of unknown types, too.
    let mixed = folder.join("ocmconfig-mixed.yaml").display().to_string();
    let mixed = ["get", "config", "--config", &mixed, "-o", "json"];
    let mixed = place.run(&mixed).await.ok().json();
    assert_eq!(mixed["configurations"].as_array().unwrap().len(), 5);
    assert_eq!(
        mixed["configurations"][4]["registrations"][0]["name"],
        "plugin/jfrog/JFrogHelm"
    );
}
