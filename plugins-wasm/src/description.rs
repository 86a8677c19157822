//! What a plugin says of itself, checked: nothing of it is trusted before.
//!
//! Invariant: a [`Description`] can be made into step types, shown and kept without running the plugin; its schemas are
//! bounded, refer to nothing outside of themselves, and judge a value in time proportional to both.

use std::collections::{BTreeMap, BTreeSet};

use ocm_content::{Error, ErrorKind};
use ocm_engine::CONTENT_KEYWORD;
use ocm_engine::language::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::bindings::exports::ocm::transformer::transform as wit;
use crate::bindings::ocm::transformer::types;
use crate::rights::{Capability, HostPattern, Need};

/// Largest schema, in bytes.
const SCHEMA_BYTES: usize = 256 << 10;
/// Deepest nesting of a schema.
const SCHEMA_DEPTH: usize = 64;
/// Parts of a schema with every reference replaced by what it leads to: what judging one value costs at most.
const SCHEMA_PARTS: u64 = 20_000;
/// Patterns in all schemas of one plugin, and their bytes.
const PATTERNS: (usize, usize) = (128, 16 << 10);
/// Step types of one plugin.
const STEP_TYPES: usize = 64;
/// Ports on one side of a step type.
const PORTS: usize = 32;
/// Longest documentation text, in bytes.
const DOCUMENTATION: usize = 64 << 10;
/// Examples of one step type.
const EXAMPLES: usize = 16;

/// What a plugin offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Its name.
    pub name: String,
    /// The author's version of it.
    pub version: String,
    /// Markdown; the first line is the summary.
    pub documentation: String,
    /// JSON Schema of the configuration, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Json>,
    /// Rights it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// Its step types.
    pub steps: Vec<StepDescription>,
}

/// One step type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepDescription {
    /// `Name/version`.
    pub name: String,
    /// Markdown; the first line is the summary.
    pub documentation: String,
    /// JSON Schema of the inputs without ports.
    pub spec_schema: Json,
    /// JSON Schema of the output without ports.
    pub output_schema: Json,
    /// Where content comes in.
    pub inputs: Vec<PortDescription>,
    /// Where content goes out.
    pub outputs: Vec<PortDescription>,
    /// As the plugin says.
    pub deterministic: bool,
    /// Steps in YAML.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortDescription {
    /// Its name: a field.
    pub name: String,
    /// What it is for.
    pub documentation: String,
    /// Must it be given?
    pub required: bool,
    /// What it takes or gives; empty for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media_types: Vec<String>,
}

impl PortDescription {
    /// Does content of that media type fit?
    pub fn takes(&self, media_type: &str) -> bool {
        self.media_types.is_empty()
            || self
                .media_types
                .iter()
                .any(|known| match known.strip_suffix('*') {
                    Some(start) => media_type.starts_with(start),
                    None => media_type == known,
                })
    }
}

/// The first line of a Markdown text, without what makes it a heading.
pub fn summary(documentation: &str) -> &str {
    let line = documentation.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim_start_matches('#').trim()
}

impl Description {
    /// Judges what a plugin said.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the first thing that is wrong.
    pub(crate) fn check(plugin: wit::Plugin) -> Result<Self, Error> {
        let name = plugin.name;
        if !is_plugin_name(&name) {
            let shown = crate::limits::cut(name, 80);
            return Err(Error::invalid(format!(
                "the plugin calls itself `{}`, which is not a name: lower-case letters, digits and `-`, at most 63",
                shown.escape_debug()
            )));
        }
        let of_plugin = |error: Error| error.context(format!("plugin `{name}`"));
        let checked = Self::check_parts(
            &name,
            plugin.version,
            plugin.documentation,
            &plugin.config_schema,
            plugin.needs,
            plugin.steps,
        );
        checked.map_err(of_plugin)
    }

