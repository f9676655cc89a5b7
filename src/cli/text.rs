//! Parts of help texts. A text has notes and then examples; `-h` shows both, and `--help` only the examples, since the long
//! description says what the notes say.

/// The examples of a help text.
pub fn examples(text: &'static str) -> &'static str {
    text.find("Example").map_or("", |at| &text[at..])
}
