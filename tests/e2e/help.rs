//! Help texts and completions describe the same commands and options. Man pages are compared by a test beside each definition.

use crate::harness::{Cluster, text};
use crate::programs::{directory, program};
use std::collections::BTreeSet;
use std::process::Command;

fn output_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).env_remove("S4_CONF_PATH").output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The subcommands that `s4 --help` lists, without `help`.
fn subcommands() -> Vec<String> {
    let names = commands_in(&output_of(program("s4"), &["--help"]));
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// The commands that a help text lists, without `help`.
fn commands_in(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    names.into_iter().filter(|name| name != "help").collect()
}

/// The subcommands of `s4 cluster`.
fn cluster_subcommands() -> Vec<String> {
    let names = commands_in(&output_of(program("s4"), &["cluster", "--help"]));
    assert!(names.len() >= 5, "{names:?}");
    names
}

/// Every `--option` in a text.
fn long_options(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let starts = text.match_indices("--").filter(|(at, _)| !text[..*at].ends_with(|c: char| is_name(c)));
    let names = starts.map(|(at, _)| text[at + 2..].split(|c| !is_name(c)).next().unwrap_or(""));
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).map(|name| format!("--{name}")).collect()
}

/// The options that a help text defines, and not those in its examples.
fn defined_options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    lines.filter(|line| line.starts_with('-')).flat_map(|line| long_options(line).into_iter().take(1)).collect()
}

#[test]
fn topics_that_the_help_names_have_a_text_with_an_example() {
    let help = output_of(program("s4"), &["--help"]);
    let topics: Vec<&str> = help.split("s4 help ").skip(1).filter_map(|rest| rest.split([',', '\n']).next()).collect();
    assert!(topics.len() >= 4, "{help}");
    for topic in topics {
        let text = output_of(program("s4"), &["help", topic]);
        assert!(text.contains("Example") && text.lines().all(|line| line.len() <= 120), "{topic}: {text}");
    }
}

#[test]
fn every_help_text_shows_an_example() {
    for name in subcommands() {
        for args in [vec![&*name, "--help"], vec![&*name, "-h"], vec!["help", &*name]] {
            let help = output_of(program("s4"), &args);
            assert!(help.contains("Example"), "s4 {args:?}: {help}");
            assert!(help.contains(&format!("s4 {name}")), "s4 {args:?}: {help}");
        }
        let (all, help) = (output_of(program("s4"), &["-h"]), output_of(program("s4"), &[&name, "-h"]));
        let begin = help.split(' ').take(3).collect::<Vec<_>>().join(" ");
        assert!(all.contains(&begin), "s4 -h does not say of {name}: {begin}");
    }
    for name in cluster_subcommands() {
        let help = output_of(program("s4"), &["cluster", &name, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("s4 cluster {name}")), "{help}");
    }
    for name in ["s4", "s4-server", "s4-mount", "s4-s3"] {
        let program = program(name);
        assert!(output_of(program, &["--help"]).contains("Example"), "{program}");
        assert!(output_of(program, &["--version"]).contains(env!("CARGO_PKG_VERSION")), "{program}");
    }
}

#[test]
fn completions_name_every_subcommand_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let script = output_of(program("s4"), &["completions", shell]);
        for name in subcommands() {
            assert!(script.contains(&name), "{shell} has no {name}");
            for option in defined_options(&output_of(program("s4"), &[&name, "-h"])) {
                let name = option.trim_start_matches("--");
                assert!(script.contains(name), "{shell} has no {option}");
            }
        }
    }
}

#[test]
fn bash_takes_its_completions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s4.bash"), output_of(program("s4"), &["completions", "bash"])).unwrap();
    let try_it = "source ./s4.bash; complete -p s4";
    let output = Command::new("bash").args(["-euc", try_it]).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// As a shell calls it, with the line typed so far.
#[test]
fn bash_completes_keys_directories_buckets_and_job_ids() {
    let cluster = Cluster::start(2);
    for key in ["in/0_a", "in/dir/1_b", "input/1_c"] {
        cluster.put(&format!("s4://{key}"), b"x");
    }
    cluster.ok(&["map", "s4://in/", "s4://out/", "cat"]);
    let id = cluster.ok(&["jobs"]).lines().last().unwrap().split_whitespace().next().unwrap().to_owned();
    let script = cluster.dir().join("s4.bash");
    std::fs::write(&script, output_of(program("s4"), &["completions", "bash"])).unwrap();
    let complete = |line: &str| {
        // Bash splits at colons too.
        let words = line.replace("s4://", "s4 : //");
        let run = format!(
            "source {}; compopt() {{ :; }}; COMP_LINE='{line}' COMP_POINT={} COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _s4_names s4 '' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            line.len()
        );
        let path = format!("{}:{}", directory().display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        let output = bash.args(["-c", &run]).env("PATH", path).env("S4_CONF_PATH", cluster.conf()).output().unwrap();
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("s4 ls s4://in"), ["//in/", "//input/"]);
    assert_eq!(complete("s4 cp s4://in/"), ["//in/0_a", "//in/dir/"]);
    assert_eq!(complete("s4 wait 2"), [id.as_str()]);
    assert_eq!(complete("s4 logs la"), ["last"]);
    // What the shell would take for its own is quoted, and understood when it is typed so.
    for key in ["odd/0_`id`", "odd/1;id", "odd/2$(id)\\"] {
        cluster.put(&format!("s4://{key}"), b"x");
    }
    let quoted = ["//odd/0_\\`id\\`", "//odd/1\\;id", "//odd/2\\$\\(id\\)\\\\"];
    assert_eq!(complete("s4 ls s4://odd/"), quoted);
    assert_eq!(complete("s4 ls s4://odd/1\\;"), [quoted[1]]);
    assert!(complete("s4 map --ke").contains(&"--keep-going".to_owned()));
}
