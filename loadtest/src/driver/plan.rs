//! How much load, from where, for how long.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::grpc::Endpoint;

/// When the next call goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// Closed loop: each client calls again as soon as it has its answer.
    Closed,
    /// Open loop: so many calls a second are due, whatever the server does; a call's latency
    /// counts from the moment it was due.
    Open {
        /// Calls a second, over all clients.
        rate: f64,
    },
}

/// The shape of a run, whatever its calls do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Servers; connections are dealt out to them in turn.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Connections, over all threads.
    pub(crate) connections: usize,
    /// Clients, over all connections; in the open loop, the most calls in flight.
    pub(crate) clients: usize,
    /// Threads, each with a runtime and connections of its own.
    pub(crate) threads: usize,
    /// Closed or open loop.
    pub(crate) pace: Pace,
    /// Load before anything counts.
    pub(crate) warmup: Duration,
    /// Length of the measured window.
    pub(crate) duration: Duration,
    /// Calls to make after the warm-up, at most.
    pub(crate) total: Option<u64>,
    /// How long after the window calls still in flight are waited for.
    pub(crate) drain: Duration,
    /// Processes of the servers whose CPU, memory and disk writes are to be reported.
    pub(crate) pids: Vec<u32>,
    /// Whether a progress bar may be drawn (it also needs a terminal).
    pub(crate) progress: bool,
    /// Ends the run before its time, once it is raised.
    pub(crate) stop: Option<Arc<AtomicBool>>,
}

impl Plan {
    /// The same plan with no more connections than clients and no more threads than
    /// connections, for there is nothing to do for those.
    pub(crate) fn trimmed(mut self) -> Self {
        self.clients = self.clients.max(1);
        self.connections = self.connections.clamp(1, self.clients);
        self.threads = self.threads.clamp(1, self.connections);
        self
    }

    /// Connections of one thread: which of the plan's connections, in order.
    pub(crate) fn connections_of(&self, thread: usize) -> impl Iterator<Item = usize> + use<> {
        (thread..self.connections).step_by(self.threads)
    }

    /// The endpoint of a connection.
    pub(crate) fn endpoint_of(&self, connection: usize) -> &Endpoint {
        &self.endpoints[connection % self.endpoints.len()]
    }

    /// Clients on a connection: client numbers, counted over all threads.
    pub(crate) fn clients_of(&self, connection: usize) -> impl Iterator<Item = usize> + use<> {
        (connection..self.clients).step_by(self.connections)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A short closed-loop plan against nobody in particular.
    pub(crate) fn plan(clients: usize, connections: usize, threads: usize) -> Plan {
        Plan {
            endpoints: vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()],
            connections,
            clients,
            threads,
            pace: Pace::Closed,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            total: None,
            drain: Duration::from_secs(1),
            pids: Vec::new(),
            progress: false,
            stop: None,
        }
    }

    #[test]
    fn every_client_has_one_connection_and_every_connection_one_thread() {
        for (clients, connections, threads) in [(1, 8, 2), (10, 8, 2), (64, 8, 3), (7, 3, 8)] {
            let plan = plan(clients, connections, threads).trimmed();
            let mut seen: Vec<usize> = (0..plan.threads)
                .flat_map(|thread| plan.connections_of(thread).collect::<Vec<_>>())
                .flat_map(|connection| plan.clients_of(connection).collect::<Vec<_>>())
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..clients).collect::<Vec<_>>());
        }
    }

    #[test]
    fn connections_are_dealt_out_to_endpoints_in_turn() {
        let plan = plan(8, 4, 1);
        let ports: Vec<_> = (0..4).map(|c| plan.endpoint_of(c).authority().port_u16()).collect();
        assert_eq!(ports, [Some(1), Some(2), Some(1), Some(2)]);
    }
}
