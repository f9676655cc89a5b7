//! The same work for many hosts, some at once.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The most hosts that are worked on at once: each takes a process here.
const AT_ONCE: usize = 32;

/// Does `work` for all items, a bounded number at once. The results are in the order of the items.
pub fn on_all<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    up_to(AT_ONCE, items, work)
}

/// Does `work` for all items at once, each of which needs the others.
pub fn together<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    up_to(items.len(), items, work)
}

fn up_to<T: Sync, R: Send>(limit: usize, items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let one_after_the_other = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            match items.get(number) {
                Some(item) => done.push((number, work(number, item))),
                None => return done,
            }
        }
    };
    let mut results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..limit.min(items.len())).map(|_| scope.spawn(one_after_the_other)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        workers.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..200).collect();
        assert_eq!(on_all(&items, |number, item| number + item), (0..200).map(|n| 2 * n).collect::<Vec<_>>());
        let barrier = std::sync::Barrier::new(50);
        together(&[(); 50], |_, ()| barrier.wait());
        assert!(on_all(&[] as &[()], |_, ()| ()).is_empty());
    }
}
