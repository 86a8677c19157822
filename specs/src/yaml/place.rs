//! Where a part of a scalar's value stands in the text.
//!
//! Invariant: an answer is exact or absent.

use super::parser::BREAKS;
use super::{Source, Span};

/// The offset in the text of byte `value_offset` of a scalar's value.
///
/// Exact for plain scalars on one line and quoted ones on one line without escapes; `None` for all others and
/// for offsets outside the value: say then where the scalar stands.
pub fn offset_in_scalar(source: &Source, node_span: Span, value_offset: usize) -> Option<u32> {
    let text = source
        .text()
        .get(node_span.start as usize..node_span.end as usize)?;
    let (value, before) = match text.chars().next()? {
        '"' => (simple(text, '"', '\\')?, 1),
        '\'' => (simple(text, '\'', '\'')?, 1),
        // Block scalars, flow collections, aliases: the value is not what stands here.
        '|' | '>' | '{' | '[' | '*' => return None,
        _ => (text, 0),
    };
    if value.contains(BREAKS) || !value.is_char_boundary(value_offset) {
        return None;
    }
    u32::try_from(before + value_offset)
        .ok()?
        .checked_add(node_span.start)
}

/// What is between the quotes, when nothing there is an escape.
fn simple(text: &str, quote: char, escape: char) -> Option<&str> {
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(escape)).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::super::{LoadOptions, load};
    use super::*;

    /// Loads `x: SCALAR` and asks where `needle` of the value is; checks the text at that place.
    fn check(scalar: &str, needle: &str, exact: bool) {
        let source = Source::new("t", format!("x: {scalar}\n"));
        let root = load(&source, &LoadOptions::default()).unwrap();
        let node = root.get("x").unwrap();
        let value = node.as_str().unwrap();
        let found = offset_in_scalar(&source, node.span, value.find(needle).unwrap());
        assert_eq!(found.is_some(), exact, "{scalar}");
        if let Some(at) = found {
            assert!(source.text()[at as usize..].starts_with(needle), "{scalar}");
        }
    }

    #[test]
    fn places_are_exact_or_absent() {
        check("${a.b}", "a.b", true);
        check("pre ${a.b} # c", "a.b", true);
        check("&x !!str ä${a.b}", "a.b", true);
        check("\"ä ${a.b}\"", "a.b", true);
        check("'${a.b}'", "a.b", true);
        check("'it''s ${a.b}'", "a.b", false);
        check("\"\\t${a.b}\"", "a.b", false);
        check("\"one\n  ${a.b}\"", "a.b", false);
        check("one\n  ${a.b}", "a.b", false);
        check("|\n  ${a.b}", "a.b", false);
        check(">-\n  ${a.b}", "a.b", false);
        check("ab", "", true);
        let source = Source::new("t", "x: äb");
        let span = Span { start: 3, end: 6 };
        assert_eq!(offset_in_scalar(&source, span, 1), None);
        assert_eq!(offset_in_scalar(&source, span, 2), Some(5));
        assert_eq!(offset_in_scalar(&source, span, 9), None);
        assert_eq!(
            offset_in_scalar(&source, Span { start: 9, end: 70 }, 0),
            None
        );
    }
}
