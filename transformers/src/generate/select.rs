//! Which resources are carried by value, by CEL over `component` and `resource`.

use ocm_content::Error;
use ocm_engine::language::Expression;
use serde_json::{Map, Value as Json};

/// An expression that tells of a resource whether it is meant.
#[derive(Debug)]
pub struct Condition {
    text: String,
    expression: Expression,
}

impl Condition {
    /// Reads an expression, with or without `${` and `}` around it.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for what is no expression or uses other variables than `component` and `resource`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let inner = text.trim();
        let inner = inner
            .strip_prefix("${")
            .and_then(|it| it.strip_suffix('}'))
            .unwrap_or(inner);
        let expression = Expression::parse(inner)
            .map_err(|error| Error::invalid(format!("condition `{text}`: {}", error.message)))?;
        let known = ["component", "resource"];
        if let Some(other) = expression
            .roots()
            .into_iter()
            .find(|it| !known.contains(it))
        {
            return Err(
                Error::invalid(format!("condition `{text}`: unknown variable `{other}`"))
                    .with_hint("a condition is about `component` and `resource`"),
            );
        }
        Ok(Self {
            text: inner.to_owned(),
            expression,
        })
    }

    /// Is the resource meant? `scope` has both variables.
    fn holds(&self, scope: &Map<String, Json>) -> Result<bool, Error> {
        let failed = |why: String, hint: Option<String>| {
            let name = scope
                .get("resource")
                .and_then(|it| it.get("name")?.as_str());
            let error = Error::invalid(format!(
                "condition `{}` on resource `{}`: {why}",
                self.text,
                name.unwrap_or_default()
            ));
            error.with_hint(hint.unwrap_or_else(|| {
                "ask for fields that may be missing with has(resource.field)".to_owned()
            }))
        };
        match self.expression.evaluate(scope) {
            Ok(Json::Bool(holds)) => Ok(holds),
            Ok(other) => Err(failed(
                format!("expected true or false, found {other:.40}"),
                Some("compare, as in resource.type == 'helmChart'".to_owned()),
            )),
            Err(error) => Err(failed(error.message, error.hint)),
        }
    }
}

/// Is the resource selected: by one of `select` (all, where there is none) and by none of `exclude`?
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] for conditions that have no answer.
pub(super) fn is_selected(
    select: &[Condition],
    exclude: &[Condition],
    scope: &Map<String, Json>,
) -> Result<bool, Error> {
    let mut selected = select.is_empty();
    for condition in select {
        selected |= condition.holds(scope)?;
    }
    for condition in exclude {
        selected &= !condition.holds(scope)?;
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(select: &[&str], exclude: &[&str], expected: Result<bool, &str>) {
        let scope = json!({
            "component": {"name": "acme.org/x", "labels": []},
            "resource": {"name": "chart", "type": "helmChart", "access": {"type": "helm"}},
        });
        let Json::Object(scope) = scope else {
            panic!("an object");
        };
        let parse = |texts: &[&str]| -> Result<Vec<Condition>, Error> {
            texts.iter().map(|text| Condition::parse(text)).collect()
        };
        let found = parse(select).and_then(|select| {
            parse(exclude).and_then(|exclude| is_selected(&select, &exclude, &scope))
        });
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{select:?} {exclude:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{select:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn conditions_choose() {
        check(&[], &[], Ok(true));
        check(&["resource.type == 'helmChart'"], &[], Ok(true));
        check(&["${resource.type == 'ociImage'}"], &[], Ok(false));
        check(
            &["false", "component.name.startsWith('acme.org/')"],
            &[],
            Ok(true),
        );
        check(&[], &["resource.access.type == 'helm'"], Ok(false));
        check(&["has(resource.extraIdentity)"], &[], Ok(false));
        check(
            &["resource.name"],
            &[],
            Err("expected true or false, found \"chart\""),
        );
        check(
            &["resource.nope == 1"],
            &[],
            Err("condition `resource.nope == 1` on resource `chart`"),
        );
        check(&["other.name == 'x'"], &[], Err("unknown variable `other`"));
        check(
            &["resource.type =="],
            &[],
            Err("condition `resource.type ==`"),
        );
    }
}
