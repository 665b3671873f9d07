//! Go's `strconv` for booleans and integers, base prefixes and underscores included.

use std::fmt;

/// Why a text is not a value, in the two words Go's flag package knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// Not of the form at all.
    Syntax,
    /// Of the form, but too large or too small.
    Range,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "parse error",
            Self::Range => "value out of range",
        })
    }
}

/// Reads a boolean: `1 t T true TRUE True` and their opposites.
pub(crate) fn parse_bool(text: &str) -> Result<bool, ParseError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ParseError::Syntax),
    }
}

/// Reads an unsigned integer in base 10, or in the base its prefix names
/// (`0x`, `0o` or a leading `0`, `0b`).
pub(crate) fn parse_uint(text: &str) -> Result<u64, ParseError> {
    let (base, digits, prefixed) = split_base(text);
    let digits = strip_underscores(digits, prefixed)?;
    if digits.is_empty() {
        return Err(ParseError::Syntax);
    }
    let mut value: u64 = 0;
    let mut overflow = false;
    for c in digits.chars() {
        let digit = c.to_digit(base).ok_or(ParseError::Syntax)?;
        match value.checked_mul(u64::from(base)).and_then(|v| v.checked_add(u64::from(digit))) {
            Some(v) => value = v,
            None => overflow = true,
        }
    }
    if overflow { Err(ParseError::Range) } else { Ok(value) }
}

/// Reads a signed integer; the bases are those of [`parse_uint`].
pub(crate) fn parse_int(text: &str) -> Result<i64, ParseError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = parse_uint(digits)?;
    if negative {
        0i64.checked_sub_unsigned(magnitude).ok_or(ParseError::Range)
    } else {
        i64::try_from(magnitude).map_err(|_| ParseError::Range)
    }
}

/// The base, the digits after its prefix, and whether there was a prefix.
fn split_base(text: &str) -> (u32, &str, bool) {
    let bytes = text.as_bytes();
    if bytes.len() < 2 || bytes[0] != b'0' {
        return (10, text, false);
    }
    match bytes[1].to_ascii_lowercase() {
        b'x' => (16, &text[2..], true),
        b'o' => (8, &text[2..], true),
        b'b' => (2, &text[2..], true),
        _ => (8, &text[1..], true),
    }
}

/// Underscores may stand between digits, or between a prefix and a digit.
fn strip_underscores(digits: &str, prefixed: bool) -> Result<String, ParseError> {
    let mut after_digit = prefixed;
    for c in digits.chars() {
        if c == '_' && !after_digit {
            return Err(ParseError::Syntax);
        }
        after_digit = c != '_';
    }
    if digits.ends_with('_') { Err(ParseError::Syntax) } else { Ok(digits.replace('_', "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned() {
        let ok = [
            ("0", 0),
            ("007", 7),
            ("0x1F", 31),
            ("0b101", 5),
            ("0o17", 15),
            ("0x_f", 15),
            ("1_000", 1000),
        ];
        for (text, value) in ok {
            assert_eq!(parse_uint(text), Ok(value), "{text}");
        }
        for text in ["", "-1", "+1", "1x", "08", "1__0", "0x", "_1", "0x1_", "é"] {
            assert_eq!(parse_uint(text), Err(ParseError::Syntax), "{text}");
        }
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_uint("18446744073709551616"), Err(ParseError::Range));
    }

    #[test]
    fn signed() {
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("+5"), Ok(5));
        assert_eq!(parse_int("9223372036854775808"), Err(ParseError::Range));
        assert_eq!(parse_int("--5"), Err(ParseError::Syntax));
    }
}
