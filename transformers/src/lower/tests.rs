//! The dialects, lowered.

use ocm_content::Error;
use ocm_specs::RepositorySpec;
use ocm_specs::diagnostic::Diagnostics;
use ocm_specs::transfer::{Dialect, TransferSpec};
use ocm_specs::yaml::{LoadOptions, Source, load};
use serde_json::{Map, Value as Json, json};

use crate::step_types;

use super::{ReadDescriptor, lower, lower_mapping};

pub(super) fn read(text: &str) -> TransferSpec {
    let source = Source::new("spec.yaml", text);
    let document = load(&source, &LoadOptions::default()).expect("yaml");
    TransferSpec::read(&source, &document).expect("a spec").0
}

fn lowered(text: &str) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    lower(read(text), &step_types())
}

/// A shared vector, or `None` with a reason printed.
pub(super) fn vector(name: &str) -> Option<String> {
    let root = std::env::var("OCM_VECTORS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned()
    });
    let path = format!("{root}/{name}");
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            assert!(
                std::env::var("OCM_REQUIRE_PEERS").as_deref() != Ok("1"),
                "{path}: {error}"
            );
            eprintln!("skipped: {path}: {error}");
            None
        }
    }
}

const SEED: &str = r#"transformations:
- id: constants
  type: attributes.transformation/v1alpha1
  spec:
    attributes:
      targetFilePath: ./test/localization-multi-component/archive-after-localization
- id: downloadcomponent1
  type: downloader.component.ctf/v1alpha1
  spec:
    name: github.com/acme.org/helloworld
    version: 1.0.0
    filePath: ./test/localization-multi-component/archive
- id: resourcedownload1
  type: downloader.resource.oci/v1alpha1
  spec:
    componentDescriptor: ${downloadcomponent1.outputs.descriptor}
    resource:
      name: myimage
- id: resourceupload1
  type: uploader.resource.oci/v1alpha1
  spec:
    imageReference: ghcr.io/fabianburth/images/myimage:after-localize
    data: ${resourcedownload1.outputs.data}
- id: resourcedownload2
  type: downloader.resource.oci/v1alpha1
  spec:
    componentDescriptor: ${downloadcomponent1.descriptor}
    resource:
      name: mychart
- id: ocitotar1
  type: oci.to.tar.transformer/v1alpha1
  spec:
    data: ${resourcedownload2.outputs.data}
- id: localization1
  type: yaml.engine.localization/v1
  spec:
    data: ${ocitotar1.outputs.data}
    file: "*/values.yaml"
    mappings:
    - path: image.repository
      value: "${resourceupload1.resource.access.imageReference.parseRef(). registry}/${resourceupload1.resource.access.imageReference.parseRef(). repository}"
- id: tartooci1
  type: tar.to.oci.transformer/v1alpha1
  spec:
    manifest: ${ocitotar1.outputs.manifest}
    ref: ${ocitotar1.outputs.ref}
    configLayer: ${ocitotar1.outputs.configLayer}
    data: ${localization1.output.data}
- id: resourceupload2
  type: uploader.resource.oci/v1alpha1
  spec:
    imageReference: ghcr.io/fabianburth/charts/myimage:after-localize
    componentDescriptor: ${downloadcomponent1.outputs.descriptor}
    data: ${tartooci1.outputs.data}
- id: mergecomponent1
  type: merge.component/v1alpha1
  spec:
    base: ${downloadcomponent1.output.descriptor}
    patches:
    - ${resourceupload1.output.resource}
    - ${resourceupload2.output.resource}
- id: uploadercomponentctf1
  type: uploader.component.ctf/v1alpha1
  spec:
    filePath: ${constants.spec.attributes.targetFilePath}
    componentDescriptor: ${mergecomponent1.output.descriptor}
- id: downloadcomponent2
  type: downloader.component.ctf/v1alpha1
  spec:
    name: github.com/acme.org/helloeurope
    version: 1.0.0
    filePath: ./test/localization-multi-component/archive
- id: downloadresource3
  type: downloader.localblob.ctf/v1alpha1
  spec:
    filePath: ${downloadcomponent2.spec.filePath}
    resource:
      name: helloeurope
    componentDescriptor: ${downloadcomponent2.output.descriptor}
