//! Metric families put together by hand, for values that are kept elsewhere.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A family's name, its meaning, and whether its values may fall.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    name: &'static str,
    help: &'static str,
    counts: bool,
}

impl Shape {
    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, counts: false }
    }

    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, counts: true }
    }

    pub(super) fn desc(&self) -> prometheus::Result<Desc> {
        Desc::new(self.name.to_owned(), self.help.to_owned(), Vec::new(), HashMap::new())
    }

    /// The family with one value and no labels.
    pub(super) fn value(self, value: f64) -> MetricFamily {
        Family::new(self).with(&[], value).done()
    }
}

/// A family that is being filled.
pub(super) struct Family {
    shape: Shape,
    metrics: Vec<Metric>,
}

impl Family {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, metrics: Vec::new() }
    }

    pub(super) fn with(mut self, labels: &[(&str, &str)], value: f64) -> Self {
        let mut pairs: Vec<LabelPair> = labels.iter().map(|pair| label(*pair)).collect();
        // As the other families have them, and as etcd's library does.
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::from_label(pairs);
        if self.shape.counts {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
        self
    }

    pub(super) fn done(self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.shape.name.to_owned());
        family.set_help(self.shape.help.to_owned());
        let kind = if self.shape.counts { MetricType::COUNTER } else { MetricType::GAUGE };
        family.set_field_type(kind);
        family.set_metric(self.metrics);
        family
    }
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
