//! How a block lies in a volume: as one or more *pieces*, each of them one sled value.
//!
//! ```text
//!   crc32c u32 LE │ header, fixed size │ bytes
//! ```
//! The CRC covers the volume's number, the piece's place in it, the header and the bytes:
//! a piece that is whole but not where it belongs is as wrong as one with a flipped bit.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bytes::{Bytes, BytesMut};

use super::RevisionKey;

/// Most bytes of a block in one piece. A sled record must stay below a quarter of a
/// segment to lie in the log file, and long records leave long unused tails in segments.
pub(super) const PIECE_BYTES_MAX: usize = 128 * 1024 - 256;

const CRC_BYTES: usize = 4;
const HEADER_BYTES: usize = 36;
/// What a piece takes beside the block's own bytes.
pub(super) const PIECE_OVERHEAD_BYTES: usize = CRC_BYTES + HEADER_BYTES;

/// Most bytes of a block: far above any request, far below what a length in a damaged
/// header could ask for.
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 30;

const HEADER_CONFIG: Configuration<LittleEndian, Fixint, Limit<HEADER_BYTES>> =
    bincode::config::standard().with_fixed_int_encoding().with_limit::<HEADER_BYTES>();

#[derive(Copy, Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct PieceHeader {
    first: RevisionKey,
    last: RevisionKey,
    block_bytes: u32,
    part: u32,
    parts: u32,
}

/// How many pieces a block of this length takes.
pub(super) fn pieces_of(block_bytes: usize) -> usize {
    block_bytes.div_ceil(PIECE_BYTES_MAX).max(1)
}

fn crc_of(volume: u64, index: u32, header_and_bytes: &[u8]) -> u32 {
    let mut place = [0u8; 12];
    place[..8].copy_from_slice(&volume.to_le_bytes());
    place[8..].copy_from_slice(&index.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), header_and_bytes)
}

/// Cuts a block into pieces, the first of which is number `index` in its volume.
/// The error is for a block of a size that no caller has reason to make.
pub(super) fn encode<'a>(
    volume: u64,
    index: u32,
    first: RevisionKey,
    last: RevisionKey,
    bytes: &'a [u8],
) -> Result<impl Iterator<Item = Vec<u8>> + 'a, String> {
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(format!("block {first} of {} bytes is too long", bytes.len()));
    }
    let parts = pieces_of(bytes.len()) as u32;
    let piece = move |part: u32| {
        let start = part as usize * PIECE_BYTES_MAX;
        let body = &bytes[start..bytes.len().min(start + PIECE_BYTES_MAX)];
        let header = PieceHeader { first, last, block_bytes: bytes.len() as u32, part, parts };
        let mut out = Vec::with_capacity(PIECE_OVERHEAD_BYTES + body.len());
        out.resize(PIECE_OVERHEAD_BYTES, 0);
        bincode::encode_into_slice(header, &mut out[CRC_BYTES..], HEADER_CONFIG)
            .expect("a header of fixed-size numbers fits its fixed size");
        out.extend_from_slice(body);
        let crc = crc_of(volume, index + part, &out[CRC_BYTES..]);
        out[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    };
    Ok((0..parts).map(piece))
}

fn decode_piece(volume: u64, index: u32, piece: &[u8]) -> Result<PieceHeader, String> {
    let Some((crc, rest)) = piece.split_first_chunk::<CRC_BYTES>() else {
        return Err(format!("a piece of {} bytes has no room for a CRC", piece.len()));
    };
    let (expected, found) = (u32::from_le_bytes(*crc), crc_of(volume, index, rest));
    if expected != found {
        return Err(format!("its CRC is {expected:08x} and its content has {found:08x}"));
    }
    let (header, read): (PieceHeader, usize) = bincode::decode_from_slice(rest, HEADER_CONFIG)
        .map_err(|e| format!("its header cannot be read: {e}"))?;
    if read != HEADER_BYTES {
        return Err(format!("its header takes {read} bytes, not {HEADER_BYTES}"));
    }
    Ok(header)
}

/// A whole block as it was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: RevisionKey,
    pub(crate) last: RevisionKey,
    pub(crate) bytes: Bytes,
}

/// Puts pieces together again, in the order of their numbers.
pub(super) struct Assembler {
    volume: u64,
    index: u32,
    open: Option<(PieceHeader, BytesMut)>,
}

impl Assembler {
    pub(super) fn new(volume: u64) -> Self {
        Self { volume, index: 0, open: None }
    }