- id: uploadresource3
  type: uploader.localblob.ctf/v1alpha1
  spec:
    filePath: ${constants.spec.attributes.targetFilePath}
    componentDescriptor: ${downloadcomponent2.outputs.descriptor}
    data: ${downloadresource3.outputs.data}
- id: uploadercomponentctf2
  type: uploader.component.ctf/v1alpha1
  spec:
    filePath: ${constants.spec.attributes.targetFilePath}
    componentDescriptor: ${uploadresource3.outputs.descriptor}
"#;

/// Equal documents, order of keys included.
pub(super) fn assert_prints(spec: &TransferSpec, expected: &str) {
    let pretty = |json: &Json| serde_json::to_string_pretty(json).expect("json");
    assert_eq!(pretty(&spec.to_json()), pretty(&read(expected).to_json()));
}

#[test]
fn the_list_spec_of_the_design_means_what_it_says() {
    let Some(text) = vector("transform/seed002-transformations.yaml") else {
        return;
    };
    let (spec, warnings) = lowered(&text).expect("lowers");
    assert_eq!(spec.dialect, Dialect::Native);
    assert_prints(&spec, SEED);
    assert_eq!(
        warnings.to_string(),
        "spec.yaml:41:5: warning W101: step `tartooci1`: spec.data: it is not given and bound to \
         `${localization1.output.data}`, the nearest content before that no step reads\n\
         spec.yaml:52:5: warning W102: step `uploadercomponentctf1`: the uploaded descriptor takes resources from other \
         steps: `resourceupload1`, `resourceupload2`"
    );
    let graph = ocm_engine::Graph::link(spec).expect("links");
    ocm_engine::Plan::new(graph, &step_types()).expect("plans");
    let (again, silent) = lower(read(SEED), &step_types()).expect("passes");
    assert_prints(&again, SEED);
    assert!(silent.findings.is_empty());
}

/// Lowers a list of inline steps; gives the steps with these ids as they are printed, or all findings.
fn check(steps: &str, expected: Result<&[(&str, Json)], &[&str]>) {
    match (lowered(&format!("transformations:\n{steps}")), expected) {
        (Ok((spec, _)), Ok(expected)) => {
            let json = spec.to_json();
            let list = json["transformations"].as_array().expect("a list");
            for (id, wanted) in expected {
                let found = list.iter().find(|step| step["id"] == *id);
                let found = found.map(|step| &step["spec"]);
                assert_eq!(found, Some(wanted), "{id} in {json:#}");
            }
        }
        (Err(findings), Err(parts)) => {
            assert_eq!(findings.findings.len(), parts.len(), "{findings}");
            for part in parts {
                assert!(findings.to_string().contains(part), "{part} in {findings}");
            }
        }
        (result, expected) => panic!("{steps}: {result:?}, expected {expected:?}"),
    }
}

const COMPONENT: &str = "
- {id: c, type: downloader.component.ctf/v1alpha1, name: acme.org/c, version: v, filePath: a}
- {id: d, type: downloader.resource.oci/v1alpha1, componentDescriptor: '${c.descriptor}', resource: {name: r}}
";

fn with_component(steps: &str) -> String {
    format!("{COMPONENT}{steps}")
}

#[test]
fn content_binds_to_the_nearest_that_nobody_reads() {
    check(
        &with_component(
            "
- {id: o, type: oci.to.tar.transformer/v1alpha1}
- {id: u, type: uploader.oci/v1alpha1, imageReference: x}
- {type: uploader.oci/v1alpha1, imageReference: z}
",
        ),
        Ok(&[
            ("o", json!({"data": "${d.output.data}"})),
            (
                "u",
                json!({"imageReference": "x", "data": "${o.output.data}"}),
            ),
            // Nothing is left: the missing input is the engine's to report.
            ("uploaderoci1", json!({"imageReference": "z"})),
        ]),
    );
}

