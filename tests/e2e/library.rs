//! The client library of s4, as other programs use it.

use crate::harness::Cluster;
use s4::client::{Client, Settings};
use s4::protocol::Entry;
use std::future::Future;

/// A client of a test's cluster, with the runtime that it needs.
pub struct Library {
    pub client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Library {
    pub fn of(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let nodes = s4::cluster::Cluster::load(Some(&cluster.conf())).expect("a cluster file");
        Self { client: Client::new(nodes, Settings::default()), runtime }
    }

    /// Waits for the result of `work`.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The paths of all entries of a listing of `prefix`.
    pub fn paths(&self, prefix: &str, options: s4::client::ListOptions<'_>) -> Vec<String> {
        self.entries(prefix, options).iter().map(|entry| entry.path().to_owned()).collect()
    }

    pub fn entries(&self, prefix: &str, options: s4::client::ListOptions<'_>) -> Vec<Entry> {
        self.wait(async {
            let prefix = s4::key::Prefix::parse(prefix).expect("a prefix");
            let mut listing = self.client.list_with(&prefix, options).await.expect("a listing");
            let mut entries = Vec::new();
            while let Some(entry) = listing.next().await.expect("an entry") {
                entries.push(entry);
            }
            entries
        })
    }
}
