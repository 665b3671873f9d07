//! The hub's door for the faces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Chunk, HubMessage, STREAM_RESPONSES, StreamId, StreamRequest};
use crate::shared::{Error, Inlet, Refused};

/// Opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchDoor {
    hub: Inlet<HubMessage>,
    next: Arc<AtomicU64>,
}

impl WatchDoor {
    /// A door to the hub behind `hub`.
    pub fn new(hub: Inlet<HubMessage>) -> Self {
        Self { hub, next: Arc::new(AtomicU64::new(1)) }
    }

    /// Opens a stream; its responses come out of the receiver, in order.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the hub has ended.
    pub async fn open(&self) -> Result<(WatchHandle, Receiver<Chunk>), Error> {
        let stream = self.next.fetch_add(1, Relaxed);
        let (responses, receiver) = channel(STREAM_RESPONSES);
        let open = HubMessage::Open { stream, responses: responses.clone() };
        self.hub.send(open).await.map_err(|_| Error::Stopped)?;
        Ok((WatchHandle { stream, hub: self.hub.clone(), responses }, receiver))
    }
}

/// One stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct WatchHandle {
    stream: StreamId,
    hub: Inlet<HubMessage>,
    responses: Sender<Chunk>,
}

impl WatchHandle {
    /// Asks for all of `requests`, in their order. Waits while the stream's
    /// responses are not read. False when the stream or the hub has ended.
    pub async fn ask(&self, requests: Vec<StreamRequest>) -> bool {
        for request in requests {
            let Ok(slot) = self.responses.clone().reserve_owned().await else { return false };
            let message = HubMessage::Request { stream: self.stream, request, slot };
            if self.hub.send(message).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        let close = HubMessage::Close { stream: self.stream };
        let Err(Refused::Full(close)) = self.hub.try_send(close) else { return };
        // The hub is busy: somebody has to wait for room, and a drop cannot.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let hub = self.hub.clone();
            runtime.spawn(async move { hub.send(close).await });
        }
    }
}
