//! The language of man pages. Literals are bold and placeholders italic, as man-pages(7) asks for; a help text has no marks
//! for them, so that they are told by their form: an option, an address, a quoted text, a variable, the name of a value.

use crate::help_text::Block;
use std::collections::BTreeSet;

/// The names of values in a command's definition, as INDIR.
pub type Placeholders = BTreeSet<String>;

/// Bytes of a line of an example, which is indented by 9 columns.
const WIDEST_EXAMPLE: usize = 71;

/// Characters between words.
const BETWEEN: &[char] = &[' ', '(', ')', '[', ']', ',', ';', '|', '"', '<', '>'];
/// Characters that may end a word without being part of it.
const ENDINGS: &[char] = &['.', ':', '?', '!'];

/// Text that is printed as it is.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped += "\\e",
            '-' => escaped += "\\-",
            '\'' => escaped += "\\(aq",
            '"' => escaped += "\\(dq",
            '~' => escaped += "\\(ti",
            '^' => escaped += "\\(ha",
            '`' => escaped += "\\(ga",
            '…' => escaped += "...",
            c => {
                assert!(c.is_ascii(), "no man page has a '{c}' yet: {text}");
                escaped.push(c);
            }
        }
    }
    escaped
}

pub fn bold(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\\fB{}\\fR", escape(text)) }
}

pub fn italic(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\\fI{}\\fR", escape(text)) }
}

/// A paragraph, each sentence on a line of its own.
pub fn sentences(text: &str, placeholders: &Placeholders) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if word.len() > 1 && word.ends_with(['.', '?', '!']) && !word.ends_with("..") {
            lines.push(String::new());
        }
    }
    lines.iter().filter(|line| !line.is_empty()).map(|line| guarded(&styled(line, placeholders)) + "\n").collect()
}

/// A line that is no request, whatever it begins with.
fn guarded(line: &str) -> String {
    if line.starts_with('.') { format!("\\&{line}") } else { line.to_owned() }
}

/// Text with its literals in bold and its placeholders in italics.
pub fn styled(text: &str, placeholders: &Placeholders) -> String {
    let (mut styled, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let between = rest.len() - rest.trim_start_matches(BETWEEN).len();
        styled += &escape(&rest[..between]);
        rest = &rest[between..];
        if let Some((literal, after)) = quoted(rest) {
            styled += &literals(literal, placeholders);
            rest = after;
            continue;
        }
        let end = rest.find(BETWEEN).unwrap_or(rest.len());
        let word = rest[..end].trim_end_matches(ENDINGS);
        let word = if word.is_empty() { &rest[..end] } else { word };
        let is_page = is_section(&rest[end..]) && word.len() == end;
        styled += &if is_page { bold(word) } else { styled_word(word, placeholders) };
        styled += &escape(&rest[word.len()..end]);
        rest = &rest[end..];
    }
    styled
}

/// The text between quotes that `text` begins with, and what comes after them.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('\'')?;
    let closes = |at: &usize| !inner[at + 1..].starts_with(|c: char| c.is_alphanumeric());
    let end = inner.match_indices('\'').map(|(at, _)| at).find(closes)?;
    Some((&inner[..end], &inner[end + 1..]))
}

/// True if this is the rest of a page's name, as `(8)`.
fn is_section(text: &str) -> bool {
    matches!(text.as_bytes(), [b'(', b'1'..=b'9', b')', ..])
}

fn styled_word(word: &str, placeholders: &Placeholders) -> String {
    let is_option = match word.as_bytes() {
        [b'-', b'-', letter, ..] => letter.is_ascii_lowercase(),
        [b'-', letter] => letter.is_ascii_alphabetic(),
        _ => false,
    };
    let is_upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let name = word.split('=').next().unwrap_or(word);
    let is_named =
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.contains('_') && name.chars().all(is_upper);
    let is_variable = word.starts_with('$') || is_named;
    let is_path = ["~/", "./", "/"].iter().any(|start| word.starts_with(start)) && word.len() > 2;
    let first = word.split(['/', '=', '.']).next().unwrap_or(word);
    if is_option || word.contains("://") {
        literals(word, placeholders)
    } else if is_variable {
        bold(word)
    } else if is_path || placeholders.contains(first) {
        italic(word)
    } else {
        escape(word)
    }
}