    /// Takes the next piece; gives the block that it completes.
    ///
    /// A block of one piece shares the piece's memory.
    pub(super) fn push(&mut self, piece: &Bytes) -> Result<Option<Block>, String> {
        let header = decode_piece(self.volume, self.index, piece)?;
        self.index = self.index.checked_add(1).ok_or("too many pieces")?;
        let body = piece.slice(PIECE_OVERHEAD_BYTES..);
        check_shape(&header, body.len())?;
        let PieceHeader { first, last, .. } = header;
        if header.parts == 1 && self.open.is_none() {
            return Ok(Some(Block { first, last, bytes: body }));
        }
        let mut bytes = match self.open.take() {
            None if header.part == 0 => {
                BytesMut::with_capacity(header.block_bytes.min(16 << 20) as usize)
            }
            Some((before, bytes)) if follows(&before, &header) => bytes,
            _ => return Err("it does not continue the piece before it".to_owned()),
        };
        bytes.extend_from_slice(&body);
        if header.part + 1 < header.parts {
            self.open = Some((header, bytes));
            return Ok(None);
        }
        Ok(Some(Block { first, last, bytes: bytes.freeze() }))
    }

    /// To be called after the last piece: an open block is an error.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.open {
            None => Ok(()),
            Some((header, _)) => Err(format!("block {} has no end", header.first)),
        }
    }
}

fn follows(before: &PieceHeader, next: &PieceHeader) -> bool {
    *next == PieceHeader { part: before.part + 1, ..*before }
}

/// The lengths in a header must agree with each other and with the bytes there are.
fn check_shape(header: &PieceHeader, body_bytes: usize) -> Result<(), String> {
    let block_bytes = header.block_bytes as usize;
    let start = (header.part as usize).saturating_mul(PIECE_BYTES_MAX);
    let right = block_bytes <= BLOCK_BYTES_MAX
        && header.parts as usize == pieces_of(block_bytes)
        && header.part < header.parts
        && body_bytes == (block_bytes - start).min(PIECE_BYTES_MAX)
        && header.first <= header.last;
    if right { Ok(()) } else { Err(format!("its header makes no sense: {header:?}")) }
}

/// Fuzz entry: any bytes as a sequence of pieces, once as they are and once with the CRCs
/// put right, so that what lies behind them is reached. Must return for every input.
pub fn fuzz_block(data: &[u8]) {
    let Some((cut, rest)) = data.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*cut)).max(1);
    for repaired in [false, true] {
        let mut assembler = Assembler::new(7);
        for (index, chunk) in rest.chunks(length).enumerate() {
            let mut piece = chunk.to_vec();
            if repaired && piece.len() >= CRC_BYTES {
                let crc = crc_of(7, index as u32, &piece[CRC_BYTES..]);
                piece[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            if assembler.push(&Bytes::from(piece)).is_err() {
                break;
            }
        }
        let _whole_or_not = assembler.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: RevisionKey = RevisionKey { main: 5, sub: 1 };
    const LAST: RevisionKey = RevisionKey { main: 9, sub: 0 };

    fn pieces(bytes: &[u8], index: u32) -> Vec<Bytes> {
        encode(3, index, FIRST, LAST, bytes).unwrap().map(Bytes::from).collect()
    }

    fn assemble(pieces: &[Bytes]) -> Result<Vec<Block>, String> {
        let mut assembler = Assembler::new(3);
        let mut blocks = Vec::new();
        for piece in pieces {
            blocks.extend(assembler.push(piece)?);
        }
        assembler.finish().map(|()| blocks)
    }

    #[test]
    fn blocks_of_every_size_come_back_whole() {
        for length in [0, 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let blocks = assemble(&pieces(&bytes, 0)).unwrap();
            assert_eq!(blocks, [Block { first: FIRST, last: LAST, bytes: bytes.into() }]);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let piece = pieces(b"some revisions", 0).remove(0);
        for bit in 0..piece.len() * 8 {
            let mut flipped = piece.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(assemble(&[flipped.into()]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_whole_piece_in_the_wrong_place_is_found() {
        let long = vec![1u8; 2 * PIECE_BYTES_MAX];
        let mut swapped = pieces(&long, 0);
        swapped.swap(0, 1);
        assert!(assemble(&swapped).is_err());
        assert!(assemble(&pieces(b"moved", 1)).is_err());
        assert!(assemble(&pieces(&long, 0)[..1]).is_err(), "half a block");
        let other_volume: Vec<Bytes> =
            encode(4, 0, FIRST, LAST, b"x").unwrap().map(Bytes::from).collect();
        assert!(assemble(&other_volume).is_err());
    }
}
