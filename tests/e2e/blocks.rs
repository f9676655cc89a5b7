//! Every command block of the pages runs as written, and prints what the page shows.
//!
//! A page is followed by root on a machine of its own, as [`Hosts::machines`] makes them, in one shell and in the order of
//! the page. What a block takes for granted, such as a cluster with certain keys, a [`Setting`] makes before it. A block
//! that cannot be run is in [`NOT_RUN`], with the reason.

use crate::cluster_hosts::pretend_systemd;
use crate::hosts::{Hosts, SHARED};
use crate::man_examples;
use crate::pages::{self, Block, Step, difference, steps};
use crate::programs::program;
use crate::real_job::unpack;
use std::path::Path;
use std::process::{Command, Stdio};

/// A page that a test follows.
pub struct Page {
    pub path: &'static str,
    /// How many machines there are besides the reader's own.
    pub hosts: usize,
    /// What is done before the first block.
    pub opening: &'static str,
}

/// What is done before and after a block.
pub struct Setting {
    pub page: &'static str,
    /// How the block begins.
    pub block: &'static str,
    pub before: &'static str,
    pub after: &'static str,
}

/// A cluster of the reader's machine with a year of flights.
pub const LOCAL: &str = "eval \"$(s4 local --detach)\"; s4 cp -r flights/ s4://in/";

/// A cluster whose door is the S3 of others, and a cluster of the reader, which copies from and to it.
pub const WITH_S3: &str = r#"
eval "$(s4 local --dir others --s3 --detach)"
others=$S4_CONF_PATH url=$AWS_ENDPOINT_URL key=$AWS_SECRET_ACCESS_KEY
printf 'a,b\nc,d\n' | tee flights.csv | s4 cp - s4://bucket/2024/a.csv
eval "$(s4 local --detach)"
cp "$S4_CONF_PATH" ~/.s4.conf
cp "$S4_CONF_PATH.secret" ~/.s4.conf.secret
echo x | s4 cp - s4://out/0_x"#;

/// Ends a door that was started in the background, and sets the variables again that its block has changed.
const NO_DOOR: &str = "kill $!; wait $! || true; export AWS_ENDPOINT_URL=$url AWS_SECRET_ACCESS_KEY=$key";

const PAGES: [Page; 5] = [
    Page { path: "README.md", hosts: 3, opening: "" },
    Page { path: "docs/maps.md", hosts: 1, opening: LOCAL },
    Page { path: "docs/mount.md", hosts: 1, opening: LOCAL },
    Page { path: "docs/operations.md", hosts: 5, opening: "" },
    Page { path: "docs/s3.md", hosts: 1, opening: WITH_S3 },
];

