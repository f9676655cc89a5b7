//! Sizes in bytes, as typed by users.

/// Parses a number of bytes, alone or with K, M, G, T, KiB and so on (powers of 1,024, upper or lower case). The error
/// says what is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").filter(|number| number.ends_with(['K', 'M', 'G', 'T'])).unwrap_or(&upper);
    let (digits, shift) = match upper.char_indices().last().and_then(|(at, unit)| Some((at, "KMGT".find(unit)?))) {
        Some((at, power)) => (&upper[..at], 10 * (power as u32 + 1)),
        None => (upper, 0),
    };
    // The standard parser would accept a sign.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not a number of bytes, or one with K, M, G or T".to_owned());
    }
    let number: u64 = digits.parse().map_err(|_| "too large".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_size_is_its_number_times_its_unit(number in any::<u64>(), power in 0_u32..5) {
            let unit = ["", "k", "M", "g", "T"][power as usize];
            let size = u128::from(number) << (10 * power);
            prop_assert_eq!(parse_size(&format!("{number}{unit}")).ok(), u64::try_from(size).ok());
        }

        #[test]
        fn any_text_is_a_size_or_an_error(text in "[0-9kKmMgGtT+.é-]{0,6}|\\PC{0,3}") {
            let is_size = text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().rev().skip(1).all(|c| c.is_ascii_digit());
            prop_assert!(is_size || parse_size(&text).is_err());
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("10k"), Ok(10 << 10));
        assert_eq!(parse_size("3G"), Ok(3 << 30));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        for wrong in
            ["G", "GiB", "1iB", "1iBiB", "-1", "+1", "", "1.5G", "1GB", "99999999999T", "99999999999999999999999"]
        {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
