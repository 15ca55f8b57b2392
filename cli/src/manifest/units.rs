//! Sizes and durations as people write them.
//!
//! Owns the units. Must never guess one: a bare number of bytes or seconds is refused.

/// Bytes, from `512B`, `64KiB`, `64MiB` or `1GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
    let wanted = "write a whole number and a unit: `512B`, `64KiB`, `64MiB` or `1GiB`";
    quantity(text, &units, wanted)
}

/// Milliseconds, from `250ms`, `5s`, `10m`, `2h` or `30d`.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let units = [("ms", 1u64), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let wanted = "write a whole number and a unit: `250ms`, `5s`, `10m`, `2h` or `30d`";
    quantity(text, &units, wanted)
}

/// Whole seconds, from the same.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let milliseconds = milliseconds(text)?;
    if milliseconds % 1_000 == 0 {
        return Ok(milliseconds / 1_000);
    }
    Err("write a whole number of seconds, as in `5s`".to_owned())
}

fn quantity(text: &str, units: &[(&str, u64)], wanted: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end).unwrap_or_default();
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let number = digits.parse::<u64>().ok();
    number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or_else(|| wanted.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        for (text, wanted) in [("0B", 0), ("512B", 512), ("1KiB", 1024), ("64MiB", 67_108_864), ("1GiB", 1 << 30)] {
            assert_eq!(bytes(text), Ok(wanted), "{text}");
        }
        for (text, wanted) in [("250ms", 250), ("5s", 5_000), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000)] {
            assert_eq!(milliseconds(text), Ok(wanted), "{text}");
        }
        assert_eq!(seconds("2m"), Ok(120));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "64", "64MB", "64mib", "MiB", "-1B", "1.5GiB", " 1B", "1 B", "1B ", "99999999999GiB", "1é"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["", "5", "5sec", "s", "-1s", "1.5s", "1us", "999999999999999d"] {
            assert!(milliseconds(text).is_err(), "{text}");
        }
        assert!(seconds("1500ms").is_err());
    }
}
