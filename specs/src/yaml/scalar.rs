//! What a plain scalar means, and how Go prints it as text.
//!
//! Invariant: the reader, the emitter and the editor all ask this module, so what is written bare is read
//! back as the same type. The Go rules are those of the `goyaml.v2` fork below `sigs.k8s.io/yaml`.

use serde_json::Number;

/// The rules that give a plain scalar its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scalars {
    /// As Go reads OCM documents: YAML 1.1 booleans (`yes`, `on`, `y`), `012` and `0o17` octal, `1_000`; dates
    /// and `1:30` stay text.
    #[default]
    Go,
    /// The core schema of YAML 1.2: `true`/`false`, decimal, `0o` and `0x` integers, floats.
    Core,
}

/// What a plain scalar turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Number(Number),
    /// `.inf` and `.nan`: a number that JSON cannot hold. The text is Go's spelling.
    NotJson(&'static str),
    Text,
}

/// Resolves a plain scalar by the given rules.
pub(crate) fn resolve(rules: Scalars, text: &str) -> Plain {
    match rules {
        Scalars::Go => resolve_go(text),
        Scalars::Core => resolve_core(text),
    }
}

fn resolve_go(text: &str) -> Plain {
    let Some(first) = text.bytes().next() else {
        return Plain::Null;
    };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => word_go(text),
        b'.' => special_float(text)
            .or_else(|| unpunctuated(text).and_then(|text| float(&text)))
            .unwrap_or(Plain::Text),
        b'+' | b'-' | b'0'..=b'9' => special_float(text).unwrap_or_else(|| number_go(text)),
        _ => Plain::Text,
    }
}

fn word_go(text: &str) -> Plain {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Plain::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Plain::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => Plain::Null,
        _ => Plain::Text,
    }
}

fn special_float(text: &str) -> Option<Plain> {
    match text {
        ".nan" | ".NaN" | ".NAN" => Some(Plain::NotJson(".nan")),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(Plain::NotJson(".inf")),
        "-.inf" | "-.Inf" | "-.INF" => Some(Plain::NotJson("-.inf")),
        _ => None,
    }
}