    fn check_parts(
        name: &str,
        version: String,
        documentation: String,
        config_schema_text: &str,
        needs: Vec<types::Need>,
        steps: Vec<types::StepType>,
    ) -> Result<Self, Error> {
        text("its version", &version, 128)?;
        text("its documentation", &documentation, DOCUMENTATION)?;
        let schemas = steps
            .iter()
            .flat_map(|step| [&step.spec_schema, &step.output_schema]);
        check_patterns(schemas.map(String::as_str).chain([config_schema_text]))?;
        let config_schema = match config_schema_text {
            "" => None,
            given => Some(check_schema("the schema of its configuration", given)?),
        };
        let needs = needs.into_iter().map(need).collect::<Result<_, _>>()?;
        if steps.is_empty() {
            return Err(Error::invalid("it describes no step type"));
        }
        if steps.len() > STEP_TYPES {
            let message = format!(
                "it describes {} step types, at most {STEP_TYPES} are taken",
                steps.len()
            );
            return Err(Error::limit(message));
        }
        let mut names = BTreeSet::new();
        let mut checked = Vec::with_capacity(steps.len());
        for step in steps {
            let step = StepDescription::check(step)?;
            if !names.insert(step.name.clone()) {
                let message = format!("it describes the step type `{}` twice", step.name);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            checked.push(step);
        }
        Ok(Self {
            name: name.to_owned(),
            version,
            documentation,
            config_schema,
            needs,
            steps: checked,
        })
    }

    /// Does it ask for that right?
    pub fn asks_for(&self, capability: Capability) -> bool {
        self.needs.iter().any(|need| need.capability == capability)
    }

    /// Judges a configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it does not fit, or when there is one and the plugin takes none.
    pub fn check_config(&self, config: Option<&Json>) -> Result<(), Error> {
        let of_plugin = |message: String| {
            Error::invalid(message).context(format!("the configuration of plugin `{}`", self.name))
        };
        let Some(schema) = &self.config_schema else {
            return match config {
                None => Ok(()),
                Some(_) => Err(of_plugin("it takes none".to_owned())),
            };
        };
        let empty = Json::Object(serde_json::Map::new());
        let validator = Validator::new(schema).map_err(|error| of_plugin(error.to_string()))?;
        let findings = validator.validate_value(config.unwrap_or(&empty));
        match findings.into_iter().next() {
            None => Ok(()),
            Some(finding) if finding.path.is_empty() => Err(of_plugin(finding.message)),
            Some(finding) => Err(of_plugin(format!("{}: {}", finding.path, finding.message))),
        }
    }
}

impl StepDescription {
    fn check(step: types::StepType) -> Result<Self, Error> {
        if !is_type_name(&step.name) || !is_type_version(&step.version) {
            let shown = crate::limits::cut(format!("{}/{}", step.name, step.version), 120);
            return Err(Error::invalid(format!(
                "`{}` is not a step type: write a capital, letters and digits, and a version as in `AcmeScrub/v1alpha1`",
                shown.escape_debug()
            )));
        }
        let name = format!("{}/{}", step.name, step.version);
        let of_type = |error: Error| error.context(format!("step type `{name}`"));
        Self::check_parts(&name, step).map_err(of_type)
    }

    fn check_parts(name: &str, step: types::StepType) -> Result<Self, Error> {
        text("its documentation", &step.documentation, DOCUMENTATION)?;
        let spec_schema = object_schema("the schema of its spec", &step.spec_schema)?;
        let output_schema = object_schema("the schema of its output", &step.output_schema)?;
        let inputs = ports("input", step.inputs, &spec_schema)?;
        let outputs = ports("output", step.outputs, &output_schema)?;
        if step.examples.len() > EXAMPLES {
            let message = format!(
                "{} examples, at most {EXAMPLES} are taken",
                step.examples.len()
            );
            return Err(Error::limit(message));
        }
        for example in &step.examples {
            text("an example", example, DOCUMENTATION)?;
        }
        Ok(Self {
            name: name.to_owned(),
            documentation: step.documentation,
            spec_schema,
            output_schema,
            inputs,
            outputs,
            deterministic: step.deterministic,
            examples: step.examples,
        })
    }
}

/// Can a plugin be called that? Lower-case letters, digits and `-`, at most 63.
pub fn is_plugin_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_type_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// `v1`, `v1alpha1`, `v2beta3`.
fn is_type_version(version: &str) -> bool {
    let digits = |text: &str| {
        !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit())
    };
    version.strip_prefix('v').is_some_and(|rest| {
        ["alpha", "beta"]
            .iter()
            .find_map(|stage| rest.split_once(stage))
            .map_or_else(
                || digits(rest),
                |(major, minor)| digits(major) && digits(minor),
            )
    })
}

