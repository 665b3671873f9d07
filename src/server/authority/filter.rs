//! What a client sends, looked at frame by frame.
//!
//! Owns what has come of the frame head or header block that is not complete. Receives
//! the bytes of one connection in pieces of any size, gives out the bytes that the
//! server is to read. Never does: wait, or hold more than a header block.

use super::Malformed;
use super::hpack::{Decoder, FIELD_OVERHEAD_BYTES, write_field};

/// What every HTTP/2 client says first.
pub(in crate::server) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The largest payload of a frame, in bytes: the default of HTTP/2, which the server
/// leaves as it is.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// The largest header block, in bytes: of its frames as they come, and of its header
/// list.
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;

pub(super) const HEAD_BYTES: usize = 9;
const PRIORITY_BYTES: usize = 5;

pub(super) const HEADERS: u8 = 1;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x01;
pub(super) const END_HEADERS: u8 = 0x04;
pub(super) const PADDED: u8 = 0x08;
pub(super) const PRIORITY: u8 = 0x20;

const AUTHORITY: &[u8] = b":authority";

/// Passes a connection on, and rewrites its header blocks if its first one asks for it.
pub(super) struct Filter {
    stage: Stage,
    /// Bytes that have come and not been passed on: frames of a header block that is
    /// not complete, and a frame head that is not.
    held: Vec<u8>,
    /// Where the frame starts that is being received, in `held`.
    frame: usize,
    decoder: Decoder,
    /// The first header block had an authority that the server would refuse.
    rewriting: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// A frame head is next.
    Head,
    /// So many bytes of a frame are to come that is no concern of ours.
    Payload(usize),
    /// So many bytes of a frame are to come that belongs to a header block.
    Block(usize),
    /// Everything passes.
    Passing,
    /// The connection cannot go on.
    Broken,
}

/// What a frame says before its payload.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Filter {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Preface(0),
            held: Vec::new(),
            frame: 0,
            decoder: Decoder::new(),
            rewriting: false,
        }
    }

    /// Whether all that may still come passes unchanged.
    pub(super) fn passing(&self) -> bool {
        self.stage == Stage::Passing
    }

    /// Takes some of the input, at least a byte if there is one, and adds to the
    /// output. Fails if the connection must end.
    pub(super) fn step(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        match self.stage {
            Stage::Preface(known) => {
                self.preface(known, input, output);
                Ok(())
            }
            Stage::Head => {
                let missing = self.frame + HEAD_BYTES - self.held.len();
                self.held.extend_from_slice(take(input, missing));
                if self.held.len() == self.frame + HEAD_BYTES { self.head(output) } else { Ok(()) }
            }
            Stage::Payload(left) => {
                let part = take(input, left);
                output.extend_from_slice(part);
                self.payload(left - part.len());
                Ok(())
            }
            Stage::Block(left) => {
                let part = take(input, left);
                self.held.extend_from_slice(part);
                self.block(left - part.len(), output)
            }
            Stage::Passing => {
                output.extend_from_slice(take(input, usize::MAX));
                Ok(())
            }
            Stage::Broken => Err(Malformed),
        }
    }

    /// Passes on what is left when nothing more will come.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        // Half a block of a rewritten connection means nothing to the server.
        if !self.rewriting {
            output.extend_from_slice(&self.held);
        }
        self.held.clear();
        self.frame = 0;
    }

    fn preface(&mut self, known: usize, input: &mut &[u8], output: &mut Vec<u8>) {
        let expected = &PREFACE[known..];
        let part = take(input, expected.len());
        output.extend_from_slice(part);
        self.stage = if !expected.starts_with(part) {
            Stage::Passing
        } else if part.len() == expected.len() {
            Stage::Head
        } else {
            Stage::Preface(known + part.len())
        };
    }

    /// Decides what becomes of the frame whose head is complete.
    fn head(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some(head) = Head::read(&self.held[self.frame..]) else { return Err(Malformed) };
        let first = Head::read(&self.held).filter(|_| self.frame > 0);
        let expected = match first {
            Some(first) => head.kind == CONTINUATION && head.stream == first.stream,
            None => head.kind == HEADERS,
        };
        // A frame too long is passed on, because the server refuses it.
        let bounded = head.length <= PAYLOAD_BYTES_MAX;
        if expected && bounded && self.held.len() + head.length <= BLOCK_BYTES_MAX {
            return self.block(head.length, output);
        }
        if first.is_some() {
            return self.give_up(output);
        }
        output.append(&mut self.held);
        self.payload(head.length);
        Ok(())
    }

    fn payload(&mut self, left: usize) {
        self.stage = if left == 0 { Stage::Head } else { Stage::Payload(left) };
    }

    fn block(&mut self, left: usize, output: &mut Vec<u8>) -> Result<(), Malformed> {
        if left > 0 {
            self.stage = Stage::Block(left);
            return Ok(());
        }
        let Some(head) = Head::read(&self.held[self.frame..]) else { return Err(Malformed) };
        if head.flags & END_HEADERS != 0 {
            return self.complete(output);
        }
        self.frame = self.held.len();
        self.stage = Stage::Head;
        Ok(())
    }

    /// Passes on a header block that is complete, as it came or rewritten.
    fn complete(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        let Ok((head, priority, block)) = split(&self.held) else { return self.give_up(output) };
        let Ok((fields, refused)) = rewrite(&mut self.decoder, &block) else {
            return self.give_up(output);
        };
        if !self.rewriting && !refused {
            return self.give_up(output);
        }
        self.rewriting = true;
        write(output, head, &[priority, fields].concat());
        self.held.clear();
        self.frame = 0;
        self.stage = Stage::Head;
        Ok(())
    }

    /// Leaves the connection as it is to the server; one that has been changed cannot be.
    fn give_up(&mut self, output: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.rewriting {
            self.stage = Stage::Broken;
            return Err(Malformed);
        }
        output.append(&mut self.held);
        self.stage = Stage::Passing;
        Ok(())
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let &[high, middle, low, kind, flags, a, b, c, d] = bytes.first_chunk()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        // The highest bit of the stream is reserved, and to be ignored.
        Some(Self { length, kind, flags, stream: [a & 0x7f, b, c, d] })
    }

    fn write(self, output: &mut Vec<u8>) {
        output.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        output.extend_from_slice(&[self.kind, self.flags]);
        output.extend_from_slice(&self.stream);
    }
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(bytes.min(input.len()));
    *input = rest;
    part
}

