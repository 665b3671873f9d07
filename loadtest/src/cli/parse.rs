//! Values of options as people write them.

use std::time::Duration;

/// A duration: `500ms`, `10s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// With a text for the user when it is none of these.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let number: f64 = number.parse().map_err(|_| format!("no duration: {text:?}"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// A number with `k` (thousand) or `m` (million) behind it, or without.
///
/// # Errors
/// With a text for the user when it is none of these.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, factor) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1000),
        Some(b'm') => (&lower[..lower.len() - 1], 1_000_000),
        _ => (lower.as_str(), 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("no number: {text:?}"))?;
    number.checked_mul(factor).ok_or_else(|| format!("too large: {text:?}"))
}

/// A share: from 0 to 1.
///
/// # Errors
/// With a text for the user when it is not.
pub(super) fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("not between 0 and 1: {text:?}")),
    }
}

/// Calls a second: more than none.
///
/// # Errors
/// With a text for the user when it is not.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err(format!("not a rate above 0: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "10x", "1e999s", "1.2.3"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("10000"), Ok(10_000));
        assert_eq!(size("10k"), Ok(10_000));
        assert_eq!(size("1M"), Ok(1_000_000));
        for text in ["", "k", "1.5m", "-1", "99999999999999999999", "99999999999999999k"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ratios_and_rates() {
        assert_eq!(ratio("0.9"), Ok(0.9));
        assert!(ratio("1.1").is_err() && ratio("nan").is_err() && ratio("x").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("inf").is_err());
    }
}
