//! The stream: a view's blocks and what goes with them, cut anywhere.
//!
//! ```text
//!   "castsnap" │ version u8 │ frame │ frame │ … │ end
//!   frame: kind u8 │ length u32 │ CRC of payload u32 │ CRC of head u32 │ payload
//! ```
//! Numbers are little-endian, checksums are CRC32C. The head's checksum goes on
//! from that of the frame before it, so that a frame which is missing, doubled
//! or out of place is found at once, and a length is never believed before its
//! checksum is right. The first frame says what state this is, one frame a block
//! follows, and the last one counts them.

use bytes::{BufMut, Bytes, BytesMut};

use super::arrival::Arriving;
use crate::mvcc::{Block, Revision, StoreMeta};
use crate::shared::codec::CodecError;

const MAGIC: &[u8; 8] = b"castsnap";
/// The newest format this program knows.
const VERSION: u8 = 1;
const PREAMBLE_BYTES: usize = MAGIC.len() + 1;

const FRAME_META: u8 = 1;
const FRAME_BLOCK: u8 = 2;
const FRAME_END: u8 = 3;
/// A frame's head without its own checksum.
const HEAD_SIGNED_BYTES: usize = 9;
const HEAD_BYTES: usize = HEAD_SIGNED_BYTES + 4;
/// Most bytes of a payload, as for a block of a checkpoint.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// So much room is made for a payload at once; more only as it comes.
const PAYLOAD_BYTES_AHEAD: usize = 1 << 20;
/// Index and term in front of the encoded [`StoreMeta`].
const POSITION_BYTES: usize = 16;

/// Why a stream is not a snapshot that can be installed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The stream is not what was sent.
    #[error("snapshot is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Where in the stream, in bytes from its start.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The stream ends too early.
    #[error("snapshot is cut short after {bytes} bytes")]
    CutShort {
        /// Bytes that came.
        bytes: u64,
    },
    /// The sender is a later castd.
    #[error(
        "snapshot has format {found}, and this castd knows up to {VERSION}: upgrade this member first"
    )]
    NewerFormat {
        /// The stream's format.
        found: u8,
    },
}

/// What state a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The raft index of the last entry in the state.
    pub(super) index: u64,
    /// The term of that entry.
    pub(super) term: u64,
    /// Everything that is not a record. Its member is the sender.
    pub(super) meta: StoreMeta,
}

impl Head {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.term.to_le_bytes());
        out.extend_from_slice(&self.meta.to_bytes());
        out
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let (position, meta) =
            bytes.split_first_chunk::<POSITION_BYTES>().ok_or(CodecError::Truncated)?;
        let [index, term] = numbers(position);
        let meta = StoreMeta::from_bytes(meta)?;
        let revisions = meta.compact_revision >= -1
            && meta.compact_revision <= meta.revision
            && (1..i64::MAX).contains(&meta.revision);
        if index == 0 || term == 0 || !revisions {
            return Err(CodecError::OutOfRange);
        }
        Ok(Self { index, term, meta })
    }
}

/// Two numbers of 8 bytes.
fn numbers(bytes: &[u8; POSITION_BYTES]) -> [u64; 2] {
    let (numbers, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(numbers[0]), u64::from_le_bytes(numbers[1])]
}

/// Makes a stream, frame by frame.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    chain: u32,
    blocks: u64,
    records: u64,
}

impl Encoder {
    /// The beginning of a stream.
    pub(super) fn begin(&mut self, head: &Head, out: &mut BytesMut) {
        out.put_slice(MAGIC);
        out.put_u8(VERSION);
        self.frame(FRAME_META, &head.to_bytes(), out);
    }

    /// One block; they come in order.
    pub(super) fn block(&mut self, block: &Block, out: &mut BytesMut) {
        self.blocks += 1;
        self.records += block.len() as u64;
        self.frame(FRAME_BLOCK, &block.to_bytes(), out);
    }