#[test]
fn generated_ids_stay_clear_of_given_ones() {
    check(
        "
- {type: attributes.transformation/v1alpha1, attributes: {a: 1}}
- {id: attributestransformation1, type: attributes.transformation/v1alpha1, attributes: {a: 2}}
",
        Ok(&[
            ("attributestransformation1", json!({"attributes": {"a": 2}})),
            ("attributestransformation2", json!({"attributes": {"a": 1}})),
        ]),
    );
}

#[test]
fn local_blobs_count_in_their_own_repository() {
    let steps = |path: &str| {
        with_component(&format!(
            "
- {{id: k, type: attributes.transformation/v1alpha1, attributes: {{to: {path}}}}}
- {{id: u, type: uploader.localblob.ctf/v1alpha1, filePath: '${{k.spec.attributes.to}}', data: '${{d.data}}'}}
- {{id: up, type: uploader.component.ctf/v1alpha1, filePath: t, componentDescriptor: '${{c.outputs.descriptor}}'}}
"
        ))
    };
    let upload = |from: &str| json!({"filePath": "t", "componentDescriptor": from});
    let blob = json!({
        "filePath": "${k.spec.attributes.to}", "data": "${d.data}",
        "componentDescriptor": "${c.output.descriptor}",
    });
    check(
        &steps("t"),
        Ok(&[
            ("u", blob.clone()),
            ("up", upload("${mergecomponent1.output.descriptor}")),
            (
                "mergecomponent1",
                json!({"base": "${c.outputs.descriptor}", "patches": ["${u.output.resource}"]}),
            ),
        ]),
    );
    check(
        &steps("elsewhere"),
        Ok(&[("u", blob), ("up", upload("${c.outputs.descriptor}"))]),
    );
}

#[test]
fn what_an_author_merged_is_not_merged_again() {
    let uploads = "
- {id: u, type: uploader.oci/v1alpha1, imageReference: x, data: '${d.data}'}
- {id: w, type: uploader.oci/v1alpha1, imageReference: z, data: '${d.data}'}
";
    let merge = "
- {id: m, type: merge.component/v1alpha1, base: '${c.descriptor}', patches: ['${w.resource}']}
- {id: up, type: uploader.component.ctf/v1alpha1, filePath: t, componentDescriptor: '${m.descriptor}'}
";
    let upload = json!({"filePath": "t", "componentDescriptor": "${m.descriptor}"});
    check(
        &with_component(&format!("{uploads}{merge}")),
        Ok(&[("up", upload)]),
    );
    let plain = "
- {id: up, type: uploader.component.ctf/v1alpha1, filePath: t, data: '${c.data}'}
";
    check(
        &with_component(&format!("{uploads}{plain}")),
        Err(&["step `up`: `u` and `w` upload the same resource of the component"]),
    );
}

#[test]
fn an_upload_of_no_known_resource_is_reported() {
    let stray = |rest: &str| {
        let steps = with_component(&format!(
            "
- {{id: u, type: uploader.oci/v1alpha1, imageReference: x, data: {{uri: 'file:///a'}}{rest}}}
- {{id: up, type: uploader.component.ctf/v1alpha1, filePath: t, componentDescriptor: '${{c.descriptor}}'}}
"
        ));
        let (spec, warnings) = lowered(&format!("transformations:\n{steps}")).expect("lowers");
        let codes: Vec<_> = warnings.findings.iter().filter_map(|it| it.code).collect();
        (spec.steps.len(), codes)
    };
    assert_eq!(stray(""), (4, vec!["W105"]));
    let known = ", componentDescriptor: '${c.descriptor}', resource: {name: r}";
    assert_eq!(
        stray(known),
        (5, vec!["W102"]),
        "what the author says is enough"
    );
}

#[test]
fn a_component_that_cannot_be_told_is_asked_for() {
    check(
        "
- {id: c, type: downloader.component.ctf/v1alpha1, name: acme.org/c, version: v, filePath: a}
- {id: e, type: downloader.component.ctf/v1alpha1, name: m, version: v, filePath: '${c.spec.filePath}'}
- {id: one, type: downloader.localblob.ctf/v1alpha1, filePath: '${e.spec.filePath}', resource: {name: r}}
- {id: none, type: downloader.localblob.ctf/v1alpha1, filePath: a, resource: {name: r}}
- {id: two, type: downloader.localblob.ctf/v1alpha1, filePath: a, resource: {name: '${c.id}', version: '${e.id}'}}
",
        Err(&[
            "step `none`: spec.componentDescriptor: nothing says which component's resource this is",
            "step `two`: spec.componentDescriptor: this could be a resource of `c` or `e`",
        ]),
    );
}

