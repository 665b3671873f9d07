//! A volume: an immutable part of the sealed copy, written once and read back.
//!
//! What it is made of is up to [`Volumes`]; what is in it, and how that is checked, is
//! decided here.

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;

use super::block::{self, Assembler, Block, PIECE_OVERHEAD_BYTES};
use super::{RevisionKey, StoreError};

const PREFIX: &str = "vol-";

/// How volumes are kept in a directory. The store names them, and decides which of them stay.
pub(crate) trait Volumes: Debug + Send {
    /// Begins the volume that `survey` has measured.
    fn begin(&self, number: u64, survey: &Survey) -> Result<Box<dyn NewVolume>, StoreError>;
    /// Gives the blocks of a sealed volume in order. Every bit of it is checked: first that
    /// its files are what was sealed, then each piece.
    fn read(&self, entry: &VolumeEntry, f: TakeBlock<'_>) -> Result<(), StoreError>;
    /// Removes all there is of a volume. Whether that is durable does not matter: what no
    /// manifest names is removed by the next start.
    fn remove(&self, number: u64) -> Result<(), StoreError>;
    /// Removes what a crash left beside the volumes themselves.
    fn sweep(&self) -> Result<(), StoreError>;
}

/// Takes one block of a volume.
pub(crate) type TakeBlock<'a> = &'a mut dyn FnMut(Block) -> Result<(), StoreError>;

/// A volume in the making. Dropped, it leaves nothing that is in the way of the next.
pub(crate) trait NewVolume {
    /// Takes the next piece.
    fn put(&mut self, index: u32, piece: Vec<u8>) -> Result<(), StoreError>;
    /// Writes the volume to where it stays, durably but for its name in the directory of
    /// volumes.
    fn finish(self: Box<Self>) -> Result<SealedFiles, StoreError>;
}

/// What a volume became on disk.
pub(crate) struct SealedFiles {
    pub(crate) segment_bytes: u32,
    pub(crate) db: FileSeal,
    pub(crate) conf: FileSeal,
}

/// Length and content of a sealed file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct FileSeal {
    pub(crate) length: u64,
    pub(crate) crc: u32,
}

/// What the manifest says of a volume.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct VolumeEntry {
    /// Names the directory or file; never used twice.
    pub(crate) number: u64,
    /// Every revision of the range that lived when the volume was sealed is in it.
    pub(crate) from: RevisionKey,
    pub(crate) to: RevisionKey,
    /// What compaction to this revision gave up is not in it.
    pub(crate) compact_revision: i64,
    /// Values in it; a block takes one or more.
    pub(crate) pieces: u32,
    /// The blocks' own bytes.
    pub(crate) block_bytes: u64,
    /// A sled database was made with segments of this size and opens with no other.
    pub(crate) segment_bytes: u32,
    pub(crate) db: FileSeal,
    pub(crate) conf: FileSeal,
}

impl VolumeEntry {
    pub(super) fn check(&self) -> Result<(), String> {
        let segment = self.segment_bytes;
        if !segment.is_power_of_two() || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment)
        {
            return Err(format!("volume {:016x} has segments of {segment} bytes", self.number));
        }
        if self.conf.length > CONF_BYTES_MAX {
            return Err(format!("volume {:016x} has an endless configuration", self.number));
        }
        Ok(())
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.db.length + self.conf.length
    }
}

/// The name of a volume's directory or file.
pub(crate) fn name_of(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

/// The number in a volume's name, or `None` where it is not one.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A volume that is to be written, measured on a first visit of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    pub(crate) from: RevisionKey,
    pub(crate) to: RevisionKey,
    pub(crate) pieces: u32,
    pub(crate) block_bytes: u64,
    pub(crate) piece_bytes_max: usize,
    /// As [`VolumeEntry::compact_revision`].
    pub(crate) compact_revision: i64,
}

impl Survey {
    pub(super) fn begin(from: RevisionKey, compact_revision: i64) -> Self {
        Self { from, to: from, compact_revision, pieces: 0, block_bytes: 0, piece_bytes_max: 0 }
    }

    /// Counts a block in.
    pub(super) fn count(&mut self, last: RevisionKey, block_bytes: usize) {
        self.to = last;
        self.pieces += block::pieces_of(block_bytes) as u32;
        self.block_bytes += block_bytes as u64;
        let piece_bytes = block_bytes.min(block::PIECE_BYTES_MAX) + PIECE_OVERHEAD_BYTES;
        self.piece_bytes_max = self.piece_bytes_max.max(piece_bytes);
    }
}

