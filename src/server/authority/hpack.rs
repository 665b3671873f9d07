//! Header blocks, read (RFC 7541) and written.
//!
//! Owns a client's dynamic table. Blocks are written without one, so that what a
//! server reads depends on nothing that came before.

use std::collections::VecDeque;

use super::Malformed;
use super::tables::{CODE, CODE_BITS_MAX, END_OF_STRING, STATIC};

/// The size of the dynamic table that clients may use, in bytes: the default of HTTP/2,
/// and no server of ours announces another.
const TABLE_BYTES_MAX: usize = 4096;

/// What an entry of the dynamic table, or of a header list, counts besides its texts.
pub(super) const FIELD_OVERHEAD_BYTES: usize = 32;

/// Continuation bytes that an integer may have: more than any length here can need.
const INTEGER_BYTES_MAX: usize = 4;

/// Reads a connection's header blocks, which must be given in order and complete.
pub(super) struct Decoder {
    /// The youngest entry comes first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { table: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_MAX }
    }

    /// Gives the names and values of a block to `field`, which may refuse to go on.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut rest = block;
        // Only the start of a block may change the table's size.
        while let [0x20..=0x3f, ..] = rest {
            self.resize(integer(&mut rest, 5)?)?;
        }
        while let Some(first) = rest.first() {
            match first {
                0x80.. => {
                    let (name, value) = self.entry(integer(&mut rest, 7)?)?;
                    field(name, value)?;
                }
                0x40..=0x7f => {
                    let (name, value) = self.literal(&mut rest, 6)?;
                    field(&name, &value)?;
                    self.insert(name, value);
                }
                0x20..=0x3f => return Err(Malformed),
                0x00..=0x1f => {
                    let (name, value) = self.literal(&mut rest, 4)?;
                    field(&name, &value)?;
                }
            }
        }
        Ok(())
    }

    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let name = match integer(rest, prefix)? {
            0 => text(rest)?,
            index => self.entry(index)?.0.to_vec(),
        };
        Ok((name, text(rest)?))
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Malformed> {
        let index = index.checked_sub(1).ok_or(Malformed)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) = self.table.get(index - STATIC.len()).ok_or(Malformed)?;
        Ok((name, value))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.bytes += name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        self.table.push_front((name, value));
        // An entry larger than the table empties it, and is not kept either.
        self.evict();
    }

    fn resize(&mut self, bytes_max: usize) -> Result<(), Malformed> {
        if bytes_max > TABLE_BYTES_MAX {
            return Err(Malformed);
        }
        self.bytes_max = bytes_max;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            let Some((name, value)) = self.table.pop_back() else { return };
            self.bytes -= name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        }
    }
}

/// Adds a field to a block, as a literal that no table remembers.
pub(super) fn write_field(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    write_text(block, name);
    write_text(block, value);
}

fn write_text(block: &mut Vec<u8>, text: &[u8]) {
    const PREFIX_MAX: usize = 0x7f;
    if text.len() < PREFIX_MAX {
        block.push(text.len() as u8);
    } else {
        block.push(PREFIX_MAX as u8);
        let mut rest = text.len() - PREFIX_MAX;
        while rest >= 0x80 {
            block.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text);
}

fn byte(rest: &mut &[u8]) -> Result<u8, Malformed> {
    let (first, others) = rest.split_first().ok_or(Malformed)?;
    *rest = others;
    Ok(*first)
}

/// Reads an integer whose first byte gives `prefix` bits to it.
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let prefix_max = (1 << prefix) - 1;
    let mut value = usize::from(byte(rest)?) & prefix_max;
    if value < prefix_max {
        return Ok(value);
    }
    for position in 0..INTEGER_BYTES_MAX {
        let next = byte(rest)?;
        value += usize::from(next & 0x7f) << (7 * position);
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn text(rest: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, others) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = others;
    if coded { huffman(text) } else { Ok(text.to_vec()) }
}

fn huffman(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut text = Vec::with_capacity(coded.len() * 2);
    let (mut bits, mut length) = (0_u32, 0);
    for byte in coded {
        for shift in (0..8).rev() {
            bits = bits << 1 | u32::from(byte >> shift & 1);
            length += 1;
            // Below the first code of this length are only codes that are shorter,
            // and those have been recognised already.
            let rank = bits.wrapping_sub(CODE.first[length]);
            if rank < CODE.count[length] {
                let symbol = CODE.symbols[CODE.start[length] + rank as usize];
                if symbol == END_OF_STRING {
                    return Err(Malformed);
                }
                text.push(symbol as u8);
                (bits, length) = (0, 0);
            } else if length == CODE_BITS_MAX {
                return Err(Malformed);
            }
        }
    }
    // The last byte is filled up with ones.
    if length > 7 || bits + 1 != 1 << length { Err(Malformed) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            fields.push((text(name), text(value)));
            Ok(())
        })?;
        Ok(fields)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
        let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    // RFC 7541, C.4.
    #[test]
    fn requests_of_the_standard_are_read() {
        let mut decoder = Decoder::new();
        let first = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        let site = (":authority", "www.example.com");
        let start = [(":method", "GET"), (":scheme", "http"), (":path", "/"), site];
        assert_eq!(decode(&mut decoder, &first).unwrap(), fields(&start));
        let second = bytes("8286 84be 5886 a8eb 1064 9cbf");
        let mut expected = start.to_vec();
        expected.push(("cache-control", "no-cache"));
        assert_eq!(decode(&mut decoder, &second).unwrap(), fields(&expected));
        let third = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        let expected = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            site,
            ("custom-key", "custom-value"),
        ];
        assert_eq!(decode(&mut decoder, &third).unwrap(), fields(&expected));
        assert_eq!((decoder.table.len(), decoder.bytes), (3, 164));
    }

    #[test]
    fn nonsense_is_refused() {
        for block in [
            "80",                   // No field has the number 0.
            "be",                   // Nothing is in the dynamic table.
            "ff ff ff ff ff ff 01", // An integer that never ends.
            "41",                   // No value.
            "41 05 61",             // A value that is shorter than it says.
            "41 81 00",             // A code that is not complete.
            "41 82 1f ff",          // More padding than a byte.
            "41 84 ff ff ff ff",    // The end symbol inside a text.
            "3f e2 1f",             // A table larger than agreed.
            "82 20",                // A resize that is not at the start.
        ] {
            assert!(decode(&mut Decoder::new(), &bytes(block)).is_err(), "{block}");
        }
    }

    #[test]
    fn the_table_forgets_its_oldest_entries() {
        let mut decoder = Decoder::new();
        for value in 0..200 {
            let block = [&[0x40, 1, b'n', 3][..], format!("{value:03}").as_bytes()].concat();
            decode(&mut decoder, &block).unwrap();
        }
        assert_eq!(decoder.table.len(), 4096 / (1 + 3 + 32));
        assert_eq!(decode(&mut decoder, &[0xbe]).unwrap(), fields(&[("n", "199")]));
        // A smaller table, then none.
        assert_eq!(decode(&mut decoder, &bytes("3f 11 be")).unwrap(), fields(&[("n", "199")]));
        assert_eq!(decoder.table.len(), 1);
        decode(&mut decoder, &bytes("20 82")).unwrap();
        assert!(decode(&mut decoder, &[0xbe]).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 126, 127, 128, 254, 255, 16_383, 60_000] {
            let value = "v".repeat(length);
            let mut block = Vec::new();
            write_field(&mut block, b"name", value.as_bytes());
            let read = decode(&mut Decoder::new(), &block).unwrap();
            assert_eq!(read, fields(&[("name", &value)]));
        }
    }
}
