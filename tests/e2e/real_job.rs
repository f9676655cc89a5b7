//! The job that s4 is for, over real data: every flight out of New York in 2013, whose answers are known.

use crate::harness::{Cluster, text};
use std::path::{Path, PathBuf};
use std::process::Command;

const CARRIERS: [(&str, u64); 16] = [
    ("UA", 58665),
    ("B6", 54635),
    ("EV", 54173),
    ("DL", 48110),
    ("AA", 32729),
    ("MQ", 26397),
    ("US", 20536),
    ("9E", 18460),
    ("WN", 12275),
    ("VX", 5162),
    ("FL", 3260),
    ("AS", 714),
    ("F9", 685),
    ("YV", 601),
    ("HA", 342),
    ("OO", 32),
];
const ORIGINS: [(&str, u64); 3] = [("EWR", 120_835), ("JFK", 111_279), ("LGA", 104_662)];
const ROWS: u64 = 336_776;
const MILES: u64 = 350_217_607;

/// The steps of `scripts/demo.sh`: kind, INDIR, OUTDIR, CMD.
pub const STEPS: [[&str; 4]; 9] = [
    ["map", "s4://flights/", "s4://step1/", "cut -d, -f10,16"],
    ["map", "s4://step1/", "s4://step2/", r#"awk -F, "NR > 1 { n[\$1]++ } END { for (c in n) print c, n[c] }""#],
    ["map-to-n", "s4://step2/", "s4://step3/", "cat > counts && echo counts"],
    [
        "map-from-n",
        "s4://step3/",
        "s4://step4/",
        r#"xargs -d '\n' cat | awk "{ n[\$1] += \$2 } END { for (c in n) print c, n[c] }""#,
    ],
    [
        "map-to-n",
        "s4://flights/",
        "s4://step5/",
        r#"awk -F, "NR > 1 { f = sprintf(\"origin_%s_%03d.csv\", \$13, NR % 12); print > f }" && ls"#,
    ],
    ["map-from-n", "s4://step5/", "s4://step6/", "xargs -d '\\n' cat"],
    ["map", "s4://step6/", "s4://step7/", r#"awk -F, "{ n++; miles += \$16 } END { print \$13, n, miles }""#],
    ["map-to-n", "s4://step7/", "s4://step8/", "cat > rows && echo rows"],
    ["map-from-n", "s4://step8/", "s4://step9/", "xargs -d '\\n' cat"],
];

#[test]
fn the_flights_job_gives_the_known_answers_on_3_nodes_twice() {
    flights_job(&Cluster::start(3));
}

#[test]
fn the_flights_job_gives_the_known_answers_on_12_nodes_twice() {
    flights_job(&Cluster::start(12));
}

fn flights_job(cluster: &Cluster) {
    let source = unpack(cluster.dir());
    cluster.ok(&["cp", "-r", "flights", "s4://flights/"]);
    assert_eq!(cluster.ok(&["ls", "s4://flights/"]).lines().count(), 12);
    let flights = flights(&source, true);
    assert_eq!(flights.len() as u64, ROWS);
    for turn in ["first", "second"] {
        for step in STEPS {
            cluster.ok(&step);
        }
        check_carriers(cluster);
        check_origins(cluster);
        check_year(cluster, turn, &flights);
        cluster.ok(&["rm", "-r", "s4://step"]);
        assert_eq!(cluster.ok(&["ls"]).trim(), "flights");
    }
}

pub fn unpack(dir: &Path) -> PathBuf {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flights.tar.xz");
    let output = Command::new("tar").arg("-C").arg(dir).arg("-xJf").arg(archive).output().expect("tar runs");
    assert!(output.status.success(), "tar: {}", text(&output.stderr));
    dir.join("flights")
}

fn check_carriers(cluster: &Cluster) {
    let got = cluster.ok(&["eval", "s4://step4/counts", "sort -k2,2nr"]);
    assert_eq!(got, carriers());
    assert_eq!(CARRIERS.iter().map(|(_, count)| count).sum::<u64>(), ROWS);
}

/// The flights of each carrier, the most first.
pub fn carriers() -> String {
    CARRIERS.iter().map(|(carrier, count)| format!("{carrier} {count}\n")).collect()
}

fn check_origins(cluster: &Cluster) {
    let by_origin = r#"awk "{ n[\$1] += \$2 } END { for (o in n) print o, n[o] }" | sort"#;
    let wanted: String = ORIGINS.iter().map(|(origin, count)| format!("{origin} {count}\n")).collect();
    assert_eq!(cluster.ok(&["eval", "s4://step9/rows", by_origin]), wanted);
    let sums = r#"awk "{ n += \$2; miles += \$3 } END { print n, miles }""#;
    assert_eq!(cluster.ok(&["eval", "s4://step9/rows", sums]), format!("{ROWS} {MILES}\n"));
}

/// Every flight is in the year that the job reorganised exactly once, in the file of its origin.
fn check_year(cluster: &Cluster, turn: &str, flights: &[String]) {
    let year = format!("year-{turn}");
    cluster.ok(&["cp", "-r", "s4://step6/", &year]);
    let year = cluster.dir().join(year);
    assert_eq!(std::fs::read_dir(&year).unwrap().count(), 36);
    for entry in std::fs::read_dir(&year).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let origin = name.split('_').nth(1).unwrap();
        let rows = std::fs::read_to_string(entry.path()).unwrap();
        assert!(rows.lines().all(|row| row.split(',').nth(12) == Some(origin)), "{name}: a row of another origin");
    }
    // Compared without assert_eq, which would print all of them.
    assert!(self::flights(&year, false) == flights, "the reorganised year is not the year");
}

/// The rows of all files of a directory, sorted.
fn flights(dir: &Path, headed: bool) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let content = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        rows.extend(content.lines().skip(usize::from(headed)).map(str::to_owned));
    }
    rows.sort_unstable();
    rows
}
