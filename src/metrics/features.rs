//! Which features are on.

use prometheus::{IntGaugeVec, Registry};

use super::register;
use crate::config::Feature;

/// Shows each feature gate and whether it is on.
///
/// # Errors
/// When the name is taken in `registry`.
pub fn show_features(
    registry: &Registry,
    features: impl IntoIterator<Item = Feature>,
) -> prometheus::Result<()> {
    let options = prometheus::opts!(
        "etcd_server_feature_enabled",
        "1 for every feature gate that is on, 0 for the others."
    );
    let gauges = register(registry, IntGaugeVec::new(options, &["name", "stage"])?)?;
    for Feature { name, stage, enabled } in features {
        gauges.with_label_values(&[name, stage]).set(i64::from(enabled));
    }
    Ok(())
}
