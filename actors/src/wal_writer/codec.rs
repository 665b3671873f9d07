//! The one place where bincode is used: limits always, trailing bytes refused.

use super::WalError;

/// Bytes that decoding one header, hard state, metadata or snapshot marker may claim. Without a
/// limit a corrupt length would make bincode allocate until the process aborts.
const LIMIT_BYTES: usize = 1 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_limit::<LIMIT_BYTES>()
}

/// Appends the encoding of `value` to `out`.
pub(super) fn encode<T: bincode::Encode>(value: &T, out: &mut Vec<u8>) -> Result<(), WalError> {
    bincode::encode_into_std_write(value, out, config())
        .map(|_| ())
        .map_err(|e| WalError::Encode(e.to_string()))
}

/// Decodes a value from the front of `bytes` and returns it with the bytes behind it.
pub(super) fn decode_front<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), String> {
    let (value, used) =
        bincode::decode_from_slice(bytes, config()).map_err(|e| format!("does not decode: {e}"))?;
    let rest = bytes.get(used..).ok_or("decoded beyond its end")?;
    Ok((value, rest))
}

/// Decodes a value that must fill `bytes` to the last one.
pub(super) fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    let (value, rest) = decode_front(bytes)?;
    if !rest.is_empty() {
        return Err(format!("{} bytes follow the value", rest.len()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = Vec::new();
        encode(&7u64, &mut bytes).unwrap();
        assert_eq!(decode::<u64>(&bytes), Ok(7));
        bytes.push(0);
        assert!(decode::<u64>(&bytes).unwrap_err().contains("1 bytes follow"));
    }

    #[test]
    fn a_corrupt_length_is_an_error_and_not_an_allocation() {
        let mut bytes = Vec::new();
        encode(&u64::MAX, &mut bytes).unwrap();
        assert!(decode::<Vec<u8>>(&bytes).is_err());
    }
}
