//! The hub's door for the faces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};

use super::{Chunk, HubMessage, STREAM_ASKS, STREAM_CHUNKS, StreamId, StreamRequest};
use crate::shared::{Error, Inlet, Refused};

/// Opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchDoor {
    shards: Arc<[Inlet<HubMessage>]>,
    next: Arc<AtomicU64>,
}

impl WatchDoor {
    /// A door to the shards behind `shards`, of which there is one at least.
    pub fn new(shards: Vec<Inlet<HubMessage>>) -> Self {
        assert!(!shards.is_empty(), "a hub has a shard");
        Self { shards: shards.into(), next: Arc::new(AtomicU64::new(1)) }
    }

    /// Opens a stream; its responses come out of the receiver, in order.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the hub has ended.
    pub async fn open(&self) -> Result<(WatchHandle, Receiver<Box<Chunk>>), Error> {
        let stream = self.next.fetch_add(1, Relaxed);
        let hub = self.shards[(stream % self.shards.len() as u64) as usize].clone();
        let (chunks, receiver) = channel(STREAM_CHUNKS);
        hub.send(HubMessage::Open { stream, chunks }).await.map_err(|_| Error::Stopped)?;
        Ok((WatchHandle { stream, hub, asking: Arc::new(Semaphore::new(STREAM_ASKS)) }, receiver))
    }
}

/// One stream. Dropping it ends the stream.
#[derive(Debug)]
pub struct WatchHandle {
    stream: StreamId,
    hub: Inlet<HubMessage>,
    /// Held by the requests that are not answered yet.
    asking: Arc<Semaphore>,
}

impl WatchHandle {
    /// Asks for all of `requests`, in their order. Waits while [`STREAM_ASKS`] are
    /// not answered, which may take until the client reads what there is for it.
    /// False when the stream or the hub has ended.
    pub async fn ask(&self, requests: Vec<StreamRequest>) -> bool {
        let Ok(asking) = Arc::clone(&self.asking).acquire_owned().await else { return false };
        let message = HubMessage::Requests { stream: self.stream, requests, asking };
        self.hub.send(message).await.is_ok()
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
