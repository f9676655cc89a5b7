//! The quotes of CSV. A field that begins with `"` is quoted: up to the closing quote, delimiters and newlines are
//! text, and `""` is one quote. A quote elsewhere in a field is text.

use memchr::{memchr, memchr2};

/// The state of reading a row. Rows may be read in pieces of any length.
#[derive(Debug, Clone, Copy)]
pub struct Quotes {
    delimiter: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Bare,
    Quoted,
    /// After a quote in a quoted field. It was the closing quote, unless another one follows.
    Closing,
}

impl Quotes {
    /// At the beginning of a row.
    pub fn new(delimiter: u8) -> Self {
        Self { delimiter, state: State::FieldStart }
    }

    /// Reads up to the end of the row, and calls `field_ended` with the position of each delimiter or newline that ends
    /// a field. Returns the position after the row, or `None` if the row does not end in `bytes`.
    pub fn scan(&mut self, bytes: &[u8], mut field_ended: impl FnMut(usize)) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Quoted => {
                    at += memchr(b'"', &bytes[at..])? + 1;
                    self.state = State::Closing;
                }
                State::FieldStart | State::Closing if bytes[at] == b'"' => {
                    at += 1;
                    self.state = State::Quoted;
                }
                _ => {
                    self.state = State::Bare;
                    at += memchr2(self.delimiter, b'\n', &bytes[at..])?;
                    field_ended(at);
                    self.state = State::FieldStart;
                    at += 1;
                    if bytes[at - 1] == b'\n' {
                        return Some(at);
                    }
                }
            }
        }
        None
    }

    /// True inside a quoted field.
    pub fn is_open(&self) -> bool {
        self.state == State::Quoted
    }
}

/// Appends the value of a field to `value`. For example, `"a ""b"""` gives `a "b"`.
pub fn unquote(field: &[u8], value: &mut Vec<u8>) {
    let Some(mut rest) = field.strip_prefix(b"\"") else {
        value.extend_from_slice(field);
        return;
    };
    while let Some(quote) = memchr(b'"', rest) {
        value.extend_from_slice(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix(b"\"") {
            Some(more) => {
                value.push(b'"');
                rest = more;
            }
            // Bytes after the closing quote are text.
            None => break,
        }
    }
    value.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unquoted(field: &str) -> String {
        let mut value = Vec::new();
        unquote(field.as_bytes(), &mut value);
        String::from_utf8(value).expect("UTF-8")
    }

    #[test]
    fn a_quoted_field_is_its_text() {
        for (field, value) in [
            ("", ""),
            ("a", "a"),
            ("\"\"", ""),
            ("\"a,b\"", "a,b"),
            ("\"a \"\"b\"\"\"", "a \"b\""),
            ("\"\"\"\"", "\""),
            ("5\" pipe", "5\" pipe"),
            ("\"a\"b\"", "ab\""),
        ] {
            assert_eq!(unquoted(field), value, "{field}");
        }
    }

    #[test]
    fn a_row_ends_at_the_same_byte_in_pieces_of_any_length() {
        let row = b"a,\"b\n\"\"c\"\",\n\",d\" e,\"\"\nrest";
        let end = Quotes::new(b',').scan(row, |_| {}).expect("it ends");
        assert_eq!(&row[end..], b"rest");
        for length in 1..row.len() {
            let mut quotes = Quotes::new(b',');
            let ends = row.chunks(length).enumerate();
            let found = ends.filter_map(|(piece, bytes)| Some(quotes.scan(bytes, |_| {})? + piece * length)).next();
            assert_eq!(found, Some(end), "pieces of {length}");
        }
    }
}
