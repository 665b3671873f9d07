//! The manifest: the one file that says which volumes are the sealed copy.
//!
//! ```text
//!   "castdckp" │ format u32 LE │ payload, bincode │ crc32c u32 LE of all before
//! ```
//! It is replaced as a whole: written beside itself, fsynced, renamed, directory fsynced.

use std::collections::BTreeSet;

use super::place::Place;
use super::volume::VolumeEntry;
use super::{RevisionKey, StoreError};
use crate::shared::codec;

const MAGIC: &[u8; 8] = b"castdckp";
/// The format this program writes, and the newest it reads.
const FORMAT: u32 = 1;
const CRC_BYTES: usize = 4;
/// Far above any meta and any number of volumes; stops a length that makes no sense.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;
const NAME: &str = "manifest";
const NAME_UNFINISHED: &str = "manifest.tmp";

/// One sealed copy of the state.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(super) struct Manifest {
    pub(super) applied_index: u64,
    pub(super) applied_term: u64,
    pub(super) last: RevisionKey,
    /// In ascending order of their ranges, which do not overlap.
    pub(super) volumes: Vec<VolumeEntry>,
    pub(super) meta: Vec<u8>,
}

enum Unreadable {
    Damaged(String),
    Newer(u32),
}

fn encode(manifest: &Manifest) -> Result<Vec<u8>, String> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT.to_le_bytes());
    codec::append(manifest, &mut out);
    if out.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("a manifest of {} bytes is too long", out.len()));
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn decode(file: &[u8]) -> Result<Manifest, Unreadable> {
    let damaged = |reason: &str| Unreadable::Damaged(reason.to_owned());
    let (signed, crc) =
        file.split_last_chunk::<CRC_BYTES>().ok_or_else(|| damaged("it is too short"))?;
    let (magic, rest) =
        signed.split_first_chunk::<8>().ok_or_else(|| damaged("it is too short"))?;
    if magic != MAGIC {
        return Err(damaged("it does not begin as a manifest does"));
    }
    // The CRC comes first: a flipped bit in the format must not be taken for a newer one.
    let (expected, found) = (u32::from_le_bytes(*crc), crc32c::crc32c(signed));
    if expected != found {
        return Err(Unreadable::Damaged(format!(
            "its CRC is {expected:08x} and its content has {found:08x}"
        )));
    }
    let (format, payload) =
        rest.split_first_chunk::<4>().ok_or_else(|| damaged("it is too short"))?;
    match u32::from_le_bytes(*format) {
        FORMAT => decode_payload(payload).map_err(Unreadable::Damaged),
        newer if newer > FORMAT => Err(Unreadable::Newer(newer)),
        older => Err(Unreadable::Damaged(format!("format {older} was never written"))),
    }
}

fn decode_payload(payload: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = codec::read(payload).map_err(|e| e.to_string())?;
    check(&manifest)?;
    Ok(manifest)
}

/// What every reader of a manifest leans on.
fn check(manifest: &Manifest) -> Result<(), String> {
    let mut numbers = BTreeSet::new();
    let mut end = None;
    for volume in &manifest.volumes {
        let number = volume.number;
        if !numbers.insert(number) {
            return Err(format!("volume {number:016x} is named twice"));
        }
        if volume.from > volume.to || end.is_some_and(|end| volume.from <= end) {
            return Err(format!("volume {number:016x} is out of order"));
        }
        volume.check()?;
        end = Some(volume.to);
    }
    match end {
        Some(end) if end > manifest.last => Err("a volume goes beyond the last revision".into()),
        _ => Ok(()),
    }
}

/// Reads the manifest of a directory; `None` where there is none.
pub(super) fn read(place: &Place) -> Result<Option<Manifest>, StoreError> {
    let Some(file) = place.read(NAME)? else { return Ok(None) };
    let path = place.path(NAME);
    decode(&file).map(Some).map_err(|e| match e {
        Unreadable::Damaged(reason) => StoreError::ManifestDamaged { path, reason },
        Unreadable::Newer(found) => StoreError::NewerFormat { path, found, supported: FORMAT },
    })
}

