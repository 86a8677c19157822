//! Which component version is made before which: those that are referenced first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocm_content::ErrorKind;
use ocm_specs::constructor::Component;
use ocm_specs::diagnostic::Diagnostic;
use ocm_specs::yaml::{Source, Span};

use super::{ConstructError, Document, Problem};

/// A component version of the call.
#[derive(Debug)]
pub(super) struct Planned<'d> {
    pub(super) document: &'d Document,
    pub(super) component: &'d Component,
    /// For every reference the place of what it names in the order; `None` for what is not made here.
    pub(super) children: Vec<Option<usize>>,
}

impl Planned<'_> {
    pub(super) fn source(&self) -> &Arc<Source> {
        &self.document.constructor.source
    }
}

/// All component versions of some documents, children before parents, else in document order.
///
/// # Errors
/// A version that is there twice, and references that lead in a circle.
pub(super) fn order(documents: &[Document]) -> Result<Vec<Planned<'_>>, ConstructError> {
    let all: Vec<(&Document, &Component)> = documents
        .iter()
        .flat_map(|document| {
            document
                .constructor
                .components
                .iter()
                .map(move |component| (document, component))
        })
        .collect();
    let places = places(&all)?;
    let children: Vec<Vec<Option<usize>>> = all
        .iter()
        .map(|(_, component)| {
            let references = component.references.iter();
            references
                .map(|it| {
                    places
                        .get(&(it.component.as_str(), it.version.as_str()))
                        .copied()
                })
                .collect()
        })
        .collect();
    let order =
        depth_first(&children).map_err(|(path, reference)| circle(&all, &path, reference))?;
    let mut position = vec![0; all.len()];
    for (at, one) in order.iter().enumerate() {
        position[*one] = at;
    }
    Ok(order
        .into_iter()
        .map(|one| Planned {
            document: all[one].0,
            component: all[one].1,
            children: children[one]
                .iter()
                .map(|child| child.map(|child| position[child]))
                .collect(),
        })
        .collect())
}

fn places<'d>(
    all: &[(&'d Document, &'d Component)],
) -> Result<BTreeMap<(&'d str, &'d str), usize>, ConstructError> {
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (at, (document, component)) in all.iter().enumerate() {
        let key = (
            component.name.text.as_str(),
            component.version.text.as_str(),
        );
        if let Some(first) = places.get(&key) {
            let (other, first) = all[*first];
            let source = &other.constructor.source;
            let place = source.position(first.span.start);
            let message = format!(
                "{} is there twice, the first time at {}:{}:{}",
                component.identity(),
                source.name(),
                place.line,
                place.column
            );
            let finding = Diagnostic::error(component.name.span, message)
                .with_hint("remove one of them, or change its version");
            problems.push(Problem::new(
                &document.constructor.source,
                finding,
                ErrorKind::Invalid,
            ));
        } else {
            places.insert(key, at);
        }
    }
    if problems.is_empty() {
        Ok(places)
    } else {
        Err(ConstructError { problems })
    }
}

/// The circle that was found: components on the way, the first one again at its end, and which reference closes it.
type Circle = (Vec<usize>, usize);

/// Children before parents. Without recursion: a constructor may have very many components in one chain.
fn depth_first(children: &[Vec<Option<usize>>]) -> Result<Vec<usize>, Circle> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; children.len()];
    let mut order = Vec::with_capacity(children.len());
    for root in 0..children.len() {
        if state[root] != State::New {
            continue;
        }
        let mut path = vec![(root, 0)];
        state[root] = State::Open;
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            let Some(child) = children[node].get(*next) else {
                state[node] = State::Done;
                order.push(node);
                path.pop();
                continue;
            };
            let reference = *next;
            *next += 1;
            match child {
                Some(child) if state[*child] == State::New => {
                    state[*child] = State::Open;
                    path.push((*child, 0));
                }
                Some(child) if state[*child] == State::Open => {
                    let start = path
                        .iter()
                        .position(|(it, _)| it == child)
                        .unwrap_or_default();
                    let mut circle: Vec<usize> = path[start..].iter().map(|(it, _)| *it).collect();
                    circle.push(*child);
                    return Err((circle, reference));
                }
                _ => {}
            }
        }
    }
    Ok(order)
}

fn circle(all: &[(&Document, &Component)], path: &[usize], reference: usize) -> ConstructError {
    let names: Vec<String> = path.iter().map(|at| all[*at].1.identity()).collect();
    // The last but one has the reference that leads back.
    let (document, component) = all[path[path.len().saturating_sub(2)]];
    let (span, field) = component
        .references
        .get(reference)
        .map_or((Span::default(), String::new()), |it| {
            (it.span, it.path.clone())
        });
    let message = format!("references lead in a circle: {}", names.join(" -> "));
    let finding = Diagnostic::error(span, message)
        .at_field(field)
        .with_hint("remove one of these references");
    ConstructError {
        problems: vec![Problem::new(
            &document.constructor.source,
            finding,
            ErrorKind::Invalid,
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_first_and_circles_are_found() {
        let children = [vec![Some(2), None], vec![Some(0)], vec![], vec![Some(2)]];
        assert_eq!(depth_first(&children), Ok(vec![2, 0, 1, 3]));
        let circle = [
            vec![],
            vec![Some(0), Some(2)],
            vec![Some(3)],
            vec![None, Some(1)],
        ];
        assert_eq!(depth_first(&circle), Err((vec![1, 2, 3, 1], 1)));
        assert_eq!(depth_first(&[vec![Some(0)]]), Err((vec![0, 0], 0)));
        let chain: Vec<Vec<Option<usize>>> = (0..100_000)
            .map(|at| vec![(at > 0).then(|| at - 1)])
            .collect();
        assert_eq!(depth_first(&chain).expect("no circle").len(), 100_000);
    }
}
