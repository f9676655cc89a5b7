//! Bounds for values in messages of peers, applied while they are parsed. So no sum or difference of numbers overflows,
//! and every text is a single line of limited length.

use serde::{Deserialize, Deserializer};

/// The largest count or size: 2^53, the largest range of integers that JavaScript represents exactly. A thousand of
/// them can be added in 64 bits.
const MAX_NUMBER: u64 = 1 << 53;
/// Limit of bytes of a text.
const MESSAGE: usize = 16 * 1024;

/// Parses a count or size.
pub fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    u64::deserialize(from).map(bounded)
}

pub fn bounded(count: u64) -> u64 {
    count.min(MAX_NUMBER)
}

/// Parses an optional time.
pub fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let most = MAX_NUMBER as i64;
    Option::<i64>::deserialize(from).map(|moment| moment.map(|moment| moment.clamp(-most, most)))
}

/// Parses a line of text.
pub fn line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(one_line)
}

/// Parses an optional line of text.
pub fn optional_line<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from).map(|text| text.map(one_line))
}

/// Parses the lines of a node list.
pub fn lines<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let lines = Option::<Vec<String>>::deserialize(from)?;
    Ok(lines.map(|lines| lines.into_iter().map(one_line).collect()))
}

/// The beginning of `text`: at most `most` bytes, cut between characters.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// The end of `text`: at most `most` bytes, cut between characters.
pub fn tail(text: &str, most: usize) -> &str {
    let from = (text.len().saturating_sub(most)..).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// Escapes control characters, which a terminal would interpret, and cuts the text to [`MESSAGE`] bytes.
pub fn one_line(mut text: String) -> String {
    if text.len() > MESSAGE {
        text = format!("{}…", beginning(&text, MESSAGE));
    }
    match text.contains(|c: char| c.is_control()) {
        false => text,
        true => text.chars().map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.into() }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_plain_text() {
        assert_eq!(one_line("plain ä".to_owned()), "plain ä");
        assert_eq!(one_line("a\nb\u{1b}[2J".to_owned()), "a\\nb\\u{1b}[2J");
        let long = one_line("ä".repeat(MESSAGE));
        assert!(long.len() <= MESSAGE + 3 && long.ends_with('…'));
    }

    #[test]
    fn cuts_are_between_characters() {
        assert_eq!((beginning("aäb", 2), beginning("aäb", 9)), ("a", "aäb"));
        assert_eq!((tail("aäb", 2), tail("aäb", 9)), ("b", "aäb"));
    }

    #[test]
    fn numbers_are_brought_into_bounds() {
        let read = |json: &str| count(&mut serde_json::Deserializer::from_str(json)).ok();
        assert_eq!((read("7"), read("18446744073709551615"), read("-1")), (Some(7), Some(MAX_NUMBER), None));
        let read = |json: &str| moment(&mut serde_json::Deserializer::from_str(json)).ok().flatten();
        assert_eq!((read("null"), read("-9223372036854775808")), (None, Some(-(MAX_NUMBER as i64))));
    }
}
