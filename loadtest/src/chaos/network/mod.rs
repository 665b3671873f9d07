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
