//! The gate that client calls pass: closed until the member can say who it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use castd_actors::Error;
use tokio::sync::watch;

use super::faces::{Faces, Phase};

/// Closed when it is made, and opened once. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Leaf>);

#[derive(Debug, Default)]
struct Leaf {
    /// What a call looks at on its way through.
    open: AtomicBool,
    /// What a call that came too early waits for.
    opened: watch::Sender<bool>,
}

impl Gate {
    /// Lets everybody through who waits and who comes.
    pub fn open(&self) {
        // The order does not matter: whoever misses the flag waits for the word.
        self.0.open.store(true, Relaxed);
        self.0.opened.send_replace(true);
    }

    /// Whether calls need not wait.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Relaxed)
    }
}

/// Waits in front of the gate, no longer than a request may take.
///
/// # Errors
/// `Stopped` when the node leaves; when the time is over, `NoLeader` if there is none,
/// otherwise `Timeout`.
pub(super) async fn pass(faces: &Faces) -> Result<(), Error> {
    let mut opened = faces.gate.0.opened.subscribe();
    let mut phase = faces.phase();
    tokio::select! {
        // The sender lives as long as the gate, of which the faces have a clone.
        _ = opened.wait_for(|open| *open) => Ok(()),
        _ = phase.wait_for(|phase| *phase > Phase::Serving) => Err(Error::Stopped),
        () = tokio::time::sleep(faces.options.request_timeout()) => {
            match faces.company.raft().leader {
                0 => Err(Error::NoLeader),
                _ => Err(Error::Timeout),
            }
        }
    }
}
