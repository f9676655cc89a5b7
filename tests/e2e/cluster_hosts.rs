//! `s4 cluster` on hosts that are like machines of their own, each with its own sshd, files, processes and disk.

use crate::harness::{assert_no_crash, text};
use crate::hosts::{Hosts, Running, SHARED, USER, print_now};
use crate::real_job::{STEPS, carriers, unpack};
use std::path::Path;
use std::process::Output;
use std::time::Instant;

/// The version of the programs of [`newer_programs`].
const NEWER: &str = "0.1.9";

fn run(hosts: &Hosts, args: &[&str]) -> Output {
    let began = Instant::now();
    let output = hosts.s4(args).output().expect("s4 runs");
    assert_no_crash(&output);
    eprintln!("{:.1} s: s4 {}: {}", began.elapsed().as_secs_f64(), args.join(" "), text(&output.stderr));
    output
}

fn ok(hosts: &Hosts, args: &[&str]) -> String {
    let output = run(hosts, args);
    assert!(output.status.success(), "s4 {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

/// The command fails, with these texts on lines of their own.
fn fails(hosts: &Hosts, args: &[&str], wanted: &[&str]) {
    let output = run(hosts, args);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "s4 {args:?}: {said}");
    for part in wanted {
        assert_eq!(said.lines().filter(|line| line.contains(part)).count(), 1, "'{part}' in: {said}");
    }
}

/// Nothing of s4 is left on a host, but what is in `except`.
fn assert_untouched(hosts: &Hosts, host: usize) {
    let found = hosts.sh_on(
        host,
        "find /etc /home /opt /root /srv /usr/local /var/log /data /run -name '*s4*' ! -path '/etc/ssh/*'; pgrep -l s4-server; true",
    );
    assert_eq!(found, "", "host {host}");
}

/// Copies of the programs that say to be of a newer version.
fn newer_programs(hosts: &Hosts) -> String {
    let dir = hosts.copy_programs("newer");
    for program in std::fs::read_dir(dir).unwrap() {
        let path = program.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let old = env!("CARGO_PKG_VERSION").as_bytes();
        assert_eq!(old.len(), NEWER.len());
        let places: Vec<usize> = memchr::memmem::find_iter(&bytes, old).collect();
        places.into_iter().for_each(|at| bytes[at..at + old.len()].copy_from_slice(NEWER.as_bytes()));
        std::fs::write(path, bytes).unwrap();
    }
    format!("{SHARED}/newer/s4")
}

#[test]
fn a_cluster_of_five_hosts_from_up_to_destroy() {
    // The last of the six is a spare.
    let Some(hosts) = Hosts::machines(6) else { return };
    let up = ["cluster", "up", "--data", "/data/s4", "node0", "node1", "node2", "node3", "node4"];
    ok(&hosts, &[&up[..], &["--dry-run"]].concat());
    (0..5).for_each(|host| assert_untouched(&hosts, host));
    fails(
        &hosts,
        &[&up[..], &["--as-user"]].concat(),
        &["node0: ssh logs in as root, and --as-user wants an ordinary user"],
    );
    assert!(ok(&hosts, &up).contains("export S4_CONF_PATH=/root/.s4.conf\n"));
    let home = hosts.sh_on(0, "tr '\\0' '\\n' < /proc/$(cat /run/s4-server.pid)/environ | grep ^HOME=");
    assert_eq!(home, "HOME=/nonexistent\n", "not that of who started it");
    assert_eq!(ok(&hosts, &["cluster", "up"]).matches(": unchanged").count(), 5);
    let status = ok(&hosts, &["cluster", "status"]);
    let healthy = format!(" healthy, version {}, up ", env!("CARGO_PKG_VERSION"));
    assert_eq!(status.matches(&healthy).count(), 5, "{status}");
    analyse_flights(&hosts);
    upgrade_under_a_mount(&hosts);
    replace_a_node(&hosts);
    fails(
        &hosts,
        &["cluster", "up", "node0", "node1", "node5", "node3", "node4", "node2"],
        &["node2 would be one more node"],
    );
    fails(&hosts, &["cluster", "up", "node1", "node0", "node5", "node3", "node4"], &["the order says where keys are"]);
    fails(&hosts, &["cluster", "destroy"], &["give --yes"]);
    ok(&hosts, &["cluster", "destroy", "--yes"]);
    for host in [0, 1, 3, 4, 5] {
        assert_untouched(&hosts, host);
    }
    assert!(!hosts.path_on(hosts.client(), "/root/.s4.conf").exists());
}

fn analyse_flights(hosts: &Hosts) {
    unpack(&hosts.shared());
    ok(hosts, &["cp", "-r", &format!("{SHARED}/flights"), "s4://flights/"]);
    for step in STEPS {
        ok(hosts, &step);
    }
    assert_eq!(hosts.ok(&["eval", "s4://step4/counts", "sort -k2,2nr"]), carriers());
}

/// While the nodes are upgraded, files are written and read through a mount, and none of that fails.
fn upgrade_under_a_mount(hosts: &Hosts) {
    let newer = newer_programs(hosts);
    hosts.sh("mkdir /tmp/s4 && s4 mount /tmp/s4 --background && mkdir /tmp/s4/w");
    let work = "set -e; n=0; until [ -e /tmp/stop ]; do n=$((n + 1)); seq $n > /tmp/s4/w/${n}_f; seq $n | cmp - /tmp/s4/w/${n}_f; done; echo $n";
    let working = Running::start(hosts.script(work));
    let tried = hosts.sh(&format!("{newer} cluster upgrade --dry-run 2>&1"));
    assert_eq!(tried.matches(": would get s4, ").count(), 5, "{tried}");
    assert!(ok(hosts, &["cluster", "upgrade"]).contains("unchanged"));
    let began = Instant::now();
    hosts.sh(&format!("{newer} cluster upgrade >&2"));
    hosts.sh("touch /tmp/stop");
    let written: u64 = working.end(began).succeeds("files through a mount during an upgrade").trim().parse().unwrap();
    assert!(written > 5, "{written} files");
    assert_eq!(hosts.sh("ls /tmp/s4/w | wc -l && s4 umount /tmp/s4").trim(), written.to_string());
    let status = ok(hosts, &["cluster", "status"]);
    assert_eq!(status.matches(&format!("healthy, version {NEWER}")).count(), 5, "{status}");
    let health = ok(hosts, &["health"]);
    assert_eq!(health.matches(&format!("version {NEWER}")).count(), 5, "{health}");
    // Once more, there is nothing to do.
    assert!(hosts.sh(&format!("{newer} cluster upgrade 2>&1")).contains("unchanged"));
}

/// The disk of node 2 is lost, and then the host.
fn replace_a_node(hosts: &Hosts) {
    let kept = hosts.ok(&["ls", "-r", "s4://step6/"]);
    hosts.sh_on(2, "kill -9 $(cat /run/s4-server.pid) && rm -rf /data/s4");
    fails(hosts, &["cluster", "up"], &["node2: its data directory /data/s4 has no keys of node 2 of 5"]);
    let with_spare = ["cluster", "up", "node0", "node1", "node5", "node3", "node4"];
    fails(hosts, &with_spare, &["node5: its data directory /data/s4 has no keys of node 2 of 5"]);
    let replaced = ok(hosts, &[&with_spare[..], &["--replace", "node5"]].concat());
    assert!(replaced.contains("node5: node 2 (10.99.0.6:8080): an empty data directory"), "{replaced}");
    assert_eq!(replaced.matches("a restart").count(), 4, "{replaced}");
    let left = hosts.ok(&["ls", "-r", "s4://step6/"]);
    assert!(!left.is_empty() && left.lines().count() < kept.lines().count());
    left.lines().for_each(|line| assert!(kept.contains(line), "{line}"));
    hosts.sh("seq 100 | s4 cp - s4://new/002_key && s4 cp s4://new/002_key - | cmp - <(seq 100)");
}

#[test]
fn a_cluster_remembers_how_it_is_reached_and_a_lost_host_does_not_keep_the_others_down() {
    let Some(hosts) = Hosts::machines(3) else { return };
    let (login, names) = (format!("User={USER}"), ["node0", "node1", "node2"]);
    ok(&hosts, &[&["cluster", "up", "-o", &login, "-o", "ConnectTimeout=2"], &names[..]].concat());
    assert_eq!(ok(&hosts, &["cluster", "status"]).matches(" healthy, ").count(), 3);
    let home = format!("/home/{USER}/.local/share/s4");
    hosts.sh_on(1, &format!("echo 'S4_SERVER_OPTIONS=\"--reserve 7M\"' > {home}/s4-server.options"));
    hosts.sh_on(1, &format!("kill -9 $(cat {home}/s4-server.pid)"));
    fails(&hosts, &["cluster", "upgrade"], &["node1: node 1: stopped", "unchanged: all 3 nodes"]);
    hosts.isolate(2);
    let told = ["node1: node 1: a start", "1 of 3 hosts are not reached; what was stopped on the others is started"];
    fails(&hosts, &["cluster", "up"], &told);
    let line = hosts.sh_on(1, &format!("tr '\\0' ' ' < /proc/$(cat {home}/s4-server.pid)/cmdline"));
    assert!(line.contains(" --reserve 7M"), "{line}");
    hosts.connect(2);
    hosts.sh("head -c 32 /dev/urandom | base64 > /root/other");
    fails(&hosts, &["--secret", "/root/other", "cluster", "up"], &["the cluster has another secret"]);
    ok(&hosts, &["cluster", "up"]);
    fails(&hosts, &["cluster", "up", "--as-user"], &["--as-user: the cluster was made without it"]);
    let as_root = ["cluster", "destroy", "--yes", "-o", "User=root"];
    fails(&hosts, &as_root, &["node0: node 0: nothing of a cluster is there", ".s4.conf.hosts: left"]);
    ok(&hosts, &["cluster", "destroy", "--yes"]);
    (0..3).for_each(|host| assert_untouched(&hosts, host));
}

#[test]
fn a_cluster_of_ordinary_users_without_systemd() {
    let Some(hosts) = Hosts::machines(3) else { return };
    let names: Vec<String> = (0..3).map(|host| format!("{USER}@node{host}")).collect();
    let mut up = vec!["cluster", "up", "--port", "9090"];
    up.extend(names.iter().map(String::as_str));
    ok(&hosts, &up);
    fails(
        &hosts,
        &["cluster", "up", "--port", "80"],
        &["--port: to change the ports of the nodes, give their hosts again"],
    );
    // Without the port, the nodes keep it; and without the local files, the hosts tell the secret.
    let again = ok(&hosts, &[&["cluster", "up"], &up[4..]].concat());
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    let lost = "mkdir /tmp/lost && mv /root/.s4.conf* /tmp/lost && s4 cluster up --as-user --dry-run --port 9090";
    let found = hosts.sh(&format!("{lost} {} 2>&1; mv /tmp/lost/.s4.conf* /root", names.join(" ")));
    assert_eq!(found.matches("unchanged").count(), 3, "{found}");
    let home = format!("/home/{USER}/.local/share/s4");
    assert_eq!(hosts.sh_on(1, "ps -o user= -C s4-server").trim(), USER);
    hosts.sh("for n in 0 1 2; do seq $n 100 | s4 cp - s4://in/${n}_k; done; s4 map s4://in/ s4://out/ 'wc -l'");
    hosts.sh_on(1, &format!("kill -9 $(cat {home}/s4-server.pid)"));
    fails(&hosts, &["cluster", "status"], &["1 carol@node1 10.99.0.2:9090 stopped"]);
    assert!(ok(&hosts, &["cluster", "up"]).contains("carol@node1: node 1 (10.99.0.2:9090): a start"));
    ok(&hosts, &["cluster", "down"]);
    (0..3).for_each(|host| assert_eq!(hosts.sh_on(host, "pgrep s4-server; true"), ""));
    assert_eq!(ok(&hosts, &["cluster", "down"]).matches("unchanged").count(), 3);
    ok(&hosts, &["cluster", "up"]);
    assert_eq!(hosts.sh("s4 cp -r s4://out/ -").split_whitespace().collect::<Vec<_>>(), ["101", "100", "99"]);
    ok(&hosts, &["cluster", "destroy", "--yes"]);
    (0..3).for_each(|host| assert_untouched(&hosts, host));
}

/// In place of systemd, as far as `s4 cluster` uses it: starts what the unit says, as the user that it says.
const SYSTEMCTL: &str = r#"
unit=/etc/systemd/system/s4-server.service pid=/run/fake.pid
pid() { p=$(cat $pid 2> /dev/null) && [ -e "/proc/$p/exe" ] && echo "$p"; }
value() { sed -n "s/^$1=//p" $unit; }
echo "$*" >> /tmp/systemctl
case $1 in
show) pid || echo 0 ;;
start) pid > /dev/null || {
    setsid sh -c "echo \$\$ > $pid && exec setpriv --reuid $(value User) --regid $(value User) --init-groups \
        env -i $(value Environment) $(value ExecStart)" < /dev/null > /tmp/log 2>&1 &
    until pid > /dev/null; do sleep 0.1; done
} ;;
stop) p=$(pid) && kill "$p"; while pid > /dev/null; do sleep 0.1; done; true ;;
esac"#;

