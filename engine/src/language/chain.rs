//! Calls within paths, such as `upload.output.image.parseRef().registry`: what expressions that are more than a path mostly
//! are.
//!
//! *Invariant*: what is read here is what the `cel` crate's parser would read, place by place; everything else is left to
//! it.

use super::path::{Cursor, is_keyword, is_reserved};
use super::syntax::{Kind, Literal, Macro, Node};

/// Most nodes that are read here, and deepest brackets: far below what the other parser takes.
const NODES: usize = 64;
const BRACKETS: usize = 8;

/// Reads variables, calls, and the fields, methods and constant indices that follow them; `None` if there is anything else.
pub(super) fn parse(text: &str) -> Option<Node> {
    let mut reader = Reader {
        cursor: Cursor::new(text),
        nodes: 0,
    };
    let node = reader.chain(BRACKETS)?;
    reader.cursor.peek().is_none().then_some(node)
}

struct Reader<'t> {
    cursor: Cursor<'t>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn chain(&mut self, brackets: usize) -> Option<Node> {
        self.cursor.blanks();
        let (start, name) = self.name()?;
        // `has` is a macro, and `optional` only the first half of names of functions.
        if is_reserved(name) || matches!(name, "has" | "optional") {
            return None;
        }
        let mut node = match self.cursor.peek() {
            Some(b'(') => {
                let args = self.args(brackets)?;
                self.call(start, name, None, args)?
            }
            _ => self.node(start, Kind::Variable(name.into()))?,
        };
        loop {
            self.cursor.blanks();
            node = match self.cursor.peek() {
                Some(b'.') => self.member(node, brackets)?,
                Some(b'[') => self.index(node)?,
                _ => return Some(node),
            };
        }
    }

    fn member(&mut self, operand: Node, brackets: usize) -> Option<Node> {
        let optional = self.mark()?;
        let (field_start, name) = self.name()?;
        if is_keyword(name) {
            return None;
        }
        let field_at = (field_start, self.at());
        let start = operand.start;
        if self.cursor.peek() != Some(b'(') {
            let kind = Kind::Select {
                operand: Box::new(operand),
                field: name.into(),
                field_at,
                optional,
            };
            return self.node(start, kind);
        }
        let args = self.args(brackets)?;
        if optional || Macro::parse(name, args.len()).is_some() {
            return None;
        }
        self.call(start, name, Some(Box::new(operand)), args)
    }

    fn index(&mut self, operand: Node) -> Option<Node> {
        let optional = self.mark()?;
        let index = Box::new(self.literal()?);
        self.cursor.blanks();
        let start = operand.start;
        let kind = Kind::Index {
            operand: Box::new(operand),
            index,
            optional,
        };
        self.cursor.eat(b']').then(|| self.node(start, kind))?
    }

    /// Steps over the dot or the bracket and what makes it optional.
    fn mark(&mut self) -> Option<bool> {
        self.cursor.at += 1;
        self.cursor.blanks();
        let optional = self.cursor.eat(b'?');
        self.cursor.blanks();
        Some(optional)
    }

    fn args(&mut self, brackets: usize) -> Option<Vec<Node>> {
        let brackets = brackets.checked_sub(1)?;
        self.cursor.at += 1;
        let mut args = Vec::new();
        self.cursor.blanks();
        if self.cursor.eat(b')') {
            return Some(args);
        }
        loop {
            self.cursor.blanks();
            args.push(match self.cursor.peek()? {
                b'"' | b'\'' | b'0'..=b'9' => self.literal()?,
                _ => self.chain(brackets)?,
            });
            self.cursor.blanks();
            if self.cursor.eat(b')') {
                return Some(args);
            }
            if !self.cursor.eat(b',') {
                return None;
            }
        }
    }

    /// A string without escapes, or a small number.
    fn literal(&mut self) -> Option<Node> {
        let start = self.at();
        let literal = match self.cursor.peek()? {
            quote @ (b'"' | b'\'') => Literal::Text(self.cursor.quoted(quote)?.into()),
            _ => Literal::Int(self.cursor.number()?.into()),
        };
        self.node(start, Kind::Literal(literal))
    }

    fn call(
        &mut self,
        start: u32,
        name: &str,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    ) -> Option<Node> {
        let name = name.into();
        self.node(start, Kind::Call { name, target, args })
    }

    fn name(&mut self) -> Option<(u32, &'t str)> {
        let start = self.at();
        Some((start, self.cursor.identifier()?))
    }

    fn at(&self) -> u32 {
        // Texts are far shorter than that.
        u32::try_from(self.cursor.at).unwrap_or(u32::MAX)
    }

    /// A node that ends here.
    fn node(&mut self, start: u32, kind: Kind) -> Option<Node> {
        self.nodes += 1;
        let end = self.at();
        (self.nodes <= NODES).then_some(Node { start, end, kind })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::syntax::parse_by_grammar;
    use super::*;

    /// Reads what is read here as the grammar does.
    fn check(text: &str) -> bool {
        let Some(node) = parse(text) else {
            return false;
        };
        let expected = parse_by_grammar(text).map(|node| format!("{node:?}"));
        assert_eq!(Ok(format!("{node:?}")), expected, "{text}");
        true
    }

    #[test]
    fn chains_are_read_as_the_grammar_reads_them() {
        for (text, read) in [
            ("a.output.image.parseRef().registry", true),
            (" a . output .image. parseRef( ) . registry ", true),
            ("parseRef(a.output.image).name", true),
            ("f(a, b.c[0], \"text\", 'other', 12).d", true),
            ("a.b(c.d(e.f(g)))", true),
            ("a.?b.c(d)", true),
            ("a[?0].b[\"c\"](d)", false),
            ("a[?\"b.c\"][ 7 ].d()", true),
            ("a.startsWith('b')", true),
            ("size(a)", true),
            ("a(_b())", true),
            ("a.if.b()", true),
            ("\na.b\t( c )", false),
            // Left to the grammar, whatever it makes of them.
            ("has(a.b)", false),
            ("optional.of(a)", false),
            ("a.map(x, x.b)", false),
            ("a.map(x)", true),
            ("a.?b(c)", false),
            ("a.b(-1)", false),
            ("a.b(1.5)", false),
            ("a.b(1u)", false),
            ("a.b(0x1)", false),
            ("a.b(007)", false),
            ("a.b(true)", false),
            ("true.a()", false),
            ("if(a)", false),
            ("a.in(b)", false),
            ("a.b('\\n')", false),
            ("a.b('''c''')", false),
            ("a.b(r'c')", false),
            ("a.b(c,)", false),
            ("a.b(,c)", false),
            ("a.b(c", false),
            ("a.b(c))", false),
            ("a.b(c) + d", false),
            ("a.b(c) // d", false),
            (".a.b()", false),
            ("a{}", false),
            ("a.b{c: d}", false),
            ("a.`b-c`()", false),
            ("(a).b()", false),
            ("1.b()", false),
            ("'a'.b()", false),
            ("a.\u{e4}()", false),
            ("", false),
        ] {
            assert_eq!(check(text), read, "{text}");
        }
        let deep = |depth: usize| format!("{}a{}", "f(".repeat(depth), ")".repeat(depth));
        let long = |length: usize| format!("f({})", vec!["a"; length].join(","));
        for (text, read) in [
            (deep(8), true),
            (deep(9), false),
            (long(NODES - 1), true),
            (long(NODES), false),
        ] {
            assert_eq!(check(&text), read, "{text}");
        }
    }

    fn chain() -> impl Strategy<Value = String> {
        let blank = || prop::sample::select(vec!["", "", "", " ", "\t", "\n "]);
        let name = || prop::sample::select(vec!["a", "b1", "_c", "size", "if", "map", "string"]);
        let literal = || prop::sample::select(vec!["0", "17", "'x'", "\"y z\"", "''"]);
        let root = prop_oneof![
            name().prop_map(str::to_owned),
            literal().prop_map(str::to_owned)
        ];
        root.prop_recursive(3, 24, 3, move |inner| {
            let args = prop::collection::vec((blank(), inner.clone(), blank()), 0..3);
            let args = args.prop_map(|args| {
                let args = args
                    .iter()
                    .map(|(before, arg, after)| format!("{before}{arg}{after}"));
                format!("({})", args.collect::<Vec<_>>().join(","))
            });
            let mark = prop::sample::select(vec!["", "", "?"]);
            let part = prop_oneof![
                (mark.clone(), blank(), name())
                    .prop_map(|(mark, blank, name)| format!(".{mark}{blank}{name}")),
                (mark, literal(), blank())
                    .prop_map(|(mark, at, blank)| format!("[{mark}{at}{blank}]")),
                (name(), args.clone()).prop_map(|(name, args)| format!(".{name}{args}")),
            ];
            let start = prop_oneof![
                inner,
                (name(), args).prop_map(|(name, args)| format!("{name}{args}")),
            ];
            (start, prop::collection::vec((blank(), part), 0..4)).prop_map(|(start, parts)| {
                let parts = parts.iter().map(|(blank, part)| format!("{blank}{part}"));
                start + &parts.collect::<String>()
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_chain_is_read_as_the_grammar_reads_it(text in chain()) {
            check(&text);
        }

        #[test]
        fn any_text_is_read_as_the_grammar_reads_it(text in "[a-c.?\\[\\]()',0-2 ]{0,12}") {
            check(&text);
        }
    }
}