/// Takes the frames of a block apart: the first head, the priority if there is one, and
/// the header block.
fn split(frames: &[u8]) -> Result<(Head, Vec<u8>, Vec<u8>), Malformed> {
    let mut rest = frames;
    let (first, mut payload) = next_frame(&mut rest).ok_or(Malformed)?;
    if first.flags & PADDED != 0 {
        let (padding, others) = payload.split_first().ok_or(Malformed)?;
        let kept = others.len().checked_sub(usize::from(*padding)).ok_or(Malformed)?;
        payload = &others[..kept];
    }
    let priority_bytes = if first.flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
    let (priority, fragment) = payload.split_at_checked(priority_bytes).ok_or(Malformed)?;
    let mut block = fragment.to_vec();
    while let Some((_, fragment)) = next_frame(&mut rest) {
        block.extend_from_slice(fragment);
    }
    Ok((first, priority.to_vec(), block))
}

fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<(Head, &'a [u8])> {
    let head = Head::read(rest)?;
    let (payload, others) = rest[HEAD_BYTES..].split_at_checked(head.length)?;
    *rest = others;
    Some((head, payload))
}

/// Reads a header block, writes it again without authorities that the server would
/// refuse, and tells whether there was one.
fn rewrite(decoder: &mut Decoder, block: &[u8]) -> Result<(Vec<u8>, bool), Malformed> {
    let (mut fields, mut refused, mut bytes) = (Vec::new(), false, 0);
    decoder.decode(block, |name, value| {
        bytes += name.len() + value.len() + FIELD_OVERHEAD_BYTES;
        if bytes > BLOCK_BYTES_MAX {
            return Err(Malformed);
        }
        if name == AUTHORITY && http::uri::Authority::try_from(value).is_err() {
            refused = true;
        } else {
            write_field(&mut fields, name, value);
        }
        Ok(())
    })?;
    Ok((fields, refused))
}

/// Writes a HEADERS frame, and CONTINUATION frames for what does not fit into it.
fn write(output: &mut Vec<u8>, first: Head, payload: &[u8]) {
    let mut head = Head { flags: first.flags & (END_STREAM | PRIORITY), ..first };
    let mut rest = payload;
    loop {
        let part = take(&mut rest, PAYLOAD_BYTES_MAX);
        head.length = part.len();
        if rest.is_empty() {
            head.flags |= END_HEADERS;
        }
        head.write(output);
        output.extend_from_slice(part);
        if rest.is_empty() {
            return;
        }
        head = Head { kind: CONTINUATION, flags: 0, ..head };
    }
}
