//! A network made of namespaces and one thread that carries packets between them.
//!
//! Owns: the TUN devices, the rules of loss, delay and cuts, the thread.
//! Receives: the files of the devices (from [`enter_namespace`], called by each node's own
//! thread), and changes of the [`Rules`].
//! Never does: anything outside the namespaces. It needs no bridge, no packet filter and no
//! queueing discipline of the kernel, only `/dev/net/tun` and the right to make namespaces;
//! and as nothing has a name, nothing is left behind when the program dies.

mod rules;
mod switch;
mod tun;

use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::error::LoadError;
pub(crate) use rules::{LOSS_WHOLE, Rule, Rules};
use switch::Switch;
pub(crate) use tun::enter_namespace;

/// The address of a node, counted from 0. It exists only inside the namespaces.
pub(crate) fn address(node: usize) -> Ipv4Addr {
    let last = u8::try_from(node + 1).expect("a handful of nodes");
    Ipv4Addr::new(10, 213, 77, last)
}

/// What the switch's thread and the others see.
#[derive(Debug)]
struct Shared {
    rules: Rules,
    stop: AtomicBool,
    carried: AtomicU64,
    lost: AtomicU64,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count_carried(&self) {
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// The running network. Dropping it stops the thread.
#[derive(Debug)]
pub(crate) struct Network {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Connects nodes by the devices of their namespaces.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn connect(devices: Vec<File>, seed: u64) -> Result<Self, LoadError> {
        let shared = Arc::new(Shared {
            rules: Rules::new(devices.len()),
            stop: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let switch = Switch::new(devices, Arc::clone(&shared), seed);
        let thread = std::thread::Builder::new().name("switch".into()).spawn(|| switch.run());
        let thread = Some(thread.map_err(LoadError::Runtime)?);
        Ok(Self { shared, thread })
    }

    /// The rules, to be read and changed at any time.
    pub(crate) fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// Packets carried and packets lost so far.
    pub(crate) fn packets(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.shared.carried), read(&self.shared.lost))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has already said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    /// Sends a datagram from one node to the other, and waits for it.
    fn passes(from: &UdpSocket, to: &UdpSocket) -> bool {
        from.send_to(b"x", to.local_addr().unwrap()).unwrap();
        to.recv(&mut [0; 8]).is_ok()
    }

    /// A socket in a namespace of its own, and the namespace's device.
    fn node(number: usize) -> std::io::Result<(UdpSocket, File)> {
        let made = std::thread::spawn(move || {
            let device = enter_namespace(address(number))?;
            let socket = UdpSocket::bind((address(number), 7))?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            Ok((socket, device))
        });
        made.join().unwrap()
    }

    #[test]
    fn packets_go_as_the_rules_say() {
        let (Ok((a, device_a)), Ok((b, device_b))) = (node(0), node(1)) else {
            eprintln!("no rights for namespaces here: nothing is tested");
            return;
        };
        let network = Network::connect(vec![device_a, device_b], 1).unwrap();
        let rules = network.rules();
        assert!(passes(&a, &b) && passes(&b, &a));

        rules.change(0, 1, |rule| rule.cut = true);
        assert!(!passes(&a, &b), "cut");
        assert!(passes(&b, &a), "the other way is open");
        assert!(network.packets().1 > 0);

        rules.heal();
        rules.change(0, 1, |rule| rule.delay = Duration::from_millis(100));
        let start = Instant::now();
        assert!(passes(&a, &b) && start.elapsed() >= Duration::from_millis(100));

        rules.heal();
        rules.change(0, 1, |rule| rule.loss = LOSS_WHOLE);
        assert!(!passes(&a, &b), "all lost");
    }
}
