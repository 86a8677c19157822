//! The sovereign-cloud scenario up to the cluster (scenario.md S01 to S14): pack, sign, look, verify, push to a registry,
//! export into an archive, cross an air gap, import, verify there.
//!
//! Two real registries. The second one and all commands behind the gap run in a network namespace that has nothing but a
//! loopback device of its own: there is no way to the first registry, which has been stopped by then, nor to anywhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ocm_content::Content;
use ocm_repository::{Existing, Session, SessionConfig};
use ocm_specs::RepositorySpec;
use ocm_testdata::fixtures;
use ocm_testdata::peers::{DockerRegistry, installed, skip, vector};
use serde_json::{Value, json};
use tempfile::TempDir;

const PRODUCT: &str = "acme.org/sovereign/product:1.0.0";
const NOTES: &str = "acme.org/sovereign/notes:1.0.0";
const POSTGRES: &str = "acme.org/sovereign/postgres:1.0.0";

/// Files of the scenario as design 000 has them, but for the sizes of charts and instances.
const FILES: &[(&str, &str)] = &[
    (
        "settings.yaml",
        "VERSION: 1.0.0\nPOSTGRES_VERSION: \"16-alpine\"\n",
    ),
    (
        "components/notes/component-constructor.yaml",
        r#"components:
  - name: acme.org/sovereign/notes
    version: "${VERSION}"
    provider:
      name: acme.org
    resources:
      - name: image
        type: ociImage
        relation: local
        version: "${VERSION}"
        access:
          type: ociArtifact
          imageReference: acme.org/sovereign/notes:${VERSION}
      - name: helm-chart
        type: helmChart
        relation: local
        input:
          type: helm
          path: ./deploy/chart
      - name: rgd
        type: blob
        relation: local
        input:
          type: file
          path: ./deploy/rgd.yaml
          mediaType: application/vnd.cncf.kro.resourcegraphdefinition.v1+yaml
"#,
    ),
    (
        "components/postgres/component-constructor.yaml",
        r#"components:
  - name: acme.org/sovereign/postgres
    version: "${VERSION}"
    provider:
      name: acme.org
    resources:
      - name: image
        type: ociImage
        version: "${POSTGRES_VERSION}"
        access:
          type: ociArtifact
          imageReference: docker.io/library/postgres:${POSTGRES_VERSION}
      - name: helm-chart
        type: helmChart
        relation: local
        input:
          type: helm
          path: ./deploy/chart
"#,
    ),
    (
        "components/product/component-constructor.yaml",
        r#"components:
  - name: acme.org/sovereign/product
    version: "${VERSION}"
    provider:
      name: acme.org
    componentReferences:
      - name: notes
        componentName: acme.org/sovereign/notes
        version: "${VERSION}"
      - name: postgres
        componentName: acme.org/sovereign/postgres
        version: "${VERSION}"
    resources:
      - name: product-rgd
        type: blob
        relation: local
        input:
          type: file
          path: ./deploy/rgd.yaml
          mediaType: application/vnd.cncf.kro.resourcegraphdefinition.v1+yaml
      - name: base-manifests
        type: blob
        relation: local
        input:
          type: file
          path: ./deploy/base.yaml
"#,
    ),
    (
        "components/notes/deploy/chart/Chart.yaml",
        "apiVersion: v2\nname: notes\ndescription: Notes\ntype: application\nversion: 1.0.0\n",
    ),
    (
        "components/notes/deploy/chart/values.yaml",
        "image:\n  repository: acme.org/sovereign/notes\n  digest: \"\"\n",
    ),
    (
        "components/notes/deploy/chart/templates/deployment.yaml",
        "kind: Deployment\nspec: {image: \"{{ .Values.image.repository }}\"}\n",
    ),
    (
        "components/notes/deploy/rgd.yaml",
        "kind: ResourceGraphDefinition\nspec: {schema: {spec: {replicas: integer}}}\n",
    ),
    (
        "components/postgres/deploy/chart/Chart.yaml",
        "apiVersion: v2\nname: postgres\ndescription: PostgreSQL\ntype: application\nversion: 1.0.0\n",
    ),
    (
        "components/postgres/deploy/chart/values.yaml",
        "storage: 1Gi\n",
    ),
    (
        "components/product/deploy/rgd.yaml",
        "kind: ResourceGraphDefinition\nspec: {instances: [\"${notes.status.ready}\"]}\n",
    ),
    (
        "components/product/deploy/base.yaml",
        "kind: Secret\nstringData: {password: \"${DB_PASSWORD}\"}\n",
    ),
];

