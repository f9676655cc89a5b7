//! Samples the machine every two seconds, and counts the keys at intervals.

use super::cluster_view::Views;
use super::machine::{Machine, Totals};
use crate::jobs::Shared;
use crate::store::Store;
use s4::client::blocking;
use s4::protocol::node::{Counted, SAMPLE_SECONDS, SAMPLES_KEPT, Sample};
use s4::time::now_milliseconds;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Counting keys takes time. The pause after a count is this many times as long, and at least [`LEAST_PAUSE`].
const PAUSE: u32 = 50;
const LEAST_PAUSE: Duration = Duration::from_secs(2);

/// The samples of the last ten minutes, and the last count of keys.
#[derive(Default)]
pub struct Sampler {
    /// Guards samples and counts.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    samples: VecDeque<Sample>,
    totals: Totals,
    counted: Option<Counted>,
    /// A client has asked for the count since the last one began. Otherwise keys are not counted.
    wanted: bool,
    /// No count begins before this time; `None` while one is running.
    next_count: Option<Instant>,
    counting: bool,
}

impl Sampler {
    /// The last `most` samples, oldest first.
    pub fn samples(&self, most: usize) -> Vec<Sample> {
        let state = self.lock();
        let skipped = state.samples.len().saturating_sub(most);
        state.samples.iter().skip(skipped).copied().collect()
    }

    pub fn last(&self) -> Option<Sample> {
        self.lock().samples.back().copied()
    }

    pub fn totals(&self) -> Totals {
        self.lock().totals
    }

    /// The last count. Requests a new one.
    pub fn counted(&self) -> Option<Counted> {
        let mut state = self.lock();
        state.wanted = true;
        state.counted
    }

    fn push(&self, sample: Sample, totals: Totals) {
        let mut state = self.lock();
        state.totals = totals;
        // If the clock was set back, samples of the future are removed.
        while state.samples.back().is_some_and(|last| last.at >= sample.at) {
            state.samples.pop_back();
        }
        if state.samples.len() == SAMPLES_KEPT {
            state.samples.pop_front();
        }
        state.samples.push_back(sample);
    }

    /// True if a count is requested and due. The caller must run it.
    fn claim_count(&self) -> bool {
        let mut state = self.lock();
        let due = state.next_count.is_none_or(|at| at <= Instant::now());
        let claimed = state.wanted && due && !state.counting;
        if claimed {
            state.wanted = false;
            state.counting = true;
        }
        claimed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes samples until the process ends. `host` is this node's name in the cluster file.
pub async fn sample_until_the_end(sampler: Arc<Sampler>, views: Arc<Views>, shared: Arc<Shared>, host: String) {
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let mut machine = Machine::new(shared.store.root(), is_local);
    let mut before = (Instant::now(), machine.totals());
    loop {
        tokio::time::sleep(until_next()).await;
        // Not in a blocking thread: this takes only a few microseconds.
        let now = (Instant::now(), machine.totals());
        let running = shared.running.count() as u64;
        sampler.push(sample(before.1, now.1, now.0 - before.0, running), now.1);
        before = now;
        views.forget_old();
        if sampler.claim_count() {
            tokio::spawn(count(sampler.clone(), shared.store.clone()));
        }
    }
}

async fn count(sampler: Arc<Sampler>, store: Arc<Store>) {
    let (began, at) = (Instant::now(), now_milliseconds());
    let usage = blocking(move || store.usage()).await;
    let mut state = sampler.lock();
    state.counting = false;
    state.next_count = Some(Instant::now() + (began.elapsed() * PAUSE).max(LEAST_PAUSE));
    match usage {
        Ok(usage) => state.counted = Some(Counted { usage, at }),
        Err(error) => tracing::warn!("cannot count the keys: {error}"),
    }
}

/// The time until the next sample, which is taken when the clock shows a multiple of [`SAMPLE_SECONDS`].
fn until_next() -> Duration {
    let step = SAMPLE_SECONDS as u128 * 1_000_000_000;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Duration::from_nanos((step - now % step) as u64)
}

fn sample(before: Totals, now: Totals, elapsed: Duration, running: u64) -> Sample {
    let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let ticks = now.cpu_all.saturating_sub(before.cpu_all).max(1);
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Sample {
        at: (seconds / SAMPLE_SECONDS as f64).round() as u64 * SAMPLE_SECONDS,
        cpu: (now.cpu_busy.saturating_sub(before.cpu_busy) * 1000 / ticks).min(1000),
        running,
        disk_read: rate(before.disk_read, now.disk_read),
        disk_written: rate(before.disk_written, now.disk_written),
        net_in: rate(before.net_in, now.net_in),
        net_out: rate(before.net_out, now.net_out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_ten_minutes_in_order() {
        let sampler = Sampler::default();
        for at in 0..400 {
            sampler.push(Sample { at: at * 2, ..Sample::default() }, Totals::default());
        }
        let kept = sampler.samples(1000);
        assert_eq!((kept.len(), kept[0].at, kept[299].at), (SAMPLES_KEPT, 200, 798));
        assert_eq!(sampler.samples(2).iter().map(|s| s.at).collect::<Vec<_>>(), [796, 798]);
        sampler.push(Sample { at: 700, ..Sample::default() }, Totals::default());
        assert_eq!(sampler.last().map(|s| s.at), Some(700), "the clock was set back");
        assert!(sampler.samples(1000).is_sorted_by_key(|s| s.at));
    }

    #[test]
    fn a_sample_is_what_happened_in_between() {
        let before = Totals { cpu_busy: 100, cpu_all: 1000, disk_read: 4096, ..Totals::default() };
        let now = Totals { cpu_busy: 150, cpu_all: 1200, disk_read: 8192, net_out: 10, ..Totals::default() };
        let sample = sample(before, now, Duration::from_secs(2), 3);
        assert_eq!((sample.cpu, sample.running, sample.disk_read, sample.net_out), (250, 3, 2048, 5));
        assert_eq!(sample.at % SAMPLE_SECONDS, 0);
    }

    #[test]
    fn keys_are_not_counted_without_a_request() {
        let sampler = Sampler::default();
        assert!(!sampler.claim_count());
        assert_eq!(sampler.counted(), None);
        assert!(sampler.claim_count());
        sampler.counted();
        assert!(!sampler.claim_count(), "one at a time");
    }
}
