//! The operations of the matrix. Each uses the bucket or the local directory `outN`, where N is the number of the cell.

use crate::sites::{FROM_N, MAP, Map, Site, TO_N, Tree, files_below, names_of};

/// The names of the files in `src`, which are the keys of `s4://in/` too: two on each node, and two for each merge.
pub const NAMES: [&str; 6] = ["0_a", "0_b", "1_a", "1_b", "2_a", "2_b"];
const BYTES: usize = 20_000;

/// What an operation does with the disk of a node.
#[derive(Clone, Copy, PartialEq)]
pub enum Does {
    Reads,
    Lists,
    Writes,
    Deletes,
}

/// When an operation is under way.
#[derive(Clone, Copy)]
pub enum Middle {
    /// After so many bytes over the network of the node with the fault, at this rate.
    Bytes(&'static str, u64),
    /// The same, but the answer may be on its way then, so that the operation may succeed.
    Short(&'static str, u64),
    /// While the commands of a map run, which wait.
    Commands(Map),
}

/// What comes of an operation.
#[derive(Clone, Copy)]
pub enum Product {
    /// Keys in the bucket.
    Keys(fn(&Tree) -> Tree),
    /// Local files.
    Files(fn(&Tree) -> Tree),
    /// The keys that were there before, and a line for each on stdout.
    Lines,
    /// No key of those that were there before.
    Nothing,
    /// The keys of [`MOVES`] with their new names.
    Moved,
}

pub struct Operation {
    pub name: &'static str,
    pub does: Does,
    pub middle: Middle,
    pub product: Product,
    /// Scripts on the client's host, with `$N`. `$KIND` and `$CMD` are those of a map.
    pub prepare: &'static str,
    pub script: &'static str,
    /// Makes the result whole after a failure.
    pub again: &'static str,
}

impl Operation {
    pub fn is_in_mount(&self) -> bool {
        self.script.contains("in_mount.py")
    }

    pub fn is_short(&self) -> bool {
        matches!(self.middle, Middle::Short(..))
    }
}

/// An old name, a new one, and the file in `src` whose bytes it has.
const MOVES: [(&str, &str, &str); 2] = [("a/0_a", "a/1_x", "0_a"), ("b/1_a", "b/2_x", "1_a")];

const COPIED_IN: &str = "s4 $D cp -r src s4://out$N/";
const FAST: Middle = Middle::Bytes("256kbit", 5000);

const fn map(name: &'static str, map: Map) -> Operation {
    Operation {
        name,
        does: Does::Writes,
        middle: Middle::Commands(map),
        product: Product::Keys(map.makes),
        prepare: ":",
        script: "exec s4 $D $KIND s4://in/ s4://out$N/ \"$CMD\"",
        again: "s4 $D $KIND --resume s4://in/ s4://out$N/ \"$CMD\"",
    }
}

pub static OPERATIONS: [Operation; 12] = [
    Operation {
        name: "put",
        does: Does::Writes,
        middle: FAST,
        product: Product::Keys(|source| only(source, &["1_a"])),
        prepare: ":",
        script: "exec s4 $D cp src/1_a s4://out$N/",
        again: "s4 $D cp --skip-existing src/1_a s4://out$N/",
    },
    Operation {
        name: "get",
        does: Does::Reads,
        middle: FAST,
        product: Product::Files(|source| only(source, &["1_a"])),
        prepare: "mkdir out$N",
        script: "exec s4 $D cp s4://in/1_a out$N/",
        again: "s4 $D cp --skip-existing s4://in/1_a out$N/",
    },
    Operation {
        name: "cp -r up",
        does: Does::Writes,
        middle: FAST,
        product: Product::Keys(Clone::clone),
        prepare: ":",
        script: "exec s4 $D cp -r src s4://out$N/",
        again: "s4 $D cp -r --skip-existing src s4://out$N/",
    },
    Operation {
        name: "cp -r down",
        does: Does::Reads,
        middle: FAST,
        product: Product::Files(Clone::clone),
        prepare: ":",
        script: "exec s4 $D cp -r s4://in/ out$N",
        again: "s4 $D cp -r --skip-existing s4://in/ out$N",
    },
    Operation {
        name: "ls -r",
        does: Does::Lists,
        middle: Middle::Short("32kbit", 150),
        product: Product::Lines,
        prepare: COPIED_IN,
        script: "exec s4 $D ls -r s4://out$N/",
        again: "s4 $D ls -r s4://out$N/",
    },
    Operation {
        name: "rm -r",
        does: Does::Deletes,
        middle: Middle::Short("32kbit", 150),
        product: Product::Nothing,
        prepare: COPIED_IN,
        script: "exec s4 $D rm -r s4://out$N/",
        again: "s4 $D rm -r s4://out$N/",
    },
    map("map", MAP),
    map("map-to-n", TO_N),
    map("map-from-n", FROM_N),
    Operation {
        name: "mount read",
        does: Does::Reads,
        middle: FAST,
        product: Product::Lines,
        prepare: COPIED_IN,
        script: "exec python3 -S in_mount.py read src mnt/out$N",
        again: "python3 -S in_mount.py read src mnt/out$N",
    },
    Operation {
        name: "mount write",
        does: Does::Writes,
        middle: FAST,
        product: Product::Keys(|source| only(source, &["0_a", "1_a", "2_a"])),
        prepare: "mkdir mnt/out$N",
        script: "exec python3 -S in_mount.py write src mnt/out$N 0_a 1_a 2_a",
        again: "python3 -S in_mount.py write-missing src mnt/out$N 0_a 1_a 2_a",
    },
    Operation {
        name: "mount rename",
        does: Does::Writes,
        middle: FAST,
        product: Product::Moved,
        prepare: "s4 $D cp src/0_a s4://out$N/a/ && s4 $D cp src/1_a s4://out$N/b/",
        script: "exec python3 -S in_mount.py move src mnt/out$N a/0_a:a/1_x b/1_a:b/2_x",
        again: "python3 -S in_mount.py move-rest src mnt/out$N a/0_a:a/1_x b/1_a:b/2_x",
    },
];

/// The files in `src`. No two parts of them are the same.
pub fn source() -> Tree {
    let content = |name: &str| (0..).flat_map(|line| format!("{name} {line}\n").into_bytes()).take(BYTES).collect();
    NAMES.into_iter().map(|name| (name.to_owned(), content(name))).collect()
}

fn only(source: &Tree, names: &[&str]) -> Tree {
    source
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(name, bytes)| (name.clone(), bytes.clone()))
        .collect()
}

/// How an operation ended: whether it said that all is done, and its stdout.
pub struct Said<'a> {
    pub is_done: bool,
    pub stdout: &'a str,
}