/// A network namespace with a loopback device and nothing else. It goes with this value.
struct Gap(String);

impl Gap {
    /// Makes one, if this process may.
    fn make(name: &str) -> Option<Self> {
        if !Path::new("/usr/sbin/ip").exists() && !Path::new("/sbin/ip").exists() {
            skip("iproute2 is not installed");
            return None;
        }
        let name = format!("ocm-{name}-{}", std::process::id());
        if !ip(&["netns", "add", &name]) {
            skip("this user may not make network namespaces");
            return None;
        }
        let gap = Self(name);
        assert!(ip(&["-n", &gap.0, "link", "set", "lo", "up"]));
        Some(gap)
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// A registry behind the gap, at `localhost:5001`, with a log of its requests.
struct Behind {
    process: Child,
    log: PathBuf,
}

impl Behind {
    async fn start(gap: &Gap, folder: &Path) -> Self {
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}}}\nhttp: {{addr: '127.0.0.1:5001'}}\n",
            folder.display()
        );
        std::fs::write(folder.join("config.yml"), config).unwrap();
        let log = folder.join("requests.log");
        let process = Command::new("ip")
            .args(["netns", "exec", &gap.0, "docker-registry", "serve"])
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let behind = Self { process, log };
        for _ in 0..500 {
            let probe = [
                "netns",
                "exec",
                &gap.0,
                "bash",
                "-c",
                "echo > /dev/tcp/127.0.0.1/5001",
            ];
            if ip(&probe) {
                return behind;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the registry behind the gap does not start");
    }

    /// How many requests so far carried bytes of a blob, and how many wrote a manifest.
    fn writes(&self) -> (usize, usize) {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let count = |parts: &[&str]| {
            let lines = log.lines();
            lines
                .filter(|line| parts.iter().all(|it| line.contains(it)))
                .count()
        };
        let uploads = ["\"PUT ", "\"PATCH "].map(|it| count(&[it, "/blobs/uploads/"]));
        (uploads.iter().sum(), count(&["\"PUT ", "/manifests/"]))
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with the scenario's files, a registry in the world, and none yet behind the gap.
struct Scenario {
    folder: TempDir,
    world: Option<DockerRegistry>,
    environment: BTreeMap<String, String>,
    gap: Gap,
}

impl Scenario {
    async fn new(name: &str) -> Option<Self> {
        let gap = Gap::make(name)?;
        let world = DockerRegistry::start().await?;
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in FILES {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let aliases = ["ghcr.io", "docker.io", "acme.org"]
            .map(|host| format!("{host}=http://{}", world.host));
        let environment = BTreeMap::from([
            ("OCM_HOST_ALIAS".to_owned(), aliases.join(",")),
            (
                "PATH".to_owned(),
                "/usr/bin:/usr/sbin:/bin:/sbin".to_owned(),
            ),
        ]);
        let scenario = Self {
            folder,
            world: Some(world),
            environment,
            gap,
        };
        scenario.images().await;
        Some(scenario)
    }

    /// The images that exist before the scenario: the service's, and one in the place of PostgreSQL's.
    async fn images(&self) {
        let session = self.session();
        for (reference, image) in [
            ("acme.org/sovereign/notes:1.0.0", fixtures::image_index()),
            (
                "docker.io/library/postgres:16-alpine",
                fixtures::image(3, 100_000),
            ),
        ] {
            ocm_testdata::components::push(&session, reference, &image)
                .await
                .unwrap();
        }
    }

    fn session(&self) -> std::sync::Arc<Session> {
        let mut config = SessionConfig::new(self.folder.path());
        let host = &self.world.as_ref().unwrap().host;
        config.client.host_aliases = ["ghcr.io", "docker.io", "acme.org"]
            .map(|alias| (alias.to_owned(), format!("http://{host}").parse().unwrap()))
            .into();
        Session::new(config).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Runs a command line where the world is within reach; what it printed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        self.expect(line, 0)
    }

    #[track_caller]
    fn expect(&self, line: &str, code: i32) -> String {
        let mut words = line.split_whitespace();
        let program = program(words.next().unwrap());
        let mut command = Command::new(program);
        command.args(words);
        self.finish(command, line, code)
    }

    /// The same behind the gap.
    #[track_caller]
    fn behind(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.gap.0, program(words.next().unwrap())])
            .args(words);
        self.finish(command, line, 0)
    }

    #[track_caller]
    fn finish(&self, mut command: Command, line: &str, code: i32) -> String {
        let output = command
            .current_dir(self.folder.path())
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}\n{stdout}\n{stderr}"
        );
        stdout
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line)).unwrap()
    }

    /// Stops the first registry: from here on the world is gone.
    fn cut(&mut self) {
        self.world = None;
    }

    /// What somebody with write access to the first registry can do: another label in a component version.
    async fn tamper(&self, repository: &str, component: &str) {
        let session = self.session();
        let spec: RepositorySpec = repository.parse().unwrap();
        let repository = session.repository(&spec, true).await.unwrap();
        let version = repository.get(component, "1.0.0").await.unwrap();
        let mut descriptor = version.descriptor;
        descriptor
            .edit(|document| {
                document["component"]["provider"] = json!("mallory.example");
            })
            .unwrap();
        let prepared = repository
            .prepare_version(&descriptor, Existing::Overwrite)
            .await
            .unwrap();
        prepared.publish().await.unwrap();
    }
}