/// Has the hosts `0..nodes` look as if systemd ran on them.
pub fn pretend_systemd(hosts: &Hosts, nodes: usize) {
    for host in 0..nodes {
        hosts.sh_on(host, "mkdir -p /run/systemd/system");
        hosts.fake_on(host, "systemctl", SYSTEMCTL);
    }
}

#[test]
fn a_cluster_by_systemd_units() {
    let Some(hosts) = Hosts::machines(2) else { return };
    pretend_systemd(&hosts, 2);
    ok(&hosts, &["cluster", "up", "--data", "/data/s4", "node0", "node1"]);
    assert_eq!(hosts.sh_on(1, "ps -o user= -C s4-server").trim(), "s4");
    let unit = "/etc/systemd/system/s4-server.service";
    match hosts.on(1, "systemd-analyze").args(["verify", unit]).output() {
        Ok(verified) if Path::new("/usr/bin/systemd-analyze").exists() => {
            let said = text(&verified.stderr);
            assert!(!said.contains("s4-server.service"), "{said}");
        }
        _ => print_now("skipped: the unit is not verified: no systemd-analyze"),
    }
    assert_eq!(ok(&hosts, &["cluster", "up"]).matches("unchanged").count(), 2);
    // What somebody else has changed is put right, on that host alone.
    hosts.sh_on(0, &format!("sed -i s/RestartSec=2/RestartSec=9/ {unit}"));
    let mended = ok(&hosts, &["cluster", "up"]);
    assert!(mended.contains("node0: node 0 (10.99.0.1:8080): the unit, a restart"), "{mended}");
    assert!(mended.contains("node1: node 1 (10.99.0.2:8080): unchanged"), "{mended}");
    ok(&hosts, &["cluster", "down"]);
    fails(&hosts, &["cluster", "status"], &["0 node0 10.99.0.1:8080 stopped", "1 node1 10.99.0.2:8080 stopped"]);
    let newer = newer_programs(&hosts);
    hosts.sh(&format!("{newer} cluster upgrade && {newer} cluster up"));
    assert!(ok(&hosts, &["cluster", "status"]).contains(&format!("version {NEWER}")));
    // From another machine, that knows the hosts only, it is the same cluster with the same secret.
    hosts.sh("mkdir kept && mv .s4.conf* kept");
    assert_eq!(ok(&hosts, &["cluster", "up", "--data", "/data/s4", "node0", "node1"]).matches("unchanged").count(), 2);
    hosts.sh("cmp .s4.conf.secret kept/.s4.conf.secret");
    ok(&hosts, &["cluster", "destroy", "--yes"]);
    let calls = hosts.sh_on(1, "cat /tmp/systemctl; rm -r /run/systemd");
    assert!(calls.contains("enable --quiet s4-server") && calls.contains("disable --quiet s4-server"), "{calls}");
    (0..2).for_each(|host| assert_untouched(&hosts, host));
}

