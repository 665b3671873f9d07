//! Records: their header, their checksum, and the payload of each kind.

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::{SnapshotMarker, WalError, codec};

/// Bytes in front of each payload.
pub(super) const HEADER_BYTES: usize = 24;
/// Bytes of the header that its own checksum, the last field, covers.
const HEADER_CHECKED_BYTES: usize = 20;
/// Records start at multiples of this.
pub(super) const ALIGN: usize = 8;
/// The format that this program writes, and the newest it reads.
pub(super) const FORMAT_VERSION: u32 = 1;

/// What a payload is. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entries = 2,
    HardState = 3,
    Snapshot = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Metadata),
            2 => Some(Self::Entries),
            3 => Some(Self::HardState),
            4 => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// The first record of a segment.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Metadata {
    /// Always the first field, so that a newer format can be named before it is understood.
    pub(super) version: u32,
    pub(super) cluster_id: u64,
    pub(super) member_id: u64,
    pub(super) sequence: u64,
    /// The chain with which the segment before this one ended; 0 in the very first.
    pub(super) previous_chain: u32,
    /// The index that the next entry had when the segment began.
    pub(super) first_index: u64,
    /// The size of the file: a shorter one was truncated.
    pub(super) segment_bytes: u64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct HardStateRecord {
    term: u64,
    vote: u64,
    commit: u64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct SnapshotRecord {
    index: u64,
    term: u64,
    conf_state: Vec<u8>,
}

/// What stands in front of each entry's data and context.
#[derive(bincode::Encode, bincode::Decode)]
struct EntryHead {
    entry_type: i32,
    term: u64,
    data_bytes: u32,
    context_bytes: u32,
}

/// The most that [`EntryHead`] or the first index of a batch can take: used to decide whether a
/// record fits before it is encoded.
pub(super) const ENTRY_HEAD_BYTES_MAX: usize = 32;

/// The largest configuration in a snapshot marker: half of what decoding may claim.
const CONF_STATE_BYTES_MAX: usize = 512 << 10;

/// Rounds up to the next place where a record may start.
pub(super) fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Checks a header in its place; the payload's checksum is a part of it.
fn header_checksum(sequence: u64, offset: u64, header: &[u8; HEADER_BYTES]) -> u32 {
    let mut front = [0u8; 36];
    front[..8].copy_from_slice(&sequence.to_le_bytes());
    front[8..16].copy_from_slice(&offset.to_le_bytes());
    front[16..].copy_from_slice(&header[..HEADER_CHECKED_BYTES]);
    crc32c::crc32c(&front)
}

/// Where a record stands, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The segment's sequence.
    pub(super) sequence: u64,
    /// How often the segment had been opened when the record was written.
    pub(super) epoch: u32,
    /// The record's offset in the file.
    pub(super) offset: u64,
    /// Where its group starts.
    pub(super) group_start: u64,
}

/// Fills in the header of `record` (room for a header, then the payload) and returns the
/// checksum.
pub(super) fn seal(record: &mut [u8], kind: Kind, place: Place) -> Result<u32, WalError> {
    let Place { sequence, epoch, offset, group_start } = place;
    let too_large = |what: &str| WalError::Encode(format!("{what} is too large for a record"));
    let payload_bytes = record.len() - HEADER_BYTES;
    let length = u32::try_from(payload_bytes).map_err(|_| too_large("payload"))?;
    let group = u32::try_from(group_start / ALIGN as u64).map_err(|_| too_large("offset"))?;
    let mut header = [0u8; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind as u8;
    header[5..8].copy_from_slice(&sequence.to_le_bytes()[..3]);
    header[8..12].copy_from_slice(&epoch.to_le_bytes());
    header[12..16].copy_from_slice(&group.to_le_bytes());
    header[16..20].copy_from_slice(&crc32c::crc32c(&record[HEADER_BYTES..]).to_le_bytes());
    let crc = header_checksum(sequence, offset, &header);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    record[..HEADER_BYTES].copy_from_slice(&header);
    Ok(crc)
}

/// A record whose checksum holds.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// `None` for a kind that this program does not know.
    pub(super) kind: Option<Kind>,
    pub(super) epoch: u32,
    pub(super) group_start: u64,
    pub(super) payload: &'a [u8],
    pub(super) crc: u32,
    /// Where the next record starts.
    pub(super) next: u64,
}

/// Why there is no record at an offset.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRecord {
    /// Nothing of this segment was ever written there: zeros, old bytes, or the end of the file.
    Unwritten,
    /// It looks like a header of this segment, but its checksum does not match.
    BrokenHeader,
    /// A whole header of this very place, but the payload does not match.
    BrokenPayload {
        /// What the header says.
        length: usize,
    },
}

