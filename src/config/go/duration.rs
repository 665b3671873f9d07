//! Go's durations: `300ms`, `1h30m`, printed as Go prints them.

use std::fmt;
use std::time::Duration;

/// A signed span of time in nanoseconds, shown as Go shows its durations
/// (`1h0m0s`, `1.5s`, `100µs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(
    /// Nanoseconds; negative for the past.
    pub i64,
);

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl From<Duration> for GoDuration {
    fn from(span: Duration) -> Self {
        Self(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl GoDuration {
    /// The span without its sign's meaning: zero when negative.
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write_fraction(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => write_fraction(f, nanos, 1_000_000, "ms"),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write_fraction(f, nanos % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

fn write_fraction(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    let rest = nanos % unit;
    if rest == 0 {
        return write!(f, "{}{name}", nanos / unit);
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    write!(f, "{}.{}{name}", nanos / unit, digits.trim_end_matches('0'))
}

/// Reads a duration in Go's form: an optional sign, then decimal numbers each with a
/// unit. Errors are worded as Go words them.
pub fn parse_duration(text: &str) -> Result<GoDuration, String> {
    let quoted = super::quote(text);
    let invalid = || format!("time: invalid duration {quoted}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(GoDuration(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, tail) = rest.split_at(number_end.unwrap_or(rest.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, tail) = tail.split_at(unit_end);
        if name.is_empty() {
            return Err(format!("time: missing unit in duration {quoted}"));
        }
        let Some((_, unit)) = UNITS.iter().find(|(n, _)| *n == name) else {
            return Err(format!("time: unknown unit {} in duration {quoted}", super::quote(name)));
        };
        total = add_part(total, whole, fraction, *unit).ok_or_else(invalid)?;
        rest = tail;
    }
    signed(total, negative).map(GoDuration).ok_or_else(invalid)
}

/// `total` plus `whole.fraction` units, in nanoseconds; `None` when out of range.
fn add_part(total: u128, whole: &str, fraction: &str, unit: u64) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(u128::from(unit))?;
    let mut place = u128::from(unit);
    for digit in fraction.bytes() {
        // Past the nanosecond nothing is left to add.
        nanos += u128::from(digit - b'0') * place / 10;
        place /= 10;
    }
    let sum = total.checked_add(nanos)?;
    (sum <= 1 << 63).then_some(sum)
}

fn signed(nanos: u128, negative: bool) -> Option<i64> {
    let magnitude = u64::try_from(nanos).ok()?;
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        let ok = [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("1h15m30.918s", 4_530_918_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            (".5ms", 500_000),
            ("5.s", 5_000_000_000),
        ];
        for (text, nanos) in ok {
            assert_eq!(parse_duration(text), Ok(GoDuration(nanos)), "{text}");
        }
        let bad = [
            ("", "time: invalid duration \"\""),
            ("5", "time: missing unit in duration \"5\""),
            ("-5", "time: missing unit in duration \"-5\""),
            ("foo", "time: invalid duration \"foo\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
            (".s", "time: invalid duration \".s\""),
        ];
        for (text, error) in bad {
            assert_eq!(parse_duration(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn prints() {
        let shown = [
            (0, "0s"),
            (999, "999ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (1_386_077, "1.386077ms"),
            (1_000_000_000, "1s"),
            (900_000_000, "900ms"),
            (65_000_000_000, "1m5s"),
            (7_200_000_000_000, "2h0m0s"),
            (-1_500_000_000, "-1.5s"),
        ];
        for (nanos, text) in shown {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
    }
}