const SETTINGS: [Setting; 14] = [
    Setting {
        page: "README.md",
        block: "s4 cluster up",
        before: "for n in 1 2 3; do echo \"$(getent hosts node$((n - 1)) | cut -d' ' -f1) host$n\" >> /etc/hosts; done",
        after: "",
    },
    Setting { page: "README.md", block: "s4 cp -r s3:", before: WITH_S3, after: NO_DOOR },
    Setting {
        page: "docs/mount.md",
        block: "ln -s",
        before: "
            s4 umount /s4
            cp /shared/programs/s4* /usr/local/bin/
            cp \"$S4_CONF_PATH\" /etc/s4.conf && cp \"$S4_CONF_PATH.secret\" /etc/s4.conf.secret
            mkdir /run/sbin /run/work && mount -t overlay -o lowerdir=/usr/sbin,upperdir=/run/sbin,workdir=/run/work none /usr/sbin",
        after: "",
    },
    Setting { page: "docs/mount.md", block: "$ echo 's4://in/", before: "", after: "s4 umount /s4" },
    Setting {
        page: "docs/operations.md",
        block: "$ s4 cluster status",
        before: "ssh node1 systemctl stop s4-server",
        after: "",
    },
    Setting {
        page: "docs/operations.md",
        block: "eval \"$(scripts/connect_to_cluster.sh",
        before: "s4 cluster up node0 node1 node2; seq 3 | s4 cp - s4://numbers/0_a",
        after: "s4 umount ~/s4; s4 rm s4://numbers/0_a; ssh -O exit -S \"$S4_SSH_SOCKET\" node0; unset ALL_PROXY",
    },
    Setting {
        page: "docs/operations.md",
        block: "$ s4 health",
        before: "ssh node1 systemctl stop s4-server",
        after: "s4 cluster up",
    },
    Setting {
        page: "docs/operations.md",
        block: "head -c 24",
        before: "",
        after: "[ $(head -n 1 /etc/s4.secret | wc -c) -gt 16 ]",
    },
    Setting {
        page: "docs/operations.md",
        block: "s4 -c old.conf",
        before: "
            for cluster in old new; do
                s4 local --dir $cluster --detach
                cp $cluster/s4.conf $cluster.conf
                cp $cluster/s4.conf.secret $cluster.conf.secret
            done
            s4 -c old.conf cp -r flights/ s4://in/
            mkdir /scratch",
        after: "
            [ $(s4 -c new.conf ls s4://in/ | wc -l) = 12 ]
            for cluster in old new; do s4 local --dir $cluster --stop; done",
    },
    Setting {
        page: "docs/operations.md",
        block: "$ s4 scrub",
        before: "
            s4 cp -r flights/ s4://in/
            ssh node0 'key=/srv/s4/data/in/flights_2013-05.csv; chmod u+w $key; printf X | dd of=$key bs=1 seek=1000 conv=notrunc'",
        after: "",
    },
    Setting { page: "docs/s3.md", block: "s4-s3 serve", before: "", after: NO_DOOR },
    Setting {
        page: "docs/s3.md",
        block: "s4 cp -r s3:",
        before: "",
        after: "s4 cp s4://in/a.csv - | cmp - flights.csv; [ \"$(S4_CONF_PATH=$others s4 cp s4://bucket/out/0_x -)\" = x ]",
    },
    Setting {
        page: "docs/s3.md",
        block: "s4-s3 get",
        before: "mkdir dir; echo kept > dir/file; S4_CONF_PATH=$others s4 cp flights.csv s4://bucket/key",
        after: "cmp file flights.csv; S4_CONF_PATH=$others s4 cp s4://bucket/dir.tar - | tar t dir/file",
    },
    Setting {
        page: "docs/s3.md",
        block: "mkdir addresses",
        before: "S4_CONF_PATH=$others s4 cp -r flights/ s4://bucket/flights/",
        after: "",
    },
];

/// Blocks that no test runs: page, how the block begins, and the reason.
const NOT_RUN: [(&str, &str, &str); 9] = [
    ("README.md", "cargo build", "builds for minutes"),
    ("CONTRIBUTING.md", "export CARGO_PROFILE", "builds, and runs the tests"),
    ("docs/clouds.md", "$ type=i3en", "needs EC2; scripts/ec2-test.sh runs the scripts against a simulation"),
    ("docs/clouds.md", "sbatch", "needs Slurm"),
    ("docs/operations.md", "cargo build", "builds for minutes"),
    ("docs/operations.md", "$ s4 cluster resize", "moves terabytes; the tests of resizing move less"),
    ("docs/operations.md", "$ cat s4.conf new.conf", "moves terabytes; the tests of resizing move less"),
    ("docs/operations.md", "install -d", "needs systemd and an installed package"),
    ("docs/performance.md", "scripts/bench.sh", "measures for up to an hour; scripts/test.sh runs it on small data"),
];

fn pages() -> impl Iterator<Item = &'static Page> {
    PAGES.iter().chain(&man_examples::PAGES)
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().chain(&man_examples::SETTINGS)
}

/// Blocks that other tests run: page, and the language of the blocks, or all.
const ELSEWHERE: [(&str, Option<&str>); 3] =
    [("README.md", Some("console")), ("docs/http.md", None), ("docs/recipes.md", None)];

fn is_elsewhere(page: &str, block: &Block) -> bool {
    ELSEWHERE.iter().any(|(path, language)| *path == page && language.is_none_or(|language| language == block.language))
}

fn reason_not_to_run(page: &str, block: &Block) -> Option<&'static str> {
    let listed = NOT_RUN
        .iter()
        .chain(&man_examples::NOT_RUN)
        .find(|(path, start, _)| *path == page && block.text.starts_with(start))?;
    Some(listed.2)
}

/// The pages that may have blocks of commands, as paths below the root of the repository.
fn all_pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for dir in ["docs", "man"] {
        let names = std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap()).filter(|name| !name.ends_with(".svg"));
        pages.extend(names.map(|name| format!("{dir}/{name}")));
    }
    pages
}

/// Whether a line of a block looks as if somebody was to type it.
fn is_command(line: &str) -> bool {
    ["$ ", "s4 ", "s4-server ", "s4-mount ", "s4-s3 "].iter().any(|start| line.starts_with(start))
}

#[test]
fn every_block_of_commands_is_run_or_listed_with_a_reason() {
    let mut named = Vec::new();
    for page in all_pages() {
        let is_followed = pages().any(|followed| followed.path == page);
        for block in pages::blocks_of(&page) {
            let at = format!("{page}: {}", block.text);
            match block.language.as_str() {
                "sh" | "console" => {
                    let is_run = is_followed || is_elsewhere(&page, &block);
                    assert!(is_run || reason_not_to_run(&page, &block).is_some(), "run by no test: {at}");
                }
                "text" => {
                    assert!(!block.text.lines().any(is_command), "a block of commands is 'sh' or 'console': {at}")
                }
                "yaml" | "python" => {}
                _ if is_elsewhere(&page, &block) => {}
                other => panic!("a block of the language '{other}': {at}"),
            }
            named.push((page.clone(), block.text));
        }
    }
    let settings = settings().map(|setting| (setting.page, setting.block));
    let not_run = NOT_RUN.iter().chain(&man_examples::NOT_RUN).map(|(page, start, _)| (*page, *start));
    for (page, start) in settings.chain(not_run) {
        let found = named.iter().filter(|(path, text)| path == page && text.starts_with(start)).count();
        assert_eq!(found, 1, "blocks of {page} that begin with '{start}'");
    }
}