/// From the client, only the gate is reached.
#[test]
fn through_closed_ports_by_a_jump_host_and_a_proxy() {
    let Some(hosts) = Hosts::machines(3) else { return };
    for host in 0..2 {
        hosts.one_way(hosts.client(), host);
    }
    let args = ["cluster", "up", "-o", "ProxyJump=node2", "--data", "/data/s4", "node0", "node1"];
    ok(&hosts, &args);
    assert!(!run(&hosts, &["--deadline", "1", "ls"]).status.success(), "the ports are closed");
    let work = "
        set -e
        eval \"$(connect_to_cluster.sh node2)\"
        seq 100000 > big; seq 10 > small
        s4 health >&2
        s4 cp big small s4://in/ && s4 cp s4://in/0_big - 2> /dev/null || s4 cp s4://in/big - | cmp - big
        s4 map s4://in/ s4://out/ 'wc -l' && s4 cp -r s4://out/ -
        mkdir m && s4 mount m --background && cp big m/in/copy && cmp big m/in/copy && rm m/in/small && s4 umount m
        s4 cp s4://in/copy - | cmp - big
        NO_PROXY=10.99.0.1,10.99.0.2 s4 --deadline 1 ls && exit 1
        ssh -O exit -S \"$S4_SSH_SOCKET\" node2 2> /dev/null
        s4 --deadline 1 ls 2>&1 && exit 1; true";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/connect_to_cluster.sh");
    std::fs::copy(script, hosts.shared().join("programs/connect_to_cluster.sh")).unwrap();
    let output = hosts.script(&format!("cd /root; {work}")).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("100000") && stdout.contains("the proxy 127.0.0.1:"), "{stdout}{stderr}");
}

