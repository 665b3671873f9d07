//! Starting the company and ending it.

use std::thread::JoinHandle;

use actix::{Actor, Arbiter, ArbiterHandle};

use super::assemble::{Assembled, HubParts, Life, StartError, assemble};
use super::config::{CompanyConfig, WatchThreads};
use super::door::Company;
use super::open::Opened;
use crate::apply_loop::ApplyLoop;
use crate::checkpointer::{Checkpointer, CheckpointerOptions};
use crate::compactor::Compactor;
use crate::lease_manager::LeaseManager;
use crate::mvcc::MvccMessage;
use crate::peer_transport::PeerTransport;
use crate::raft_node::RaftNode;
use crate::shared::{FatalReport, ThreadInlet, spawn_thread};
use crate::wal_writer::{WalHandle, WalMessage};
use crate::watch_hub::WatchHub;

/// The running company. Dropping it does not end it: call [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    core: Arbiter,
    hub: Vec<Arbiter>,
    wal: WalHandle,
    wal_thread: JoinHandle<()>,
    mvcc: ThreadInlet<MvccMessage>,
    mvcc_thread: JoinHandle<()>,
    checkpointer: Checkpointer,
}

impl Running {
    /// The arbiter that carries consensus, for faces that are to share its thread.
    pub fn core(&self) -> ArbiterHandle {
        self.core.handle()
    }

    /// Ends the company: nothing more is proposed, what was accepted is synced.
    /// What is given back may still be sealing a checkpoint. A process may end
    /// without waiting for it; who opens the same directory again in this
    /// process must [`Checkpointer::stop`] it first.
    pub fn stop(self) -> Checkpointer {
        // The arbiters end first, so that nobody sends any more.
        self.core.stop();
        self.hub.iter().for_each(|arbiter| {
            arbiter.stop();
        });
        let _ = self.core.join();
        for arbiter in self.hub {
            let _ = arbiter.join();
        }
        // A mailbox that is closed belongs to a thread that has ended already.
        let _ = self.mvcc.try_send(MvccMessage::Stop);
        let _ = self.wal.send(WalMessage::Stop);
        let _ = self.wal_thread.join();
        drop(self.mvcc);
        let _ = self.mvcc_thread.join();
        self.checkpointer
    }
}

/// Starts every actor over what was opened.
///
/// # Errors
/// [`StartError`].
pub fn start(opened: Opened, config: &CompanyConfig) -> Result<(Company, Running), StartError> {
    let assembled = assemble(opened, config, &Life::now())?;
    let Assembled { company, raft_node, apply_loop, lease_manager, compactor, .. } = assembled;
    let Assembled { mvcc, mvcc_messages, wal, wal_handle, sealer, checkpointer, .. } = assembled;
    let Assembled { peers, hub, .. } = assembled;

    let wal_thread = wal.spawn()?;
    let checkpointer = Checkpointer::run(checkpointer, sealer, &CheckpointerOptions::default())?;
    let fatal = FatalReport::clone(&config.fatal);
    let mvcc_thread = spawn_thread("mvcc", fatal, move || mvcc.run(&mvcc_messages))?;

    let core = Arbiter::new();
    let core_handle = core.handle();
    let transport = PeerTransport::new(peers.settings, peers.edges, peers.messages, peers.metrics);
    PeerTransport::start_in_arbiter(&core_handle, move |_| transport);
    let hub = start_hub(hub, config, &core_handle);
    LeaseManager::start_in_arbiter(&core_handle, move |_| lease_manager);
    Compactor::start_in_arbiter(&core_handle, move |_| compactor);
    ApplyLoop::start_in_arbiter(&core_handle, move |_| apply_loop);
    RaftNode::start_in_arbiter(&core_handle, move |_| raft_node);

    let mvcc = company.mvcc.clone();
    let running =
        Running { core, hub, wal: wal_handle, wal_thread, mvcc, mvcc_thread, checkpointer };
    Ok((company, running))
}

/// Starts the shards of the hub; gives the arbiters that carry nothing else.
fn start_hub(parts: HubParts, config: &CompanyConfig, core: &ArbiterHandle) -> Vec<Arbiter> {
    let HubParts { settings, edges, metrics, shards } = parts;
    let progress = config.watch_progress;
    let mut own = Vec::new();
    for (shard, outlets) in shards.into_iter().enumerate() {
        let (edges, metrics) = (edges.clone(), metrics.clone());
        let arbiter = match config.watch_threads {
            WatchThreads::Consensus => core.clone(),
            WatchThreads::Own(_) => {
                own.push(Arbiter::new());
                own[shard].handle()
            }
        };
        WatchHub::start_in_arbiter(&arbiter, move |_| {
            WatchHub::new(shard, settings, edges, progress, outlets, metrics)
        });
    }
    own
}
