//! `/metrics`: what Prometheus reads agrees with the docs and with what happened.

use crate::harness::{Cluster, eventually};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn scrape_with(cluster: &Cluster, node: usize, headers: &str) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n");
    cluster.raw(node, request.as_bytes())
}

/// The body of a scrape.
fn scrape(cluster: &Cluster, node: usize) -> String {
    let answer = scrape_with(cluster, node, "");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// The value of a metric, with its labels in the name.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

/// Of all nodes together.
fn sum(cluster: &Cluster, name: &str) -> f64 {
    (0..cluster.len()).filter_map(|node| value(&scrape(cluster, node), name)).sum()
}

#[test]
fn prometheus_accepts_the_metrics() {
    if Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return eprintln!("skipped: promtool is not installed");
    }
    let cluster = Cluster::start(1);
    cluster.ok(&["health"]);
    eventually("the keys are counted", || value(&scrape(&cluster, 0), "s4_keys"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(scrape(&cluster, 0).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn the_docs_describe_every_metric() {
    let cluster = Cluster::start(1);
    let text = scrape(&cluster, 0);
    let word = |line: &str, at| line.split(' ').nth(at).unwrap_or("").to_owned();
    let kinds = text.lines().filter(|line| line.starts_with("# TYPE "));
    let told: BTreeSet<(String, String, String)> = kinds
        .map(|line| {
            let (name, kind) = (word(line, 2), word(line, 3));
            let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} "))).expect("a help");
            (name, kind, help.to_owned())
        })
        .collect();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `s4_"));
    let described: BTreeSet<(String, String, String)> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
            (format!("s4_{}", cells[0].trim_end_matches('`')), cells[1].to_owned(), cells[2].to_owned())
        })
        .collect();
    assert_eq!(told, described);
    assert!(told.len() > 10, "{text}");
    assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("s4_")), "{text}");
}

#[test]
fn the_metrics_agree_with_the_store_after_a_job() {
    let cluster = Cluster::start(3);
    for number in 0..20 {
        cluster.put(&format!("s4://in/{number}_k"), format!("{number:04}\n").as_bytes());
    }
    let cmd = "case $filename in 1?_k) exit 1;; esac; cat";
    cluster.fails(1, &["map", "--keep-going", "s4://in/", "s4://out/", cmd]);
    assert_eq!(sum(&cluster, "s4_tasks_total{outcome=\"done\"}"), 10.0);
    assert_eq!(sum(&cluster, "s4_tasks_total{outcome=\"failed\"}"), 10.0);
    assert_eq!(sum(&cluster, "s4_jobs_running"), 0.0);
    assert_eq!(sum(&cluster, "s4_tasks_running"), 0.0);
    let listed = cluster.ok(&["ls", "-r", "s4://"]).lines().count() as f64;
    assert_eq!(listed, 30.0);
    eventually("all keys are counted", || (sum(&cluster, "s4_keys") == listed).then_some(()));
    eventually("their bytes too", || (sum(&cluster, "s4_stored_bytes") == 5.0 * listed).then_some(()));
    cluster.ok(&["rm", "-r", "s4://out/"]);
    eventually("deleted keys are gone", || (sum(&cluster, "s4_keys") == 20.0).then_some(()));
    assert!(sum(&cluster, "s4_requests_total{kind=\"jobs\"}") >= 6.0, "a submission and a start on each node");
    let text = scrape(&cluster, 0);
    assert!(value(&text, "s4_disk_free_bytes") <= value(&text, "s4_disk_size_bytes"), "{text}");
    assert_eq!(value(&text, "s4_disk_reserve_bytes"), Some(f64::from(1 << 20)));
}

#[test]
fn samples_show_that_the_machine_works() {
    let cluster = Cluster::start(1);
    cluster.put("s4://in/0_k", b"x");
    let busy = "end=$((SECONDS + 20)); while [ $SECONDS -lt $end ]; do :; done";
    let mut client = cluster.command(&["eval", "s4://in/0_k", busy]).spawn().unwrap();
    eventually("the CPU is busy", || value(&scrape(&cluster, 0), "s4_cpu_busy_ratio").filter(|ratio| *ratio > 0.1));
    eventually("the command runs", || (value(&scrape(&cluster, 0), "s4_tasks_running") == Some(1.0)).then_some(()));
    let sent = || value(&scrape(&cluster, 0), "s4_network_sent_bytes_total").unwrap();
    let before = sent();
    eventually("the network has carried the scrapes", || (sent() > before).then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_scrape_needs_the_secret_where_one_is_set() {
    let home = tempfile::Builder::new().prefix("s4-test-").tempdir().unwrap();
    let path = home.path().join("secret");
    std::fs::write(&path, "correct-horse-battery-staple\n").unwrap();
    let cluster = Cluster::with_options(1, &["--reserve", "0", "--secret", path.to_str().unwrap()]);
    for (headers, status) in [
        ("", 403),
        ("Authorization: Bearer wrong-horse-battery-staple\r\n", 403),
        ("Authorization: Basic correct-horse-battery-staple\r\n", 403),
        ("s4-secret: wrong\r\n", 403),
        ("Authorization: Bearer correct-horse-battery-staple\r\n", 200),
        ("s4-secret: correct-horse-battery-staple\r\n", 200),
    ] {
        let answer = scrape_with(&cluster, 0, headers);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
        assert_eq!(answer.contains("s4_uptime_seconds"), status == 200, "{headers}: {answer}");
    }
}

/// A file of packaging/.
fn packaged(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)
}

/// Every expression of the dashboard, with its variables replaced.
fn dashboard_expressions() -> Vec<String> {
    let text = std::fs::read(packaged("grafana/s4.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let plain = |text: &str| text.replace("$job", "s4").replace("$instance", ".*").replace("$__rate_interval", "1m");
    targets.map(|target| plain(target["expr"].as_str().expect("an expression"))).collect()
}

/// Every name that begins with `s4_` in a text.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("s4_")).collect()
}

#[test]
fn the_rules_and_the_dashboard_use_metrics_that_a_daemon_has() {
    let cluster = Cluster::start(1);
    let scraped = scrape(&cluster, 0);
    let types = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let known: BTreeSet<&str> = types.collect();
    let rules = std::fs::read_to_string(packaged("prometheus/s4.rules.yml")).unwrap();
    let expressions = dashboard_expressions().join("\n");
    for (what, text) in [("the rules", &rules), ("the dashboard", &expressions)] {
        let used = metric_names(text);
        assert!(used.len() > 5, "{what}: {used:?}");
        assert!(used.is_subset(&known), "{what}: {:?}", used.difference(&known));
    }
}

#[test]
fn prometheus_accepts_the_rules_and_the_expressions_of_the_dashboard() {
    if Command::new("promtool").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return eprintln!("skipped: promtool is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let as_rules = dir.path().join("dashboard.yml");
    let rules = dashboard_expressions().into_iter().enumerate();
    let rules: String = rules.map(|(at, expr)| format!("  - {{record: \"a:{at}\", expr: '{expr}'}}\n")).collect();
    std::fs::write(&as_rules, format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    for (args, path) in [
        (["check", "rules"], packaged("prometheus/s4.rules.yml")),
        (["test", "rules"], packaged("prometheus/tests.yml")),
        (["check", "rules"], as_rules),
    ] {
        let output = Command::new("promtool").args(args).arg(&path).output().unwrap();
        assert!(output.status.success(), "promtool {args:?} {}: {output:?}", path.display());
    }
}