/// A part of the script that follows a page: a block, a command of a session, or what is done between.
struct Part {
    script: String,
    /// The command of a session whose output is shown.
    step: Option<Step>,
}

impl Part {
    /// A script, which must succeed.
    fn must_succeed(script: &str) -> Self {
        Self { script: format!(": ; {script}"), step: None }
    }

    fn of_session(step: Step) -> Self {
        Self { script: format!("set +e; {}\nset -e", step.command), step: Some(step) }
    }
}

fn parts(page: &Page) -> Vec<Part> {
    let mut parts = vec![Part::must_succeed(page.opening)];
    for block in pages::blocks_of(page.path) {
        let is_run = ["sh", "console"].contains(&block.language.as_str()) && !is_elsewhere(page.path, &block);
        if !is_run || reason_not_to_run(page.path, &block).is_some() {
            continue;
        }
        let is_of_block = |setting: &&Setting| setting.page == page.path && block.text.starts_with(setting.block);
        let setting = settings().find(is_of_block);
        parts.extend(setting.map(|setting| Part::must_succeed(setting.before)));
        match block.language.as_str() {
            "sh" => parts.push(Part::must_succeed(&block.text)),
            _ => parts.extend(steps(&block).into_iter().map(Part::of_session)),
        }
        parts.extend(setting.map(|setting| Part::must_succeed(setting.after)));
    }
    parts
}

/// Puts on the reader's machine what pages use: the programs, the data, the script, and the aws command.
fn furnish(hosts: &Hosts, page: &Page) {
    let shared = hosts.shared();
    unpack(&shared);
    std::fs::copy(program("s4-s3"), shared.join("programs/s4-s3")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(root.join("scripts/connect_to_cluster.sh"), shared.join("connect_to_cluster.sh")).unwrap();
    hosts.sh(&format!(
        "cp -r {SHARED}/flights . && mkdir scripts && cp {SHARED}/connect_to_cluster.sh scripts && mkdir -p /usr/local/bin"
    ));
    let modules = root.join("target/python");
    // Its modules are many files.
    let has_aws = std::fs::read_to_string(root.join(page.path)).unwrap().contains("aws ");
    if has_aws && modules.is_dir() {
        let copied = Command::new("cp").arg("-r").args([&modules, &shared.join("python")]).status();
        assert!(copied.is_ok_and(|status| status.success()));
    }
    hosts.fake_on(hosts.client(), "aws", &format!("PYTHONPATH={SHARED}/python exec python3 -m awscli \"$@\""));
}

pub fn follow(path: &str) {
    let page = pages().find(|page| page.path == path).expect("a page of the list");
    let Some(hosts) = Hosts::machines(page.hosts) else { return };
    furnish(&hosts, page);
    pretend_systemd(&hosts, page.hosts);
    let parts = parts(page);
    let script = pages::script(parts.iter().map(|part| part.script.as_str()));
    // Into a file: daemons that were started in the background would hold a pipe open.
    let script = format!("exec > {SHARED}/printed 2>&1; set -e\n{script}");
    let mut command = hosts.script("exec timeout 240 bash /shared/script");
    std::fs::write(hosts.shared().join("script"), script).unwrap();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let printed = pages::printed(&std::fs::read(hosts.shared().join("printed")).unwrap());
    if !status.success() || printed.len() != parts.len() {
        let at = printed.len().saturating_sub(1);
        panic!("{path}: {status} in\n{}\nprinted:\n{}", parts[at].script, printed.last().map_or("", String::as_str));
    }
    let wrong: Vec<String> =
        parts.iter().zip(&printed).filter_map(|(part, printed)| difference(part.step.as_ref()?, printed)).collect();
    assert!(wrong.is_empty(), "{path}: {} commands:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether a page can be followed that uses the aws command.
pub fn has_aws() -> bool {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let found = Command::new("/usr/bin/python3").args(["-c", "import awscli"]).env("PYTHONPATH", modules).output();
    let has = found.is_ok_and(|output| output.status.success());
    if !has {
        eprintln!("skipped: Python has no awscli; scripts/test.sh installs it");
    }
    has
}

#[test]
fn the_scripts_of_the_readme_run() {
    follow("README.md");
}

#[test]
fn the_blocks_about_maps_do_what_they_show() {
    follow("docs/maps.md");
}

#[test]
fn the_blocks_about_the_mount_do_what_they_show() {
    follow("docs/mount.md");
}

#[test]
fn the_blocks_about_operations_do_what_they_show() {
    follow("docs/operations.md");
}

#[test]
fn the_blocks_about_s3_run() {
    if has_aws() {
        follow("docs/s3.md");
    }
}