/// Reads the record at `offset` of a segment's bytes. Records of an epoch before `epoch_min` are
/// what a torn write left behind before the log was opened again.
pub(super) fn read_at(
    segment: &[u8],
    sequence: u64,
    epoch_min: u32,
    offset: u64,
) -> Result<Record<'_>, NoRecord> {
    let at = usize::try_from(offset).map_err(|_| NoRecord::Unwritten)?;
    let Some(header) = segment.get(at..).and_then(|s| s.first_chunk::<HEADER_BYTES>()) else {
        return Err(NoRecord::Unwritten);
    };
    let field =
        |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (length, epoch) = (field(0) as usize, field(8));
    if header[4] == 0 || header[5..8] != sequence.to_le_bytes()[..3] || epoch < epoch_min {
        return Err(NoRecord::Unwritten);
    }
    let crc = field(20);
    if crc != header_checksum(sequence, offset, header) {
        return Err(NoRecord::BrokenHeader);
    }
    let group_start = u64::from(field(12)) * ALIGN as u64;
    let start = at + HEADER_BYTES;
    let payload = start.checked_add(length).and_then(|end| segment.get(start..end));
    let payload = payload.filter(|payload| crc32c::crc32c(payload) == field(16));
    let Some(payload) = payload.filter(|_| group_start <= offset) else {
        return Err(NoRecord::BrokenPayload { length });
    };
    let next = (start + align(length)) as u64;
    Ok(Record { kind: Kind::from_byte(header[4]), epoch, group_start, payload, crc, next })
}

/// Adds a record's checksum to the chain of its segment.
pub(super) fn extend_chain(chain: u32, crc: u32) -> u32 {
    crc32c::crc32c_append(chain, &crc.to_le_bytes())
}

pub(super) fn encode_metadata(metadata: &Metadata, out: &mut Vec<u8>) -> Result<(), WalError> {
    codec::encode(metadata, out)
}

/// Decodes a segment's metadata. `Err(Ok(version))` when a newer program wrote it.
pub(super) fn decode_metadata(payload: &[u8]) -> Result<Metadata, Result<u32, String>> {
    let (version, _): (u32, _) = codec::decode_front(payload).map_err(Err)?;
    if version > FORMAT_VERSION {
        return Err(Ok(version));
    }
    codec::decode(payload).map_err(Err)
}

pub(super) fn encode_hard_state(state: &HardState, out: &mut Vec<u8>) -> Result<(), WalError> {
    let HardState { term, vote, commit } = *state;
    codec::encode(&HardStateRecord { term, vote, commit }, out)
}

pub(super) fn decode_hard_state(payload: &[u8]) -> Result<HardState, String> {
    let HardStateRecord { term, vote, commit } = codec::decode(payload)?;
    Ok(HardState { term, vote, commit })
}

pub(super) fn encode_snapshot(m: &SnapshotMarker, out: &mut Vec<u8>) -> Result<(), WalError> {
    if m.conf_state.len() > CONF_STATE_BYTES_MAX {
        return Err(WalError::Encode("the configuration is larger than 512 KiB".into()));
    }
    let conf_state = m.conf_state.to_vec();
    codec::encode(&SnapshotRecord { index: m.index, term: m.term, conf_state }, out)
}

pub(super) fn decode_snapshot(payload: &[u8]) -> Result<SnapshotMarker, String> {
    let SnapshotRecord { index, term, conf_state } = codec::decode(payload)?;
    Ok(SnapshotMarker { index, term, conf_state: conf_state.into() })
}

/// Begins the payload of an entries record: the index of the first entry. The entries follow,
/// one by one, up to the end of the payload.
pub(super) fn encode_batch_start(first_index: u64, out: &mut Vec<u8>) -> Result<(), WalError> {
    codec::encode(&first_index, out)
}

/// Appends one entry to the payload of an entries record. Its index is implied by its place.
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<(), WalError> {
    let size = |len: usize| {
        u32::try_from(len).map_err(|_| WalError::Encode("entry of 4 GiB or more".into()))
    };
    let head = EntryHead {
        entry_type: entry.entry_type,
        term: entry.term,
        data_bytes: size(entry.data.len())?,
        context_bytes: size(entry.context.len())?,
    };
    codec::encode(&head, out)?;
    out.extend_from_slice(&entry.data);
    out.extend_from_slice(&entry.context);
    Ok(())
}

