use ocm_content::RawManifest;
use ocm_registry::RegistryLimits;
use ocm_specs::media_type::OCI_INDEX;
use serde_json::{Value, json};

use crate::client::Server;

fn next(link: &str) -> &str {
    let (target, relation) = link.split_once('>').unwrap();
    assert_eq!(relation, "; rel=\"next\"");
    &target[1..]
}

/// All pages of a listing, as the lengths of the pages and their entries.
async fn pages(server: &Server, first: &str, field: &str) -> (Vec<usize>, Vec<Value>) {
    let (mut lengths, mut all) = (Vec::new(), Vec::new());
    let mut path = Some(first.to_owned());
    while let Some(current) = path {
        let answer = server.call("GET", &current).await.is(200);
        let entries = answer.json()[field].as_array().unwrap().clone();
        lengths.push(entries.len());
        all.extend(entries);
        path = answer.header("link").map(|link| next(link).to_owned());
    }
    (lengths, all)
}

#[tokio::test]
async fn tags() {
    let limits = RegistryLimits {
        page: 4,
        ..RegistryLimits::default()
    };
    let server = Server::with(|config| config.limits = limits).await;
    let manifest = server.tagged("a/b", "v9", "layer").await;
    for tag in ["v1", "v10", "_x", "A", "v2"] {
        server.put("a/b", tag, &manifest).await.is(201);
    }
    let all = ["A", "_x", "v1", "v10", "v2", "v9"];
    let list = "/v2/a/b/tags/list";
    for (query, lengths, from) in [
        ("", vec![4, 2], 0),
        ("?n=2", vec![2, 2, 2], 0),
        ("?n=5", vec![4, 2], 0),
        ("?n=1&last=v10", vec![1, 1], 4),
        ("?last=v1", vec![3], 3),
        ("?last=v100", vec![2], 4),
        ("?last=zzz", vec![0], 6),
        ("?n=0", vec![0], 6),
    ] {
        let found = pages(&server, &format!("{list}{query}"), "tags").await;
        let expected = all[from..].iter().map(|tag| json!(tag)).collect();
        assert_eq!(found, (lengths, expected), "{query}");
    }
    let answer = server.call("GET", list).await.is(200);
    assert_eq!(answer.json()["name"], "a/b");
    for bad in ["?n=x", "?n=-1", "?n=99999999999999999999999"] {
        server
            .call("GET", &format!("{list}{bad}"))
            .await
            .fails(400, "PAGINATION_NUMBER_INVALID");
    }
    server
        .call("GET", "/v2/nobody/tags/list")
        .await
        .fails(404, "NAME_UNKNOWN");
    // A repository without tags is not an unknown one.
    server.blob("bare", "text/plain", b"x").await;
    let answer = server.call("GET", "/v2/bare/tags/list").await.is(200);
    assert_eq!(answer.json()["tags"], json!([]));
}

#[tokio::test]
async fn repositories() {
    let server = Server::start().await;
    for name in ["c", "a/b", "a"] {
        server.blob(name, "text/plain", b"x").await;
    }
    let found = pages(&server, "/v2/_catalog?n=2", "repositories").await;
    assert_eq!(
        found,
        (vec![2, 1], vec![json!("a"), json!("a/b"), json!("c")])
    );
    assert_eq!(server.names().await, ["a", "a/b", "c"]);
}

#[tokio::test]
async fn referrers() {
    let limits = RegistryLimits {
        page: 2,
        ..RegistryLimits::default()
    };
    let server = Server::with(|config| config.limits = limits).await;
    let subject = RawManifest::write(&server.image("a", "subject").await);
    let path = format!("/v2/a/referrers/{}", subject.digest);
    let answer = server.call("GET", &path).await.is(200);
    let answer = answer.has("content-type", OCI_INDEX);
    let empty = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    assert_eq!(answer.json(), empty, "before the subject is there");
    for (kind, seed) in [("x/sbom", "1"), ("x/sig", "2"), ("x/sbom", "3")] {
        let mut document = server.image("a", "subject").await;
        document.subject = Some(subject.descriptor());
        document.artifact_type = Some(kind.to_owned());
        document.annotations = Some([("seed".to_owned(), seed.to_owned())].into());
        let manifest = RawManifest::write(&document);
        server
            .put("a", &manifest.digest.to_string(), &manifest)
            .await
            .is(201)
            .has("oci-subject", &subject.digest.to_string());
    }
    let plain = server.put("a", "subject", &subject).await.is(201);
    assert_eq!(plain.header("oci-subject"), None);
    let (lengths, all) = pages(&server, &path, "manifests").await;
    assert_eq!(lengths, [2, 1]);
    let mut seeds: Vec<&Value> = all
        .iter()
        .map(|link| &link["annotations"]["seed"])
        .collect();
    seeds.sort_by_key(|seed| seed.to_string());
    assert_eq!(seeds, [&json!("1"), &json!("2"), &json!("3")]);

    for (kind, count) in [("x/sbom", 2), ("x/sig", 1), ("x/none", 0)] {
        let path = format!("{path}?artifactType={}", kind.replace('/', "%2F"));
        let answer = server.call("GET", &path).await.is(200);
        let answer = answer.has("oci-filters-applied", "artifactType");
        let found = answer.json()["manifests"].as_array().unwrap().clone();
        assert_eq!(found.len(), count, "{kind}");
        assert!(found.iter().all(|link| link["artifactType"] == kind));
    }
    server
        .call("GET", "/v2/a/referrers/latest")
        .await
        .fails(400, "DIGEST_INVALID");
}