fn text(what: &str, text: &str, limit: usize) -> Result<(), Error> {
    if text.len() > limit {
        return Err(Error::limit(format!("{what} is longer than {limit} bytes")));
    }
    // What is shown to people must not move their cursor, nor turn the words around.
    match text
        .chars()
        .find(|c| (c.is_control() && !"\n\t".contains(*c)) || is_turning(*c))
    {
        Some(c) => Err(Error::invalid(format!(
            "{what} has the control character U+{:04X} in it",
            u32::from(c)
        ))),
        None => Ok(()),
    }
}

/// Does it change the direction in which others are written?
fn is_turning(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn need(need: types::Need) -> Result<Need, Error> {
    text("the reason for a right", &need.reason, 1 << 10)?;
    let capability = match need.capability {
        types::Capability::Http => Capability::Http,
        types::Capability::Clock => Capability::Clock,
        types::Capability::Random => Capability::Random,
    };
    let scope: Vec<HostPattern> = need
        .scope
        .iter()
        .map(|host| host.parse())
        .collect::<Result<_, Error>>()?;
    if scope.is_empty() == (capability == Capability::Http) {
        let message = format!(
            "the right `{}` is asked for with {} hosts",
            capability.as_str(),
            scope.len()
        );
        return Err(Error::invalid(message));
    }
    Ok(Need {
        capability,
        scope,
        reason: need.reason,
        optional: need.optional,
    })
}

fn ports(
    side: &str,
    ports: Vec<types::Port>,
    schema: &Json,
) -> Result<Vec<PortDescription>, Error> {
    if ports.len() > PORTS {
        let message = format!("{} {side} ports, at most {PORTS} are taken", ports.len());
        return Err(Error::limit(message));
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(ports.len());
    for port in ports {
        let name = port.name;
        let is_name = name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_name {
            let shown = crate::limits::cut(name, 80);
            let message = format!(
                "`{}` is not a name for a port: letters and digits",
                shown.escape_debug()
            );
            return Err(Error::invalid(message));
        }
        if !names.insert(name.clone()) {
            let message = format!("the {side} port `{name}` is there twice");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if schema
            .get("properties")
            .and_then(|fields| fields.get(&name))
            .is_some()
        {
            let message = format!("the {side} port `{name}` is a field of the schema, too");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        text(
            "the documentation of a port",
            &port.documentation,
            DOCUMENTATION,
        )?;
        for media_type in &port.media_types {
            text("a media type", media_type, 255)?;
        }
        checked.push(PortDescription {
            name,
            documentation: port.documentation,
            required: port.required,
            media_types: port.media_types,
        });
    }
    Ok(checked)
}

fn object_schema(what: &str, text: &str) -> Result<Json, Error> {
    let schema = check_schema(what, text)?;
    match schema.get("type") {
        Some(Json::String(kind)) if kind == "object" => Ok(schema),
        _ => Err(Error::invalid(format!(
            "{what} is not of `\"type\": \"object\"`"
        ))),
    }
}

/// Judges a JSON Schema of a plugin, called `what` in errors: an object within limits whose references stay inside and lead
/// nowhere back, so that it judges a value in time proportional to both.
///
/// # Errors
/// [`ErrorKind::Invalid`] for what is none, [`ErrorKind::Limit`] for one that is too large, too deep or too branched.
pub fn check_schema(what: &str, text: &str) -> Result<Json, Error> {
    if text.len() > SCHEMA_BYTES {
        let message = format!("{what} is longer than {} KiB", SCHEMA_BYTES >> 10);
        return Err(Error::limit(message));
    }
    // serde_json refuses nesting beyond 128 by itself.
    let schema: Json = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("{what} is not JSON: {error}")))?;
    if !schema.is_object() {
        return Err(Error::invalid(format!("{what} is not an object")));
    }
    let parts = weight(&schema).map_err(|error| error.context(what))?;
    if parts > SCHEMA_PARTS {
        return Err(Error::limit(format!(
            "{what} has more than {SCHEMA_PARTS} parts when its references are followed"
        )));
    }
    Validator::new(&schema).map_err(|error| {
        let told = Error::invalid(format!("{what}: {error}"));
        match error.message.contains("regex") {
            true => told.with_hint(
                "patterns have no look-around and no references back, and take 512 KiB at most when they are compiled",
            ),
            false => told,
        }
    })?;
    Ok(schema)
}

/// The parts of a schema with its references followed: what judging one value costs at most.
///
/// # Errors
/// Those of [`check_schema`] that are about its form.
pub(crate) fn weight(schema: &Json) -> Result<u64, Error> {
    let mut weigher = Weigher {
        root: schema,
        known: BTreeMap::new(),
        open: Vec::new(),
    };
    weigher.weigh(schema, 0)
}

/// Counts the patterns of all schemas of a plugin before any is compiled: each takes time and memory. What is no JSON is told
/// later.
fn check_patterns<'t>(schemas: impl Iterator<Item = &'t str>) -> Result<(), Error> {
    fn count(part: &Json, found: &mut (usize, usize)) {
        let mut add = |pattern: &str| {
            found.0 += 1;
            found.1 += pattern.len();
        };
        match part {
            Json::Array(parts) => parts.iter().for_each(|part| count(part, found)),
            Json::Object(fields) => {
                for (key, part) in fields {
                    match (key.as_str(), part) {
                        ("pattern", Json::String(pattern)) => add(pattern),
                        ("patternProperties", Json::Object(patterns)) => {
                            patterns.keys().for_each(|pattern| add(pattern));
                        }
                        _ => {}
                    }
                }
                fields.values().for_each(|part| count(part, found));
            }
            _ => {}
        }
    }
    let mut found = (0, 0);
    for schema in schemas.filter(|schema| schema.len() <= SCHEMA_BYTES) {
        if let Ok(schema) = serde_json::from_str(schema) {
            count(&schema, &mut found);
        }
    }
    let (patterns, bytes) = found;
    if patterns > PATTERNS.0 || bytes > PATTERNS.1 {
        return Err(Error::limit(format!(
            "its schemas have {patterns} patterns of {bytes} bytes in all, at most {} of {} bytes are taken",
            PATTERNS.0, PATTERNS.1
        )));
    }
    Ok(())
}

/// Counts the parts of a schema with references followed, each of them once.
struct Weigher<'s> {
    root: &'s Json,
    known: BTreeMap<&'s str, u64>,
    /// References that are being followed.
    open: Vec<&'s str>,
}

