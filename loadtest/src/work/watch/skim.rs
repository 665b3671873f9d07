//! Reads from watch responses what the accounts need, straight from the wire: no message is
//! built, nothing is allocated, values are not copied.

use crate::grpc::CallError;

/// Field numbers of `WatchResponse`, `Event` and `KeyValue`.
mod field {
    pub(super) const HEADER: u32 = 1;
    pub(super) const HEADER_REVISION: u32 = 3;
    pub(super) const WATCH_ID: u32 = 2;
    pub(super) const CREATED: u32 = 3;
    pub(super) const CANCELED: u32 = 4;
    pub(super) const CANCEL_REASON: u32 = 6;
    pub(super) const FRAGMENT: u32 = 7;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const EVENT_TYPE: u32 = 1;
    pub(super) const EVENT_KV: u32 = 2;
    pub(super) const KEY: u32 = 1;
    pub(super) const MOD_REVISION: u32 = 3;
    pub(super) const VALUE: u32 = 5;
}

/// A message that is not well formed. It has no size, so that results stay in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<Malformed> for CallError {
    fn from(Malformed: Malformed) -> Self {
        Self::WrongAnswer("a watch response that is not well formed".into())
    }
}

/// What an encoded `WatchResponse` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Response<'a> {
    /// The header, not read yet: few need it, and its ids are long.
    header: &'a [u8],
    /// The watcher it is for.
    pub(super) watch_id: i64,
    /// It confirms the watcher.
    pub(super) created: bool,
    /// The watcher is no more.
    pub(super) canceled: bool,
    /// Why, as the server says.
    pub(super) cancel_reason: &'a [u8],
    /// More of the same revisions is to come.
    pub(super) fragment: bool,
    /// From the first event on.
    events: &'a [u8],
}

/// What an encoded `Event` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// Not a deletion.
    pub(super) is_put: bool,
    /// The key.
    pub(super) key: &'a [u8],
    /// Its value.
    pub(super) value: &'a [u8],
    /// The revision that made it.
    pub(super) mod_revision: i64,
}

impl<'a> Response<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is not well formed.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut response = Self::default();
        let mut fields = Fields { rest: message };
        loop {
            let from_here = fields.rest;
            let Some((number, value)) = fields.next()? else { return Ok(response) };
            match number {
                field::EVENTS if response.events.is_empty() => response.events = from_here,
                field::HEADER => response.header = value.bytes()?,
                field::WATCH_ID => response.watch_id = value.int64()?,
                field::CREATED => response.created = value.int64()? != 0,
                field::CANCELED => response.canceled = value.int64()? != 0,
                field::CANCEL_REASON => response.cancel_reason = value.bytes()?,
                field::FRAGMENT => response.fragment = value.int64()? != 0,
                _ => {}
            }
        }
    }

    /// The header's revision.
    ///
    /// # Errors
    /// When the header is not well formed.
    pub(super) fn revision(&self) -> Result<i64, Malformed> {
        let (mut fields, mut revision) = (Fields { rest: self.header }, 0);
        while let Some((number, value)) = fields.next()? {
            if number == field::HEADER_REVISION {
                revision = value.int64()?;
            }
        }
        Ok(revision)
    }

    /// Its events, in order.
    pub(super) fn events(&self) -> Events<'a> {
        Events { fields: Fields { rest: self.events } }
    }

    /// Whether it has any.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}

/// The events of a response.
#[derive(Debug)]
pub(super) struct Events<'a> {
    fields: Fields<'a>,
}

impl<'a> Events<'a> {
    /// The next one.
    ///
    /// # Errors
    /// When it is not well formed.
    pub(super) fn next(&mut self) -> Result<Option<Event<'a>>, Malformed> {
        while let Some((number, value)) = self.fields.next()? {
            if number == field::EVENTS {
                return Event::read(value.bytes()?).map(Some);
            }
        }
        Ok(None)
    }
}

