//! The state of the whole cluster as JSON for the page. All nodes are asked once per second at most, however many pages
//! are open.

use bytes::Bytes;
use s4::client::Client;
use s4::protocol::node::SAMPLES_KEPT;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How long an answer is reused.
const FRESH: Duration = Duration::from_secs(1);
/// Samples for a page that has polled recently; a new page gets all.
const RECENT: usize = 15;

/// An answer, or the future of one that is being fetched.
type Slot = Arc<OnceCell<(Instant, Bytes)>>;

#[derive(Default)]
pub struct Views {
    /// Created at the first request.
    client: OnceLock<Client>,
    /// Guards the latest answers: with recent samples, and with all samples.
    slots: Mutex<[Slot; 2]>,
}

impl Views {
    /// The view with at least the last `samples` samples. `client` belongs to this cluster.
    pub async fn get(&self, client: &Client, samples: usize) -> Bytes {
        let (at, samples) = if samples <= RECENT { (0, RECENT) } else { (1, SAMPLES_KEPT) };
        let client = self.client.get_or_init(|| client.for_watching());
        let (_, view) = self.slot(at).get_or_init(|| ask(client, samples)).await.clone();
        view
    }

    /// The slot to use. It is emptied if its answer is old.
    fn slot(&self, at: usize) -> Slot {
        let mut slots = self.lock();
        if is_old(&slots[at], FRESH) {
            slots[at] = Slot::default();
        }
        slots[at].clone()
    }

    /// Frees the answers when no page polls any more.
    pub fn forget_old(&self) {
        for slot in self.lock().iter_mut().filter(|slot| is_old(slot, 5 * FRESH)) {
            *slot = Slot::default();
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Slot; 2]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_old(slot: &Slot, age: Duration) -> bool {
    slot.get().is_some_and(|(made, _)| made.elapsed() >= age)
}

async fn ask(client: &Client, samples: usize) -> (Instant, Bytes) {
    let view = client.cluster_view(samples).await;
    let text = serde_json::to_vec(&view).expect("a view is plain JSON");
    (Instant::now(), text.into())
}