#[test]
fn hosts_that_cannot_be_nodes_are_each_named_with_the_reason() {
    let Some(mut hosts) = Hosts::machines(5) else { return };
    let up = ["cluster", "up", "--data", "/data/s4", "node0", "node1", "node2", "node3", "node4"];
    hosts.fake_on(1, "uname", "case $1 in -m) echo riscv64 ;; *) exec /usr/bin/uname \"$@\" ;; esac");
    hosts.fake_on(2, "date", "exec /usr/bin/date -d '90 seconds ago' \"$@\"");
    hosts.fill(3, 8 << 10);
    let wanted = [
        "node1: its architecture is riscv64",
        " s behind: set it",
        "node3: no space in /data/s4",
        "3 of 5 hosts cannot be used",
    ];
    fails(&hosts, &up, &wanted);
    (0..5).filter(|host| ![1, 2].contains(host)).for_each(|host| assert_untouched(&hosts, host));
    for (host, name) in [(1, "uname"), (2, "date")] {
        hosts.sh_on(host, &format!("rm /usr/local/bin/{name}"));
    }
    hosts.empty(3);
    // What only the programs themselves find out, from host to host.
    hosts.one_way(0, 1);
    hosts.sh_on(2, "mkdir -p /data/s4/other");
    fails(&hosts, &up, &["node2: its directory /data/s4 holds files"]);
    hosts.sh_on(2, "rm -r /data/s4");
    hosts.sh_on(3, "setsid python3 -m http.server --bind 10.99.0.4 8080 > /dev/null 2>&1 & for _ in $(seq 100); do (: < /dev/tcp/10.99.0.4/8080) 2> /dev/null && exit; sleep 0.1; done");
    hosts.sh_on(4, "mount -t ramfs none /data");
    let wanted = [
        "node0: it cannot reach node 1 (10.99.0.2:8080): no answer",
        "node3: its port 8080 is taken",
        "node4: its file system cannot hold",
    ];
    fails(&hosts, &up, &wanted);
    hosts.heal();
    hosts.switch_off(1);
    fails(&hosts, &up, &["node1: ssh: connect to host node1 port 22", "1 of 5 hosts cannot be used"]);
    [0, 2, 3, 4].into_iter().for_each(|host| assert_untouched(&hosts, host));
}

/// A name that its own host takes for itself alone, as some distributions set it up.
#[test]
fn a_name_that_resolves_to_loopback_on_its_own_host_is_refused() {
    let Some(hosts) = Hosts::machines(2) else { return };
    hosts.sh_on(1, "echo 127.0.1.1 node1 > /etc/hosts");
    hosts.sh("printf 'node0 10.99.0.1\\nnode1 node1\\n' > /root/hosts.txt");
    fails(&hosts, &["cluster", "up", "/root/hosts.txt"], &["node1: node 1 (node1:8080): 'node1' is 127.0.1.1 here"]);
    (0..2).for_each(|host| assert_untouched(&hosts, host));
}
