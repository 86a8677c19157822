//! Types of constants.
//!
//! *Invariant*: values of one shape have one type, the same in memory, however many there are: the descriptors of ten thousand
//! component versions have a few dozen types, and what fits where is asked once for each.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

use ocm_specs::transfer::Environment;
use serde_json::Value as Json;

use super::types::{Additional, Field, Object, Type};

/// The types that were made so far.
#[derive(Debug, Default)]
pub struct Shapes {
    /// Objects by the hash of their fields.
    objects: HashMap<u64, Vec<Arc<Object>>>,
    lists: HashMap<Id, Type>,
    /// What two types have in common. What both are made of stays in memory, so that addresses are theirs.
    joined: HashMap<(Id, Id), Type>,
    random: RandomState,
}

/// Tells types of constants apart: the kind, and the address of what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id(u8, usize);

impl Id {
    /// `None` for types that are not made here.
    fn of(ty: &Type) -> Option<Self> {
        Some(match ty {
            Type::Dyn => Self(0, 0),
            Type::Null => Self(1, 0),
            Type::Bool => Self(2, 0),
            Type::Integer => Self(3, 0),
            Type::Number => Self(4, 0),
            Type::String(None) => Self(5, 0),
            Type::List(item) => Self(6, Arc::as_ptr(item) as usize),
            Type::Object(object) => Self(7, Arc::as_ptr(object) as usize),
            Type::Nullable(inner) => Self(8, Arc::as_ptr(inner) as usize),
            _ => return None,
        })
    }
}

impl Shapes {
    /// The type of a constant: objects have exactly the fields that are there (transformation.md 2.3, step 2). The
    /// reference types a list by its first element; here elements may differ, and what they share is known.
    pub fn value(&mut self, value: &Json) -> Type {
        match value {
            Json::Null => Type::Null,
            Json::Bool(_) => Type::Bool,
            Json::Number(number) if number.is_f64() => Type::Number,
            Json::Number(_) => Type::Integer,
            Json::String(_) => Type::String(None),
            Json::Array(list) => self.list(list),
            Json::Object(map) => {
                let fields = map.iter().map(|(name, value)| (&**name, self.value(value)));
                let fields = fields.collect();
                self.object(fields)
            }
        }
    }

    /// The type of all constants of a spec.
    pub fn environment(&mut self, environment: &Environment) -> Type {
        let fields = environment
            .iter()
            .map(|(name, value)| (name, self.value(value)));
        let fields = fields.collect();
        self.object(fields)
    }

    fn list(&mut self, list: &[Json]) -> Type {
        let mut item: Option<Type> = None;
        for value in list {
            let next = self.value(value);
            item = Some(match item {
                None => next,
                Some(item) => self.join(item, next),
            });
        }
        let item = item.unwrap_or(Type::Dyn);
        match Id::of(&item) {
            Some(id) => self
                .lists
                .entry(id)
                .or_insert_with(|| Type::list(item))
                .clone(),
            None => Type::list(item),
        }
    }

    fn join(&mut self, a: Type, b: Type) -> Type {
        let (Some(first), Some(second)) = (Id::of(&a), Id::of(&b)) else {
            return a.join(&b);
        };
        if first == second {
            return a;
        }
        self.joined
            .entry((first, second))
            .or_insert_with(|| a.join(&b))
            .clone()
    }

    fn object(&mut self, fields: Vec<(&str, Type)>) -> Type {
        let mut hasher = self.random.build_hasher();
        for (name, ty) in &fields {
            (name, Id::of(ty)).hash(&mut hasher);
        }
        let known = self.objects.entry(hasher.finish()).or_default();
        let is_same = |object: &&Arc<Object>| {
            let pairs = object.fields.iter().zip(&fields);
            object.fields.len() == fields.len()
                && pairs.into_iter().all(|((known, field), (name, ty))| {
                    **known == **name && Id::of(ty).is_some() && Id::of(&field.ty) == Id::of(ty)
                })
        };
        if let Some(object) = known.iter().find(is_same) {
            return Type::Object(object.clone());
        }
        let fields = fields
            .into_iter()
            .map(|(name, ty)| (name.into(), Field { ty, required: true }));
        let object = Arc::new(Object {
            title: None,
            fields: fields.collect(),
            additional: Additional::Unstated,
        });
        known.push(object.clone());
        Type::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_shape_is_one_type() {
        let resource = |access: Json| json!({"name": "a", "size": 1, "access": access});
        let descriptor = |name: &str| {
            json!({"component": {"name": name, "labels": [], "resources": [
                resource(json!({"type": "localBlob", "localReference": name})),
                resource(json!({"type": "ociArtifact", "imageReference": name})),
                resource(json!({"type": "ociArtifact", "imageReference": "b"})),
            ]}})
        };
        let mut shapes = Shapes::default();
        let (a, b) = (
            shapes.value(&descriptor("a")),
            shapes.value(&descriptor("b")),
        );
        assert_eq!(Id::of(&a), Id::of(&b));
        let other = shapes.value(&json!({"component": {"name": 1}}));
        assert_ne!(Id::of(&a), Id::of(&other));
        // What the resources share is known, and that there may be more.
        let resources = a.field("component").unwrap().ty.field("resources").unwrap();
        let Type::List(resource) = &resources.ty else {
            panic!("{}", resources.ty)
        };
        let access = &resource.field("access").unwrap().ty;
        let names: Vec<&str> = (access.as_object().unwrap().fields.keys())
            .map(|it| &**it)
            .collect();
        assert_eq!(names, ["type"]);
    }

    #[test]
    fn shapes_that_differ_in_order_or_kind_are_two() {
        let mut shapes = Shapes::default();
        for (a, b) in [
            (json!({"a": 1, "b": 1}), json!({"b": 1, "a": 1})),
            (json!({"a": 1}), json!({"a": 1.5})),
            (json!({"a": []}), json!({"a": {}})),
            (json!({"a": [1]}), json!({"a": [null]})),
            (json!({"a": null}), json!({})),
        ] {
            let (one, two) = (shapes.value(&a), shapes.value(&b));
            assert_ne!(Id::of(&one), Id::of(&two), "{a} {b}");
        }
    }
}