impl<'a> Event<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut event = Self { is_put: true, ..Self::default() };
        let mut fields = Fields { rest: message };
        while let Some((number, value)) = fields.next()? {
            match number {
                field::EVENT_TYPE => event.is_put = value.int64()? == 0,
                field::EVENT_KV => event.read_kv(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(event)
    }

    fn read_kv(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields { rest: message };
        while let Some((number, value)) = fields.next()? {
            match number {
                field::KEY => self.key = value.bytes()?,
                field::MOD_REVISION => self.mod_revision = value.int64()?,
                field::VALUE => self.value = value.bytes()?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    /// A number or a truth value.
    Varint(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which none of these messages has.
    Fixed,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(Malformed),
        }
    }

    fn int64(self) -> Result<i64, Malformed> {
        match self {
            // An int64 is the same 64 bits.
            Self::Varint(number) => Ok(number as i64),
            Self::Bytes(_) | Self::Fixed => Err(Malformed),
        }
    }
}

/// The fields of a message, one after the other.
#[derive(Debug)]
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline(always)]
    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.skip(4)?,
            _ => return Err(Malformed),
        };
        Ok(Some((u32::try_from(tag >> 3).map_err(|_| Malformed)?, value)))
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn skip(&mut self, length: usize) -> Result<Value<'a>, Malformed> {
        self.take(length).map(|_| Value::Fixed)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let (number, length) = match self.rest {
            [byte @ 0..=0x7f, ..] => (u64::from(*byte), 1),
            long => long_varint(long)?,
        };
        self.rest = &self.rest[length..];
        Ok(number)
    }
}

/// A number of several bytes, and how many they are.
fn long_varint(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((number, place + 1));
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use castd_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use castd_proto::mvccpb::event::EventType;
    use castd_proto::mvccpb::{Event as EventMessage, KeyValue};
    use prost::Message;

    fn kv(number: i64) -> KeyValue {
        KeyValue {
            key: Bytes::from(format!("key-{number}")),
            value: Bytes::from(vec![b'v'; (number % 400) as usize]),
            create_revision: 1,
            mod_revision: number,
            version: number,
            lease: -1,
        }
    }

    fn response(numbers: &[i64]) -> WatchResponse {
        let event = |number: &i64| EventMessage {
            r#type: if number % 3 == 0 { EventType::Delete } else { EventType::Put }.into(),
            kv: Some(kv(*number)),
            prev_kv: (number % 2 == 0).then(|| kv(number - 1)),
        };
        WatchResponse {
            header: Some(ResponseHeader {
                cluster_id: u64::MAX,
                member_id: 2,
                revision: 1 << 40,
                raft_term: 9,
            }),
            watch_id: 300,
            fragment: numbers.len() == 2,
            events: numbers.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    #[test]
    fn the_same_is_read_as_by_prost() {
        for numbers in [&[][..], &[1], &[3, 200], &[7, 8, 9, 1 << 50]] {
            let response = response(numbers);
            let encoded = response.encode_to_vec();
            let skimmed = Response::read(&encoded).unwrap();
            assert_eq!(skimmed.revision().unwrap(), 1 << 40);
            assert_eq!(skimmed.watch_id, 300);
            assert_eq!(skimmed.fragment, response.fragment);
            assert!(!skimmed.created && !skimmed.canceled);
            assert_eq!(skimmed.has_events(), !numbers.is_empty());
            let mut events = skimmed.events();
            for event in &response.events {
                let kv = event.kv.as_ref().unwrap();
                let found = events.next().unwrap().unwrap();
                assert_eq!(found.is_put, event.r#type() == EventType::Put);
                assert_eq!((found.key, found.value), (&kv.key[..], &kv.value[..]));
                assert_eq!(found.mod_revision, kv.mod_revision);
            }
            assert_eq!(events.next().unwrap(), None);
        }
    }

    #[test]
    fn confirmations_and_cancellations_are_read() {
        let response = WatchResponse {
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: "because".into(),
            ..WatchResponse::default()
        };
        let encoded = response.encode_to_vec();
        let skimmed = Response::read(&encoded).unwrap();
        assert!(skimmed.created && skimmed.canceled && !skimmed.has_events());
        assert_eq!((skimmed.watch_id, skimmed.cancel_reason), (-1, &b"because"[..]));
        assert_eq!(Response::read(&[]).unwrap(), Response::default());
    }

    #[test]
    fn a_message_cut_short_is_an_error_or_a_shorter_message() {
        let encoded = response(&[1, 2]).encode_to_vec();
        for length in 0..encoded.len() {
            let read = |message| -> Result<usize, Malformed> {
                let response = Response::read(message)?;
                let (mut events, mut count) = (response.events(), 0);
                response.revision()?;
                while events.next()?.is_some() {
                    count += 1;
                }
                Ok(count)
            };
            let cut = read(&encoded[..length]);
            let prost = WatchResponse::decode(&encoded[..length]).map(|cut| cut.events.len());
            assert_eq!(cut.ok(), prost.ok(), "{length}");
        }
        assert!(Response::read(&[0xff; 11]).is_err());
        assert!(Response::read(&[0x0b]).is_err(), "a group");
    }
}
