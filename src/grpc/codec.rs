//! The codec of every call: prost, with messages and bytes counted as they pass.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::methods::Method;
use crate::metrics::Metrics;

/// Room made for a message before its size is known. Most requests and most answers
/// fit; a call pays for it twice, so it is small.
const BUFFER_BYTES: usize = 1024;

/// A stream's ready messages go out together up to about this size.
const YIELD_BYTES: usize = 32 * 1024;

/// Decodes `D` and encodes `E` for one method.
pub(super) struct CountingCodec<E, D> {
    metrics: Arc<Metrics>,
    method: Method,
    messages: PhantomData<fn(D) -> E>,
}

impl<E, D> CountingCodec<E, D> {
    pub(super) fn new(metrics: &Arc<Metrics>, method: Method) -> Self {
        Self { metrics: Arc::clone(metrics), method, messages: PhantomData }
    }
}

/// Something that can be sent.
pub(super) trait Wire: Send + 'static {
    /// How many bytes it takes.
    fn bytes(&self) -> usize;
    /// Writes it. There is room.
    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status>;
}

impl<M: Message + 'static> Wire for M {
    fn bytes(&self) -> usize {
        self.encoded_len()
    }

    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

/// A message that may have been encoded already, where nobody waits for it.
pub(super) enum Answer<M> {
    /// Still to be encoded.
    Message(M),
    /// Its bytes.
    Encoded(Bytes),
}

impl<M: Message + 'static> Wire for Answer<M> {
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.encoded_len(),
            Self::Encoded(bytes) => bytes.len(),
        }
    }

    fn write(self, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match self {
            Self::Message(message) => message.write(buffer),
            Self::Encoded(bytes) => {
                buffer.put(bytes);
                Ok(())
            }
        }
    }
}

impl<E, D> Codec for CountingCodec<E, D>
where
    E: Wire,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Counting<E>;
    type Decoder = Counting<D>;

    fn encoder(&mut self) -> Counting<E> {
        Counting::new(&self.metrics, self.method)
    }

    fn decoder(&mut self) -> Counting<D> {
        Counting::new(&self.metrics, self.method)
    }
}

/// One direction of a [`CountingCodec`].
pub(super) struct Counting<M> {
    metrics: Arc<Metrics>,
    method: Method,
    /// Room made for a message before its size is known.
    room_bytes: usize,
    message: PhantomData<fn() -> M>,
}

impl<M> Counting<M> {
    fn new(metrics: &Arc<Metrics>, method: Method) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            method,
            room_bytes: BUFFER_BYTES,
            message: PhantomData,
        }
    }

    /// For a stream that waits most of its time: it takes no room before it needs some.
    pub(super) fn waiting(metrics: &Arc<Metrics>, method: Method) -> Self {
        Self { room_bytes: 0, ..Self::new(metrics, method) }
    }
}

impl<M: Wire> Encoder for Counting<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = message.bytes();
        buffer.reserve(bytes);
        message.write(buffer)?;
        self.metrics.calls.sent(self.method, bytes);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.room_bytes, YIELD_BYTES)
    }
}

impl<M: Message + Default> Decoder for Counting<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        self.metrics.calls.received(self.method, buffer.remaining());
        M::decode(buffer).map(Some).map_err(|error| {
            Status::internal(format!("grpc: error unmarshalling request: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.room_bytes, YIELD_BYTES)
    }
}