/// Decodes an entries record. Entries up to `after_index` are checked and left out; the others
/// share one copy of the payload.
pub(super) fn decode_entries(payload: &[u8], after_index: u64) -> Result<Batch, String> {
    let (first, mut rest): (u64, _) = codec::decode_front(payload)?;
    let mut batch = Batch { first, last: first, last_term: 0, after_term: None, kept: Vec::new() };
    let mut shared: Option<Bytes> = None;
    let mut index = first;
    while !rest.is_empty() {
        let (head, body): (EntryHead, _) = codec::decode_front(rest)?;
        let data_end = head.data_bytes as usize;
        let end = data_end + head.context_bytes as usize;
        if body.len() < end {
            return Err(format!("entry {index} goes beyond the end of its record"));
        }
        if index == after_index {
            batch.after_term = Some(head.term);
        }
        if index > after_index {
            let all = shared.get_or_insert_with(|| Bytes::copy_from_slice(payload));
            let start = payload.len() - body.len();
            batch.kept.push(Entry {
                entry_type: head.entry_type,
                term: head.term,
                index,
                data: all.slice(start..start + data_end),
                context: all.slice(start + data_end..start + end),
                ..Entry::default()
            });
        }
        (batch.last, batch.last_term) = (index, head.term);
        index = index.checked_add(1).ok_or("an entry has the highest index there is")?;
        rest = &body[end..];
    }
    if first == 0 || index == first {
        return Err("a batch of entries is empty or begins at index 0".into());
    }
    Ok(batch)
}

/// A decoded entries record.
#[derive(Debug)]
pub(super) struct Batch {
    /// Index of the first entry, kept or not.
    pub(super) first: u64,
    /// Index of the last entry.
    pub(super) last: u64,
    /// Term of the last entry.
    pub(super) last_term: u64,
    /// The term of the entry at `after_index`, if the batch has it.
    pub(super) after_term: Option<u64>,
    /// The entries beyond `after_index`.
    pub(super) kept: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { sequence: 5, epoch: 3, offset: 8, group_start: 8 };

    /// 64 bytes with one record at offset 8.
    fn segment() -> Vec<u8> {
        let mut record = vec![0u8; HEADER_BYTES];
        record.extend([9; 13]);
        seal(&mut record, Kind::Snapshot, PLACE).unwrap();
        let mut segment = vec![0u8; 64];
        segment[8..8 + record.len()].copy_from_slice(&record);
        segment
    }

    #[test]
    fn a_record_holds_in_its_own_place_only() {
        let segment = segment();
        let record = read_at(&segment, 5, 3, 8).unwrap();
        assert_eq!((record.kind, record.epoch, record.next), (Some(Kind::Snapshot), 3, 48));
        assert_eq!((record.payload, record.group_start), (&[9u8; 13][..], 8));

        let mut moved = segment.clone();
        moved.copy_within(8..48, 16);
        assert_eq!(read_at(&moved, 5, 3, 16).unwrap_err(), NoRecord::BrokenHeader);
        assert_eq!(read_at(&segment, 6, 3, 8).unwrap_err(), NoRecord::Unwritten);
        let far = 5 + (1 << 24);
        assert_eq!(read_at(&segment, far, 3, 8).unwrap_err(), NoRecord::BrokenHeader);
        assert_eq!(read_at(&segment, 5, 4, 8).unwrap_err(), NoRecord::Unwritten);
    }

    #[test]
    fn no_flipped_bit_of_header_or_payload_is_believed() {
        let good = segment();
        for bit in 8 * 8..8 * (8 + HEADER_BYTES + 13) {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read_at(&bytes, 5, 0, 8).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn entries_decode_to_what_they_were() {
        let entries: Vec<Entry> = (7..10u8)
            .map(|i| Entry {
                index: u64::from(i),
                term: 1 << 40,
                entry_type: i32::from(i % 3),
                data: vec![i; usize::from(i) * 100].into(),
                context: vec![i; 2].into(),
                ..Entry::default()
            })
            .collect();
        let mut payload = Vec::new();
        encode_batch_start(7, &mut payload).unwrap();
        entries.iter().for_each(|entry| encode_entry(entry, &mut payload).unwrap());
        let batch = decode_entries(&payload, 8).unwrap();
        assert_eq!((batch.first, batch.last, batch.after_term), (7, 9, Some(1 << 40)));
        assert_eq!(batch.kept, entries[2..]);
        for length in 0..payload.len() {
            let whole = decode_entries(&payload[..length], 0).map_or(0, |batch| batch.kept.len());
            assert!(whole < 3, "cut to {length}");
        }
    }
}
