//! Conversion of times: seconds or nanoseconds since 1970, and dates in UTC, without a time zone database.

use std::time::{Duration, SystemTime};

/// Nanoseconds since 1970, clamped to the range of the type.
pub fn to_nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |n| -n),
    }
}

/// The current time in milliseconds since 1970.
pub fn now_milliseconds() -> i64 {
    to_nanoseconds(SystemTime::now()) / 1_000_000
}

/// The time this many nanoseconds after 1970.
pub fn from_nanoseconds(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    match nanoseconds < 0 {
        true => SystemTime::UNIX_EPOCH - distance,
        false => SystemTime::UNIX_EPOCH + distance,
    }
}

/// The longest time that a user or peer may set: about thirty years. It can be added to any point in time.
pub const LONGEST: Duration = Duration::from_secs(1_000_000_000);

/// A number of seconds as a duration, if it is above 0 and at most [`LONGEST`].
pub fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok().filter(|time| !time.is_zero() && *time <= LONGEST)
}

/// Parses such a number of seconds.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "not a number of seconds above 0, and at most 1000000000".to_owned();
    text.parse().ok().and_then(seconds).ok_or_else(wrong)
}

/// `("YYYY-MM-DD", "HH:MM:SS")` in UTC. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub fn utc(seconds: i64) -> (String, String) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hour:02}:{minute:02}:{:02}", second % 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_time_within_bounds_or_an_error(text in "[0-9]{0,12}(\\.[0-9]{1,3})?(e-?[0-9]{1,3})?|-?(inf|NaN)|\\PC{0,4}") {
            if let Ok(time) = parse_seconds(&text) {
                prop_assert!(!time.is_zero() && time <= LONGEST);
                // The sum with the current time does not overflow.
                prop_assert!(SystemTime::now().checked_add(time).is_some());
            }
        }
    }

    #[test]
    fn nanoseconds_are_converted_back() {
        for nanoseconds in [0, 1, -1, 946_684_800_000_000_000, i64::MAX, i64::MIN + 1] {
            assert_eq!(to_nanoseconds(from_nanoseconds(nanoseconds)), nanoseconds);
        }
    }

    #[test]
    fn times_that_cannot_be_waited_for_are_refused() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("1e9"), Ok(LONGEST));
        for wrong in ["1e19", "1e300", "inf", "NaN", "0", "1e-30", "-1", "", "ten", "1000000001"] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn known_moments() {
        let at = |seconds| {
            let (date, time) = utc(seconds);
            format!("{date} {time}")
        };
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_542_714), "2026-11-24 17:51:54");
        assert_eq!(at(-1), "1969-12-31 23:59:59");
    }
}
