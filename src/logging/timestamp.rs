//! A line's time: local, to the microsecond, with the offset to UTC.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_A_DAY: i64 = 86_400;

/// Local time changes its offset on quarters of an hour only.
const SECONDS_A_QUARTER: i64 = 900;

/// Writes `time` as `2026-11-22T08:18:48.123456Z`, or with `+0200` in place of the `Z`.
pub(super) fn write_local(time: SystemTime, out: &mut String) {
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    };
    write_at(micros, local_offset(micros.div_euclid(1_000_000)), out);
}

/// Writes microseconds since 1970 as they read `offset` seconds east of Greenwich.
pub(super) fn write_at(micros: i64, offset: i32, out: &mut String) {
    let seconds = micros.div_euclid(1_000_000) + i64::from(offset);
    let (year, month, day) = civil(seconds.div_euclid(SECONDS_A_DAY));
    let of_day = seconds.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = micros.rem_euclid(1_000_000);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}"
    );
    if offset == 0 {
        out.push('Z');
        return;
    }
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.unsigned_abs() / 60;
    let _ = write!(out, "{sign}{:02}{:02}", minutes / 60, minutes % 60);
}

/// Year, month and day of a count of days since 1970, in the Gregorian calendar. Years
/// are counted from March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    // From the first of March of the year 0.
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_IN_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months in a row from March have 153 days.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Seconds local time is ahead of UTC at that moment.
fn local_offset(unix: i64) -> i32 {
    thread_local! {
        static LAST: Cell<Option<(i64, i32)>> = const { Cell::new(None) };
    }
    let quarter = unix.div_euclid(SECONDS_A_QUARTER);
    match LAST.get() {
        Some((known, offset)) if known == quarter => offset,
        _ => {
            let offset = ask_offset(unix);
            LAST.set(Some((quarter, offset)));
            offset
        }
    }
}

fn ask_offset(unix: i64) -> i32 {
    // Narrower than i64 on some 32-bit systems, where it lasts until 2038.
    let time = unix as libc::time_t;
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live, aligned values of the right types; `tm` is valid
    // when zeroed, so it may be read even if the call failed and wrote nothing.
    let parts = unsafe {
        libc::localtime_r(&raw const time, parts.as_mut_ptr());
        parts.assume_init()
    };
    i32::try_from(parts.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::write_at;

    fn shown(micros: i64, offset: i32) -> String {
        let mut out = String::new();
        write_at(micros, offset, &mut out);
        out
    }

    #[test]
    fn known_moments() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(shown(951_782_400_000_001, 0), "2000-02-29T00:00:00.000001Z");
        assert_eq!(shown(1_795_336_460_574_580, 0), "2026-11-22T08:34:20.574580Z");
        assert_eq!(shown(1_795_336_460_574_580, 7200), "2026-11-22T10:34:20.574580+0200");
        assert_eq!(shown(1_795_336_460_574_580, -34_200), "2026-11-21T23:04:20.574580-0930");
        assert_eq!(shown(4_107_542_399_999_999, 0), "2100-02-28T23:59:59.999999Z");
        assert_eq!(shown(4_107_542_400_000_000, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(shown(-1, 0), "1969-12-31T23:59:59.999999Z");
    }
}
