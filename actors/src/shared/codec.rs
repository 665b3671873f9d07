//! The door to bincode for records that come whole. (The log's headers and the
//! pieces of a checkpoint are read from the front of something longer, under
//! limits of their own.) Local records are decoded only behind a checksum,
//! always with a limit (bincode 2.0.1 aborts on a corrupt length without one)
//! and never with bytes left over.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};

/// No local record is longer than this.
const LIMIT: usize = 1 << 30;

type Config = Configuration<LittleEndian, Varint, Limit<LIMIT>>;

const fn config() -> Config {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Why bytes are not what they should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end too early.
    #[error("the record is cut short")]
    Truncated,
    /// A number is beyond what its field may hold.
    #[error("a field is out of range")]
    OutOfRange,
    /// More bytes follow than belong to the record.
    #[error("{0} bytes are left over behind the record")]
    LeftOver(usize),
    /// Anything else that bincode finds.
    #[error("not a valid record: {0}")]
    Invalid(String),
}

/// Appends `value` to `out`.
pub fn append<T: bincode::Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, config())
        .expect("a Vec takes every byte, and records are below the limit");
}

/// Reads a value that fills `bytes`, borrowing from them.
///
/// # Errors
/// When the bytes are not exactly one value.
pub fn read_borrowed<'a, T: bincode::BorrowDecode<'a, ()>>(
    bytes: &'a [u8],
) -> Result<T, CodecError> {
    let (value, used) =
        bincode::borrow_decode_from_slice(bytes, config()).map_err(|error| describe(&error))?;
    whole(value, used, bytes)
}

/// Reads a value that fills `bytes`.
///
/// # Errors
/// When the bytes are not exactly one value.
pub fn read<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::decode_from_slice(bytes, config()).map_err(|error| describe(&error))?;
    whole(value, used, bytes)
}

fn whole<T>(value: T, used: usize, bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

fn describe(error: &bincode::error::DecodeError) -> CodecError {
    match error {
        bincode::error::DecodeError::UnexpectedEnd { .. } => CodecError::Truncated,
        other => CodecError::Invalid(other.to_string()),
    }
}
