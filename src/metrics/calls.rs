//! Figures of gRPC calls, under the names that etcd's dashboards ask for.
//!
//! Every counter is looked up once, at start; a call only adds to atomics.

use std::sync::OnceLock;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{counter, register};
use crate::grpc::{Kind, Method};

/// The values of the label `grpc_code`, by the code's number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// How many client versions have counters of their own. Clients choose the text, so
/// there must be an end to it.
const VERSIONS_MAX: usize = 64;

/// One method's counters.
struct MethodFigures {
    started: IntCounter,
    handled: [IntCounter; CODES.len()],
    received: IntCounter,
    sent: IntCounter,
    seconds: Option<Histogram>,
}

/// Counters of calls, messages and bytes.
pub struct CallMetrics {
    methods: Vec<MethodFigures>,
    bytes_received: IntCounter,
    bytes_sent: IntCounter,
    versions: ClientVersions,
}

impl CallMetrics {
    /// Registers the counters; `extensive` adds a histogram of handling times.
    ///
    /// # Errors
    /// When a name is taken in `registry`.
    pub fn new(registry: &Registry, extensive: bool) -> prometheus::Result<Self> {
        let labels = &["grpc_type", "grpc_service", "grpc_method"];
        let vec = |name, help, labels: &[&str]| {
            register(registry, IntCounterVec::new(prometheus::opts!(name, help), labels)?)
        };
        let started = vec("grpc_server_started_total", "Calls begun.", labels)?;
        let handled = vec(
            "grpc_server_handled_total",
            "Calls ended, whatever their outcome.",
            &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        )?;
        let received =
            vec("grpc_server_msg_received_total", "Messages received in calls.", labels)?;
        let sent = vec("grpc_server_msg_sent_total", "Messages sent in calls.", labels)?;
        let seconds = extensive.then(|| handling_seconds(registry, labels)).transpose()?;
        let methods = Method::ALL
            .iter()
            .map(|method| {
                let values = [method.kind().label(), method.service(), method.name()];
                let [kind, service, name] = values;
                MethodFigures {
                    started: started.with_label_values(&values),
                    handled: CODES
                        .map(|code| handled.with_label_values(&[kind, service, name, code])),
                    received: received.with_label_values(&values),
                    sent: sent.with_label_values(&values),
                    seconds: seconds.as_ref().map(|vec| vec.with_label_values(&values)),
                }
            })
            .collect();
        Ok(Self {
            methods,
            bytes_received: counter(
                registry,
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of messages received from gRPC clients.",
            )?,
            bytes_sent: counter(
                registry,
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of messages sent to gRPC clients.",
            )?,
            versions: ClientVersions::new(registry)?,
        })
    }

    /// A call of `method` begins.
    pub fn started(&self, method: Method) {
        self.of(method).started.inc();
    }

    /// A call of `method` ended with the gRPC code of this number after `seconds`.
    pub fn handled(&self, method: Method, code: usize, seconds: impl FnOnce() -> f64) {
        let figures = self.of(method);
        // Codes above 16 do not exist; a client sees them as Unknown.
        figures.handled.get(code).unwrap_or(&figures.handled[2]).inc();
        if let Some(histogram) = &figures.seconds {
            histogram.observe(seconds());
        }
    }

    /// A message of this many bytes arrived.
    pub fn received(&self, method: Method, bytes: usize) {
        self.of(method).received.inc();
        self.bytes_received.inc_by(bytes as u64);
    }

    /// A message of this many bytes goes out.
    pub fn sent(&self, method: Method, bytes: usize) {
        self.sent_together(method, 1, bytes);
    }

    /// So many messages of this many bytes together go out.
    pub fn sent_together(&self, method: Method, messages: u64, bytes: usize) {
        self.of(method).sent.inc_by(messages);
        self.bytes_sent.inc_by(bytes as u64);
    }

    /// A client of this API version, if it names one, sent a request.
    pub fn client_version(&self, kind: Kind, version: Option<&str>) {
        self.versions.count(kind, version);
    }

    fn of(&self, method: Method) -> &MethodFigures {
        &self.methods[method as usize]
    }
}

fn handling_seconds(registry: &Registry, labels: &[&str]) -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new("grpc_server_handling_seconds", "Seconds a call took.");
    register(registry, HistogramVec::new(options, labels)?)
}

/// One client version's counters.
struct Version {
    name: Box<str>,
    unary: IntCounter,
    stream: IntCounter,
}

/// Requests by the version that the client's library names. The table only grows, and
/// few versions are in use at a time, so a scan finds one faster than a hash would.
struct ClientVersions {
    vec: IntCounterVec,
    known: [OnceLock<Version>; VERSIONS_MAX],
    others: OnceLock<Version>,
}

impl ClientVersions {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let vec = IntCounterVec::new(
            prometheus::opts!(
                "etcd_server_client_requests_total",
                "Client requests by kind and by the client's API version."
            ),
            &["type", "client_api_version"],
        )?;
        let vec = register(registry, vec)?;
        Ok(Self { known: [const { OnceLock::new() }; VERSIONS_MAX], others: OnceLock::new(), vec })
    }

    fn count(&self, kind: Kind, name: Option<&str>) {
        let found = self.find(name.unwrap_or("unknown"));
        match kind {
            Kind::Unary => found.unary.inc(),
            Kind::ServerStream | Kind::BidiStream => found.stream.inc(),
        }
    }

    fn find(&self, name: &str) -> &Version {
        self.known
            .iter()
            .map(|slot| slot.get_or_init(|| version(&self.vec, name)))
            .find(|known| &*known.name == name)
            .unwrap_or_else(|| self.others.get_or_init(|| version(&self.vec, "others")))
    }
}

fn version(vec: &IntCounterVec, name: &str) -> Version {
    Version {
        name: name.into(),
        unary: vec.with_label_values(&["unary", name]),
        stream: vec.with_label_values(&["stream", name]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_client_versions_ends_in_one_counter() {
        let registry = Registry::new();
        let calls = CallMetrics::new(&registry, false).unwrap();
        for number in 0..10 * VERSIONS_MAX {
            calls.client_version(Kind::Unary, Some(&format!("3.{number}")));
            calls.client_version(Kind::Unary, Some("3.1"));
        }
        let families = registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "etcd_server_client_requests_total")
            .expect("registered");
        let total: f64 =
            family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum();
        assert_eq!(total, 20.0 * VERSIONS_MAX as f64);
        assert_eq!(family.get_metric().len(), 2 * (VERSIONS_MAX + 1));
        assert_eq!(calls.versions.find("3.1").unary.get(), 10 * VERSIONS_MAX as u64 + 1);
    }

    #[test]
    fn calls_are_counted_by_method_and_code() {
        let registry = Registry::new();
        let calls = CallMetrics::new(&registry, true).unwrap();
        calls.started(Method::Put);
        calls.handled(Method::Put, 8, || 0.5);
        calls.handled(Method::Put, 99, || 0.5);
        let put = &calls.methods[Method::Put as usize];
        assert_eq!(put.started.get(), 1);
        assert_eq!((put.handled[8].get(), put.handled[2].get()), (1, 1));
        assert_eq!(put.seconds.as_ref().unwrap().get_sample_count(), 2);
    }
}
