//! Data for monitoring: samples of the machine, counts of requests, and failures of tasks. Requests for it are answered
//! by `handlers::monitoring`.

mod cluster_view;
pub mod counters;
mod failures;
mod machine;
mod sampler;

pub use machine::Totals;
pub use sampler::sample_until_the_end;

use cluster_view::Views;
use counters::{Requests, ScrubCounts};
use failures::Failures;
use sampler::Sampler;
use std::sync::Arc;

#[derive(Default)]
pub struct Monitoring {
    pub sampler: Arc<Sampler>,
    pub views: Arc<Views>,
    pub failures: Failures,
    pub requests: Requests,
    pub scrubs: ScrubCounts,
}