fn number_go(text: &str) -> Plain {
    let without_underscores;
    let plain = if text.contains('_') {
        without_underscores = text.replace('_', "");
        &without_underscores
    } else {
        text
    };
    integer_base_0(plain)
        .map(Plain::Number)
        .or_else(|| is_float(plain).then(|| float(plain)).flatten())
        .or_else(|| {
            // Go's last resort for binary numbers accepts a sign behind the prefix.
            let value = i64::from_str_radix(plain.strip_prefix("0b")?, 2).ok()?;
            Some(Plain::Number(Number::from(value)))
        })
        .unwrap_or(Plain::Text)
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`: the prefix picks the base, `0` alone means octal.
fn integer_base_0(text: &str) -> Option<Number> {
    let (negative, signed, digits) = match text.as_bytes().first()? {
        b'-' => (true, true, &text[1..]),
        b'+' => (false, true, &text[1..]),
        _ => (false, false, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // Rust takes a second sign here, Go does not.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    match (negative, i64::try_from(value)) {
        (false, Ok(value)) => Some(Number::from(value)),
        (true, Ok(value)) => Some(Number::from(-value)),
        (true, Err(_)) => (value == i64::MIN.unsigned_abs()).then(|| Number::from(i64::MIN)),
        // `ParseUint` takes no sign: `+18446744073709551615` is a float in Go.
        (false, Err(_)) => (!signed).then(|| Number::from(value)),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if whole + length == 0 {
            return false;
        }
        rest = &fraction[length..];
    } else if whole == 0 {
        return false;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

/// A finite float; a literal too large for one is no number at all to Go.
fn float(text: &str) -> Option<Plain> {
    if !is_float(text) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    Number::from_f64(value).map(Plain::Number)
}

/// Takes underscores out where Go's float syntax allows them: each between two digits.
fn unpunctuated(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| *byte != b'_' || digit(at.checked_sub(1)) && digit(Some(at + 1)))
        .then(|| text.replace('_', ""))
}

fn resolve_core(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        _ => {}
    }
    if let Some(special) = special_float(text) {
        return special;
    }
    let radix = |prefix: &str, base| {
        let digits = text.strip_prefix(prefix)?;
        digits
            .bytes()
            .next()?
            .is_ascii_alphanumeric()
            .then_some(())?;
        u64::from_str_radix(digits, base).ok()
    };
    if let Some(value) = radix("0o", 8).or_else(|| radix("0x", 16)) {
        return Plain::Number(Number::from(value));
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if let Ok(value) = text.parse::<i64>() {
            return Plain::Number(Number::from(value));
        }
        if let Ok(value) = text.parse::<u64>() {
            return Plain::Number(Number::from(value));
        }
    }
    float(text).unwrap_or(Plain::Text)
}

/// Whether a bare `text` would be read as text by Go and by YAML 1.2 alike (its characters aside).
pub(crate) fn reads_as_text(text: &str) -> bool {
    resolve_go(text) == Plain::Text
        && resolve_core(text) == Plain::Text
        && text != "<<"
        && !is_timestamp(text)
        && !is_base_60(text)
}

/// Whether Go's encoder would have to quote `text` to keep it text.
///
/// Merge keys are quoted too: Go's encoder leaves them bare and reads something else back.
pub(crate) fn go_retypes(text: &str) -> bool {
    resolve_go(text) != Plain::Text || text == "<<" || is_timestamp(text) || is_base_60(text)
}

/// `^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`: base 60 numbers, which Go quotes but does not read.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let (text, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'_')
    {
        return false;
    }
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let mut rest = parts.peekable();
    first
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'_')
        && rest.peek().is_some()
        && rest.all(|part| match part.as_bytes() {
            [ones] => ones.is_ascii_digit(),
            [tens, ones] => (b'0'..=b'5').contains(tens) && ones.is_ascii_digit(),
            _ => false,
        })
}

/// Whether Go resolves `text` as a timestamp: a date, or a date and a time, of the calendar.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    date_and_rest(text).is_some_and(|rest| match rest.as_bytes() {
        [] => true,
        [b'T' | b't', ..] => time_and_rest(&rest[1..]).is_some_and(is_zone),
        [b' ', ..] => time_and_rest(rest.trim_start_matches(' ')).is_some_and(str::is_empty),
        _ => false,
    })
}

fn date_and_rest(text: &str) -> Option<&str> {
    let year: u32 = text.get(..4)?.parse().ok()?;
    let (month, rest) = one_or_two_digits(text.get(5..)?)?;
    let (day, rest) = one_or_two_digits(rest.strip_prefix('-')?)?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=days).contains(&day).then_some(rest)
}

fn time_and_rest(text: &str) -> Option<&str> {
    let (hour, rest) = one_or_two_digits(text)?;
    let (minute, rest) = one_or_two_digits(rest.strip_prefix(':')?)?;
    let (second, rest) = one_or_two_digits(rest.strip_prefix(':')?)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // A fraction is a point or comma and at least one digit; otherwise it is left for the zone to refuse.
    let Some(fraction) = rest.strip_prefix(['.', ',']) else {
        return Some(rest);
    };
    let after = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    Some(if after.len() < fraction.len() {
        after
    } else {
        rest
    })
}

fn is_zone(text: &str) -> bool {
    match text.as_bytes() {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let pair = |tens: &u8, ones: &u8| {
                (tens.is_ascii_digit() && ones.is_ascii_digit())
                    .then(|| (tens - b'0') * 10 + (ones - b'0'))
            };
            pair(h1, h2).is_some_and(|hours| hours <= 24)
                && pair(m1, m2).is_some_and(|minutes| minutes <= 60)
        }
        _ => false,
    }
}

fn one_or_two_digits(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| (text[..digits].parse().unwrap_or_default(), &text[digits..]))
}

/// A number as Go's library writes it into a text field: floats in the precision of 32 bits.
pub(crate) fn number_as_go_text(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => format_g_32(value),
        _ => number.to_string(),
    }
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 64)`.
pub(crate) fn format_g_64(value: f64) -> String {
    format_g(shortest(&value))
}

fn format_g_32(value: f64) -> String {
    let narrow = value as f32;
    if narrow.is_infinite() {
        return if narrow > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    format_g(shortest(&narrow))
}

/// The shortest digits that read back as the number. Rust's own formatter rounds ties up, Go and serde_json
/// round them to even.
fn shortest(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// From shortest digits in any notation to Go's `%g`: exponents below -4 or above 5 are written, with two
/// digits.
fn format_g(text: String) -> String {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => ("-", text),
        None => ("", text.as_str()),
    };
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    let leading_zeros = (all.len() - digits.len()) as i32;
    let digits = match digits.trim_end_matches('0') {
        "" => return format!("{sign}0"),
        digits => digits,
    };
    // The exponent of the first digit.
    let exponent: i32 =
        exponent.parse::<i32>().unwrap_or_default() + whole.len() as i32 - 1 - leading_zeros;
    let length = digits.len() as i32;
    if !(-4..6).contains(&exponent) {
        let fraction = &digits[1..];
        let point = if fraction.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        return format!(
            "{sign}{}{point}{fraction}e{exponent_sign}{:02}",
            &digits[..1],
            exponent.abs()
        );
    }
    if exponent < 0 {
        let zeros = "0".repeat((-exponent - 1) as usize);
        return format!("{sign}0.{zeros}{digits}");
    }
    if length <= exponent + 1 {
        let zeros = "0".repeat((exponent + 1 - length) as usize);
        return format!("{sign}{digits}{zeros}");
    }
    let (whole, fraction) = digits.split_at((exponent + 1) as usize);
    format!("{sign}{whole}.{fraction}")
}
