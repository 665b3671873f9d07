//! What the node measures of itself, in the one registry that `/metrics` shows.
//!
//! Owns: the figures of the network faces, and those that are read off the company when
//! somebody asks. The actors register their own (fsyncs, batches) in the same registry.
//! Never does: anything on a call's path beyond adding to an atomic.

mod calls;
mod company;
mod faces;
mod families;
mod features;
mod process;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, Registry};

pub use calls::CallMetrics;
pub use company::CompanyCollector;
pub use faces::{FaceMetrics, RequestKind};
pub use features::show_features;
pub use process::{Memory, ProcessCollector, descriptor_limit};

/// The figures of the network faces.
pub struct Metrics {
    /// Calls, messages and bytes.
    pub calls: CallMetrics,
    /// Proposals, reads, health checks.
    pub faces: FaceMetrics,
}

impl Metrics {
    /// Registers everything; `extensive` adds a histogram of handling times by method.
    ///
    /// # Errors
    /// When a name is taken in `registry`.
    pub fn new(registry: &Registry, extensive: bool) -> prometheus::Result<Self> {
        Ok(Self {
            calls: CallMetrics::new(registry, extensive)?,
            faces: FaceMetrics::new(registry)?,
        })
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    register(registry, IntGauge::new(name, help)?)
}