/// The length in bytes of the manifest in force.
pub(super) fn length(place: &Place) -> Result<u64, StoreError> {
    place.length(NAME)
}

/// Writes the manifest beside the one in force and fsyncs it; gives its length in bytes.
pub(super) fn prepare(place: &Place, manifest: &Manifest) -> Result<u64, StoreError> {
    let bytes = encode(manifest).map_err(StoreError::Caller)?;
    place.remove(NAME_UNFINISHED)?;
    place.write(NAME_UNFINISHED, &bytes)?;
    Ok(bytes.len() as u64)
}

/// Puts the prepared manifest in force; durable when it returns.
pub(super) fn put_in_force(place: &Place) -> Result<(), StoreError> {
    place.replace(NAME_UNFINISHED, NAME)?;
    place.sync()
}

/// Removes what a crash may have left beside the manifest.
pub(super) fn sweep(place: &Place) -> Result<(), StoreError> {
    place.remove(NAME_UNFINISHED)
}

/// Fuzz entry: any bytes as a manifest, as a file and as the payload behind a right CRC.
/// Must return for every input; what it accepts must encode and decode to itself.
pub fn fuzz_manifest(data: &[u8]) {
    let accepted = [decode(data).ok(), decode_payload(data).ok()];
    for manifest in accepted.into_iter().flatten() {
        let again = encode(&manifest).ok().and_then(|bytes| decode(&bytes).ok());
        assert_eq!(again, Some(manifest), "a manifest must survive its own encoding");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpointer::tests::real_place;
    use crate::checkpointer::volume::FileSeal;

    const PREFIX_BYTES: usize = MAGIC.len() + 4;

    fn example() -> Manifest {
        let volume = |number, from: i64, to: i64| VolumeEntry {
            number,
            from: RevisionKey { main: from, sub: 0 },
            to: RevisionKey { main: to, sub: 3 },
            compact_revision: 30,
            pieces: 2,
            block_bytes: 4000,
            segment_bytes: 16384,
            db: FileSeal { length: 32768, crc: 7 },
            conf: FileSeal { length: 60, crc: 9 },
        };
        Manifest {
            applied_index: 12,
            applied_term: 2,
            last: RevisionKey { main: 90, sub: 3 },
            volumes: vec![volume(4, 1, 40), volume(2, 41, 90)],
            meta: b"leases and members".to_vec(),
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = real_place(dir.path());
        assert_eq!(read(&place).unwrap(), None);
        prepare(&place, &example()).unwrap();
        assert_eq!(read(&place).unwrap(), None, "prepared is not in force");
        put_in_force(&place).unwrap();
        assert_eq!(read(&place).unwrap(), Some(example()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = encode(&example()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped), Err(Unreadable::Damaged(_))), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_newer_format_is_refused_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = encode(&example()).unwrap();
        bytes.truncate(bytes.len() - CRC_BYTES);
        bytes[MAGIC.len()] = 9;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        std::fs::write(dir.path().join(NAME), bytes).unwrap();
        let error = read(&real_place(dir.path())).unwrap_err();
        assert!(matches!(error, StoreError::NewerFormat { found: 9, .. }), "{error}");
    }

    #[test]
    fn volumes_that_overlap_or_repeat_are_refused() {
        let mut overlapping = example();
        overlapping.volumes[1].from.main = 40;
        let mut repeated = example();
        repeated.volumes[1].number = 4;
        let mut beyond = example();
        beyond.last.main = 50;
        for wrong in [overlapping, repeated, beyond] {
            assert!(decode(&encode(&wrong).unwrap()).is_err(), "{wrong:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_survive(data: Vec<u8>) {
            fuzz_manifest(&data);
        }

        #[test]
        fn any_change_behind_a_right_crc_is_refused_or_survives(
            at: proptest::sample::Index, byte: u8,
        ) {
            let bytes = encode(&example()).unwrap();
            let mut payload = bytes[PREFIX_BYTES..bytes.len() - CRC_BYTES].to_vec();
            let at = at.index(payload.len());
            payload[at] = byte;
            fuzz_manifest(&payload);
        }
    }
}
