//! The end of the log: the segment that is written, and the buffer of what goes there next.

use std::path::PathBuf;

use super::WalError;
use super::record::{self, HEADER_BYTES, Kind, Place};
use super::recovery::Tail;
use super::segment::PAGE_BYTES;
use crate::shared::disk::DiskFile;

/// The buffer gives memory back when a group was larger than this.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Where a record begins in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordStart(usize);

/// Collects records for one segment and writes them with one call.
///
/// Writes begin and end at page boundaries: the part of a page that is on disk already is kept
/// in front of the buffer and written again, the rest of the last page is zeros. So the kernel
/// never has to read a page of a recycled segment in order to change a part of it.
pub(super) struct SegmentWriter {
    file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    /// How often the segment was opened before; in the header of each record.
    pub(super) epoch: u32,
    /// Usable size of the file in bytes, whole pages.
    pub(super) capacity: u64,
    buffer: Vec<u8>,
    /// File offset of the buffer's first byte: a page boundary.
    buffer_offset: u64,
    /// How much of the buffer is on disk already.
    written: usize,
    /// Checksum over the checksums of all records of the segment.
    pub(super) chain: u32,
    /// Everything in front of this offset is synced.
    pub(super) synced: u64,
}

impl SegmentWriter {
    /// Begins a segment in a file whose old content counts for nothing.
    pub(super) fn begin(file: Box<dyn DiskFile>, path: PathBuf, sequence: u64, bytes: u64) -> Self {
        let capacity = bytes - bytes % PAGE_BYTES;
        Self {
            file,
            path,
            sequence,
            epoch: 0,
            capacity,
            buffer: Vec::new(),
            buffer_offset: 0,
            written: 0,
            chain: 0,
            synced: 0,
        }
    }

    /// Goes on behind the records of a segment, which are synced.
    pub(super) fn resume(file: Box<dyn DiskFile>, tail: Tail) -> Result<Self, WalError> {
        let Tail { path, sequence, epoch, end, chain, .. } = tail;
        let bytes = file.len().map_err(|e| WalError::io("reading the size of", &path, e))?;
        let mut writer = Self::begin(file, path, sequence, bytes);
        writer.epoch = epoch;
        writer.buffer_offset = end - end % PAGE_BYTES;
        writer.buffer.resize((end - writer.buffer_offset) as usize, 0);
        writer
            .file
            .read_at(&mut writer.buffer, writer.buffer_offset)
            .map_err(|e| WalError::io("reading", &writer.path, e))?;
        writer.written = writer.buffer.len();
        (writer.chain, writer.synced) = (chain, end);
        Ok(writer)
    }

    /// Where the next record goes.
    pub(super) fn position(&self) -> u64 {
        self.buffer_offset + self.buffer.len() as u64
    }

    /// Bytes left in the segment.
    pub(super) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.position())
    }

    /// Bytes that wait to be written.
    pub(super) fn staged_bytes(&self) -> usize {
        self.buffer.len() - self.written
    }

    /// Whether something was written or waits to be, that no sync has covered.
    pub(super) fn is_dirty(&self) -> bool {
        self.synced < self.position()
    }

    /// Begins a record; its payload is then appended to [`Self::payload`].
    pub(super) fn begin_record(&mut self) -> RecordStart {
        let start = RecordStart(self.buffer.len());
        self.buffer.resize(start.0 + HEADER_BYTES, 0);
        start
    }

    /// Where to append the payload of the record that was begun.
    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Payload bytes of the record so far.
    pub(super) fn payload_bytes(&self, start: RecordStart) -> usize {
        self.buffer.len() - start.0 - HEADER_BYTES
    }

    /// Completes the record that was begun.
    pub(super) fn end_record(&mut self, start: RecordStart, kind: Kind) -> Result<(), WalError> {
        let place = Place {
            sequence: self.sequence,
            epoch: self.epoch,
            offset: self.buffer_offset + start.0 as u64,
            group_start: self.synced,
        };
        let crc = record::seal(&mut self.buffer[start.0..], kind, place)?;
        self.chain = record::extend_chain(self.chain, crc);
        self.buffer.resize(record::align(self.buffer.len()), 0);
        Ok(())
    }

    /// Writes what waits, without a sync, and returns how many bytes of records that was.
    pub(super) fn write(&mut self) -> Result<u64, WalError> {
        let staged = self.staged_bytes();
        if staged == 0 {
            return Ok(0);
        }
        let end = self.buffer.len();
        assert!(self.position() <= self.capacity, "a record beyond the end of its segment");
        self.buffer.resize(end.next_multiple_of(PAGE_BYTES as usize), 0);
        self.file
            .write_at(&self.buffer, self.buffer_offset)
            .map_err(|e| WalError::io("writing", &self.path, e))?;
        let page = end - end % PAGE_BYTES as usize;
        self.buffer.copy_within(page..end, 0);
        self.buffer.truncate(end - page);
        self.buffer.shrink_to(BUFFER_BYTES_MAX);
        self.buffer_offset += page as u64;
        self.written = self.buffer.len();
        Ok(staged as u64)
    }

    /// Makes everything that was written durable. `fdatasync` is enough: the file keeps its size.
    pub(super) fn sync(&mut self) -> Result<(), WalError> {
        assert_eq!(self.staged_bytes(), 0, "a sync must cover all that was staged");
        self.file.sync_data().map_err(|e| WalError::io("syncing", &self.path, e))?;
        self.synced = self.position();
        Ok(())
    }
}
