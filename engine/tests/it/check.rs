//! Wrong specs and all that is said about them: place, step, field, what is wrong, what to do.

use std::sync::Arc;

use ocm_engine::{Graph, Plan};

use crate::toys::{World, read, step_types};

fn diagnose(text: &str) -> String {
    let types = step_types(&Arc::new(World::default()));
    match read(text).map(|spec| Plan::link(spec, &types)) {
        Err(errors) => errors,
        Ok(Err(errors)) => errors.to_string(),
        Ok(Ok(plan)) => plan.warnings().to_string(),
    }
}

#[test]
fn mistakes_are_told_all_at_once_with_place_and_advice() {
    let mut wrong = Vec::new();
    for (name, text, expected) in CASES {
        let found = diagnose(text.trim_start());
        if found != expected.trim() {
            wrong.push(format!(
                "## {name}\n{}\n--- found\n{found}\n--- expected{expected}",
                text.trim()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong, the spec, and what is said about it.
const CASES: &[(&str, &str, &str)] = &[
    (
        "unknown top key",
        r#"
type: transformation.ocm.component/v1alpha1
transformation: []
transformations: []
"#,
        r#"
toys.yaml:2:1: unknown key `transformation`
  hint: did you mean `transformations`?
"#,
    ),
    (
        "unknown top key untyped",
        r#"
transfomations: []
"#,
        r#"
toys.yaml:1:1: warning W103: unknown key `transfomations` is ignored
  hint: did you mean `transformations`?
toys.yaml:1:1: no `transformations`
  hint: start with `transformations:` and a list of steps
"#,
    ),
    (
        "missing type",
        r#"
transformations:
- {id: a1, spec: {seed: 1}}
"#,
        r#"
toys.yaml:2:3: step `a1`: the step has no `type`
  hint: `ocm get types` lists the step types
"#,
    ),
    (
        "not a list",
        r#"
transformations: {id: a1}
"#,
        r#"
toys.yaml:1:18: `transformations` is a list, this is a map
"#,
    ),
    (
        "malformed id",
        r#"
transformations:
- id: A-1
  type: toy.value/v1
  spec: {}
"#,
        r#"
toys.yaml:2:7: step `A-1`: id: `A-1` is not a step id
  hint: an id starts with a lower-case letter, followed by letters and digits
"#,
    ),
    (
        "reserved id",
        r#"
transformations:
- id: resource
  type: toy.value/v1
  spec: {}
"#,
        r#"
toys.yaml:2:7: step `resource`: id: the id `resource` is reserved
  hint: choose another one, such as `resource1`
"#,
    ),
    (
        "duplicate",
        r#"
transformations:
- {id: a, type: toy.value/v1, spec: {}}
- {id: b, type: toy.value/v1, spec: {}}
- {id: a, type: toy.value/v1, spec: {}}
"#,
        r#"
toys.yaml:4:8: step `a`: id: the id `a` is used twice: line 2 has it, too
  hint: ids are unique within a spec; rename one of the steps
"#,
    ),
    (
        "unknown type other version",
        r#"
transformations:
- {id: a, type: toy.value/v2, spec: {}}
- {id: b, type: toy.valeu/v1, spec: {}}
- {id: c, type: upload, spec: {x: '${a.output.anything} ${d.x}'}}
"#,
        r#"
toys.yaml:2:17: step `a`: unknown step type `toy.value/v2`
  hint: did you mean `toy.value/v1`?
toys.yaml:3:17: step `b`: unknown step type `toy.valeu/v1`
  hint: did you mean `toy.value/v1`?
toys.yaml:4:17: step `c`: unknown step type `upload`
  hint: `ocm get types` lists the step types
toys.yaml:4:59: step `c`: spec.x: unknown variable `d`
  hint: expressions know steps by their ids, and `environment`
"#,
    ),
    (
        "unknown field",
        r#"
transformations:
- id: a
  type: toy.source/v1
  spec:
    seed: 1
    size: 1
    hots: x
"#,
        r#"
toys.yaml:7:5: step `a`: spec.hots: unknown field `hots`
  hint: did you mean `host`?
"#,
    ),
    (
        "missing field",
        r#"
transformations:
- id: a
  type: toy.source/v1
  spec:
    seed: 1
- {id: b, type: toy.source/v1}
"#,
        r#"
toys.yaml:5:5: step `a`: spec: missing field `size`
toys.yaml:6:3: step `b`: spec: missing field `seed`
toys.yaml:6:3: step `b`: spec: missing field `size`
"#,
    ),
    (
        "wrong constant type",
        r#"
transformations:
- id: a
  type: toy.source/v1
  spec:
    seed: one
    size: 1.5
    once: 1
    host: [a]
"#,
        r#"
toys.yaml:5:11: step `a`: spec.seed: expected integer, found string
toys.yaml:6:11: step `a`: spec.size: expected integer, found number
toys.yaml:7:11: step `a`: spec.once: expected boolean, found integer
toys.yaml:8:11: step `a`: spec.host: expected string, found list
"#,
    ),
    (
        "negative",
        r#"
transformations:
- id: a
  type: toy.source/v1
  spec:
    seed: -1
    size: 1
"#,
        r#"
toys.yaml:5:11: step `a`: spec.seed: -1 is less than the minimum of 0
"#,
    ),
    (
        "unknown step",
        r#"
transformations:
- id: source1
  type: toy.source/v1
  spec: {seed: 1, size: 1}
- id: sink1
  type: toy.sink/v1
  spec:
    name: a
    data: ${suorce1.output.data}
    after: ${nothing.like.it}
"#,
        r#"
toys.yaml:9:13: step `sink1`: spec.data: unknown variable `suorce1`
  hint: did you mean `source1`?
toys.yaml:10:14: step `sink1`: spec.after: unknown variable `nothing`
  hint: expressions know steps by their ids, and `environment`
"#,
    ),
    (
        "unknown output",
        r#"
transformations:
- id: source1
  type: toy.source/v1
  spec: {seed: 1, size: 1}
- id: sink1
  type: toy.sink/v1
  spec:
    name: ${source1.otuput.data}
    data: ${source1.output.daat}
    host: ${source1.data}
    after: ${source1.completely}
"#,
        r#"
toys.yaml:8:21: step `sink1`: spec.name: step `source1` has no `otuput`
  hint: did you mean `output`?
toys.yaml:9:28: step `sink1`: spec.data: `source1.output` has no field `daat`
  hint: did you mean `data`?
toys.yaml:10:13: step `sink1`: spec.host: expected string, found content
toys.yaml:11:22: step `sink1`: spec.after: step `source1` has no `completely`
  hint: `source1.output` is there; its only field is `data`
"#,
    ),
    (
        "wrong type linked",
        r#"
transformations:
- id: source1
  type: toy.source/v1
  spec: {seed: 1, size: 1}
- id: sink1
  type: toy.sink/v1
  spec:
    name: ${source1.spec.size}
    data: ${source1.spec.host}
    refersTo: ${source1.spec.host}
    root: "yes: ${source1.spec.once}"
    host: "at ${source1.output.data}"
"#,
        r#"
toys.yaml:8:13: step `sink1`: spec.name: expected string, found integer
toys.yaml:9:13: step `sink1`: spec.data: expected content, found string
toys.yaml:10:17: step `sink1`: spec.refersTo: expected list of string, found string
toys.yaml:11:11: step `sink1`: spec.root: expected boolean, found string with expressions inside
toys.yaml:12:17: step `sink1`: spec.host: content cannot stand within text
"#,
    ),
    (
        "syntax in long string",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec:
    value: "a long text before it, ${environment.x} and ${1 +} more text behind"
    second: ${a..b}
environment: {x: 1}
"#,
        r#"
toys.yaml:5:62: step `a`: spec.value: syntax error: the expression ends too early
toys.yaml:6:17: step `a`: spec.second: syntax error: unexpected `.`
"#,
    ),
    (
        "nested",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${a + ${b}}"}
"#,
        r#"
toys.yaml:4:24: step `a`: spec.value: an expression cannot stand within another one
  hint: close the first one with `}`, or leave out the marks of the second: names need none within an expression
"#,
    ),
    (
        "unterminated literal",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec:
    value: ${"abc}
"#,
        r#"
toys.yaml:5:14: step `a`: spec.value: string literal is not closed
  hint: close it with `"`
"#,
    ),
    (
        "unterminated expr",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec:
    value: ${1 + ${2}
    second: ${1 + 1
"#,
        r#"
toys.yaml:5:18: step `a`: spec.value: an expression cannot stand within another one
  hint: close the first one with `}`, or leave out the marks of the second: names need none within an expression
toys.yaml:6:13: warning W107: step `a`: spec.second: `${` is not closed: it is taken as plain text
  hint: close it with `}`; put the value in quotes if YAML ends it early
"#,
    ),
    (
        "cycle one",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${a.output.value}"}
"#,
        r#"
toys.yaml:4:20: step `a`: the step depends on itself: a -> a
  hint: a step can not read its own inputs or outputs
"#,
    ),
    (
        "cycle two",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${b.output.value}"}
- id: b
  type: toy.value/v1
  spec: {value: "${a.output.value}"}
"#,
        r#"
toys.yaml:4:20: step `a`: the steps depend on each other in a circle: a -> b -> a
  hint: an arrow points from a step to one that uses it; take one of the uses away
"#,
    ),
    (
        "cycle three and self via dependsOn",
        r#"
transformations:
- id: a
  type: toy.value/v1
  dependsOn: [c]
  spec: {}
- id: b
  type: toy.value/v1
  spec: {value: "x ${a.output.value}"}
- id: c
  type: toy.value/v1
  spec: {value: "${size(b.output.value)}"}
- id: d
  type: toy.value/v1
  dependsOn: [d]
"#,
        r#"
toys.yaml:4:15: step `a`: the steps depend on each other in a circle: a -> b -> c -> a
  hint: an arrow points from a step to one that uses it; take one of the uses away
toys.yaml:14:15: step `d`: the step depends on itself: d -> d
  hint: a step can not read its own inputs or outputs
"#,
    ),
    (
        "dependsOn unknown",
        r#"
transformations:
- id: first
  type: toy.value/v1
  spec: {}
- id: b
  type: toy.value/v1
  dependsOn: [frist, nothing, 1]
  spec: {}
"#,
        r#"
toys.yaml:7:31: step `b`: `dependsOn` lists step ids, this is an integer
"#,
    ),
    (
        "dependsOn unknown 2",
        r#"
transformations:
- id: first
  type: toy.value/v1
  spec: {}
- id: b
  type: toy.value/v1
  dependsOn: [frist, nothing, environment]
  spec: {}
"#,
        r#"
toys.yaml:7:15: step `b`: dependsOn: there is no step `frist`
  hint: did you mean `first`?
toys.yaml:7:22: step `b`: dependsOn: there is no step `nothing`
  hint: `dependsOn` lists ids of steps of this document
toys.yaml:7:31: step `b`: dependsOn: there is no step `environment`
  hint: `dependsOn` lists ids of steps of this document
"#,
    ),
    (
        "several",
        r#"
transformations:
- id: sink1
  type: toy.sink/v1
  spec:
    nmae: x
    data: ${sink1.output.digest}
- id: sink1
  type: toy.snik/v1
  spec: {data: "${x.y}"}
"#,
        r#"
toys.yaml:5:5: step `sink1`: spec.nmae: unknown field `nmae`
  hint: did you mean `name`?
toys.yaml:5:5: step `sink1`: spec: missing field `name`
toys.yaml:6:13: step `sink1`: the step depends on itself: sink1 -> sink1
  hint: a step can not read its own inputs or outputs
toys.yaml:6:13: step `sink1`: spec.data: expected content, found string
toys.yaml:7:7: step `sink1`: id: the id `sink1` is used twice: line 2 has it, too
  hint: ids are unique within a spec; rename one of the steps
toys.yaml:8:9: step `sink1`: unknown step type `toy.snik/v1`
  hint: did you mean `toy.sink/v1`?
toys.yaml:9:19: step `sink1`: spec.data: unknown variable `x`
  hint: expressions know steps by their ids, and `environment`
"#,
    ),
    (
        "reserved when",
        r#"
transformations:
- id: a
  type: toy.value/v1
  when: ${true}
  forEach: [1]
  spec: {}
"#,
        r#"
toys.yaml:4:3: step `a`: `when` is reserved and not available yet
  hint: leave `when` out: every step runs, once
toys.yaml:5:3: step `a`: `forEach` is reserved and not available yet
  hint: leave `forEach` out: every step runs, once
"#,
    ),
    (
        "unquoted ternary",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec:
    value: ${a ? 'b' : 'c'}
"#,
        r#"
toys.yaml:5:22: mapping values are not allowed in this context
  hint: quote the expression: `key: '${...}'`, with inner single quotes doubled
"#,
    ),
    (
        "unquoted flow",
        r#"
transformations:
- {id: a, type: toy.value/v1, spec: {value: ${environment.x}}}
"#,
        r#"
toys.yaml:2:46: did not find expected ',' or '}' while parsing a flow mapping that starts at line 2
  hint: quote the expression: `key: '${...}'`, with inner single quotes doubled
"#,
    ),
    (
        "unquoted comment",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec:
    value: ${environment.x # comment}
"#,
        r#"
toys.yaml:5:12: warning W107: step `a`: spec.value: `${` is not closed: it is taken as plain text
  hint: close it with `}`; put the value in quotes if YAML ends it early
"#,
    ),
    (
        "generated id referenced",
        r#"
transformations:
- type: toy.source/v1
  spec: {seed: 1, size: 1}
- type: toy.sink/v1
  dependsOn: [toysource1]
  spec: {name: a, data: "${toysource1.output.data}"}
"#,
        r#"
toys.yaml:5:15: step `toysink1`: dependsOn: no step has the id `toysource1`
  hint: write `id: toysource1` into the step in line 2
toys.yaml:6:28: step `toysink1`: no step has the id `toysource1`
  hint: write `id: toysource1` into the step in line 2
"#,
    ),
    (
        "not native key",
        r#"
transformations:
- id: a
  type: toy.value/v1
  value: 1
  specs: {}
  spec: {}
"#,
        r#"
toys.yaml:4:3: step `a`: unknown key `value` of a step
  hint: inputs stand below `spec`, as in the other steps of this document
toys.yaml:5:3: step `a`: unknown key `specs` of a step
  hint: did you mean `spec`?
"#,
    ),
    (
        "empty type",
        r#"
transformations:
- id: a
  type: ""
  spec: {}
- id: 7
  type: toy.value/v1
  spec: []
"#,
        r#"
toys.yaml:3:9: step `a`: `type` is empty
toys.yaml:5:7: `id` is a text, this is an integer
  hint: put it in quotes
toys.yaml:7:9: `spec` is a map, this is a list
"#,
    ),
    (
        "environment wrong",
        r#"
environment: 1
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${environment.x}"}
"#,
        r#"
toys.yaml:1:14: `environment` is a map, this is an integer
"#,
    ),
    (
        "environment typo",
        r#"
environment: {target: x}
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${environment.taget} ${enviroment.target}", second: "${int(environment.target) + 'x'}"}
"#,
        r#"
toys.yaml:5:32: step `a`: spec.value: `environment` has no field `taget`
  hint: did you mean `target`?
toys.yaml:5:41: step `a`: spec.value: unknown variable `enviroment`
  hint: did you mean `environment`?
toys.yaml:5:73: step `a`: spec.second: `+` does not work on (integer, `x`)
"#,
    ),
    (
        "calls",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec: {value: "${parseref('x').host}", second: "${'a'.parseRef().hots}"}
"#,
        r#"
toys.yaml:4:20: step `a`: spec.value: unknown function `parseref`
  hint: did you mean `parseRef`?
toys.yaml:4:68: step `a`: spec.second: `'a'.parseRef()` has no field `hots`
  hint: its fields are `digest`, `name`, `reference`, `registry`, `repository`, `tag`
"#,
    ),
    (
        "constants",
        r#"
transformations:
- id: a
  type: toy.value/v1
  spec: {value: {targetFilePath: x, b: "${1}"}}
- id: b
  type: toy.value/v1
  spec: {value: "${a.spec.value.targetFilePaht}", second: "${a.spec.value.b.c.d}"}
"#,
        r#"
toys.yaml:7:33: step `b`: spec.value: `a.spec.value` has no field `targetFilePaht`
  hint: did you mean `targetFilePath`?
"#,
    ),
];

#[test]
fn linking_alone_is_strict() {
    let twice = "transformations: [{id: a, type: x/v1, spec: {}}, {id: a, type: x/v1, spec: {}}]";
    let errors = Graph::link(read(twice).unwrap()).unwrap_err().to_string();
    assert!(
        errors.starts_with("toys.yaml:1:55: step `a`: id: the id `a` is used twice"),
        "{errors}"
    );
    // What is no step may be a variable: types have variables, too.
    let types = "transformations: [{id: a, type: x/v1, spec: {v: '${type(1) == int}'}}]";
    assert!(Graph::link(read(types).unwrap()).is_ok());
}

#[test]
fn thousands_of_mistakes_take_no_longer_than_they_should() {
    let mut text = String::from("transformations:\n");
    for step in 0..3000 {
        text.push_str(&format!("- {{id: s{step}, type: toy.value/v1, dependsOn: [n{step}], spec: {{value: '${{x{step}.y}}'}}}}\n"));
    }
    let found = diagnose(&text);
    // All are found, as many as anybody reads are told.
    assert_eq!(found.matches("unknown variable").count(), 50);
    assert_eq!(found.matches("there is no step").count(), 50);
    assert!(found.ends_with("… and 5900 more findings"), "{found}");
}

#[test]
fn a_very_long_chain_and_circle_do_no_harm() {
    const STEPS: usize = 20_000;
    let mut text = String::from("transformations:\n");
    for step in 0..STEPS {
        let next = (step + 1) % STEPS;
        text.push_str(&format!(
            "- {{id: s{step}, type: toy.value/v1, spec: {{value: '${{s{next}.spec.value}}'}}}}\n"
        ));
    }
    let found = diagnose(&text);
    assert!(
        found.contains("in a circle: s0 -> s19999 -> s19998 -> "),
        "{found:.200}"
    );
    let chain = text.replace("${s0.spec", "${environment.spec");
    let chain = chain.replace(
        "transformations:",
        "environment: {spec: {value: 1}}\ntransformations:",
    );
    assert_eq!(diagnose(&chain), "");
}
