//! Man pages from the definitions of command lines. Each program has a test that compares its pages in man/ with what its
//! definition gives, so that help texts and pages are one text.
//!
//! clap_mangen is not used: it fills the lines of examples, has all paragraphs of an option and all its literals as plain
//! text, and cannot put examples before options.

mod help_text;
mod pages;
mod roff;

pub use pages::{check, check_no_others};

use clap::{Arg, ArgAction, Command};
use help_text::{Block, blocks, examples};
use roff::{Placeholders, bold, escape, sentences, styled};

/// Options of every command, which are described once.
const OF_EVERY: [&str; 2] = ["help", "version"];

/// That of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Placeholders in lists.
const IN_LISTS: [&str; 5] = ["CMD", "ID", "INDIR", "NAME", "OUTDIR"];

/// What a page has besides the definition of its command.
#[derive(Default)]
pub struct Page<'a> {
    pub section: u8,
    /// Headings and help texts, for sections after the options.
    pub sections: &'a [(&'a str, &'a str)],
    /// Pages that are related, as `s4(1)`.
    pub see_also: &'a [&'a str],
    /// Other commands, as `s4 ls`, with their pages. They are related if this page mentions them.
    pub others: &'a [(String, String)],
    pub subcommands: Subcommands<'a>,
    /// The page with the options of every command, if it is another one.
    pub global: Option<&'a str>,
}

/// Where the subcommands of a command are described.
#[derive(Clone, Copy, Default)]
pub enum Subcommands<'a> {
    #[default]
    Here,
    /// Each on a page of its own, but these, whose subject is on the page beside them.
    Elsewhere { except: &'a [(&'a str, &'a str)] },
}

/// The subcommands that a user sees, without `help`.
pub fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// The name of a command's page, without the section.
pub fn name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

/// The page of a command, which was built with [`Command::build`].
pub fn render(command: &Command, page: &Page) -> String {
    let manual = if page.section == 8 { "System Administration" } else { "User Commands" };
    let name = name(command);
    let about = about(command);
    let mut text = format!(
        ".\\\" Made from the definition of the command line by the test man_pages_are_as_defined.\n\
         .TH {} {} \"\" \"s4 {VERSION}\" \"{manual}\"\n.nr HY 0\n.nh\n.ad l\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n{}.SH DESCRIPTION\n{}",
        escape(&name.to_uppercase()),
        page.section,
        escape(&name),
        escape(&uncapitalized(&about)),
        synopsis(command, page),
        description(command)
    );
    text += &all_examples(command, page.subcommands);
    text += &arguments(command, ".SH ARGUMENTS\n");
    if subcommands(command).next().is_some() {
        text += ".SH COMMANDS\n";
        text.extend(subcommands(command).map(|sub| match page.subcommands {
            Subcommands::Here => described(sub),
            Subcommands::Elsewhere { except } => listed(sub, page.section, except),
        }));
    }
    text += &options(command, page.global);
    let names = subcommands(command).chain([command]).flat_map(placeholders_of);
    let placeholders: Placeholders = names.chain(IN_LISTS.map(str::to_owned)).collect();
    text += &headed(&after_help(command), &placeholders);
    for (title, help_text) in page.sections {
        text += &format!(".SH {}\n", roff::quoted_argument(&title.to_uppercase()));
        text.extend(blocks(help_text).iter().map(|block| roff::block(block, &placeholders)));
    }
    let plain = text.replace("\\-", "-").replace("\\fB", "");
    let others = page.others.iter().filter(|(other, _)| mentions(&plain, other)).map(|(_, page)| page.as_str());
    let see_also = page.see_also.iter().copied().chain(others).map(|page| styled(page, &placeholders));
    text += &format!(".SH SEE ALSO\n{}\n", see_also.collect::<Vec<_>>().join(",\n"));
    without_empty_paragraphs(&text)
}

fn mentions(text: &str, command: &str) -> bool {
    let is_whole = |end: usize| !text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
    text.match_indices(command).any(|(at, _)| is_whole(at + command.len()))
}

/// The lists with headings that a help text has after its examples, as sections.
fn headed(help_text: &str, placeholders: &Placeholders) -> String {
    let lists = blocks(help_text).into_iter().skip_while(|block| !matches!(block, Block::Heading(_)));
    let lines = lists.map(|block| match block {
        Block::Heading(title) => format!(".SH {}\n", roff::quoted_argument(&title.to_uppercase())),
        block => roff::block(&block, placeholders),
    });
    lines.collect()
}

