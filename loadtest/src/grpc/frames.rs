//! gRPC's framing: a flag byte, a length of four bytes (big endian), then the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::CallError;

/// Bytes in front of every message: compression flag and length.
const PREFIX_BYTES: usize = 5;

/// The longest message accepted from a server.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Encodes a message with its prefix, in one allocation of the right size.
pub(super) fn encode<M: Message>(message: &M) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).expect("a request is far below 4 GiB"));
    message.encode_raw(&mut buffer);
    buffer.freeze()
}

/// Cuts incoming DATA chunks into messages. A message that arrives in one chunk is not copied.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What arrived whole and is not yet cut: never copied.
    whole: Bytes,
    /// What had to be put together from several chunks.
    joined: BytesMut,
}

impl Frames {
    /// Takes the next chunk of the stream.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if self.whole.is_empty() && self.joined.is_empty() {
            self.whole = chunk;
            return;
        }
        if !self.whole.is_empty() {
            let wanted = message_bytes(&self.whole).unwrap_or(0).min(MESSAGE_BYTES_MAX);
            self.joined.reserve((PREFIX_BYTES + wanted).max(self.whole.len() + chunk.len()));
            self.joined.extend_from_slice(&self.whole);
            self.whole = Bytes::new();
        }
        self.joined.extend_from_slice(&chunk);
    }

    /// Takes out the next whole message, if it has arrived.
    ///
    /// # Errors
    /// A compressed message (none was asked for) or an absurd length.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if self.whole.is_empty() && !self.joined.is_empty() {
            if !is_complete(&self.joined)? {
                return Ok(None);
            }
            self.whole = self.joined.split().freeze();
        }
        if !is_complete(&self.whole)? {
            return Ok(None);
        }
        let length = message_bytes(&self.whole).unwrap_or(0);
        self.whole.advance(PREFIX_BYTES);
        Ok(Some(self.whole.split_to(length)))
    }

    /// Checks at the end of a stream that it did not end within a message.
    ///
    /// # Errors
    /// When it did.
    pub(super) fn ended(&self) -> Result<(), CallError> {
        whole(self.whole.is_empty() && self.joined.is_empty())
    }
}

/// Shows the messages of a stream where they lie in its chunks. Only one that is spread over
/// several chunks is copied, so that a message costs no allocation and no reference count.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// The beginning of a message whose end has not come yet.
    begun: Vec<u8>,
}

impl Cutter {
    /// Takes the next chunk and shows `each` message that ends in it.
    ///
    /// # Errors
    /// That of `each`, a compressed message (none was asked for), or an absurd length.
    pub(crate) fn cut(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        while !self.begun.is_empty() {
            let wanted = PREFIX_BYTES + message_bytes(&self.begun).unwrap_or(0);
            let (end, rest) = chunk.split_at((wanted - self.begun.len()).min(chunk.len()));
            self.begun.extend_from_slice(end);
            chunk = rest;
            if is_complete(&self.begun)? {
                each(&self.begun[PREFIX_BYTES..])?;
                self.begun.clear();
            } else if chunk.is_empty() {
                return Ok(());
            }
        }
        while is_complete(chunk)? {
            let end = PREFIX_BYTES + message_bytes(chunk).unwrap_or(0);
            each(&chunk[PREFIX_BYTES..end])?;
            chunk = &chunk[end..];
        }
        self.begun.extend_from_slice(chunk);
        Ok(())
    }

    /// Checks at the end of a stream that it did not end within a message.
    ///
    /// # Errors
    /// When it did.
    pub(crate) fn ended(&self) -> Result<(), CallError> {
        whole(self.begun.is_empty())
    }
}

/// The end of a stream is well where nothing of a message is left.
fn whole(nothing_left: bool) -> Result<(), CallError> {
    let within = || CallError::WrongAnswer("the stream ended within a message".into());
    nothing_left.then_some(()).ok_or_else(within)
}

/// The length in a message's prefix, once all of the prefix is there.
fn message_bytes(buffer: &[u8]) -> Option<usize> {
    let length = buffer.get(1..PREFIX_BYTES)?;
    Some(length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)))
}

/// Whether the buffer starts with a whole message.
fn is_complete(buffer: &[u8]) -> Result<bool, CallError> {
    let Some(length) = message_bytes(buffer) else { return Ok(false) };
    if buffer[0] != 0 {
        return Err(CallError::WrongAnswer("a compressed message, none was asked for".into()));
    }
    if length > MESSAGE_BYTES_MAX {
        return Err(CallError::WrongAnswer(format!("a message of {length} bytes")));
    }
    Ok(buffer.len() >= PREFIX_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn a_stream_is_cut_the_same_wherever_the_chunks_end() {
        let bodies: [&[u8]; 4] = [b"first", b"", b"third message", b"x"];
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for chunk_bytes in 1..=stream.len() {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for chunk in stream.chunks(chunk_bytes) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = frames.next().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, bodies, "chunks of {chunk_bytes}");
            assert!(frames.ended().is_ok());

            let (mut cutter, mut seen) = (Cutter::default(), Vec::new());
            for chunk in stream.chunks(chunk_bytes) {
                let keep = |message: &[u8]| {
                    seen.push(message.to_vec());
                    Ok(())
                };
                cutter.cut(chunk, keep).unwrap();
            }
            assert_eq!(seen, bodies, "cut from chunks of {chunk_bytes}");
            assert!(cutter.ended().is_ok());
        }
    }

    #[test]
    fn a_half_message_stays_until_the_rest_comes() {
        let bytes = framed(b"half");
        let mut frames = Frames::default();
        frames.push(Bytes::copy_from_slice(&bytes[..7]));
        assert_eq!(frames.next().unwrap(), None);
        assert!(frames.ended().is_err());
        frames.push(Bytes::copy_from_slice(&bytes[7..]));
        assert_eq!(frames.next().unwrap().unwrap(), "half");

        let mut cutter = Cutter::default();
        cutter.cut(&bytes[..7], |_| panic!("it is not whole")).unwrap();
        assert!(cutter.ended().is_err());
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 1, 9]));
        assert!(matches!(frames.next(), Err(CallError::WrongAnswer(_))));
        let cut = Cutter::default().cut(&[1, 0, 0, 0, 1, 9], |_| Ok(()));
        assert!(matches!(cut, Err(CallError::WrongAnswer(_))));
    }

    #[test]
    fn encoding_writes_the_prefix() {
        let encoded = encode(&"hi".to_owned());
        assert_eq!(&encoded[..5], &[0, 0, 0, 0, 4]);
        assert_eq!(encoded.len(), 9);
    }
}
