//! What a peer says, brought into bounds as it is parsed: no sum or difference of its numbers overflows, and none of its messages
//! is more than a line of text.

use serde::{Deserialize, Deserializer};

/// No honest count or size is larger. What JavaScript holds exactly; a thousand of them fit into 64 bits.
const MOST: u64 = 1 << 53;
/// The longest message, in bytes.
const MESSAGE: usize = 16 * 1024;

/// A count or a size.
pub fn count<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    u64::deserialize(from).map(bounded)
}

pub fn bounded(count: u64) -> u64 {
    count.min(MOST)
}

/// A moment, where there is one.
pub fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let most = MOST as i64;
    Option::<i64>::deserialize(from).map(|moment| moment.map(|moment| moment.clamp(-most, most)))
}

/// A message.
pub fn line<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(one_line)
}

/// A message, where there is one.
pub fn optional_line<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(from).map(|text| text.map(one_line))
}

/// Lines of a node list.
pub fn lines<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let lines = Option::<Vec<String>>::deserialize(from)?;
    Ok(lines.map(|lines| lines.into_iter().map(one_line).collect()))
}

/// The first bytes of `text`, at most so many, whole characters.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// The end of `text`, at most so many bytes, from the beginning of a character on.
pub fn tail(text: &str, most: usize) -> &str {
    let from = (text.len().saturating_sub(most)..).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    &text[from..]
}

/// The text without control characters, which a terminal would act on, and without what is beyond any message.
fn one_line(mut text: String) -> String {
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
        assert_eq!((read("7"), read("18446744073709551615"), read("-1")), (Some(7), Some(MOST), None));
        let read = |json: &str| moment(&mut serde_json::Deserializer::from_str(json)).ok().flatten();
        assert_eq!((read("null"), read("-9223372036854775808")), (None, Some(-(MOST as i64))));
    }
}
