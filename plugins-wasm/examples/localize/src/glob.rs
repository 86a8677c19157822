//! Patterns for paths: `*` and `?` within a name, `[a-z]` and `[!a]` for one character of it, `**` for any number of names.

/// A pattern, taken apart.
pub(crate) struct Glob(Vec<Part>);

enum Part {
    /// `**`: any number of names.
    Names,
    /// One name.
    Name(Vec<Token>),
}

enum Token {
    Char(char),
    Any,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// # Errors
    /// What is wrong with the pattern.
    pub(crate) fn new(pattern: &str) -> Result<Self, &'static str> {
        let part = |part: &str| if part == "**" { Ok(Part::Names) } else { tokens(part).map(Part::Name) };
        // A slash in brackets would be one between names.
        pattern.split('/').map(part).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn is_match(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        names_match(&self.0, &names)
    }
}

fn tokens(part: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = part.chars();
    while let Some(next) = rest.next() {
        tokens.push(match next {
            '*' => Token::Many,
            '?' => Token::Any,
            '\\' => Token::Char(rest.next().ok_or("there is nothing behind the last `\\`")?),
            '[' => class(&mut rest)?,
            '{' | '}' => return Err("alternatives in braces are not known here"),
            other => Token::Char(other),
        });
    }
    Ok(tokens)
}

fn class(rest: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a `[` does not close";
    let mut next = rest.next().ok_or(OPEN)?;
    let negated = next == '!' || next == '^';
    if negated {
        next = rest.next().ok_or(OPEN)?;
    }
    let mut ranges = Vec::new();
    loop {
        let mut ahead = rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(end)) if end != ']' => {
                if end < next {
                    return Err("a range ends before it starts");
                }
                ranges.push((next, end));
                *rest = ahead;
            }
            _ => ranges.push((next, next)),
        }
        next = rest.next().ok_or(OPEN)?;
        if next == ']' {
            return Ok(Token::Class { negated, ranges });
        }
    }
}

/// In time proportional to the product of both lengths.
fn names_match(parts: &[Part], names: &[&str]) -> bool {
    walk(parts, names, |part| matches!(part, Part::Names), |part, name| match part {
        Part::Names => true,
        Part::Name(tokens) => {
            let name: Vec<char> = name.chars().collect();
            walk(tokens, &name, |token| matches!(token, Token::Many), |token, c| match token {
                Token::Char(known) => known == c,
                Token::Any | Token::Many => true,
                Token::Class { negated, ranges } => ranges.iter().any(|(start, end)| (start..=end).contains(&c)) != *negated,
            })
        }
    })
}

/// Matches a row of tokens, some of which stand for any number of items.
fn walk<T, I>(tokens: &[T], items: &[I], is_many: impl Fn(&T) -> bool, fits: impl Fn(&T, &I) -> bool) -> bool {
    let (mut token, mut item) = (0, 0);
    // Where to go on when it does not fit: behind the last token for many, with one item more for it.
    let mut back: Option<(usize, usize)> = None;
    while item < items.len() {
        match tokens.get(token) {
            Some(many) if is_many(many) => {
                token += 1;
                back = Some((token, item));
            }
            Some(one) if fits(one, &items[item]) => {
                token += 1;
                item += 1;
            }
            _ => match back {
                Some((behind, from)) => {
                    token = behind;
                    item = from + 1;
                    back = Some((behind, from + 1));
                }
                None => return false,
            },
        }
    }
    tokens[token..].iter().all(is_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, path, expected) in [
            ("*/values.yaml", "chart/values.yaml", true),
            ("*/values.yaml", "chart/sub/values.yaml", false),
            ("*/values.yaml", "values.yaml", false),
            ("**/values.yaml", "values.yaml", true),
            ("**/values.yaml", "a/b/c/values.yaml", true),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("*.ya?ml", "x.yaaml", true),
            ("v[a-c]*[!0-9].yaml", "vbx.yaml", true),
            ("v[a-c]*[!0-9].yaml", "vbx1.yaml", false),
            ("[]a]x", "]x", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("*a*b*c*", "xaxbxcx", true),
            ("*a*b*c*", "xaxcxbx", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().is_match(path), expected, "{pattern} {path}");
        }
        for wrong in ["[", "[a", "[z-a]", "a\\", "{a,b}"] {
            assert!(Glob::new(wrong).is_err(), "{wrong}");
        }
        let bomb = "*a".repeat(30);
        assert!(!Glob::new(&bomb).unwrap().is_match(&"a".repeat(5000).replace("aa", "ab").replace('a', "b")));
    }
}
