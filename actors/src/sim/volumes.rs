//! Volumes as plain files: the pieces one behind the other, each behind its length.

use bytes::Bytes;

use crate::checkpointer::StoreError;
use crate::checkpointer::place::Place;
use crate::checkpointer::volume::{
    FileSeal, NewVolume, SEGMENT_BYTES_MIN, SealedFiles, Survey, TakeBlock, VolumeEntry, Volumes,
    compare, name_of, read_pieces,
};

/// A length in front of a piece.
const LENGTH_BYTES: usize = 4;

/// Each volume is one file, whose checksum is in the manifest.
#[derive(Debug)]
pub(super) struct PlainVolumes(pub(super) Place);

impl Volumes for PlainVolumes {
    fn begin(&self, number: u64, _survey: &Survey) -> Result<Box<dyn NewVolume>, StoreError> {
        let name = name_of(number);
        Ok(Box::new(NewFile { place: self.0.clone(), name, content: Vec::new() }))
    }

    fn read(&self, entry: &VolumeEntry, f: TakeBlock<'_>) -> Result<(), StoreError> {
        let name = name_of(entry.number);
        let path = self.0.path(&name);
        let content = self.0.read(&name)?;
        let missing = || StoreError::damaged(&path, None, "it is missing");
        let mut rest = Bytes::from(content.ok_or_else(missing)?);
        compare(&path, entry.db, seal_of(&rest))?;
        read_pieces(entry, &path, |_| Ok(next_piece(&mut rest)), f)
    }

    fn remove(&self, number: u64) -> Result<(), StoreError> {
        self.0.remove(&name_of(number))
    }

    fn sweep(&self) -> Result<(), StoreError> {
        // A volume in the making is in memory, or has its name already.
        Ok(())
    }
}

fn seal_of(content: &[u8]) -> FileSeal {
    FileSeal { length: content.len() as u64, crc: crc32c::crc32c(content) }
}

fn next_piece(rest: &mut Bytes) -> Option<Bytes> {
    let length = u32::from_le_bytes(*rest.first_chunk::<LENGTH_BYTES>()?) as usize;
    if rest.len() - LENGTH_BYTES < length {
        return None;
    }
    let _ = rest.split_to(LENGTH_BYTES);
    Some(rest.split_to(length))
}

/// A file that is being put together in memory.
struct NewFile {
    place: Place,
    name: String,
    content: Vec<u8>,
}

impl NewVolume for NewFile {
    fn put(&mut self, _index: u32, piece: Vec<u8>) -> Result<(), StoreError> {
        let length = u32::try_from(piece.len());
        let length = length.map_err(|_| StoreError::Caller("a piece is too long".to_owned()))?;
        self.content.extend_from_slice(&length.to_le_bytes());
        self.content.extend_from_slice(&piece);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<SealedFiles, StoreError> {
        self.place.write(&self.name, &self.content)?;
        // There is no configuration, and the manifest wants a size that a database may have.
        let conf = seal_of(&[]);
        Ok(SealedFiles { segment_bytes: SEGMENT_BYTES_MIN, db: seal_of(&self.content), conf })
    }
}