    /// The end of the stream.
    pub(super) fn end(&mut self, out: &mut BytesMut) {
        let counts = [self.blocks.to_le_bytes(), self.records.to_le_bytes()].concat();
        self.frame(FRAME_END, &counts, out);
    }

    fn frame(&mut self, kind: u8, payload: &[u8], out: &mut BytesMut) {
        let length = u32::try_from(payload.len()).expect("blocks and the rest stay below 4 GiB");
        let start = out.len();
        out.put_u8(kind);
        out.put_u32_le(length);
        out.put_u32_le(crc32c::crc32c(payload));
        self.chain = crc32c::crc32c_append(self.chain, &out[start..]);
        out.put_u32_le(self.chain);
        out.put_slice(payload);
    }
}

/// What comes out of a stream, in this order: the head, then blocks.
#[derive(Debug)]
pub(super) enum Item {
    /// What state it is.
    Head(Box<Head>),
    /// Live records; each block lies behind the one before it.
    Block(Block),
}

/// What the bytes that come next are.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Preamble,
    Head,
    Payload { kind: u8, crc: u32, length: usize },
    Nothing,
}

/// Reads a stream as its bytes come, in pieces of any size, and believes nothing
/// that it has not checked.
#[derive(Debug)]
pub(super) struct Decoder {
    expect: Expect,
    /// What has come of what is expected.
    pending: Vec<u8>,
    /// Bytes before that.
    offset: u64,
    chain: u32,
    /// The newest revision there may be; none before the head came.
    revision: Option<i64>,
    last: Revision,
    blocks: u64,
    records: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            expect: Expect::Preamble,
            pending: Vec::new(),
            offset: 0,
            chain: 0,
            revision: None,
            last: Revision::ZERO,
            blocks: 0,
            records: 0,
        }
    }
}

