//! Redacts patterns in the text files of a tar: what must not leave the house does not.

#![forbid(unsafe_code)]

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::Deserialize;
use ocm_plugin::tar::{Keep, rewrite};
use ocm_plugin::{Error, Nothing, Port, Sink, Source, Step, Transformer};
use regex_lite::Regex;

/// Largest text file that is read, in bytes.
const TEXT: u64 = 16 << 20;
/// Compiled pattern size, in bytes.
const PATTERN: usize = 1 << 20;

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// What is redacted, in order.
    #[schemars(length(min = 1, max = 100))]
    rules: Vec<Rule>,
    /// Which files, by the end of their names (`.yaml`); all text files without.
    #[serde(default)]
    files: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Rule {
    /// A regular expression.
    pattern: String,
    /// What stands in its place; `***` without. `$1` is the first group.
    #[serde(default = "stars")]
    replacement: String,
}

fn stars() -> String {
    "***".to_owned()
}

fn compile(spec: &Spec) -> Result<Vec<(Regex, &str)>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut rules = Vec::new();
    for (at, rule) in spec.rules.iter().enumerate() {
        let compiled = regex_lite::RegexBuilder::new(&rule.pattern).size_limit(PATTERN).build();
        match compiled {
            Ok(regex) => rules.push((regex, rule.replacement.as_str())),
            Err(error) => errors.push(
                Error::invalid_spec(format!("the pattern does not compile: {error}")).at(format!("/rules/{at}/pattern")),
            ),
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

struct Scrub;

impl Transformer for Scrub {
    const TYPE: &'static str = "Scrub/v1alpha1";
    const DOCUMENTATION: &'static str = "Redacts patterns in the text files of a tar.\n\nFiles that are not UTF-8 pass as they are, and so does everything that is not a file.";
    const INPUTS: &'static [Port] = &[Port::required("data", "a tar, not compressed")];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the redacted tar")];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: scrub1\n  type: Scrub/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    files: [.yaml]\n    rules:\n      - pattern: 'password: .*'\n        replacement: 'password: ***'\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Nothing;

    fn validate(spec: &Spec, _config: &Nothing) -> Vec<Error> {
        compile(spec).err().unwrap_or_default()
    }

    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let rules = compile(&step.spec).map_err(|mut errors| errors.remove(0))?;
        let is_meant = |path: &str| step.spec.files.is_empty() || step.spec.files.iter().any(|end| path.ends_with(end));
        rewrite(
            source,
            sink,
            &mut |member| Ok(if member.is_file && member.size <= TEXT && is_meant(&member.path) { Keep::Change(TEXT) } else { Keep::AsIs }),
            &mut |_, content| {
                let mut text = match String::from_utf8(content) {
                    Ok(text) => text,
                    Err(error) => return Ok(error.into_bytes()),
                };
                for (regex, replacement) in &rules {
                    text = regex.replace_all(&text, *replacement).into_owned();
                }
                Ok(text.into_bytes())
            },
        )
    }
}

ocm_plugin::plugin! {
    name: "scrub",
    documentation: "Redacts what must not leave the house.",
    types: [Scrub],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::testing::{fails, run, run_in_chunks};
    use ocm_plugin::Kind;

    use super::*;

    /// A tar of these files, as simple as they come.
    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in files {
            let mut header = [0u8; 512];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[100..107].copy_from_slice(b"0000644");
            header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
            header[156] = b'0';
            header[257..263].copy_from_slice(b"ustar\0");
            header[148..156].fill(b' ');
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            out.extend_from_slice(&header);
            out.extend_from_slice(content);
            out.resize(out.len().div_ceil(512) * 512, 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    const SPEC: &str = r#"{"files": [".yaml"], "rules": [{"pattern": "(?m)^password: .*$", "replacement": "password: ***"}]}"#;

    #[test]
    fn patterns_go_and_everything_else_stays() {
        let before = tar(&[("a.yaml", b"user: me\npassword: secret\n"), ("b.txt", b"password: stays\n"), ("c.yaml", b"\xff\xfe")]);
        let after = tar(&[("a.yaml", b"user: me\npassword: ***\n"), ("b.txt", b"password: stays\n"), ("c.yaml", b"\xff\xfe")]);
        for chunk in [1, 7, 511, 513, 4096] {
            let ran = run_in_chunks::<Scrub>(SPEC, &[("data", &before)], chunk).unwrap();
            assert!(ran.contents["data"] == after, "chunks of {chunk}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let error = run::<Scrub>(r#"{"rules": [{"pattern": "("}]}"#, &[("data", b"")]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("/rules/0/pattern"));
        assert!(fails(&run::<Scrub>(SPEC, &[("data", &[1; 600])]), Kind::InvalidContent));
        let cut = &tar(&[("a.yaml", &[b'x'; 2000])])[..1000];
        assert!(fails(&run::<Scrub>(SPEC, &[("data", cut)]), Kind::InvalidContent));
    }
}