impl<'s> Weigher<'s> {
    fn weigh(&mut self, part: &'s Json, depth: usize) -> Result<u64, Error> {
        if depth > SCHEMA_DEPTH {
            return Err(Error::limit(format!(
                "it is nested deeper than {SCHEMA_DEPTH}"
            )));
        }
        let mut sum: u64 = 1;
        match part {
            Json::Array(parts) => {
                for part in parts {
                    sum = sum.saturating_add(self.weigh(part, depth + 1)?);
                }
            }
            Json::Object(fields) => {
                for (key, part) in fields {
                    let weight = match (key.as_str(), part) {
                        ("$dynamicRef" | "$recursiveRef", _) => {
                            return Err(Error::invalid(format!("it uses `{key}`")));
                        }
                        (CONTENT_KEYWORD, _) => {
                            return Err(Error::invalid(format!(
                                "it uses `{CONTENT_KEYWORD}`: content is on ports alone"
                            )));
                        }
                        ("$id", _) if depth > 0 => {
                            return Err(Error::invalid("it has an `$id` inside"));
                        }
                        ("$ref", Json::String(target)) => self.follow(target)?,
                        // What nobody refers to costs nothing, but its nesting is bounded all the same.
                        ("$defs" | "definitions", _) => {
                            self.weigh(part, depth + 1)?;
                            0
                        }
                        _ => self.weigh(part, depth + 1)?,
                    };
                    sum = sum.saturating_add(weight);
                }
            }
            _ => {}
        }
        Ok(sum)
    }

