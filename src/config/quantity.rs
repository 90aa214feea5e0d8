//! Durations and sizes as they are written: `500ms`, `30s`, `15m`, `1h`, `31d`; `32KiB`, `64MiB`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// What a duration looks like, for messages.
pub const DURATION: &str = "a duration such as \"500ms\", \"30s\", \"15m\", \"1h\" or \"31d\"";
/// What a size looks like, for messages.
pub const SIZE: &str = "a size such as \"512B\", \"32KiB\", \"64MiB\" or \"1GiB\"";

/// Reads a duration: a whole number and its unit, nothing else.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Reads a size in bytes: a whole number and its unit, nothing else.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    scaled(text, &SIZE_UNITS)
}

/// Writes a duration as [`duration`] reads it, in the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)], "ms")
}

/// Writes a size as [`size`] reads it, in the largest unit that divides it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    show(bytes, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "B")
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("{value}{smallest}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_have_a_unit_and_nothing_else() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("31d"), Some(Duration::from_hours(31 * 24)));
        assert_eq!(size("32KiB"), Some(32_768));
        for bad in ["", "30", "s", "-1s", "1.5h", "30 s", "30S", "1h30m", "99999999999999999999d", "10KB", "1kib"] {
            assert_eq!(duration(bad), None, "{bad}");
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(number in any::<u64>()) {
            prop_assert_eq!(size(&show_size(number)), Some(number));
            let time = Duration::from_millis(number);
            prop_assert_eq!(duration(&show_duration(time)), Some(time));
        }
    }
}
