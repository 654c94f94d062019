//! Times as the protocol writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in RFC 3339 and UTC; trailing zeros of the fraction are left out, as Go does.
pub(crate) fn timestamp() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.as_secs(), now.subsec_nanos())
}

fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (year, month, day) = legwork_proto::civil::date(i64::try_from(seconds / 86_400).unwrap_or(0));
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if nanos > 0 {
        text.push('.');
        text.push_str(format!("{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Whether a text is a time in RFC 3339.
pub(crate) fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || !text.is_ascii() {
        return false;
    }
    let number = |from: usize, to: usize| -> Option<u32> {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
    };
    let within = |at: usize, max: u32| number(at, at + 2).is_some_and(|n| n <= max);
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 7), number(8, 10)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    let separators = bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T';
    let time = bytes[13] == b':' && bytes[16] == b':' && within(11, 23) && within(14, 59) && within(17, 59);
    if !separators || !time || !(1..=days).contains(&day) {
        return false;
    }
    let mut rest = &bytes[19..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    match rest {
        b"Z" => true,
        [b'+' | b'-', _, _, b':', _, _] => {
            let at = bytes.len() - 5;
            within(at, 23) && within(at + 3, 59)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        assert_eq!(rfc3339(1_767_225_600, 0), "2026-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400, 70_000_000), "2000-02-29T00:00:00.07Z");
    }

    #[test]
    fn times_are_checked() {
        for good in ["2026-01-01T00:00:00Z", "2024-02-29T23:59:59.123456789Z", "2026-01-01T00:00:00+05:30"] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-01-01 00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+5:30",
            "2026-01-01T00:00:0éZ",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