/// Without the paragraphs that begin where one has begun.
fn without_empty_paragraphs(page: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for line in page.lines() {
        let begins = kept.last().is_some_and(|last| [".SH", ".SS", ".PP"].iter().any(|name| last.starts_with(name)));
        if line != ".PP" || !begins {
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn after_help(command: &Command) -> String {
    command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string).unwrap_or_default()
}

fn uncapitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_lowercase).collect();
    let is_word = chars.clone().next().is_some_and(char::is_lowercase);
    if is_word { first + chars.as_str() } else { text.to_owned() }
}

/// The examples, as a section. If subcommands are described on the page, it shows theirs.
fn all_examples(command: &Command, place: Subcommands) -> String {
    let of = |command: &Command| examples(&after_help(command)).collect::<Vec<_>>();
    let of_subcommands: Vec<Block> = subcommands(command).flat_map(of).collect();
    let shown = match place {
        Subcommands::Here if !of_subcommands.is_empty() => of_subcommands,
        _ => of(command),
    };
    let lines: String = shown.iter().map(|block| roff::block(block, &Placeholders::new())).collect();
    if lines.is_empty() { lines } else { format!(".SH EXAMPLES\n{lines}") }
}

fn usages(command: &Command) -> Vec<String> {
    let usage = command.clone().render_usage().to_string();
    let lines = usage.trim_start_matches("Usage:").lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

fn synopsis(command: &Command, page: &Page) -> String {
    let here: Vec<&Command> = match page.subcommands {
        Subcommands::Here if subcommands(command).next().is_some() => subcommands(command).collect(),
        _ => vec![command],
    };
    let lines: Vec<String> = here.into_iter().flat_map(usages).map(|line| roff::usage(&line)).collect();
    lines.join("\n.br\n") + "\n"
}

/// The names of values of a command's arguments.
fn placeholders_of(command: &Command) -> Placeholders {
    let with_values = command.get_arguments().filter(|arg| arg.get_action().takes_values());
    let names = with_values.flat_map(|arg| arg.get_value_names().unwrap_or_default());
    let parts = names.flat_map(|name| name.split(|c: char| !c.is_ascii_uppercase()));
    // What is also a usual word, and a variable.
    parts.filter(|part| !part.is_empty() && *part != "PATH").map(str::to_owned).collect()
}

/// The long description, or else the short one with what the help text has after the options.
fn description(command: &Command) -> String {
    let (about, placeholders) = (about(command), placeholders_of(command));
    let text = match command.get_long_about() {
        Some(long) => long.to_string().trim_start_matches(&format!("{about}.\n\n")).to_owned(),
        None => format!("{about}.\n\n{}", notes(&after_help(command))),
    };
    blocks(&text)
        .iter()
        .filter(|block| !matches!(block, Block::Example(..)))
        .map(|block| roff::block(block, &placeholders))
        .collect()
}

/// A help text up to its examples.
fn notes(text: &str) -> &str {
    text.find("Example").map_or(text, |at| &text[..at])
}

/// The arguments that are no options, under a heading.
fn arguments(command: &Command, heading: &str) -> String {
    let arguments: String = command
        .get_positionals()
        .filter(|arg| !arg.is_hide_set())
        .map(|arg| {
            let more = if arg.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
            entry(command, arg, &format!("{}{more}", roff::usage(&value_names(arg))))
        })
        .collect();
    if arguments.is_empty() { arguments } else { format!("{heading}{arguments}") }
}

/// True unless it is hidden, or one of every command.
fn is_own(arg: &Arg) -> bool {
    !arg.is_hide_set() && !arg.is_global_set() && !OF_EVERY.contains(&arg.get_id().as_str())
}

fn value_names(arg: &Arg) -> String {
    arg.get_value_names().unwrap_or_default().join(" ")
}

/// The options, those without a heading first.
fn options(command: &Command, global: Option<&str>) -> String {
    let is_of_page = |arg: &&Arg| is_own(arg) || global.is_none() && !arg.is_hide_set();
    let all: Vec<&Arg> = command.get_arguments().filter(is_of_page).filter(|arg| !arg.is_positional()).collect();
    let mut headings: Vec<Option<&str>> = vec![None];
    for arg in &all {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    let mut text = ".SH OPTIONS\n".to_owned();
    for heading in headings {
        text += &heading.map_or(String::new(), |title| format!(".SS {}\n", roff::quoted_argument(title)));
        let here = all.iter().filter(|arg| arg.get_help_heading() == heading);
        text.extend(here.map(|arg| entry(command, arg, &option_name(arg))));
        if let (None, Some(page)) = (heading, global) {
            let globals = command.get_arguments().filter(|arg| arg.is_global_set());
            let names: Vec<String> = globals.map(|arg| format!("--{}", arg.get_long().unwrap_or_default())).collect();
            text += &format!(
                ".PP\n{}",
                sentences(
                    &format!("Options of every command are described in {page}: {}.", names.join(", ")),
                    &Placeholders::new()
                )
            );
        }
    }
    text
}

fn option_name(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| bold(&format!("-{short}")));
    let long = arg.get_long().map(|long| bold(&format!("--{long}")));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let is_optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let value = match (arg.get_action().takes_values(), is_optional) {
        (false, _) => String::new(),
        (true, false) => format!(" {}", roff::usage(&value_names(arg))),
        (true, true) => format!("[={}]", roff::usage(&value_names(arg))),
    };
    names.join(", ") + &value
}

/// An argument and its text.
fn entry(command: &Command, arg: &Arg, name: &str) -> String {
    let placeholders = placeholders_of(command);
    format!(".TP\n{name}\n{}", sentences(&argument_text(arg), &placeholders))
}

/// The help text of an argument in one paragraph, with its default and its variable as sentences at the end.
fn argument_text(arg: &Arg) -> String {
    let help = match arg.get_action() {
        ArgAction::Help => "Print help: -h is short, --help has all of this.".to_owned(),
        _ => arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default(),
    };
    let (first, more) = help.split_once("\n\n").unwrap_or((&help, ""));
    let stated = |start| first.split_once(start).map(|(_, value)| value.trim_end_matches(']'));
    let (default, variables) = (stated(" [default: "), stated(" [env: "));
    let first = first.split(" [default: ").next().and_then(|first| first.split(" [env: ").next()).unwrap_or(first);
    let mut sentences = vec![ended(first), more.replace("\n\n", " ")];
    let values: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let is_shown = arg.get_action().takes_values() && !arg.is_hide_default_value_set() && !values.is_empty();
    let variable = arg.get_env().map(|name| format!("${}", name.to_string_lossy()));
    let default = default.map(str::to_owned).or_else(|| is_shown.then(|| values.join(",")));
    let choices = arg.get_possible_values();
    if arg.get_action().takes_values() && !choices.is_empty() {
        let names: Vec<String> = choices.iter().map(|choice| format!("'{}'", choice.get_name())).collect();
        sentences.push(format!("One of {}.", names.join(", ")));
    }
    sentences.push(match (variable, default) {
        (Some(variable), Some(default)) => format!("Default: {variable}, else {default}."),
        (one, other) => one.or(other).map_or(String::new(), |value| format!("Default: {value}.")),
    });
    sentences.extend(variables.map(|names| format!("Default: ${}.", names.replace(", ", ", else $"))));
    sentences.retain(|sentence| !sentence.is_empty());
    sentences.join(" ")
}

fn ended(text: &str) -> String {
    if text.ends_with(['.', '?', '!', ':', '…']) { text.to_owned() } else { format!("{text}.") }
}

/// A subcommand that is described on the page of its command.
fn described(command: &Command) -> String {
    let options = command.get_arguments().filter(|arg| is_own(arg) && !arg.is_positional());
    let options: String = options.map(|arg| entry(command, arg, &option_name(arg))).collect();
    let title = roff::quoted_argument(command.get_bin_name().unwrap_or_default());
    format!(".SS {title}\n{}{}{options}", description(command), arguments(command, ""))
}

/// A subcommand with the name of its page. One without a page is described.
fn listed(command: &Command, section: u8, without: &[(&str, &str)]) -> String {
    let about = ended(&about(command));
    let without = without.iter().find(|(name, _)| *name == command.get_name());
    let (title, text) = match (without, command.get_long_about()) {
        (Some((_, page)), Some(long)) => {
            (format!("'{}', {page}", command.get_bin_name().unwrap_or_default()), long.to_string())
        }
        _ => (format!("{}({section})", name(command)), about),
    };
    format!(".TP\n{}\n{}", styled(&title, &Placeholders::new()), sentences(&text, &placeholders_of(command)))
}
