//! The list of plugins that a spec uses: where each comes from, what it is pinned to, and what it may do.

use serde_json::{Map as JsonMap, Value as Json};

use super::{Reader, Word, a_kind};
use crate::Digest;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::yaml::{Node, Span, Value};

/// One entry of `plugins`, as written.
#[derive(Clone, Debug)]
pub struct PluginSpec {
    /// How the plugin calls itself.
    pub name: Word,
    /// Where its component is: `file:…`, `oci://…`, `ocm://…`; `None` where only the command line says it.
    pub source: Option<Word>,
    /// The digest of the component's bytes, in canonical text.
    pub digest: Option<Word>,
    /// The name of a signature that the component version it comes from must have.
    pub signature: Option<Word>,
    /// What it may do at most; everything it asks for without. Narrows only: what is allowed is the user's word.
    pub rights: Option<Node>,
    /// Its configuration.
    pub config: Option<Node>,
    /// Where the entry stands.
    pub span: Span,
}

const KEYS: [&str; 6] = ["name", "source", "digest", "signature", "rights", "config"];

impl PluginSpec {
    /// The entry as it is written out again.
    pub fn to_json(&self) -> Json {
        let mut entry = JsonMap::new();
        entry.insert("name".into(), self.name.text.clone().into());
        for (key, word) in [
            ("source", &self.source),
            ("digest", &self.digest),
            ("signature", &self.signature),
        ] {
            if let Some(word) = word {
                entry.insert(key.into(), word.text.clone().into());
            }
        }
        for (key, node) in [("rights", &self.rights), ("config", &self.config)] {
            if let Some(node) = node {
                entry.insert(key.into(), node.to_json());
            }
        }
        Json::Object(entry)
    }
}

impl Reader {
    /// Reads the list.
    pub(super) fn plugins(&mut self, node: &Node) -> Vec<PluginSpec> {
        let list = self.list(node, "plugins").unwrap_or_default();
        let mut plugins: Vec<PluginSpec> = Vec::new();
        for entry in list {
            let Some(plugin) = self.plugin(entry) else {
                continue;
            };
            if plugins
                .iter()
                .any(|known| known.name.text == plugin.name.text)
            {
                let message = format!("the plugin `{}` is there twice", plugin.name.text);
                self.error(plugin.name.span, message);
                continue;
            }
            plugins.push(plugin);
        }
        plugins
    }

    fn plugin(&mut self, node: &Node) -> Option<PluginSpec> {
        let Some(map) = node.as_map() else {
            self.error(
                node.span,
                format!("a plugin is a map, this is {}", a_kind(node)),
            );
            return None;
        };
        for (key, member) in map.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
            let mut finding =
                Diagnostic::error(member.key, format!("unknown key `{key}` of a plugin"));
            finding.hint = did_you_mean(key, KEYS).map(|known| format!("did you mean `{known}`?"));
            self.report(finding);
        }
        if !map.contains_key("name") {
            self.report(
                Diagnostic::error(node.span, "the plugin has no `name`")
                    .with_hint("write the name that it has, as `ocm plugin install` prints it"),
            );
        }
        let name = self.word(map, "name");
        let source = self.word(map, "source");
        let digest = self.word(map, "digest");
        let digest = digest.and_then(|word| match word.text.parse::<Digest>() {
            Ok(digest) => Some(Word::new(digest.to_string(), word.span)),
            Err(error) => {
                self.error(word.span, error.to_string());
                None
            }
        });
        let signature = self.word(map, "signature");
        let mut part = |key: &str| {
            let node = &map.get(key)?.node;
            match &node.value {
                Value::Null => None,
                Value::Map(_) => Some(node.clone()),
                _ => {
                    self.error(
                        node.span,
                        format!("`{key}` is a map, this is {}", a_kind(node)),
                    );
                    None
                }
            }
        };
        let (rights, config) = (part("rights"), part("config"));
        Some(PluginSpec {
            name: name?,
            source,
            digest,
            signature,
            rights,
            config,
            span: node.span,
        })
    }
}
