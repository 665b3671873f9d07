//! The thread that carries packets between the namespaces.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Shared;
use super::rules::LOSS_WHOLE;
use super::tun::PACKET_BYTES_MAX;

/// Packets under way between all nodes together, at most; further ones are lost, as in a
/// router whose queue is full.
const DELAYED_MAX: usize = 16_384;
/// Packets taken from one node before the others have their turn.
const BURST: usize = 64;
/// The longest the thread sleeps: how soon it notices that it is to stop.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Where an IPv4 header has the last byte of its destination.
const DESTINATION_LAST_BYTE: usize = 19;
/// Shortest IPv4 packet.
const HEADER_BYTES: usize = 20;

/// A packet that is to arrive later. Ordered by its moment, then by its number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delayed {
    due: Instant,
    number: u64,
    to: usize,
    packet: Vec<u8>,
}

/// Carries packets until told to stop.
#[derive(Debug)]
pub(super) struct Switch {
    ports: Vec<File>,
    shared: Arc<Shared>,
    random: SmallRng,
    delayed: BinaryHeap<Reverse<Delayed>>,
    /// The latest moment given to a packet of each pair: none overtakes another.
    latest: Vec<Instant>,
    number: u64,
}

impl Switch {
    /// A switch between nodes, each with the TUN device of its namespace, in order.
    pub(super) fn new(ports: Vec<File>, shared: Arc<Shared>, seed: u64) -> Self {
        let latest = vec![Instant::now(); ports.len() * ports.len()];
        let random = SmallRng::seed_from_u64(seed);
        Self { ports, shared, random, delayed: BinaryHeap::new(), latest, number: 0 }
    }

    /// Runs until [`Shared::stop`].
    pub(super) fn run(mut self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while !self.shared.stopped() {
            self.wait();
            for from in 0..self.ports.len() {
                self.drain(from, &mut buffer);
            }
            self.deliver_due();
        }
    }

    /// Sleeps until a packet comes or one is due.
    fn wait(&self) {
        let now = Instant::now();
        let until_due = self.delayed.peek().map(|next| next.0.due.saturating_duration_since(now));
        let sleep = until_due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(sleep.subsec_nanos()) };
        let mut polled: Vec<PollFd<'_>> =
            self.ports.iter().map(|port| PollFd::new(port, PollFlags::IN)).collect();
        // An interrupted wait is as good as one that is over.
        let _ = poll(&mut polled, Some(&timeout));
    }

    fn drain(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..BURST {
            match (&self.ports[from]).read(buffer) {
                Ok(length) => self.route(from, &buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing there, or the namespace is going away.
                Err(_) => return,
            }
        }
    }

    fn route(&mut self, from: usize, packet: &[u8]) {
        let Some(to) = destination(packet).filter(|to| *to < self.ports.len()) else { return };
        let rule = self.shared.rules.get(from, to);
        if rule.cut || (rule.loss > 0 && self.random.random_range(0..LOSS_WHOLE) < rule.loss) {
            self.shared.count_lost();
            return;
        }
        let now = Instant::now();
        let pair = from * self.ports.len() + to;
        let due = (now + rule.delay).max(self.latest[pair]);
        if due <= now {
            return self.deliver(to, packet);
        }
        if self.delayed.len() == DELAYED_MAX {
            self.shared.count_lost();
            return;
        }
        self.latest[pair] = due;
        self.number += 1;
        let (number, packet) = (self.number, packet.to_vec());
        self.delayed.push(Reverse(Delayed { due, number, to, packet }));
    }

    fn deliver_due(&mut self) {
        let now = Instant::now();
        while self.delayed.peek().is_some_and(|next| next.0.due <= now) {
            if let Some(Reverse(next)) = self.delayed.pop() {
                self.deliver(next.to, &next.packet);
            }
        }
    }

    fn deliver(&self, to: usize, packet: &[u8]) {
        match (&self.ports[to]).write(packet) {
            Ok(length) if length == packet.len() => self.shared.count_carried(),
            Ok(_) | Err(_) => self.shared.count_lost(),
        }
    }
}

/// The node a packet goes to: addresses end with the node's number plus one. Only IPv4 counts.
fn destination(packet: &[u8]) -> Option<usize> {
    let is_v4 = packet.len() >= HEADER_BYTES && packet[0] >> 4 == 4;
    is_v4.then(|| usize::from(packet[DESTINATION_LAST_BYTE]).checked_sub(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_the_last_byte_of_the_address() {
        let mut packet = [0; HEADER_BYTES];
        packet[0] = 0x45;
        packet[DESTINATION_LAST_BYTE] = 3;
        assert_eq!(destination(&packet), Some(2));
        packet[DESTINATION_LAST_BYTE] = 0;
        assert_eq!(destination(&packet), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&packet[..10]), None);
    }
}