/// Descriptors by place, name and version.
struct Library(Vec<(&'static str, Json)>);

#[async_trait::async_trait]
impl ReadDescriptor for Library {
    async fn descriptor(
        &self,
        repository: &RepositorySpec,
        component: &str,
        version: &str,
    ) -> Result<Json, Error> {
        let found = self.0.iter().find(|(place, it)| {
            *place == repository.to_string()
                && it["component"]["name"] == component
                && it["component"]["version"] == version
        });
        let found = found.map(|(_, it)| it.clone());
        found.ok_or_else(|| Error::not_found(format!("`{repository}` does not have it")))
    }
}

fn descriptor(name: &str, resources: Json, references: Json) -> Json {
    json!({"meta": {"schemaVersion": "v2"}, "component": {
        "name": name, "version": "1.0.0", "provider": "acme.org", "resources": resources,
        "sources": [], "componentReferences": references,
    }})
}

fn local(name: &str) -> Json {
    json!({"name": name, "version": "1.0.0", "type": "blob", "access": {"type": "localBlob", "localReference": "sha256:1"}})
}

fn image(name: &str) -> Json {
    json!({"name": name, "version": "1.0.0", "type": "ociImage",
        "access": {"type": "ociArtifact", "imageReference": format!("ghcr.io/acme/{name}:1.0.0")}})
}

fn library() -> Library {
    let hello = "github.com/acme.org/helloworld";
    let podinfo = json!([
        image("podinfo-image"),
        local("podinfo-chart"),
        local("extra"),
        image("other")
    ]);
    let hostile = json!([
        {"name": "${evil}", "version": "1", "access": {"type": "localBlob"}},
        {"name": "npm", "version": "1", "labels": [{"name": "l", "value": "${evil}"}], "access": {"type": "npm"}},
    ]);
    let references =
        json!([{"name": "h", "componentName": "acme.org/hostile", "version": "1.0.0"}]);
    Library(vec![
        (
            "/root/user/home/ocm-repository",
            descriptor(hello, podinfo.clone(), json!(null)),
        ),
        ("src", descriptor("acme.org/x", podinfo, references)),
        ("src", descriptor("acme.org/hostile", hostile, json!([]))),
        (
            "src",
            descriptor("acme.org/plain", json!([image("a")]), json!([])),
        ),
    ])
}

async fn lowered_mapping(text: &str) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    lower_mapping(read(text), &step_types(), &library()).await
}

const SEED_MAPPING: &str = r#"transformations:
- id: downloadercomponentctf1
  type: downloader.component.ctf/v1alpha1
  spec:
    name: github.com/acme.org/helloworld
    version: 1.0.0
    filePath: /root/user/home/ocm-repository
- id: downloaderresourceoci1
  type: downloader.resource.oci/v1alpha1
  spec:
    componentDescriptor: ${downloadercomponentctf1.output.descriptor}
    resource:
      name: podinfo-image
- id: uploaderoci1
  type: uploader.oci/v1alpha1
  spec:
    imageReference: ghcr.io/open-component-model/transfer-target/podinfo-image:1.0.0
    data: ${downloaderresourceoci1.output.data}
- id: downloaderlocalblobctf1
  type: downloader.localblob.ctf/v1alpha1
  spec:
    filePath: /root/user/home/ocm-repository
    componentDescriptor: ${downloadercomponentctf1.output.descriptor}
    resource:
      name: podinfo-chart
- id: localblobtooci1
  type: localblob.to.oci/v1alpha1
  spec:
    data: ${downloaderlocalblobctf1.output.data}
- id: uploaderoci2
  type: uploader.oci/v1alpha1
  spec:
    imageReference: ghcr.io/open-component-model/transfer-target/podinfo-chart:1.0.0
    data: ${localblobtooci1.output.data}
- id: downloaderlocalblobctf2
  type: downloader.localblob.ctf/v1alpha1
  spec:
    filePath: /root/user/home/ocm-repository
    componentDescriptor: ${downloadercomponentctf1.output.descriptor}
    resource:
      name: extra
      version: 1.0.0
- id: uploaderlocalbloboci1
  type: uploader.localblob.oci/v1alpha1
  spec:
    baseUrl: ghcr.io
    subPath: open-component-model/transfer-target
    componentDescriptor: ${downloadercomponentctf1.output.descriptor}
    data: ${downloaderlocalblobctf2.output.data}
- id: mergecomponent1
  type: merge.component/v1alpha1
  spec:
    base: ${downloadercomponentctf1.output.descriptor}
    patches:
    - ${uploaderoci1.output.resource}
    - ${uploaderoci2.output.resource}
    - ${uploaderlocalbloboci1.output.resource}
- id: uploadercomponentoci1
  type: uploader.component.oci/v1alpha1
  spec:
    baseUrl: ghcr.io
    subPath: open-component-model/transfer-target
    componentDescriptor: ${mergecomponent1.output.descriptor}
"#;

#[tokio::test]
async fn the_mapping_spec_of_the_design_means_what_it_says() {
    let Some(text) = vector("transform/seed002-mappings.yaml") else {
        return;
    };
    let (spec, warnings) = lowered_mapping(&text).await.expect("lowers");
    assert!(warnings.findings.is_empty(), "{warnings}");
    assert_prints(&spec, SEED_MAPPING);
    let graph = ocm_engine::Graph::link(spec).expect("links");
    ocm_engine::Plan::new(graph, &step_types()).expect("plans");
}

/// Lowers a list of mappings; gives the printed steps by id, or all findings.
async fn steps(mappings: &str) -> Result<Map<String, Json>, Diagnostics> {
    let (spec, _) = lowered_mapping(&format!("spec:\n  mappings:\n{mappings}")).await?;
    let json = spec.to_json();
    ocm_engine::Plan::new(ocm_engine::Graph::link(spec)?, &step_types())?;
    let list = json["transformations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let named = |step: Json| (step["id"].as_str().unwrap_or_default().to_owned(), step);
    Ok(list.into_iter().map(named).collect())
}

#[tokio::test]
async fn targets_share_what_is_equal_and_expressions_are_constants() {
    let found = steps(
        "
  - component: {name: acme.org/x, version: 1.0.0}
    source: [{type: CTF/v1, filePath: nowhere}, {type: CTF/v1, filePath: src}]
    target:
    - {type: CTF, filePath: \"${'to-' + source.filePath}\"}
    - {type: OCIRegistry, baseUrl: ghcr.io, subPath: \"x\"}
    resources:
    - resource: {name: other}
      target: {type: localBlob}
    - resource: {name: podinfo-image}
      transformations:
      - {type: uploader.oci/v1alpha1, imageReference: \"reg.example/${resource.name}:${component.version}-${target.type}\"}
  - component: {name: acme.org/x, version: 1.0.0}
    source: {type: CTF/v1, filePath: src}
    target: {type: OCIRegistry, baseUrl: ghcr.io, subPath: yy}
    resources:
    - resource: {name: podinfo-image}
      target: {type: ociArtifact}
",
    )
    .await
    .expect("lowers");
    let spec = |id: &str| {
        found
            .get(id)
            .map(|step| &step["spec"])
            .unwrap_or(&Json::Null)
    };
    let count = |kind: &str| {
        found
            .values()
            .filter(|step| step["type"].as_str().is_some_and(|it| it.starts_with(kind)))
            .count()
    };
    assert_eq!(count("downloader.component"), 1);
    assert_eq!(count("downloader.localblob"), 2);
    assert_eq!(count("downloader.resource"), 2);
    assert_eq!(count("uploader.localblob"), 3 + 3 + 2);
    assert_eq!(count("uploader.component"), 3);
    assert_eq!(spec("uploadercomponentctf1")["filePath"], "to-src");
    assert_eq!(
        spec("uploaderoci1")["imageReference"],
        "reg.example/podinfo-image:1.0.0-CTF"
    );
    assert_eq!(
        spec("uploaderoci2")["imageReference"],
        "reg.example/podinfo-image:1.0.0-OCIRegistry"
    );
    assert_eq!(
        spec("uploaderresourceoci1")["imageReference"],
        "ghcr.io/yy/acme/podinfo-image:1.0.0"
    );
}

#[tokio::test]
async fn text_of_descriptors_is_no_expression_and_references_come_first() {
    let found = steps(
        "
  - component: {name: acme.org/x, version: 1.0.0}
    source: {type: CTF, filePath: src}
    target: {type: CTF, filePath: t}
  - component: {name: acme.org/hostile, version: 1.0.0}
    source: {type: CTF, filePath: src}
    target: {type: CTF, filePath: t}
  - component: {name: acme.org/plain, version: 1.0.0}
    source: {type: CTF, filePath: src}
    target: {type: CTF, filePath: t}
",
    )
    .await
    .expect("lowers");
    let hostile = found.values().find_map(|step| {
        let name = step["spec"]["resource"]["name"].as_str()?;
        name.contains("evil").then_some(name)
    });
    assert_eq!(hostile, Some("${'$'}{evil}"));
    assert_eq!(
        found["uploadercomponentctf1"]["dependsOn"],
        json!(["uploadercomponentctf2"])
    );
    assert_eq!(
        found["uploadercomponentctf3"]["spec"]["data"],
        "${downloadercomponentctf3.output.data}"
    );
}

#[tokio::test]
async fn all_mistakes_of_a_mapping_are_told_at_once() {
    let mapping = |rest: &str| {
        format!(
            "
  - component: {{name: acme.org/x, version: 1.0.0}}
    source: {{type: CTF, filePath: src}}
    target: {{type: CTF, filePath: t}}
{rest}"
        )
    };
    for (text, parts) in [
        (
            mapping(
                "    resource: []
    resources:
    - resource: {name: podinfo-imag}
      transformation: []
    - resource: {name: podinfo-image}
      transformations:
      - {type: uploader.ocy/v1alpha1}
    - resource: {nam: x}
    - resource: {name: extra}
    - resource: {name: extra}
",
            ),
            &[
                "7:5: unknown key `resource` of a mapping\n  hint: did you mean `resources`?",
                "9:24: the component has no resource `name=podinfo-imag`\n  hint: did you mean `podinfo-image`?",
                "10:7: unknown key `transformation` of an entry of `resources`",
                "13:16: there is no step type `uploader.ocy/v1alpha1`\n  hint: did you mean `uploader.oci/v1alpha1`?",
                "14:17: a resource is given by its `name`",
                "16:17: the resource is listed for the second time",
            ][..],
        ),
        (
            mapping(
                "    sources: [{source: {name: s}}]
    resources:
    - resource: {name: other}
      transformations:
      - {type: uploader.oci/v1alpha1, imageReference: \"${resourc.name}\"}
      - {type: localblob.to.oci/v1alpha1}
    - resource: {name: extra}
      target: {type: ociArtifac}
    - resource: {name: podinfo-image}
      target: {type: ociArtifact}
",
            ),
            &[
                "sources can't be",
                "resourc",
                "nothing can follow an upload",
                "did you mean `ociArtifact`?",
                "give an `imageReference`",
            ],
        ),
        (
            "
  - component: {name: acme.org/unknown, version: 1.0.0}
    source: {type: CTF, filePath: src}
    target: {type: CTF, filePath: t}
  - component: {name: acme.org/x}
    source: {type: CTG, filePath: src}
  - component: {name: acme.org/hostile, version: 1.0.0}
    source: {type: CTF, filePath: src}
    target: {type: CTG, filePath: t}
    resources: [{resource: {name: npm}, target: {type: localBlob}}]
"
            .to_owned(),
            &[
                "component `acme.org/unknown:1.0.0`: `src` does not have it",
                "the mapping has no `target`",
                "the component has no `version`",
                "unknown repository type `CTG`",
            ],
        ),
    ] {
        let findings = steps(&text).await.expect_err("mistakes");
        for part in parts {
            assert!(findings.to_string().contains(part), "{part} in {findings}");
        }
        assert_eq!(findings.findings.len(), parts.len(), "{findings}");
    }
}
