//! The codec `raft` expects on its messages, on top of prost's.
//!
//! `raft` 0.7 sizes, encodes, and decodes through protobuf 2's `Message` trait. Here that
//! trait is a thin face over prost: no cached sizes, no unknown fields, no reflection.

use std::io;
use std::sync::LazyLock;

use protobuf::{CodedInputStream, CodedOutputStream, ProtobufError, ProtobufResult, UnknownFields};

/// What every message answers when asked for fields it does not know: prost drops them.
pub(crate) static NO_UNKNOWN_FIELDS: LazyLock<UnknownFields> = LazyLock::new(UnknownFields::new);

/// Decodes `bytes` over `message`, as `protobuf` would merge them.
pub(crate) fn merge<M: prost::Message>(message: &mut M, bytes: &[u8]) -> ProtobufResult<()> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    message.merge(bytes).map_err(|error| ProtobufError::IoError(invalid(error)))
}

/// Decodes what is left of `input`, up to its current limit, over `message`.
pub(crate) fn read<M: prost::Message>(
    message: &mut M,
    input: &mut CodedInputStream<'_>,
) -> ProtobufResult<()> {
    let mut bytes = Vec::new();
    while !input.eof()? {
        bytes.push(input.read_raw_byte()?);
    }
    merge(message, &bytes)
}

/// Encodes `message` to `output`.
pub(crate) fn write<M: prost::Message>(
    message: &M,
    output: &mut CodedOutputStream<'_>,
) -> ProtobufResult<()> {
    output.write_raw_bytes(&message.encode_to_vec())
}

/// The size of `message` on the wire, in bytes. An entry is far below 4 GiB.
pub(crate) fn size<M: prost::Message>(message: &M) -> u32 {
    u32::try_from(message.encoded_len()).unwrap_or(u32::MAX)
}

/// Gives a prost message the face `raft` expects.
macro_rules! wire_message {
    ($message:ident) => {
        impl $message {
            /// A message with no field set, to lend where a message field is absent.
            pub fn default_ref() -> &'static Self {
                static DEFAULT: std::sync::LazyLock<$message> =
                    std::sync::LazyLock::new($message::default);
                &DEFAULT
            }
        }

        impl protobuf::Clear for $message {
            fn clear(&mut self) {
                prost::Message::clear(self);
            }
        }

        impl protobuf::Message for $message {
            fn descriptor(&self) -> &'static protobuf::reflect::MessageDescriptor {
                // The trait's own answer for a message without reflection: it panics.
                <Self as protobuf::Message>::descriptor_static()
            }

            fn is_initialized(&self) -> bool {
                true
            }

            fn merge_from(
                &mut self,
                input: &mut protobuf::CodedInputStream<'_>,
            ) -> protobuf::ProtobufResult<()> {
                crate::wire::read(self, input)
            }

            fn merge_from_bytes(&mut self, bytes: &[u8]) -> protobuf::ProtobufResult<()> {
                crate::wire::merge(self, bytes)
            }

            fn write_to_with_cached_sizes(
                &self,
                output: &mut protobuf::CodedOutputStream<'_>,
            ) -> protobuf::ProtobufResult<()> {
                crate::wire::write(self, output)
            }

            fn write_to_bytes(&self) -> protobuf::ProtobufResult<Vec<u8>> {
                Ok(prost::Message::encode_to_vec(self))
            }

            fn compute_size(&self) -> u32 {
                crate::wire::size(self)
            }

            fn get_cached_size(&self) -> u32 {
                crate::wire::size(self)
            }

            fn get_unknown_fields(&self) -> &protobuf::UnknownFields {
                &crate::wire::NO_UNKNOWN_FIELDS
            }

            fn mut_unknown_fields(&mut self) -> &mut protobuf::UnknownFields {
                panic!("a prost message has no place for unknown fields")
            }

            fn as_any(&self) -> &dyn std::any::Any {
                self
            }

            fn new() -> Self {
                Self::default()
            }

            fn default_instance() -> &'static Self {
                Self::default_ref()
            }
        }
    };
}
pub(crate) use wire_message;

#[cfg(test)]
mod tests {
    use crate::eraftpb::{Entry, EntryType, Message, Snapshot};
    use proptest::prelude::*;
    use protobuf::Message as _;

    #[test]
    fn an_entry_has_the_bytes_of_its_field_numbers() {
        let entry = Entry {
            entry_type: EntryType::EntryConfChangeV2.into(),
            term: 3,
            index: 300,
            data: "ab".into(),
            sync_log: true,
            context: "c".into(),
        };
        let golden = b"\x08\x02\x10\x03\x18\xac\x02\x22\x02ab\x28\x01\x32\x01c";
        assert_eq!(entry.write_to_bytes().unwrap(), golden);
        assert_eq!(entry.compute_size() as usize, golden.len());
    }

    #[test]
    fn a_message_has_the_bytes_of_its_field_numbers() {
        let message = Message {
            msg_type: 3,
            to: 2,
            from: 1,
            log_term: 4,
            entries: vec![Entry { term: 5, ..Default::default() }],
            reject: true,
            context: "x".into(),
            commit_term: 6,
            priority: -1,
            ..Default::default()
        };
        let golden = b"\x08\x03\x10\x02\x18\x01\x28\x04\x3a\x02\x10\x05\x50\x01\x62\x01x\x78\x06\
                       \x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(message.write_to_bytes().unwrap(), golden);
    }

    #[test]
    fn an_absent_message_field_is_lent_as_its_default_and_made_when_changed() {
        let mut snapshot = Snapshot::default();
        assert!(!snapshot.has_metadata());
        assert_eq!(snapshot.get_metadata().get_conf_state().get_voters(), &[] as &[u64]);
        snapshot.mut_metadata().mut_conf_state().mut_voters().push(7);
        assert_eq!(snapshot.take_metadata().take_conf_state().take_voters(), vec![7]);
        assert!(!snapshot.has_metadata());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert!(Entry::default().merge_from_bytes(b"\x22\x05ab").is_err());
    }

    proptest! {
        #[test]
        fn both_faces_of_the_codec_agree(
            term: u64, index: u64, sync_log: bool, data: Vec<u8>, context: Vec<u8>,
        ) {
            let entry = Entry {
                entry_type: 1, term, index, sync_log, data: data.into(), context: context.into(),
            };
            let bytes = entry.write_to_bytes().unwrap();
            prop_assert_eq!(&Entry::parse_from_bytes(&bytes).unwrap(), &entry);
            let mut streamed = Vec::new();
            entry.write_to_vec(&mut streamed).unwrap();
            prop_assert_eq!(&streamed, &bytes);
            let delimited = entry.write_length_delimited_to_bytes().unwrap();
            let mut input = protobuf::CodedInputStream::from_bytes(&delimited);
            prop_assert_eq!(&input.read_message::<Entry>().unwrap(), &entry);
        }
    }
}
