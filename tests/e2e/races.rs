//! Makers of one key at the same moment.

use crate::harness::{Cluster, assert_no_crash, text};
use std::io::Write;
use std::process::{Child, Output, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const CLIENTS: usize = 32;
const ROUNDS: usize = 6;

/// A client that has been started and waits for its content.
fn waiting_put(cluster: &Cluster, key: &str) -> Child {
    let mut command = cluster.command(&["cp", "-", key]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn content(client: usize) -> Vec<u8> {
    format!("client {client}\n").repeat(1 + client * 100).into_bytes()
}

/// Puts `key` from many clients at once, each with a content of its own.
fn race(cluster: &Cluster, key: &str) -> Vec<Output> {
    let clients: Vec<Child> = (0..CLIENTS).map(|_| waiting_put(cluster, key)).collect();
    let line = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        let run = |(client, mut child): (usize, Child)| {
            let line = &line;
            scope.spawn(move || {
                line.wait();
                // A loser may be refused before all is taken.
                let _ = child.stdin.take().unwrap().write_all(&content(client));
                child.wait_with_output().unwrap()
            })
        };
        let running: Vec<_> = clients.into_iter().enumerate().map(run).collect();
        running.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// One client has won, the others were told that the key exists, and the key is the winner's.
fn assert_one_winner(cluster: &Cluster, key: &str, ends: &[Output]) {
    for end in ends {
        assert_no_crash(end);
        let stderr = text(&end.stderr);
        match end.status.code() {
            Some(0) => assert_eq!(stderr, ""),
            Some(1) => assert!(stderr.contains("already exists") && stderr.contains(key), "{stderr}"),
            code => panic!("{code:?}: {stderr}"),
        }
    }
    let winners: Vec<usize> = (0..ends.len()).filter(|&client| ends[client].status.success()).collect();
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    assert!(cluster.get(key) == content(winners[0]), "{key} is not of client {}", winners[0]);
}

#[test]
fn of_many_makers_of_one_key_exactly_one_succeeds() {
    let cluster = Cluster::start(2);
    for round in 0..ROUNDS {
        let key = format!("s4://race/dir-{round}/{round}_key");
        assert_one_winner(&cluster, &key, &race(&cluster, &key));
    }
}

/// Ends the churn also when the test fails.
struct Churning<'a>(&'a AtomicBool);

impl Drop for Churning<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Puts and deletes `key` while it is `on`; neither may fail. Returns how often.
fn churn(cluster: &Cluster, key: &str, on: &AtomicBool) -> usize {
    let mut rounds = 0;
    while on.load(Ordering::Relaxed) {
        cluster.put(key, b"other");
        cluster.ok(&["rm", key]);
        rounds += 1;
    }
    rounds
}

#[test]
fn deletes_that_prune_the_directory_fail_no_put() {
    let cluster = Cluster::start(1);
    let on = AtomicBool::new(true);
    let churned: Vec<usize> = thread::scope(|scope| {
        let churning = Churning(&on);
        let (cluster, on) = (&cluster, &on);
        let others = (0..3).map(|n| format!("s4://race/deep/dir/0_other{n}"));
        let churners: Vec<_> = others.map(|key| scope.spawn(move || churn(cluster, &key, on))).collect();
        for round in 0..ROUNDS {
            let key = format!("s4://race/deep/dir/0_key{round}");
            assert_one_winner(cluster, &key, &race(cluster, &key));
            cluster.ok(&["rm", &key]);
        }
        drop(churning);
        churners.into_iter().map(|churner| churner.join().unwrap()).collect()
    });
    assert!(churned.iter().all(|&rounds| rounds > ROUNDS), "too few deletes to race with: {churned:?}");
    assert!(!cluster.data(0).join("race").exists(), "the empty directories are pruned");
}
