//! What the examples of man pages take for granted, and the tests that run them. The pages are made from the help texts, so
//! that these are run too.

use crate::blocks::{LOCAL, Page, Setting, WITH_S3, follow, has_aws};
use crate::harness::text;
use std::path::Path;
use std::process::Command;

/// Makes the list of the pages, and a test for each.
macro_rules! pages {
    ($($test:ident: $path:literal, $hosts:literal, $opening:expr;)*) => {
        pub const PAGES: [Page; [$($path),*].len()] = [$(Page { path: $path, hosts: $hosts, opening: $opening }),*];

        mod examples_run {
            $(
                #[test]
                fn $test() {
                    super::follow_page($path);
                }
            )*
        }
    };
}

pages! {
    s4: "man/s4.1", 1, "";
    s4_cancel: "man/s4-cancel.1", 1, LOCAL;
    s4_cluster: "man/s4-cluster.1", 3, "printf '%s\\n' node0 node1 node2 > hosts.txt";
    s4_completions: "man/s4-completions.1", 1, "mkdir -p /etc/bash_completion.d";
    s4_config: "man/s4-config.1", 1, LOCAL;
    s4_cp: "man/s4-cp.1", 1, WITH_S3;
    s4_eval: "man/s4-eval.1", 1, LOCAL;
    s4_health: "man/s4-health.1", 1, LOCAL;
    s4_jobs: "man/s4-jobs.1", 1, LOCAL;
    s4_local: "man/s4-local.1", 1, "";
    s4_logs: "man/s4-logs.1", 1, LOCAL;
    s4_ls: "man/s4-ls.1", 1, LOCAL;
    s4_map: "man/s4-map.1", 1, LOCAL;
    s4_map_from_n: "man/s4-map-from-n.1", 1, LOCAL;
    s4_map_to_n: "man/s4-map-to-n.1", 1, LOCAL;
    s4_mount: "man/s4-mount.8", 1, LOCAL;
    s4_partition: "man/s4-partition.1", 1, LOCAL;
    s4_rm: "man/s4-rm.1", 1, LOCAL;
    s4_run: "man/s4-run.1", 1, LOCAL;
    s4_s3: "man/s4-s3.1", 1, WITH_S3;
    s4_scrub: "man/s4-scrub.1", 1, LOCAL;
    s4_server: "man/s4-server.8", 1, "";
    s4_top: "man/s4-top.1", 1, LOCAL;
    s4_umount: "man/s4-umount.1", 1, LOCAL;
    s4_wait: "man/s4-wait.1", 1, LOCAL;
    s4_why: "man/s4-why.1", 1, LOCAL;
}

/// Pages whose examples use the aws command.
const WITH_AWS: [&str; 2] = ["man/s4-local.1", "man/s4-s3.1"];

/// The key of many examples.
const FLIGHTS: &str = "s4 cp flights/flights_2013-01.csv s4://in/flights.csv";

/// That key, and scripts for `--file`.
const FLIGHTS_AND_SCRIPTS: &str = "
    s4 cp flights/flights_2013-01.csv s4://in/flights.csv
    printf '#!/bin/sh\\nwc -l\\n' | tee count.py > clean.py
    chmod +x count.py clean.py";

/// Ends daemons that were started in the background.
const NO_DAEMONS: &str = "until s4 health; do sleep 0.1; done; kill $(jobs -p); wait";

/// What is done before an example.
const fn before(page: &'static str, block: &'static str, before: &'static str) -> Setting {
    Setting { page, block, before, after: "" }
}

