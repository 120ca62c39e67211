//! Dates of transactions: milliseconds since the epoch to ISO 8601 in UTC, and back from what people type.
//!
//! A transaction's time is the wall clock of the server that ordered it, so any number can stand there.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// `2026-11-21T23:34:18.123Z`; a number that is no date is shown as it is.
pub fn format_ms(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{time_ms}ms"),
    }
}

/// Reads a date, with or without a time of day and an offset (none is UTC), or milliseconds since the epoch.
///
/// # Errors
/// In words for whoever typed it.
pub fn parse_ms(text: &str) -> Result<i64, String> {
    if let Ok(time_ms) = text.parse::<i64>() {
        return Ok(time_ms);
    }
    let time = text.parse::<Timestamp>().or_else(|_| {
        let civil = text.parse::<DateTime>()?;
        civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    match time {
        Ok(time) => Ok(time.as_millisecond()),
        Err(_) => Err("not a time; write 2026-11-21T23:34:18.123Z, 2026-11-21, or milliseconds since 1970".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc_with_milliseconds() {
        for (time_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1, "1970-01-01T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (1_795_304_058_120, "2026-11-21T23:34:18.120Z"),
        ] {
            assert_eq!(format_ms(time_ms), text);
            assert_eq!(parse_ms(text), Ok(time_ms));
        }
    }

    #[test]
    fn what_is_no_date_is_shown_as_the_number_that_it_is() {
        assert_eq!(format_ms(i64::MAX), "9223372036854775807ms");
        assert_eq!(format_ms(i64::MIN), "-9223372036854775808ms");
    }

    #[test]
    fn people_may_leave_out_what_is_zero() {
        assert_eq!(parse_ms("2026-11-21"), parse_ms("2026-11-21T00:00:00Z"));
        assert_eq!(parse_ms("2026-11-21T23:34:18"), parse_ms("2026-11-22T00:34:18.000+01:00"));
        assert_eq!(parse_ms("2026-11-21 23:34"), parse_ms("2026-11-21T23:34:00Z"));
        assert_eq!(parse_ms("1795304058120"), Ok(1_795_304_058_120));
        assert!(parse_ms("yesterday").is_err());
    }
}
