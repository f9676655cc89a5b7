//! Warnings about names, with the same text in all commands.

use super::format::{counted, size_text};
use s4::key::Key;
use s4::skew::Skew;

/// A warning that keys such as `example` are on few nodes, and how to avoid that.
pub fn skew_text(skew: &Skew, example: &Key) -> String {
    let Skew { crowded, nodes, there, all, distinct } = skew;
    let numbers = match distinct {
        1 => "the same number".to_owned(),
        n if *n as usize * 2 <= *nodes => format!("only {n} numbers"),
        _ => format!("numbers that reach no more of {nodes} nodes"),
    };
    let name = example.basename();
    format!(
        "warning: {} of {} ({} of {}) are on {crowded} of {nodes} nodes, because the names begin with {numbers}, as {name}: the number \
         before the first '_' chooses the node, and is the merge name; begin names with a letter (x{name}), or with numbers that count up \
         (0_{name}, 1_…), and they spread",
        there.keys,
        counted(all.keys, "key"),
        size_text(there.bytes),
        size_text(all.bytes),
    )
}