fn program(name: &str) -> &str {
    match name {
        "ocm" => env!("CARGO_BIN_EXE_ocm"),
        other => other,
    }
}

/// Every access of a component version's resources, as `TYPE PLACE`.
fn accesses(listed: &Value) -> Vec<String> {
    let elements = listed.as_array().unwrap().iter();
    elements
        .map(|it| it["element"]["access"]["type"].as_str().unwrap().to_owned())
        .collect()
}

fn copied(from: &Path, to: &Path) {
    for (path, bytes) in crate::place::tree(from) {
        let path = to.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// S08 and S09: what signing and verifying gives, well and badly.
fn signed(scenario: &Scenario, sign: &str, verify: &str) {
    scenario.run(sign);
    scenario.expect(sign, 8);
    for component in [PRODUCT, NOTES, POSTGRES] {
        let descriptor = format!("ocm get cv transport-archive//{component} -o json");
        let signatures = &scenario.json(&descriptor)[0]["signatures"];
        assert_eq!(signatures.as_array().unwrap().len(), 1, "{component}");
    }
    scenario.run(&format!("{verify} --deep"));
    scenario
        .run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out keys/other.pem");
    scenario.run("openssl rsa -in keys/other.pem -pubout -out keys/other-public.pem");
    let wrong = "ocm verify cv --signature acme-signature --public-key keys/other-public.pem";
    scenario.expect(&format!("{wrong} transport-archive//{PRODUCT}"), 5);
    // One byte of the chart, in a copy.
    let right = scenario.path("transport-archive");
    copied(&right, &scenario.path("flipped"));
    let resources =
        format!("ocm get resources transport-archive//{PRODUCT} base-manifests -o json");
    let digest = scenario.json(&resources)[0]["element"]["access"]["localReference"]
        .as_str()
        .unwrap()
        .replace(':', ".");
    let blob = scenario.path("flipped/blobs").join(digest);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[3] ^= 1;
    std::fs::write(blob, bytes).unwrap();
    let flipped = verify.replace("transport-archive", "flipped");
    scenario.run(&flipped);
    scenario.expect(&format!("{flipped} --deep"), 5);
}

/// S14: what arrived behind the gap.
fn arrived(scenario: &Scenario, behind: &Behind, import: &str, verify: &str) {
    scenario.behind(import);
    let writes = behind.writes();
    assert!(writes.0 > 0 && writes.1 > 0, "{writes:?}");
    for component in [PRODUCT, NOTES, POSTGRES] {
        let reference = format!("localhost:5001//{component}");
        scenario.behind(&format!("{verify} {reference}"));
        let check = format!("ocm check cv --external {reference} -o json");
        let check: Value = serde_json::from_str(&scenario.behind(&check)).unwrap();
        assert_eq!(check["complete"], true, "{check}");
        assert_eq!(check["notChecked"], json!([]), "{check}");
    }
    scenario.behind(&format!("{verify} --deep localhost:5001//{PRODUCT}"));
    for (component, name) in [(NOTES, "notes"), (POSTGRES, "postgres")] {
        let download = "ocm download resource";
        scenario.behind(&format!(
            "{download} localhost:5001//{component} image --form layout -O behind-{name}"
        ));
        assert_same_image(scenario, name);
    }
    let again = import.replace(" --enforce --overwrite", "");
    scenario.behind(&again);
    assert_eq!(behind.writes(), writes, "a second import uploads nothing");
    // Enforced, it says again what is there, and sends no blob for that.
    scenario.behind(import);
    assert_eq!(
        behind.writes().0,
        writes.0,
        "blobs that are there are not sent"
    );
}

/// The archive has all that it needs: a walker finds no access that leads out of it.
fn is_self_contained(scenario: &Scenario, archive: &str) {
    for component in [PRODUCT, NOTES, POSTGRES] {
        let listed = scenario.json(&format!("ocm get resources {archive}//{component} -o json"));
        let found = accesses(&listed);
        assert!(
            found
                .iter()
                .all(|it| it.to_lowercase().starts_with("localblob")),
            "{found:?}"
        );
    }
    scenario.run(&format!("ocm check cv {archive}//{PRODUCT}"));
}

/// Both images as they are in the world, for comparing.
fn images_of_the_world(scenario: &Scenario, repository: &str) {
    for (component, name) in [(NOTES, "notes"), (POSTGRES, "postgres")] {
        let download = "ocm download resource";
        scenario.run(&format!(
            "{download} {repository}//{component} image --form layout -O world-{name}"
        ));
    }
}

/// Every manifest and blob of an image is behind the gap as it is in the world; the index beside them has names only.
#[track_caller]
fn assert_same_image(scenario: &Scenario, name: &str) {
    let blobs = |side: &str| crate::place::tree(&scenario.path(&format!("{side}-{name}/blobs")));
    let here = blobs("world");
    assert!(here.len() > 2, "{name}: {:?}", here.keys());
    assert!(here == blobs("behind"), "{name}: the image is not the same");
}

/// S01 to S14 in the words of design 000.
#[tokio::test(flavor = "multi_thread")]
async fn the_sovereign_scenario_in_the_words_of_the_design() {
    if !installed("openssl") {
        return;
    }
    let Some(mut scenario) = Scenario::new("seed").await else {
        return;
    };
    // S01
    std::fs::create_dir(scenario.path("keys")).unwrap();
    scenario.run(
        "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out keys/acme-private.pem",
    );
    scenario.run("openssl rsa -in keys/acme-private.pem -pubout -out keys/acme-public.pem");
    // S03 to S05
    scenario.run(
        "ocm add cv --create --file transport-archive --settings settings.yaml components/notes/component-constructor.yaml",
    );
    for name in ["postgres", "product"] {
        scenario.run(&format!(
            "ocm add cv --file transport-archive --settings settings.yaml components/{name}/component-constructor.yaml"
        ));
    }
    for resource in scenario
        .json(&format!(
            "ocm get resources transport-archive//{PRODUCT} --recursive -o json"
        ))
        .as_array()
        .unwrap()
    {
        let value = &resource["element"]["digest"]["value"];
        assert_eq!(value.as_str().map(str::len), Some(64), "{resource}");
    }
    let base = format!("ocm download resource transport-archive//{PRODUCT} base-manifests -O -");
    assert!(scenario.run(&base).contains("${DB_PASSWORD}"));
    // S06
    let before = crate::place::tree(&scenario.path("transport-archive"));
    let again = "ocm add cv --file transport-archive --settings settings.yaml components/notes/component-constructor.yaml";
    let policy = "--component-version-conflict-policy";
    scenario.expect(&format!("{again} {policy} abort-and-fail"), 8);
    scenario.run(&format!("{again} {policy} skip"));
    assert!(before == crate::place::tree(&scenario.path("transport-archive")));
    scenario.run(&format!("{again} {policy} replace"));
    // S07
    let tree = format!("ocm get cv transport-archive//{PRODUCT} --recursive -o tree");
    let tree = scenario.run(&tree);
    assert!(
        tree.contains("notes: acme.org/sovereign/notes:1.0.0"),
        "{tree}"
    );
    // S08, S09
    signed(
        &scenario,
        &format!(
            "ocm sign componentversion --signature acme-signature --private-key keys/acme-private.pem --recursive transport-archive//{PRODUCT}"
        ),
        &format!(
            "ocm verify componentversion --signature acme-signature --public-key keys/acme-public.pem transport-archive//{PRODUCT}"
        ),
    );
    // S10
    let repository = "ghcr.io/open-component-model/reference-scenario";
    let push = format!(
        "ocm transfer ctf --copy-resources --enforce --overwrite transport-archive {repository}"
    );
    scenario.run(&push);
    let again = push.replace(" --enforce --overwrite", "");
    let report = scenario.json(&format!("{again} -o json"));
    assert_eq!(report["totals"]["bytesSent"], 0, "{}", report["totals"]);
    // S11
    let export = format!(
        "ocm transfer cv --recursive --copy-resources --verify acme-signature=keys/acme-public.pem {repository}//{PRODUCT}"
    );
    scenario.run(&format!("{export} ./airgap-archive"));
    is_self_contained(&scenario, "./airgap-archive");
    images_of_the_world(&scenario, repository);
    // S12
    scenario
        .tamper(repository, "acme.org/sovereign/notes")
        .await;
    scenario.expect(&format!("{export} ./tampered-archive"), 5);
    assert!(!scenario.path("tampered-archive").exists());
    // S13
    scenario.cut();
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::start(&scenario.gap, folder.path()).await;
    // S14
    arrived(
        &scenario,
        &behind,
        "ocm transfer ctf --copy-resources --enforce --overwrite ./airgap-archive localhost:5001",
        "ocm verify cv --signature acme-signature --public-key keys/acme-public.pem",
    );
}

/// The same with the files of the Go CLI's own conformance scenario, in its spelling: variables from the environment, keys
/// from configuration files, the image as a file, archives as tgz.
#[tokio::test(flavor = "multi_thread")]
async fn the_sovereign_scenario_in_the_words_of_the_cli_v2() {
    let Some(components) = vector("scenario/components") else {
        return;
    };
    if !installed("openssl") {
        return;
    }
    let Some(mut scenario) = Scenario::new("v2").await else {
        return;
    };
    std::fs::remove_dir_all(scenario.path("components")).unwrap();
    copied(&components, &scenario.path("components"));
    let session = scenario.session();
    let image = session
        .artifact("acme.org/sovereign/notes:1.0.0")
        .await
        .unwrap();
    let layout = ocm_content::layout_tar(&image, Some("1.0.0"), session.limits()).await;
    let layout = Content::Blob(layout.unwrap());
    let Content::Blob(layout) = layout else {
        unreachable!()
    };
    let layout = fixtures::gzip(&layout.read(64 << 20).await.unwrap());
    std::fs::write(scenario.path("components/notes/image.tgz"), layout).unwrap();
    std::fs::create_dir(scenario.path("keys")).unwrap();
    scenario.run(
        "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out keys/acme-private.pem",
    );
    scenario.run("openssl rsa -in keys/acme-private.pem -pubout -out keys/acme-public.pem");
    let keys = |kind: &str, file: &str| {
        let path = scenario.path(file);
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n- type: credentials.config.ocm.software\n  consumers:\n  \
             - identity: {{type: RSA/v1alpha1, algorithm: RSASSA-PSS, signature: default}}\n    credentials:\n    \
             - type: Credentials/v1\n      properties: {{{kind}: {}}}\n",
            path.display()
        )
    };
    std::fs::write(
        scenario.path("sign.yaml"),
        keys("private_key_pem_file", "keys/acme-private.pem"),
    )
    .unwrap();
    std::fs::write(
        scenario.path("verify.yaml"),
        keys("public_key_pem_file", "keys/acme-public.pem"),
    )
    .unwrap();
    for (name, value) in [
        ("VERSION", "1.0.0"),
        ("POSTGRES_VERSION", "16-alpine"),
        ("OCI_LAYOUT", "./image.tgz"),
    ] {
        scenario
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    for name in ["notes", "postgres", "product"] {
        let component = format!("acme.org/sovereign/{name}");
        scenario.environment.insert("NAME".to_owned(), component);
        scenario.run(&format!(
            "ocm add component-version -r ./ctf -c components/{name}"
        ));
    }
    scenario.run(&format!(
        "ocm sign component-version ./ctf//{PRODUCT} --config sign.yaml"
    ));
    scenario.run(&format!(
        "ocm verify cv ./ctf//{PRODUCT} --config verify.yaml"
    ));
    let repository = "ghcr.io/acme/v2";
    scenario.run(&format!(
        "ocm transfer cv -r --copy-resources --upload-as ociArtifact ./ctf//{PRODUCT} {repository}"
    ));
    scenario.run(&format!(
        "ocm transfer component-version --copy-resources --recursive {repository}//{PRODUCT} ./airgap.tgz"
    ));
    is_self_contained(&scenario, "./airgap.tgz");
    images_of_the_world(&scenario, repository);
    scenario.cut();
    let folder = tempfile::tempdir().unwrap();
    let behind = Behind::start(&scenario.gap, folder.path()).await;
    let import = format!(
        "ocm transfer cv -r --copy-resources ./airgap.tgz//{PRODUCT} http://localhost:5001"
    );
    scenario.behind(&import);
    scenario.behind(&format!(
        "ocm verify cv http://localhost:5001//{PRODUCT} --config verify.yaml"
    ));
    let writes = behind.writes();
    scenario.behind(&import);
    assert_eq!(behind.writes(), writes, "a second import uploads nothing");
    for (component, name) in [(NOTES, "notes"), (POSTGRES, "postgres")] {
        scenario.behind(&format!(
            "ocm download resource http://localhost:5001//{component} image --form layout -O behind-{name}"
        ));
        assert_same_image(&scenario, name);
    }
}