impl Decoder {
    /// Takes the next bytes in and gives everything that they complete to `take`.
    ///
    /// # Errors
    /// When the stream is not one that a sender would make; the decoder is then of no
    /// further use.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        take: &mut impl FnMut(Item),
    ) -> Result<(), SnapshotError> {
        loop {
            let missing = self.needed() - self.pending.len();
            let (now, rest) = bytes.split_at(missing.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = rest;
            if now.len() < missing {
                return Ok(());
            }
            if matches!(self.expect, Expect::Nothing) {
                return match bytes.len() {
                    0 => Ok(()),
                    more => Err(self.damaged(format!("{more} bytes follow the end"))),
                };
            }
            if let Some(item) = self.complete()? {
                take(item);
            }
        }
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`SnapshotError::CutShort`] when its end has not come.
    pub(super) fn finish(&self) -> Result<(), SnapshotError> {
        match self.expect {
            Expect::Nothing => Ok(()),
            _ => Err(SnapshotError::CutShort { bytes: self.offset + self.pending.len() as u64 }),
        }
    }

    fn needed(&self) -> usize {
        match self.expect {
            Expect::Preamble => PREAMBLE_BYTES,
            Expect::Head => HEAD_BYTES,
            Expect::Payload { length, .. } => length,
            Expect::Nothing => 0,
        }
    }

    /// What was expected is there.
    fn complete(&mut self) -> Result<Option<Item>, SnapshotError> {
        let bytes = std::mem::take(&mut self.pending);
        let (next, item) = match self.expect {
            Expect::Preamble => (self.preamble(&bytes)?, None),
            Expect::Head => (self.frame_head(&bytes)?, None),
            Expect::Payload { kind, crc, .. } => self.payload(kind, crc, &bytes.into())?,
            Expect::Nothing => (Expect::Nothing, None),
        };
        self.offset += self.needed() as u64;
        if let Expect::Payload { length, .. } = next {
            self.pending.reserve_exact(length.min(PAYLOAD_BYTES_AHEAD));
        }
        self.expect = next;
        Ok(item)
    }

    fn preamble(&self, bytes: &[u8]) -> Result<Expect, SnapshotError> {
        match bytes.strip_prefix(MAGIC) {
            Some([VERSION]) => Ok(Expect::Head),
            Some(&[found]) if found > VERSION => Err(SnapshotError::NewerFormat { found }),
            _ => Err(self.damaged("it does not begin as a snapshot does".to_owned())),
        }
    }

    fn frame_head(&mut self, head: &[u8]) -> Result<Expect, SnapshotError> {
        let (signed, own) = head.split_at(HEAD_SIGNED_BYTES);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| (n << 8) | u32::from(*b));
        self.chain = crc32c::crc32c_append(self.chain, signed);
        if self.chain != word(own) {
            return Err(self.damaged("the checksum of a frame's head does not match".to_owned()));
        }
        let (kind, length, crc) = (signed[0], word(&signed[1..5]) as usize, word(&signed[5..]));
        if length > PAYLOAD_BYTES_MAX {
            return Err(self.damaged(format!("a frame of {length} bytes is too long")));
        }
        Ok(Expect::Payload { kind, crc, length })
    }

    fn payload(
        &mut self,
        kind: u8,
        crc: u32,
        payload: &Bytes,
    ) -> Result<(Expect, Option<Item>), SnapshotError> {
        if crc32c::crc32c(payload) != crc {
            return Err(self.damaged("the checksum of a frame does not match".to_owned()));
        }
        match (kind, self.revision) {
            (FRAME_META, None) => {
                let head = Head::from_bytes(payload).map_err(|e| self.damaged(e.to_string()))?;
                self.revision = Some(head.meta.revision);
                Ok((Expect::Head, Some(Item::Head(Box::new(head)))))
            }
            (FRAME_BLOCK, Some(revision)) => {
                let block = Block::from_bytes(payload).map_err(|e| self.damaged(e.to_string()))?;
                if block.first() <= self.last || block.last().main > revision {
                    return Err(self.damaged("a block is out of place".to_owned()));
                }
                self.last = block.last();
                self.blocks += 1;
                self.records += block.len() as u64;
                Ok((Expect::Head, Some(Item::Block(block))))
            }
            (FRAME_END, Some(_)) => match payload.first_chunk().map(numbers) {
                Some([blocks, records])
                    if (payload.len(), blocks, records)
                        == (POSITION_BYTES, self.blocks, self.records) =>
                {
                    Ok((Expect::Nothing, None))
                }
                _ => Err(self.damaged("it does not hold as much as it says".to_owned())),
            },
            _ => Err(self.damaged(format!("a frame of kind {kind} is out of place"))),
        }
    }

    fn damaged(&self, reason: String) -> SnapshotError {
        SnapshotError::Damaged { offset: self.offset, reason }
    }
}

/// Fuzz entry: any bytes as a stream, once as they are and once as the payloads
/// of frames whose checksums are right, so that what lies behind them is
/// reached. Must return for every input.
pub fn fuzz_stream(data: &[u8]) {
    let Some((&cut, rest)) = data.split_first() else { return };
    let _whole_or_not = read_in_pieces(rest, usize::from(cut).max(1));
    let mut encoder = Encoder::default();
    let mut stream = BytesMut::new();
    stream.put_slice(MAGIC);
    stream.put_u8(VERSION);
    let mut rest = rest;
    while let Some(([kind, low, high], more)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        encoder.frame(kind % 5, &more[..length], &mut stream);
        rest = &more[length..];
    }
    let _whole_or_not = read_in_pieces(&stream, usize::from(cut).max(1));
}

fn read_in_pieces(stream: &[u8], piece_bytes: usize) -> Result<(), SnapshotError> {
    let mut arriving = Arriving::default();
    stream.chunks(piece_bytes).try_for_each(|piece| arriving.take(piece))?;
    arriving.finish().map(drop)
}
