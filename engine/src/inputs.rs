//! A step's inputs between check and run: a tree in which every string with expressions is parsed already.

use serde_json::{Map as JsonMap, Value as Json};

use crate::language::{EvalError, Scope, Template};

/// One value of a step's inputs.
#[derive(Clone, Debug)]
pub(crate) enum Inputs {
    /// No expression in it.
    Constant(Json),
    /// A string with expressions, and its text.
    Template(Box<Template>, Box<str>),
    /// A list with expressions somewhere below.
    List(Vec<Inputs>),
    /// A map with expressions somewhere below.
    Map(Vec<(String, Inputs, Field)>),
}

/// What the type of a map says about one of its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// Must be there: a null is kept and judged by the schema.
    Required,
    /// May be absent: an expression that gives null leaves it out.
    Optional,
}

/// An expression that could not be evaluated, and the field it stands in.
#[derive(Debug)]
pub(crate) struct InputError {
    /// Path below `spec`.
    pub(crate) field: String,
    /// Why.
    pub(crate) error: EvalError,
}

impl Inputs {
    /// The values, with every expression evaluated in `scope`.
    pub(crate) fn evaluate(&self, scope: &dyn Scope) -> Result<Json, InputError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Template(template, text) => {
                template.evaluate(text, scope).map_err(|error| InputError {
                    field: String::new(),
                    error,
                })
            }
            Self::List(items) => {
                let evaluate = |(index, item): (usize, &Self)| {
                    item.evaluate(scope)
                        .map_err(|error| error.below(&format!("[{index}]")))
                };
                Ok(Json::Array(
                    items
                        .iter()
                        .enumerate()
                        .map(evaluate)
                        .collect::<Result<_, _>>()?,
                ))
            }
            Self::Map(fields) => {
                let mut map = JsonMap::with_capacity(fields.len());
                for (key, input, field) in fields {
                    let value = input.evaluate(scope).map_err(|error| error.below(key))?;
                    let left_out = value.is_null()
                        && *field == Field::Optional
                        && matches!(input, Self::Template(..));
                    if !left_out {
                        map.insert(key.clone(), value);
                    }
                }
                Ok(Json::Object(map))
            }
        }
    }
}

impl InputError {
    fn below(mut self, segment: &str) -> Self {
        let separator = if self.field.is_empty() || self.field.starts_with('[') {
            ""
        } else {
            "."
        };
        self.field = format!("{segment}{separator}{}", self.field);
        self
    }
}
