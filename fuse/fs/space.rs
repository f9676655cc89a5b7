//! The space of the cluster, for df.

use crate::errno::{Result, errno};
use s4::client::Client;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long cached numbers are returned.
const FRESH: Duration = Duration::from_secs(1);

/// All bytes and the free ones, summed over the nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    pub total: u64,
    pub free: u64,
}

/// Asks the nodes for their space, at most once a second.
pub struct SpaceCache {
    client: Client,
    /// Guards the last numbers, and when they were asked for.
    last: Mutex<Option<(Instant, Space)>>,
}

impl SpaceCache {
    pub fn new(client: Client) -> Self {
        Self { client, last: Mutex::default() }
    }

    pub async fn get(&self) -> Result<Space> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, space)) = last
            && at.elapsed() < FRESH
        {
            return Ok(space);
        }
        let mut sum = Space::default();
        for health in self.client.on_every_node(|client, node| async move { client.health(node).await }).await {
            let health = health.map_err(|e| errno(&e))?;
            // A node may report any number.
            sum.total = sum.total.saturating_add(health.total_bytes);
            sum.free = sum.free.saturating_add(health.free_bytes.saturating_sub(health.reserve_bytes));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), sum));
        Ok(sum)
    }
}
