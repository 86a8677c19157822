use super::*;

fn read(text: &str) -> Result<(Constructor, Diagnostics), Diagnostics> {
    Constructor::read(&Source::new("c.yaml", text), Some(&Variables::new()), None)
}

/// One component with these lines in it.
fn component_with(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "components:\n- name: acme.org/app\n  version: 1.0.0\n  provider: {{name: acme}}\n{lines}"
    )
}

fn resource_with(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    component_with(&format!("resources:\n- name: tool\n  type: blob\n{lines}"))
}

/// Checks that a text is refused with `expected` in its messages, and says where.
#[track_caller]
fn refused(text: &str, expected: &str) {
    let findings = read(text).expect_err(text).to_string();
    assert!(
        findings.contains(expected),
        "{text}\n{findings}\nexpected: {expected}"
    );
}

#[test]
fn every_mistake_has_a_place_and_a_reason() {
    let file = "input: {type: file, path: x}";
    let rows: &[(String, &str)] = &[
        (
            "- a\n".into(),
            "c.yaml:1:1: a constructor is a map, this is a list\n  hint: start with `components:`",
        ),
        ("".into(), "there is no component in it"),
        ("components: []\n".into(), "there is no component in it"),
        (
            "component:\n- name: x\n".into(),
            "c.yaml:1:1: unknown field `component`\n  hint: did you mean `components`?",
        ),
        (
            "components: {}\n".into(),
            "c.yaml:1:13: components: `components` is a list, this is a map",
        ),
        (
            "components: [x]\n".into(),
            "c.yaml:1:14: components[0]: a component is a map, this is a string",
        ),
        (
            "components: []\nother: 1\n".into(),
            "c.yaml:2:1: unknown field `other`",
        ),
        (
            "name: acme.org/x\nversion: 1\nprovider: p\n".into(),
            "c.yaml:2:10: version: `version` is a text, this is an integer\n  hint: put it in quotes: \"1\"",
        ),
        (
            "name: acme.org/x\nversion: 1.10\nprovider: p\n".into(),
            "this is a number\n  hint: put it in quotes: \"1.10\"",
        ),
        (
            "name: acme.org/x\nversion: ~\nprovider: p\n".into(),
            "the component has no `version`\n  hint: write one, or give --version",
        ),
        (
            "name: acme.org/x\nversion: 1.0.0.0\nprovider: p\n".into(),
            "`1.0.0.0` is not a version",
        ),
        (
            "name: acme\nversion: 1.0.0\nprovider: p\n".into(),
            "c.yaml:1:7: name: `acme` is not a component name",
        ),
        (
            "name: on\nversion: 1.0.0\nprovider: p\n".into(),
            "`name` is a text, this is a boolean\n  hint: put it in quotes: \"on\"",
        ),
        (
            "name: acme.org/x\nversion: 1.0.0\n".into(),
            "has no `provider`\n  hint: write `provider: {name: acme.org}`",
        ),
        (
            "name: acme.org/x\nversion: 1.0.0\nprovider: {}\n".into(),
            "provider: `name` is missing",
        ),
        (
            "name: acme.org/x\nversion: 1.0.0\nprovider: {nmae: x}\n".into(),
            "unknown field `nmae`\n  hint: did you mean `name`?",
        ),
        (
            "name: acme.org/x\nversion: 1.0.0\nprovider: [x]\n".into(),
            "`provider` is a text, this is a list",
        ),
        (
            component_with("resource: []"),
            "c.yaml:5:3: components[0]: unknown field `resource`\n  hint: did you mean `resources`?",
        ),
        (
            component_with("repositoryContexts: []"),
            "unknown field `repositoryContexts`",
        ),
        (
            component_with("creationTime: yesterday"),
            "`yesterday` is no time",
        ),
        (
            component_with("labels: [{name: a}]"),
            "labels[0]: the label has no `value`",
        ),
        (
            component_with("labels: [{value: a}]"),
            "labels[0]: `name` is missing",
        ),
        (
            component_with("labels: [{name: a, value: 1}, {name: a, value: 2}]"),
            "the label `a` is there twice",
        ),
        (
            component_with("labels: [{name: a, value: 1, version: 1.0}]"),
            "`version` is a text",
        ),
        (
            component_with("labels: [{name: a, value: 1, version: '1'}]"),
            "`1` is not a version of a label",
        ),
        (
            component_with("labels: [{name: a, value: 1, signing: maybe}]"),
            "`signing` is true or false",
        ),
        (
            component_with("labels: [{name: a, value: 1, sining: true}]"),
            "did you mean `signing`?",
        ),
        (
            component_with("labels: [{name: a, value: 1, merge: {algorithm: X}}]"),
            "`X` is not a merge algorithm",
        ),
        (
            component_with("labels: [{name: a, value: 1, merge: {mode: x}}]"),
            "unknown field `mode`",
        ),
        (
            component_with("resources: [{type: blob, input: {type: file, path: x}}]"),
            "resources[0]: `name` is missing",
        ),
        (
            component_with("resources: [{name: tool, input: {type: file, path: x}}]"),
            "resources[0]: `type` is missing",
        ),
        (
            component_with("resources: [{name: x, type: blob, input: {type: file, path: x}}]"),
            "`x` is not a name",
        ),
        (
            component_with("resources: [{name: Tool, type: blob, input: {type: file, path: x}}]"),
            "`Tool` is not a name",
        ),
        (
            component_with("resources: [{name: tool, type: .x, input: {type: file, path: x}}]"),
            "`.x` is not a type",
        ),
        (resource_with(""), "there is neither `access` nor `input`"),
        (
            resource_with("input: {type: file, path: x}\naccess: {type: none}"),
            "c.yaml:9:5: components[0].resources[0]: `access` and `input` exclude",
        ),
        (
            resource_with(&format!("{file}\nrelation: lokal")),
            "`lokal` is not a relation\n  hint: did you mean `local`?",
        ),
        (
            resource_with(&format!("{file}\nverison: 1.0.0")),
            "did you mean `version`?",
        ),
        (
            resource_with(&format!("{file}\nextraIdentity: {{arch: 1}}")),
            "`arch` is a text, this is an integer",
        ),
        (
            resource_with(&format!("{file}\nextraIdentity: {{Arch: x}}")),
            "`Arch` is not a name of an attribute",
        ),
        (
            resource_with(&format!("{file}\nextraIdentity: x")),
            "`extraIdentity` is a map",
        ),
        (
            resource_with(&format!("{file}\nsrcRefs: [{{name: x}}]")),
            "unknown field `name`",
        ),
        (
            resource_with(&format!("{file}\noptions: {{ownershipPolicy: always}}")),
            "`always` is not an ownership policy",
        ),
        (
            resource_with(&format!("{file}\noptions: {{x: 1}}")),
            "unknown field `x`",
        ),
        (
            resource_with(&format!("{file}\ndigest: {{value: ab}}")),
            "digest: `hashAlgorithm` is missing",
        ),
        (
            resource_with(&format!(
                "{file}\ndigest: {{hashAlgorithm: MD5, normalisationAlgorithm: x, value: ab}}"
            )),
            "`MD5` is a hash algorithm that is not computed here",
        ),
        (
            resource_with(&format!(
                "{file}\ndigest: {{hashAlgorithm: SHA-256, normalisationAlgorithm: x, value: ab}}"
            )),
            "`ab` is no value of SHA-256",
        ),
        (
            resource_with("access: {imageReference: x}"),
            "access: `type` is missing",
        ),
        (
            resource_with("access: {type: ociArtifact}"),
            "access of type `ociArtifact` has no `imageReference`",
        ),
        (
            resource_with("access: {type: ociArtefact, imageReference: x}"),
            "did you mean `ociArtifact`?",
        ),
        (resource_with("access: x"), "an access is a map"),
        (resource_with("input: x"), "an input is a map"),
        (
            resource_with("input: {path: x}"),
            "input: `type` is missing",
        ),
        (
            resource_with("input: {type: fiel, path: x}"),
            "unknown input type `fiel`\n  hint: did you mean `file`?",
        ),
        (
            resource_with("input: {type: file/v2, path: x}"),
            "version that is not known here",
        ),
        (
            resource_with("input: {type: file}"),
            "input: `path` is missing",
        ),
        (
            resource_with("input: {type: file, path: x, mediatyp: y}"),
            "did you mean `mediaType`?",
        ),
        (
            resource_with("input: {type: dir, path: x, includeFiles: '*.x'}"),
            "`includeFiles` is a list",
        ),
        (
            resource_with("input: {type: utf8}"),
            "the input has no content",
        ),
        (
            resource_with("input: {type: utf8, text: x, json: {}}"),
            "`text`, `json` exclude each other",
        ),
        (
            resource_with("input: {type: utf8, text: 1}"),
            "`text` is a text",
        ),
        (
            resource_with("input: {type: binary, data: '*'}"),
            "`data` is no base64",
        ),
        (
            resource_with("input: {type: helm}"),
            "neither `path` nor `helmRepository`",
        ),
        (
            resource_with("input: {type: helm, helmRepository: 'https://x.io'}"),
            "names a repository, but no chart in it",
        ),
        (
            resource_with("input: {type: helm, helmRepository: 'oci://x.io/chart'}"),
            "the reference has no tag",
        ),
        (
            resource_with("input: {type: helm, path: x, caCertFile: z}"),
            "--ca-file FILE",
        ),
        (resource_with("input: {type: wget}"), "`url` is missing"),
        (
            resource_with("input: {type: git}"),
            "`repository` is missing",
        ),
        (
            resource_with("input: {type: ociArtifact}"),
            "`path` is missing",
        ),
        (
            resource_with("input: {type: docker, path: x}"),
            "inputs of type `docker` are not made here\n  hint: save the image as an OCI layout",
        ),
        (
            resource_with("input: {type: DockerMulti, variants: []}"),
            "build one multi-platform OCI layout",
        ),
        (
            resource_with("input: {type: maven}"),
            "`type: wget` with its URL",
        ),
        (resource_with("input: {type: npm}"), "npm pack"),
        (resource_with("input: {type: ocm}"), "ocm download resource"),
        (
            resource_with("input: {type: spiff}"),
            "process the template beforehand",
        ),
        (
            component_with(
                "resources:\n- {name: tool, type: a, access: {type: none}}\n- {name: tool, type: b, access: {type: none}}",
            ),
            "c.yaml:7:5: components[0].resources[1]: the resource `name=tool,version=1.0.0` is there twice, the first time as components[0].resources[0]",
        ),
        (
            component_with(
                "sources:\n- {name: code, type: git, access: {type: none}}\n- {name: code, type: git, access: {type: none}}",
            ),
            "the source `name=code,version=1.0.0` is there twice",
        ),
        (
            component_with("componentReferences: [{name: dep, componentName: acme.org/dep}]"),
            "componentReferences[0]: `version` is missing",
        ),
        (
            component_with("componentReferences: [{name: dep, version: 1.0.0}]"),
            "`componentName` is missing",
        ),
        (
            component_with(
                "componentReferences: [{name: dep, componentName: dep, version: 1.0.0}]",
            ),
            "`dep` is not a component name",
        ),
        (
            component_with(
                "componentReferences: [{name: dep, componentName: acme.org/dep, version: 1.0.0, component: x}]",
            ),
            "unknown field `component`",
        ),
        (
            component_with(
                "references: [{name: dep, componentName: a.io/x, version: v1}, {name: dep, componentName: a.io/y, version: v1}]",
            ),
            "the reference `name=dep,version=v1` is there twice",
        ),
    ];
    let mut wrong = String::new();
    for (text, expected) in rows {
        let findings =
            read(text).map_or_else(|findings| findings.to_string(), |_| "nothing".to_owned());
        if !findings.contains(expected) {
            wrong += &format!("{text}\n{findings}\nexpected: {expected}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "components:\n- name: X\n  resources:\n  - type: 1\n  - {name: ok, type: t, input: {type: file}}\n- version: 1.0.0\n";
    let findings = read(text).expect_err("mistakes");
    let lines: Vec<String> = findings
        .to_string()
        .lines()
        .filter(|line| !line.starts_with("  hint"))
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), 9, "{lines:#?}");
}

#[test]
fn what_is_read_stays_as_it_is_written() {
    let text = component_with(
        "labels: [{name: a.io/x, value: {z: 1, a: [on, 1.50, null]}, signing: true, version: v1, merge: {algorithm: default, config: {overwrite: inbound}}}]\n\
         resources:\n\
         - {name: tool, type: blob, version: 2.0.0, extraIdentity: {arch: arm64}, note: {kept: '<&>'}, access: {type: acme.io/v1, odd: 1}}\n\
         sources:\n\
         - {name: code, type: git, access: {type: gitHub, repoUrl: x, commit: y}}\n",
    );
    let (constructor, warnings) = read(&text).expect("fine");
    assert_eq!(warnings.findings.len(), 1, "{warnings}");
    assert!(
        warnings.to_string().contains(
            "warning W201: components[0].resources[0].note: unknown field `note` is kept"
        )
    );
    let component = &constructor.components[0];
    assert_eq!(
        component.labels[0],
        json!({"name": "a.io/x", "value": {"z": 1, "a": [true, 1.5, null]}, "signing": true, "version": "v1",
            "merge": {"algorithm": "default", "config": {"overwrite": "inbound"}}})
    );
    let resource = &component.resources[0];
    assert_eq!(resource.value["relation"], "external");
    assert_eq!(resource.value["note"], json!({"kept": "<&>"}));
    assert_eq!(resource.value["extraIdentity"], json!({"arch": "arm64"}));
    assert_eq!(
        resource.content,
        ItemContent::Access(json!({"type": "acme.io/v1", "odd": 1}))
    );
    assert_eq!(
        component.sources[0].value,
        json!({"name": "code", "version": "1.0.0", "type": "git"})
    );
}

#[test]
fn providers_are_stored_as_go_stores_them() {
    for (provider, expected) in [
        ("acme.org", "acme.org"),
        ("{name: acme.org}", "acme.org"),
        ("{name: acme.org, labels: []}", "acme.org"),
        (
            "{labels: [{value: {b: '<', a: 1}, signing: true, name: x, version: v2}], name: acme}",
            r#"{"name":"acme","labels":[{"name":"x","value":{"a":1,"b":"\u003c"},"signing":true,"version":"v2"}]}"#,
        ),
        (
            "{name: acme, home: here}",
            r#"{"name":"acme","home":"here"}"#,
        ),
    ] {
        let text = format!("name: acme.org/x\nversion: 1.0.0\nprovider: {provider}\n");
        let (constructor, _) = read(&text).expect(provider);
        assert_eq!(constructor.components[0].provider, expected);
    }
}

#[test]
fn inputs_of_both_generations() {
    let bytes = |text: &str, media_type: &str| Input::Bytes {
        bytes: text.as_bytes().to_vec(),
        media_type: media_type.to_owned(),
        compress: false,
    };
    let fetched = |access: Json, chart: bool| Input::Fetched {
        access,
        chart,
        platforms: Vec::new(),
        hint: None,
    };
    for (input, expected) in [
        (
            "{type: File/v1, path: a}",
            Input::File {
                path: "a".into(),
                media_type: None,
                compress: false,
            },
        ),
        (
            "{type: file, path: a, MediaType: x/y, compress: 'true'}",
            Input::File {
                path: "a".into(),
                media_type: Some("x/y".into()),
                compress: true,
            },
        ),
        (
            "{type: Dir, path: a, preserveDir: true, followSymLinks: true, includeFiles: ['*.y'], excludeFiles: [b], reproducible: false}",
            Input::Dir(DirInput {
                path: "a".into(),
                preserve_dir: true,
                follow_symlinks: true,
                include: vec!["*.y".into()],
                exclude: vec!["b".into()],
                ..DirInput::default()
            }),
        ),
        ("{type: UTF8/v1, text: 'a<b'}", bytes("a<b", "text/plain")),
        ("{type: utf8, text: ''}", bytes("", "text/plain")),
        (
            "{type: utf8, json: {b: [1, on], a: '<'}}",
            bytes(r#"{"a":"\u003c","b":[1,true]}"#, "application/json"),
        ),
        (
            "{type: utf8, formattedJson: {b: 1, a: '<'}}",
            bytes(
                "{\n  \"a\": \"\\u003c\",\n  \"b\": 1\n}",
                "application/json",
            ),
        ),
        (
            "{type: utf8, yaml: {b: 1, a: 'on'}, mediaType: text/yaml}",
            bytes("a: \"on\"\nb: 1\n", "text/yaml"),
        ),
        (
            "{type: utf8, formattedYaml: [1]}",
            bytes("- 1\n", "application/x-yaml"),
        ),
        (
            "{type: binary, data: IXN0cmluZ2RhdGE=}",
            bytes("!stringdata", "application/octet-stream"),
        ),
        (
            "{type: Binary/v1, data: 'aGk', mediaType: text/plain}",
            bytes("hi", "text/plain"),
        ),
        (
            "{type: helm, path: chart}",
            Input::Chart {
                path: "chart".into(),
                hint: None,
            },
        ),
        (
            "{type: helm, path: podinfo, helmRepository: 'https://x.io/charts', version: 6.0.0}",
            fetched(
                json!({"type": "helm", "helmRepository": "https://x.io/charts", "helmChart": "podinfo:6.0.0"}),
                true,
            ),
        ),
        (
            "{type: Helm/v1, helmRepository: 'oci://x.io/charts/podinfo:6.0.0'}",
            fetched(
                json!({"type": "ociArtifact", "imageReference": "x.io/charts/podinfo:6.0.0"}),
                true,
            ),
        ),
        (
            "{type: helm, helmRepository: 'oci://x.io/charts', path: podinfo, version: 6.0.0}",
            fetched(
                json!({"type": "ociArtifact", "imageReference": "x.io/charts/podinfo:6.0.0"}),
                true,
            ),
        ),
        (
            "{type: helm, helmRepository: 'https://x.io/podinfo-6.0.0.tgz'}",
            fetched(
                json!({"type": "wget", "url": "https://x.io/podinfo-6.0.0.tgz"}),
                true,
            ),
        ),
        (
            "{type: wget, url: 'https://x.io/a', header: {accept: [a, b]}, noRedirect: true}",
            fetched(
                json!({"type": "wget", "noRedirect": true, "header": {"accept": ["a", "b"]}, "url": "https://x.io/a"}),
                false,
            ),
        ),
        (
            "{type: git, repository: 'https://x.io/r.git', ref: refs/heads/main}",
            fetched(
                json!({"type": "git", "ref": "refs/heads/main", "repository": "https://x.io/r.git"}),
                false,
            ),
        ),
        (
            "{type: ociImage, path: 'x.io/a:1'}",
            fetched(
                json!({"type": "ociArtifact", "imageReference": "x.io/a:1"}),
                false,
            ),
        ),
    ] {
        let text = resource_with(&format!("input: {input}"));
        let (constructor, warnings) =
            read(&text).unwrap_or_else(|findings| panic!("{input}: {findings}"));
        assert!(warnings.findings.is_empty(), "{warnings}");
        let resource = &constructor.components[0].resources[0];
        assert_eq!(resource.content, ItemContent::Input(expected), "{input}");
        assert_eq!(resource.value["relation"], "local");
    }
}

#[test]
fn a_default_version_is_for_those_that_have_none() {
    let source = Source::new(
        "c",
        "components:\n- {name: a.io/x, provider: p}\n- {name: a.io/y, version: 2.0.0, provider: p}\n",
    );
    let (constructor, _) =
        Constructor::read(&source, Some(&Variables::new()), Some("1.0.0")).expect("fine");
    let versions: Vec<&str> = constructor
        .components
        .iter()
        .map(|it| it.version.text.as_str())
        .collect();
    assert_eq!(versions, ["1.0.0", "2.0.0"]);
}

#[test]
fn times() {
    for (text, expected) in [
        ("2025-03-18T09:44:42Z", true),
        ("2025-03-18T09:44:42.123+01:00", true),
        ("2025-03-18t09:44:42z", true),
        ("2025-03-18", false),
        ("2025-13-18T09:44:42Z", false),
        ("2025-03-18T09:44:42", false),
        ("2025-03-18T09:44:42.Z", false),
        ("2025-03-18 09:44:42Z", false),
        ("2025-03-18T09:44:42+1", false),
        ("ä", false),
    ] {
        assert_eq!(is_timestamp(text), expected, "{text}");
    }
}

#[test]
fn unset_variables_are_told_with_everything_else_and_cause_no_more() {
    let text = component_with(
        "resources:\n- {name: \"${NAME}\", type: blob, version: '${VERSION}', input: {type: file, path: \"${FILE}\"}}\n\
         sources:\n- {name: code, access: {type: none}}\n",
    );
    let findings = read(&text).expect_err("unset").to_string();
    let lines: Vec<&str> = findings
        .lines()
        .filter(|line| !line.starts_with("  hint"))
        .collect();
    assert_eq!(lines.len(), 4, "{findings}");
    assert!(
        lines[0].starts_with("c.yaml:6:13: the variable `NAME` is not set"),
        "{findings}"
    );
    assert!(
        lines[3].ends_with("sources[0]: `type` is missing"),
        "{findings}"
    );
}

#[test]
fn a_file_may_have_several_documents() {
    let text = "name: a.io/x\nversion: 1.0.0\nprovider: p\n---\ncomponents:\n- {name: a.io/y, version: 1.0.0, provider: p}\n---\n";
    let (constructor, _) = read(text).expect("fine");
    assert_eq!(constructor.components.len(), 2);
}

/// Trap T33: substitution in raw text destroys what only looks like a variable, and a value may be syntax.
#[test]
fn t33_dollar_signs_survive_and_values_are_texts() {
    let mut variables = Variables::new();
    variables.set("NAME", "a\"}, path: /etc/passwd #");
    let script = "for i in $(seq 3); do echo \"$$i ${schema.spec.name} $1 $? ${x[0]}\"; done";
    let text = resource_with(&format!(
        "input: {{type: utf8, text: '{script} ${{NAME}}'}}"
    ));
    let (constructor, _) =
        Constructor::read(&Source::new("c.yaml", text), Some(&variables), None).expect("fine");
    let ItemContent::Input(Input::Bytes { bytes, .. }) =
        &constructor.components[0].resources[0].content
    else {
        panic!("a text")
    };
    let expected = format!("{} a\"}}, path: /etc/passwd #", script.replace("$$", "$"));
    assert_eq!(String::from_utf8_lossy(bytes), expected);
}

/// Trap T13: what YAML 1.1 reads as number or truth value is never taken for text in silence, nor changed where it is data.
#[test]
fn t13_scalars_of_yaml_1_1() {
    for (written, kind) in [
        ("on", "a boolean"),
        ("y", "a boolean"),
        ("017", "an integer"),
        ("1.10", "a number"),
        ("1_000", "an integer"),
    ] {
        let text = format!("name: a.io/x\nversion: {written}\nprovider: p\n");
        let expected =
            format!("`version` is a text, this is {kind}\n  hint: put it in quotes: \"{written}\"");
        refused(&text, &expected);
        let text = component_with(&format!("labels: [{{name: a, value: {written}}}]"));
        let (constructor, _) = read(&text).expect(written);
        assert!(
            !constructor.components[0].labels[0]["value"].is_string(),
            "{written}"
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever is cut out or put in, there is a constructor or there are findings with places.
    #[test]
    fn no_text_is_too_strange(cut in 0..900_usize, length in 0..40_usize, piece in "[$\\{}\\[\\]:,a-z0-9'\"&*!|\n -]{0,12}") {
        let whole = component_with(
            "labels: [{name: a, value: {b: [1, ~]}, signing: true, version: v1, merge: {algorithm: default}}]\n\
             creationTime: 2025-03-18T09:44:42Z\n\
             resources:\n\
             - {name: tool, type: blob, version: \"${VERSION:-1.0.0}\", input: {type: file, path: x, compress: true}}\n\
             - {name: dir, type: blob, input: {type: dir, path: x, includeFiles: ['*']}}\n\
             - {name: image, type: ociImage, extraIdentity: {arch: arm}, access: {type: ociArtifact, imageReference: 'a/b:1'}, digest: {hashAlgorithm: SHA-256, normalisationAlgorithm: x, value: ab}}\n\
             sources:\n- {name: code, type: git, access: {type: none}}\n\
             componentReferences:\n- {name: dep, componentName: acme.org/dep, version: $V}\n",
        );
        let start = cut.min(whole.len());
        let end = (start + length).min(whole.len());
        let text = format!("{}{piece}{}", &whole[..start], &whole[end..]);
        match read(&text) {
            Ok((constructor, _)) => proptest::prop_assert!(!constructor.components.is_empty()),
            Err(findings) => proptest::prop_assert!(findings.to_string().contains("c.yaml:")),
        }
    }
}