pub const SETTINGS: [Setting; 22] = [
    before("man/s4.1", "s4 cp -r", "eval \"$(s4 local --detach)\""),
    before("man/s4.1", "s4 map --ok-exit", "s4 rm -r s4://parts/"),
    before("man/s4.1", "s4 map --keep-going", "s4 rm -r s4://out/"),
    before("man/s4.1", "s4 map s4://in/ s4://out/ 'sed", "s4 rm -r s4://out/"),
    before("man/s4.1", "s4 map s4://in/ s4://out/ 'sort'", "s4 rm -r s4://out/"),
    before("man/s4-cancel.1", "s4 cancel", "s4 map --detach s4://in/ s4://out/ 'sleep 1000'"),
    before("man/s4-cp.1", "s4 cp", "seq 10 > big.csv; seq 10 | gzip > big.csv.gz"),
    before("man/s4-eval.1", "s4 eval", FLIGHTS_AND_SCRIPTS),
    before(
        "man/s4-logs.1",
        "s4 logs",
        "s4 cp flights/flights_2013-01.csv s4://in/flights.csv; s4 map --keep-going s4://in/ s4://out/ 'wc -l >&2; [ $filename != flights.csv ]' || true",
    ),
    before("man/s4-map.1", "s4 map", FLIGHTS_AND_SCRIPTS),
    before("man/s4-map-from-n.1", "s4 map-from-n", "s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 4 -d, -k1'"),
    before("man/s4-partition.1", "s4 map-to-n", "printf '2013,%d\\n' 3 6 9 > splitters"),
    before("man/s4-rm.1", "s4 rm", FLIGHTS),
    before("man/s4-run.1", "s4 run", "echo true > setup.sh"),
    Setting {
        page: "man/s4-s3.1",
        block: "s4-s3 serve",
        before: "",
        after: "
            s4 cp s4://in/flights.csv - | cmp - flights.csv
            kill $!; wait $! || true
            export AWS_ENDPOINT_URL=$url AWS_SECRET_ACCESS_KEY=$key",
    },
    Setting {
        page: "man/s4-s3.1",
        block: "s4-s3 get",
        before: "
            S4_CONF_PATH=$others s4 cp flights.csv s4://bucket/
            printf s3://bucket/2024/a.csv | s4 cp - s4://addresses/0_a",
        after: "s4 cp s4://fetched/0_a - | cmp - flights.csv",
    },
    Setting {
        page: "man/s4-s3.1",
        block: "s4 cp s4://out/0_x",
        before: "",
        after: "[ \"$(S4_CONF_PATH=$others s4 cp s4://bucket/0_x -)\" = x ]",
    },
    Setting { page: "man/s4-server.8", block: "echo 127", before: "mkdir /srv/s4", after: NO_DAEMONS },
    Setting {
        page: "man/s4-server.8",
        block: "s4-server --port",
        before: "
            printf '127.0.0.1:%s\\n' 8080 8081 > ~/.s4.conf
            mkdir /srv/disk0 /srv/disk1
            for n in 0 1; do s4-server --port 808$n --data /srv/disk$n/s4 --init; done",
        after: NO_DAEMONS,
    },
    before("man/s4-umount.1", "s4 umount", "s4 mount /s4 --background"),
    before(
        "man/s4-why.1",
        "s4 why",
        "
        s4 map-to-n s4://in/ s4://parts/ 'for n in 000 001 002; do echo $n > $n; echo $n; done'
        s4 map-from-n s4://parts/ s4://merged/ 'xargs cat'",
    ),
    before("man/s4-jobs.1", "s4 jobs", "s4 map s4://in/ s4://out/ sort"),
];

/// Examples that no test runs: page, how the example begins, and the reason.
pub const NOT_RUN: [(&str, &str, &str); 4] = [
    ("man/s4-cluster.1", "s4 cluster resize", "moves terabytes; the tests of resizing move less"),
    ("man/s4-cluster.1", "s4 cluster up -o", "needs a jump host"),
    ("man/s4-local.1", "s4 local -n 3", "runs until Ctrl-C; tests/e2e/local.rs ends it"),
    ("man/s4-mount.8", "s4  /s4  s4", "a line of fstab; tests/e2e/automount.rs mounts by one"),
];

fn follow_page(path: &str) {
    if !WITH_AWS.contains(&path) || has_aws() {
        follow(path);
    }
}

/// As lintian calls it.
#[test]
fn man_shows_every_page_without_a_warning() {
    let pages = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap();
    for page in pages.map(|entry| entry.unwrap().path()) {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&page);
        let Ok(output) = man.env("LC_ALL", "C.UTF-8").env("MANROFFSEQ", "").env("MANWIDTH", "80").output() else {
            return eprintln!("skipped: no man");
        };
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", page.display(), text(&output.stderr));
    }
}
