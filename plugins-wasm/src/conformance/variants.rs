//! Specs beside the usual: what a schema lets through and an author may not have thought of.

use ocm_engine::language::Validator;
use serde_json::{Value as Json, json};

/// Most specs that are tried.
const VARIANTS: usize = 64;

/// Specs that differ from `spec` in one place and still fit the schema.
pub(super) fn variants(schema: &Json, spec: &Json) -> Vec<Json> {
    let Ok(validator) = Validator::new(schema) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    vary(spec, &mut |changed| all.push(changed));
    // Fields that the sample does not have.
    if let (Some(fields), Json::Object(known)) = (schema.get("properties"), spec) {
        for name in fields
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys())
        {
            if !known.contains_key(name) {
                for value in [json!(""), json!(0), json!(true), json!([]), json!({})] {
                    let mut changed = known.clone();
                    changed.insert(name.clone(), value);
                    all.push(Json::Object(changed));
                }
            }
        }
    }
    all.retain(|changed| validator.validate_value(changed).is_empty());
    all.truncate(VARIANTS);
    all
}

/// Calls `give` with every change of one place of `value`.
fn vary(value: &Json, give: &mut dyn FnMut(Json)) {
    match value {
        Json::String(_) => {
            for text in ["", "(", "[", "\u{e9}\u{4e2d}", "../../x", "a b\n"] {
                give(json!(text));
            }
            give(json!("x".repeat(5000)));
        }
        Json::Number(_) => {
            for number in [0, -1, 1, i64::from(u32::MAX) + 1, i64::MAX] {
                give(json!(number));
            }
            give(json!(0.5));
        }
        Json::Bool(flag) => give(json!(!flag)),
        Json::Null => {}
        Json::Array(items) => {
            give(json!([]));
            if let Some(first) = items.first() {
                give(Json::Array(items.iter().chain([first]).cloned().collect()));
            }
            for (at, item) in items.iter().enumerate() {
                vary(item, &mut |changed| {
                    let mut items = items.clone();
                    items[at] = changed;
                    give(Json::Array(items));
                });
            }
        }
        Json::Object(fields) => {
            for (name, field) in fields {
                let mut without = fields.clone();
                without.shift_remove(name);
                give(Json::Object(without));
                vary(field, &mut |changed| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), changed);
                    give(Json::Object(fields));
                });
            }
        }
    }
}

/// Does a JSON pointer lead somewhere in the spec, or to a field that could be added there? `fields` are those that a spec
/// can have, ports among them.
pub(super) fn leads_somewhere(pointer: &str, spec: &Json, fields: &[&str]) -> bool {
    if pointer.is_empty() || spec.pointer(pointer).is_some() {
        return true;
    }
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        return false;
    };
    match parent {
        "" => fields.contains(&last),
        parent => spec.pointer(parent).is_some_and(Json::is_object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_fit_and_differ() {
        let schema = json!({
            "type": "object",
            "properties": {
                "at": {"type": "integer", "minimum": 0},
                "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "other": {"type": "boolean"},
            },
            "required": ["at"],
        });
        let spec = json!({"at": 3, "names": ["a"]});
        let all = variants(&schema, &spec);
        for expected in [
            json!({"at": 0, "names": ["a"]}),
            json!({"at": 3, "names": ["("]}),
            json!({"at": 3, "names": ["a", "a"]}),
            json!({"at": 3}),
            json!({"at": 3, "names": ["a"], "other": true}),
        ] {
            assert!(all.contains(&expected), "{expected}");
        }
        assert!(!all.contains(&spec));
        assert!(!all.iter().any(|spec| spec["at"] == json!(-1)));
        assert!(!all.iter().any(|spec| spec["names"] == json!([])));
    }

    #[test]
    fn pointers_lead_to_what_is_or_could_be_there() {
        let spec = json!({"rules": [{"pattern": "("}]});
        for (pointer, expected) in [
            ("", true),
            ("/rules/0/pattern", true),
            ("/rules/0/other", true),
            ("/data", true),
            ("/other", false),
            ("/rules/1/pattern", false),
            ("/rules/1", false),
            ("rules", false),
            ("/a/b", false),
        ] {
            assert_eq!(
                leads_somewhere(pointer, &spec, &["data"]),
                expected,
                "{pointer}"
            );
        }
    }
}
