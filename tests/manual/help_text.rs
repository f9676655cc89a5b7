//! The parts of a help text. Help texts and topics are plain text of one form, which a terminal shows as it is:
//!
//! ```text
//! A paragraph, of one or more lines.
//!
//! Heading:
//!   term   what it means, over as many lines
//!          as it takes
//!
//! Example: what it does
//!   s4 ls
//! ```

use std::iter::Peekable;
use std::str::Lines;

#[derive(Debug, PartialEq, Eq)]
pub enum Block {
    Paragraph(String),
    /// The title of a list.
    Heading(String),
    /// An entry of a list: the term, and the text.
    Item(String, String),
    /// What the commands do, if it is said, and the commands.
    Example(String, Vec<String>),
}

/// What begins the lines of lists and examples.
const INDENT: &str = "  ";
/// Limit of words of a heading. A longer line that ends in a colon is a paragraph.
const LONGEST_HEADING: usize = 3;

pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let is_over_indented = lines.peek().is_some_and(|next| next.starts_with(INDENT));
        let heading = line.strip_suffix(':').filter(|title| title.split(' ').count() <= LONGEST_HEADING);
        blocks.push(match (line.strip_prefix(INDENT), line.strip_prefix("Example"), heading) {
            (Some(entry), ..) => item(entry, &mut lines),
            (_, Some(rest), _) if is_over_indented => example(rest, &mut lines),
            (_, _, Some(title)) if is_over_indented => Block::Heading(title.to_owned()),
            _ => paragraph(line, &mut lines),
        });
    }
    blocks
}

/// The examples at the end of a help text, without what comes before them.
pub fn examples(text: &str) -> impl Iterator<Item = Block> {
    blocks(text).into_iter().filter(|block| matches!(block, Block::Example(..)))
}

fn item(entry: &str, lines: &mut Peekable<Lines>) -> Block {
    let (term, text) = entry.split_once(INDENT).unwrap_or((entry, ""));
    let mut text = text.trim().to_owned();
    while let Some(line) = lines.next_if(|line| line.strip_prefix(INDENT).is_some_and(|line| line.starts_with(' '))) {
        text = format!("{text} {}", line.trim());
    }
    Block::Item(term.to_owned(), text.trim().to_owned())
}

fn example(rest: &str, lines: &mut Peekable<Lines>) -> Block {
    let title = rest.trim_start_matches('s').trim_start_matches(':').trim().to_owned();
    let mut commands = Vec::new();
    while let Some(command) = lines.next_if(|line| line.starts_with(INDENT)) {
        commands.push(command[INDENT.len()..].to_owned());
    }
    Block::Example(title, commands)
}

fn paragraph(first: &str, lines: &mut Peekable<Lines>) -> Block {
    let is_more = |line: &&str| !line.trim().is_empty() && !line.starts_with(INDENT) && !line.starts_with("Example");
    let mut text = first.to_owned();
    while let Some(line) = lines.next_if(is_more) {
        text = format!("{text} {}", line.trim());
    }
    Block::Paragraph(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_help_text_is_paragraphs_lists_and_examples() {
        let text = "One\ntwo.\n\nFiles:\n  ~/.s4.conf   the cluster\n               file\n  DIR\n\nExample: a list\n  s4 ls\n  s4 ls -r\n\nMore: s4 help";
        let [paragraph, more] = ["One two.", "More: s4 help"].map(|text| Block::Paragraph(text.to_owned()));
        let expected = [
            paragraph,
            Block::Heading("Files".to_owned()),
            Block::Item("~/.s4.conf".to_owned(), "the cluster file".to_owned()),
            Block::Item("DIR".to_owned(), String::new()),
            Block::Example("a list".to_owned(), vec!["s4 ls".to_owned(), "s4 ls -r".to_owned()]),
            more,
        ];
        assert_eq!(blocks(text), expected);
        assert_eq!(examples(text).count(), 1);
    }
}