pub(crate) const SEGMENT_BYTES_MIN: u32 = 16 * 1024;
pub(crate) const SEGMENT_BYTES_MAX: u32 = 2 * 1024 * 1024;
pub(super) const CONF_BYTES_MAX: u64 = 4096;
/// A volume that is being filled.
pub(super) struct VolumeWriter {
    number: u64,
    survey: Survey,
    pieces: u32,
    new: Box<dyn NewVolume>,
}

impl VolumeWriter {
    /// Makes room for the blocks that `survey` has counted.
    pub(super) fn begin(
        volumes: &dyn Volumes,
        number: u64,
        survey: Survey,
    ) -> Result<Self, StoreError> {
        let new = volumes.begin(number, &survey)?;
        Ok(Self { number, survey, pieces: 0, new })
    }

    /// Takes the next block.
    pub(super) fn add(
        &mut self,
        first: RevisionKey,
        last: RevisionKey,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let pieces = block::encode(self.number, self.pieces, first, last, bytes);
        for piece in pieces.map_err(StoreError::Caller)? {
            self.new.put(self.pieces, piece)?;
            self.pieces += 1;
        }
        Ok(())
    }

    /// True once all the blocks of the survey are there.
    pub(super) fn is_full(&self) -> bool {
        self.pieces >= self.survey.pieces
    }

    /// Puts the volume where it stays, durably, but not with its name in the directory.
    pub(super) fn finish(self) -> Result<VolumeEntry, StoreError> {
        let Self { number, survey, pieces, new } = self;
        if pieces != survey.pieces {
            return Err(view_changed(&survey, pieces));
        }
        let SealedFiles { segment_bytes, db, conf } = new.finish()?;
        Ok(VolumeEntry {
            number,
            from: survey.from,
            to: survey.to,
            compact_revision: survey.compact_revision,
            pieces,
            block_bytes: survey.block_bytes,
            segment_bytes,
            db,
            conf,
        })
    }
}

/// A view must give the same blocks on both of its visits.
pub(super) fn view_changed(survey: &Survey, pieces: u32) -> StoreError {
    StoreError::Caller(format!(
        "the view of {}..={} changed during a seal: {} pieces, then {pieces}",
        survey.from, survey.to, survey.pieces
    ))
}

/// Whether a file is what was sealed.
pub(crate) fn compare(path: &Path, sealed: FileSeal, found: FileSeal) -> Result<(), StoreError> {
    if sealed == found {
        return Ok(());
    }
    let reason = format!(
        "it was sealed with {} bytes and CRC {:08x}, and has {} bytes and CRC {:08x}",
        sealed.length, sealed.crc, found.length, found.crc
    );
    Err(StoreError::damaged(path, None, reason))
}

/// Gives the blocks that the pieces of a volume make, in order and checked. `piece_at` gives
/// a piece by its number, if it is there; `path` names the volume in errors.
pub(crate) fn read_pieces(
    entry: &VolumeEntry,
    path: &Path,
    mut piece_at: impl FnMut(u32) -> Result<Option<Bytes>, StoreError>,
    f: TakeBlock<'_>,
) -> Result<(), StoreError> {
    let mut assembler = Assembler::new(entry.number);
    let (mut end, mut block_bytes) = (None, 0u64);
    for index in 0..entry.pieces {
        let damaged = |reason: String| StoreError::damaged(path, Some(index), reason);
        let piece = piece_at(index)?.ok_or_else(|| damaged("it is missing".to_owned()))?;
        let Some(block) = assembler.push(&piece).map_err(damaged)? else { continue };
        let in_range = entry.from <= block.first && block.last <= entry.to;
        if !in_range || end.is_some_and(|end| block.first <= end) {
            let reason = format!("its range {}..={} is out of place", block.first, block.last);
            return Err(damaged(reason));
        }
        end = Some(block.last);
        block_bytes += block.bytes.len() as u64;
        f(block)?;
    }
    assembler.finish().map_err(|reason| StoreError::damaged(path, None, reason))?;
    if block_bytes != entry.block_bytes {
        let reason = format!("it holds {block_bytes} bytes of {}", entry.block_bytes);
        return Err(StoreError::damaged(path, None, reason));
    }
    Ok(())
}
