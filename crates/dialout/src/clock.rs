//! Times as the protocol writes them.

/// The zone as it is written after a time: `+08:00`
pub(crate) fn offset_text(minutes: i64) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// RFC 3339 with the offset, to the second.
pub(crate) fn rfc3339(unix_ms: u64, offset_minutes: i64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(0) + offset_minutes * 60;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = legwork_proto::civil::date(days);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{}", offset_text(offset_minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339_with_offset() {
        assert_eq!(rfc3339(1_767_225_600_000, 480), "2026-01-01T08:00:00+08:00");
        assert_eq!(rfc3339(951_782_399_000, 0), "2000-02-28T23:59:59+00:00");
        assert_eq!(rfc3339(951_782_400_000, -210), "2000-02-28T20:30:00-03:30");
    }
}