/// What is typed or printed as it is, but for the placeholders in it.
pub fn literals(text: &str, placeholders: &Placeholders) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (mut styled, mut literal, mut rest) = (String::new(), String::new(), text);
    while !rest.is_empty() {
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let end = end.max(rest.chars().next().map_or(0, char::len_utf8));
        let (piece, after) = rest.split_at(end);
        if placeholders.contains(piece) {
            styled += &bold(&std::mem::take(&mut literal));
            styled += &italic(piece);
        } else {
            literal += piece;
        }
        rest = after;
    }
    styled + &bold(&literal)
}

/// A usage: what is in capitals stands for something.
pub fn usage(text: &str) -> String {
    let is_literal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-:/".contains(c);
    let is_placeholder = |c: char| c.is_ascii_uppercase() || c == '_';
    let (mut styled, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let is_same = |c| is_literal(c) == is_literal(first) && is_placeholder(c) == is_placeholder(first);
        let (piece, after) = rest.split_at(rest.find(|c| !is_same(c)).unwrap_or(rest.len()));
        styled += &match first {
            first if is_literal(first) => bold(piece),
            first if is_placeholder(first) => italic(piece),
            _ => escape(&piece.replace(['<', '>'], "")),
        };
        rest = after;
    }
    styled
}

/// The lines of a page for a part of a help text.
pub fn block(block: &Block, placeholders: &Placeholders) -> String {
    match block {
        Block::Paragraph(text) => format!(".PP\n{}", sentences(text, placeholders)),
        Block::Heading(title) => format!(".SS {}\n", quoted_argument(title)),
        Block::Item(term, text) => {
            let terms: Vec<String> = term.split(", ").map(|term| literals(term, placeholders)).collect();
            format!(".TP\n{}\n{}", terms.join(", "), sentences(text, placeholders))
        }
        Block::Example(title, commands) => example(title, commands, placeholders),
    }
}

fn example(title: &str, commands: &[String], placeholders: &Placeholders) -> String {
    let title = match title {
        "" => String::new(),
        title => format!(".PP\n{}", sentences(&format!("{}:", capitalized(title)), placeholders)),
    };
    let wide = commands.iter().find(|line| line.len() > WIDEST_EXAMPLE);
    assert!(wide.is_none(), "wider than a page of 80 columns: {wide:?}");
    let lines: String = commands.iter().map(|line| guarded(&escape(line)) + "\n").collect();
    format!("{title}.PP\n.RS 2\n.EX\n{lines}.EE\n.RE\n")
}

pub fn quoted_argument(text: &str) -> String {
    format!("\"{}\"", escape(text))
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        styled(text, &["INDIR", "N"].map(str::to_owned).into())
    }

    #[test]
    fn literals_are_bold_and_placeholders_italic() {
        assert_eq!(told("With --try=N, or -n N."), "With \\fB\\-\\-try=\\fR\\fIN\\fR, or \\fB\\-n\\fR \\fIN\\fR.");
        assert_eq!(told("a job's 's4 wait N', nodes' own"), "a job\\(aqs \\fBs4 wait \\fR\\fIN\\fR, nodes\\(aq own");
        assert_eq!(told("s4-mount(8) (s4://a/b)"), "\\fBs4\\-mount\\fR(8) (\\fBs4://a/b\\fR)");
        assert_eq!(told("$HOME, S4_NODE and ~/.s4.conf"), "\\fB$HOME\\fR, \\fBS4_NODE\\fR and \\fI\\(ti/.s4.conf\\fR");
        assert_eq!(told("'.' or ._"), "\\fB.\\fR or ._");
    }

    #[test]
    fn a_sentence_is_a_line() {
        assert_eq!(sentences("One. 1.5 etc. Two", &Placeholders::new()), "One.\n1.5 etc.\nTwo\n");
        assert_eq!(sentences(".. is one", &Placeholders::new()), "\\&.. is one\n");
    }

    #[test]
    fn a_usage_has_no_marks_around_names() {
        assert_eq!(
            usage("s4 x <--n <N>|-r> [A B]..."),
            "\\fBs4\\fR \\fBx\\fR \\fB\\-\\-n\\fR \\fIN\\fR|\\fB\\-r\\fR [\\fIA\\fR \\fIB\\fR]..."
        );
    }
}
