//! Names of segments, and the search for records behind a bad one.

use super::record::{self, ALIGN, NoRecord};

/// The unit in which segments are written, and of which their size is a multiple: whole pages,
/// so that the kernel never reads one in order to change a part of it.
pub(super) const PAGE_BYTES: u64 = 4096;

/// The suffix of segments that are part of the log.
const SUFFIX: &str = ".wal";
/// The suffix of segments that are zero-filled or recycled, and wait to be used.
pub(super) const SPARE_SUFFIX: &str = ".spare";
/// The suffix of files that are not complete.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// A segment's file name.
pub(super) fn name(sequence: u64, first_index: u64) -> String {
    format!("{sequence:016x}-{first_index:016x}{SUFFIX}")
}

/// The sequence and first index in a segment's file name; `None` for other files.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first_index) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let hex = |s: &str| {
        let digits = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(s, 16).ok()).flatten()
    };
    Some((hex(sequence)?, hex(first_index)?))
}

/// What lies behind a bad record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Beyond {
    /// The start of the latest group that has a valid record there.
    pub(super) group_start_max: Option<u64>,
    /// Where the last valid record there ends; 0 if there is none.
    pub(super) end: u64,
    /// The search gave up: the bytes were made to look like records many times over.
    pub(super) undecided: bool,
}

/// Looks for valid records, not older than `epoch_min`, at every place behind `bad` where one may
/// start.
///
/// Bytes that are no record cost one look at 24 of them. Whole headers over broken payloads cost
/// more, and are limited to eight times the segment: a few are what a torn write leaves, very
/// many must have been made to look so.
pub(super) fn search_beyond(segment: &[u8], sequence: u64, epoch_min: u32, bad: u64) -> Beyond {
    let mut found = Beyond::default();
    let mut budget = segment.len().saturating_mul(8);
    let mut at = bad as usize + ALIGN;
    while let Some(header) = segment.get(at..).and_then(|s| s.first_chunk::<8>()) {
        if header[4] == 0 {
            at += ALIGN;
            continue;
        }
        match record::read_at(segment, sequence, epoch_min, at as u64) {
            Ok(record) => {
                found.group_start_max = found.group_start_max.max(Some(record.group_start));
                found.end = record.next;
                at = record.next as usize;
            }
            Err(NoRecord::BrokenPayload { length }) => {
                let Some(left) = budget.checked_sub(length.min(segment.len())) else {
                    found.undecided = true;
                    return found;
                };
                budget = left;
                at += ALIGN;
            }
            Err(NoRecord::Unwritten | NoRecord::BrokenHeader) => at += ALIGN,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal_writer::record::{Kind, Place};

    #[test]
    fn names_sort_by_sequence_and_parse_back() {
        let names = [name(1, 900), name(2, 5), name(16, 1), name(u64::MAX, 0)];
        assert!(names.is_sorted());
        assert_eq!(parse_name(&names[0]), Some((1, 900)));
        assert_eq!(parse_name(&names[3]), Some((u64::MAX, 0)));
    }

    #[test]
    fn other_names_are_not_segments() {
        for other in ["", "x.wal", "1-2.wal", "0000000000000001.spare", "lost+found"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert_eq!(parse_name(&(name(1, 1) + ".tmp")), None);
        assert_eq!(parse_name("+000000000000001-0000000000000001.wal"), None);
    }

    #[test]
    fn headers_made_up_everywhere_do_not_cost_quadratic_time() {
        let mut bytes = vec![0u8; 1 << 16];
        for offset in (0..1 << 15).step_by(record::HEADER_BYTES) {
            let place = Place { sequence: 1, epoch: 0, offset, group_start: 0 };
            let mut made_up = vec![0u8; 1 << 15];
            record::seal(&mut made_up, Kind::Entries, place).unwrap();
            let at = offset as usize;
            bytes[at..at + record::HEADER_BYTES].copy_from_slice(&made_up[..record::HEADER_BYTES]);
        }
        bytes[1 << 15..].fill(1);
        assert!(search_beyond(&bytes, 1, 0, 0).undecided);
    }
}