/// What is wrong with what an operation has left: something lost, wrong, half-written, or not what was said.
pub fn check(site: &Site, operation: &Operation, number: usize, said: &Said) -> Result<(), String> {
    let (source, out) = (source(), format!("out{number}"));
    match operation.product {
        Product::Keys(expected) => whole(&site.keys(&out)?, &expected(&source), said),
        Product::Files(expected) => whole(&files_below(&site.path(&out)), &expected(&source), said),
        Product::Lines => {
            whole(&site.keys(&out)?, &source, &Said { is_done: true, ..*said })?;
            match said.is_done && said.stdout.lines().count() != source.len() {
                true => Err(format!("it succeeded with {}", said.stdout)),
                false => Ok(()),
            }
        }
        Product::Nothing => {
            let expected = if said.is_done { Tree::new() } else { source };
            whole(&site.keys(&out)?, &expected, said)
        }
        Product::Moved => moved(&site.keys(&out)?, &source, said),
    }
}

/// A name that is `done` on stdout, as a program in the mount was told.
fn is_told(said: &Said, name: &str) -> bool {
    said.stdout.lines().any(|line| line.strip_prefix("done ").is_some_and(|done| done.split(':').next() == Some(name)))
}

fn whole(found: &Tree, expected: &Tree, said: &Said) -> Result<(), String> {
    for (name, bytes) in found {
        match expected.get(name) {
            None => return Err(format!("{name} is there")),
            Some(all) if all != bytes => {
                return Err(format!("{name} has {} of {} bytes, or wrong ones", bytes.len(), all.len()));
            }
            Some(_) => {}
        }
    }
    let missing = expected.keys().filter(|name| !found.contains_key(*name));
    let lost: Vec<&String> = missing.filter(|name| said.is_done || is_told(said, name)).collect();
    if lost.is_empty() {
        Ok(())
    } else {
        Err(format!("reported, and not there: {lost:?}; there: {:?}", names_of(found)))
    }
}

fn moved(found: &Tree, source: &Tree, said: &Said) -> Result<(), String> {
    for (old, new, bytes) in MOVES {
        let (has_old, has_new) = (found.get(old), found.get(new));
        if [has_old, has_new].into_iter().flatten().any(|found| *found != source[bytes]) {
            return Err(format!("{old} or {new} is not whole"));
        }
        let is_moved = said.is_done || is_told(said, old);
        match (has_old.is_some(), has_new.is_some()) {
            (false, false) => return Err(format!("{old} and {new} are lost")),
            (true, _) if is_moved => return Err(format!("{old} is moved, and there")),
            (_, false) if is_moved => return Err(format!("{old} is moved, and {new} not there")),
            _ => {}
        }
    }
    Ok(())
}