    fn follow(&mut self, target: &'s str) -> Result<u64, Error> {
        if let Some(weight) = self.known.get(target) {
            return Ok(*weight);
        }
        if self.open.contains(&target) {
            return Err(Error::invalid(format!(
                "the reference `{target}` leads back into itself"
            )));
        }
        let Some(pointer) = target.strip_prefix('#').filter(|p| p.starts_with('/')) else {
            let shown = crate::limits::cut(target.to_owned(), 120);
            return Err(Error::invalid(format!(
                "it refers to `{}`, which is not in it",
                shown.escape_debug()
            )));
        };
        let root = self.root;
        let Some(part) = root.pointer(pointer) else {
            return Err(Error::invalid(format!(
                "it refers to `{target}`, which is not there"
            )));
        };
        if self.open.len() >= SCHEMA_DEPTH {
            let message = format!("its references lead through more than {SCHEMA_DEPTH} others");
            return Err(Error::limit(message));
        }
        self.open.push(target);
        let weight = self.weigh(part, 0)?;
        self.open.pop();
        self.known.insert(target, weight);
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = check_schema("the schema", text)
            .map_or_else(|error| error.to_string(), |_| "fine".to_owned());
        assert!(got.contains(expected), "{text:.80}: {got}");
    }

    #[test]
    fn schemas_are_bounded() {
        check(r#"{"type":"object"}"#, "fine");
        check(
            r##"{"$defs":{"a":{"type":"string"}},"properties":{"x":{"$ref":"#/$defs/a"},"y":{"$ref":"#/$defs/a"}}}"##,
            "fine",
        );
        check("{", "is not JSON");
        check("[]", "is not an object");
        check(
            r#"{"$ref":"https://example.com/schema"}"#,
            "which is not in it",
        );
        check(r##"{"$ref":"#/$defs/none"}"##, "which is not there");
        check(
            r##"{"$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"}"##,
            "leads back into itself",
        );
        check(
            r##"{"$defs":{"a":{"properties":{"x":{"$ref":"#/$defs/a"}}}},"$ref":"#/$defs/a"}"##,
            "leads back into itself",
        );
        check(r##"{"$dynamicRef":"#x"}"##, "`$dynamicRef`");
        check(
            r#"{"properties":{"a":{"x-ocm-content":true}}}"#,
            "content is on ports alone",
        );
        check(r#"{"type":"nonsense"}"#, "not usable");
        check(r#"{"pattern":"("}"#, "not usable");
        // Small to write, large to compile.
        check(r#"{"pattern":"\\p{L}{60}{60}{60}"}"#, "not usable");
        let error = check_schema("it", r#"{"pattern":"\\p{L}{60}"}"#).unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| hint.contains("512 KiB")),
            "{error}"
        );
        check(r#"{"pattern":"^[a-z0-9.-]{1,64}(/\\w{1,20})*$"}"#, "fine");
        let deep = format!(
            "{}{}",
            r#"{"items":"#.repeat(70),
            "{}".to_owned() + &"}".repeat(70)
        );
        check(&deep, "deeper than 64");
        check(
            &format!(r#"{{"description":"{}"}}"#, "x".repeat(300_000)),
            "longer than 256 KiB",
        );
        // Two references to the next, forty times: 2^40 parts.
        let bomb: Vec<String> = (0..40)
            .map(|n| {
                format!(
                    r##""a{n}":{{"allOf":[{{"$ref":"#/$defs/a{}"}},{{"$ref":"#/$defs/a{}"}}]}}"##,
                    n + 1,
                    n + 1
                )
            })
            .chain([r#""a40":{}"#.to_owned()])
            .collect();
        check(
            &format!(
                r##"{{"$defs":{{{}}},"$ref":"#/$defs/a0"}}"##,
                bomb.join(",")
            ),
            "parts when its references are followed",
        );
    }

    fn step_type(name: &str, spec_schema: &str) -> types::StepType {
        types::StepType {
            name: name.to_owned(),
            version: "v1".to_owned(),
            documentation: String::new(),
            spec_schema: spec_schema.to_owned(),
            output_schema: r#"{"type":"object"}"#.to_owned(),
            inputs: vec![types::Port {
                name: "data".to_owned(),
                documentation: String::new(),
                required: true,
                media_types: Vec::new(),
            }],
            outputs: Vec::new(),
            deterministic: true,
            examples: Vec::new(),
        }
    }

    fn judged(steps: Vec<types::StepType>, documentation: &str) -> String {
        let plugin = wit::Plugin {
            name: "p".to_owned(),
            version: "1".to_owned(),
            documentation: documentation.to_owned(),
            config_schema: String::new(),
            needs: Vec::new(),
            steps,
        };
        Description::check(plugin).map_or_else(|error| error.to_string(), |_| "fine".to_owned())
    }

    #[test]
    fn patterns_have_a_budget() {
        let of = |count: usize, pattern: &str| {
            let fields: Vec<String> = (0..count)
                .map(|at| format!(r#""f{at}":{{"pattern":"{pattern}"}}"#))
                .collect();
            format!(
                r#"{{"type":"object","properties":{{{}}}}}"#,
                fields.join(",")
            )
        };
        let many = |types: usize, count: usize, pattern: &str| {
            let step = |at: usize| step_type(&format!("T{at}"), &of(count, pattern));
            judged((0..types).map(step).collect(), "")
        };
        assert_eq!(many(12, 10, "^[a-z]+$"), "fine");
        let got = many(37, 15, r"\\p{L}{60}");
        assert!(got.contains("555 patterns of"), "{got}");
        assert!(many(1, 1, &"a".repeat(20_000)).contains("of 20000 bytes in all"));
    }

    #[test]
    fn texts_stay_where_they_are_put() {
        let one = || vec![step_type("Well", r#"{"type":"object"}"#)];
        assert_eq!(judged(one(), "Two\n\tlines: \u{e4}\u{5d0}"), "fine");
        for (text, code) in [
            ("a\rb", "U+000D"),
            ("a\u{1b}[2J", "U+001B"),
            ("a\u{202e}b", "U+202E"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{61c}b", "U+061C"),
        ] {
            let got = judged(one(), text);
            assert!(got.contains(code), "{text:?}: {got}");
        }
    }

    #[test]
    fn descriptions_are_judged() {
        const OBJECT: &str = r#"{"type":"object"}"#;
        let one = |name: &str, schema: &str| vec![step_type(name, schema)];
        for (name, steps, expected) in [
            ("well", one("Well", OBJECT), "fine"),
            (
                "Not Well",
                one("Well", OBJECT),
                "`Not Well`, which is not a name",
            ),
            ("", one("Well", OBJECT), "which is not a name"),
            ("none", vec![], "it describes no step type"),
            (
                "many",
                vec![step_type("Well", OBJECT); 65],
                "65 step types, at most 64",
            ),
            (
                "twice",
                vec![step_type("Well", OBJECT); 2],
                "the step type `Well/v1` twice",
            ),
            ("low", one("well", OBJECT), "`well/v1` is not a step type"),
            (
                "control",
                one("We\u{7}ll", OBJECT),
                "`We\\u{7}ll/v1` is not a step type",
            ),
            (
                "json",
                one("Well", r#"{"type":"object""#),
                "step type `Well/v1`: the schema of its spec is not JSON",
            ),
            (
                "array",
                one("Well", r#"{"type":"array"}"#),
                "is not of `\"type\": \"object\"`",
            ),
            (
                "remote",
                one(
                    "Well",
                    r#"{"type":"object","$ref":"https://evil.example/x"}"#,
                ),
                "it refers to `https://evil.example/x`",
            ),
            (
                "clash",
                one("Well", r#"{"type":"object","properties":{"data":{}}}"#),
                "the input port `data` is a field of the schema, too",
            ),
            (
                "ring",
                one(
                    "Well",
                    r##"{"type":"object","allOf":[{"$ref":"#/allOf/0"}]}"##,
                ),
                "leads back into itself",
            ),
        ] {
            let plugin = wit::Plugin {
                name: name.to_owned(),
                version: "1".to_owned(),
                documentation: String::new(),
                config_schema: String::new(),
                needs: Vec::new(),
                steps,
            };
            let got = Description::check(plugin)
                .map_or_else(|error| error.to_string(), |_| "fine".to_owned());
            assert!(got.contains(expected), "{name}: {got}");
        }
    }

    #[test]
    fn names_are_those_of_step_types() {
        for (name, version, fine) in [
            ("AcmeScrub", "v1alpha1", true),
            ("Scrub", "v1", true),
            ("Scrub", "v10beta2", true),
            ("scrub", "v1", false),
            ("Scrub/x", "v1", false),
            ("Scrub", "1", false),
            ("Scrub", "v1alpha", false),
            ("Scrub", "v1gamma1", false),
            ("", "v1", false),
        ] {
            assert_eq!(
                is_type_name(name) && is_type_version(version),
                fine,
                "{name}/{version}"
            );
        }
    }
}
