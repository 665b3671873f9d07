//! Clients whose `:authority` is none.
//!
//! Some versions of etcd's Go client put the endpoint as it was written there
//! (`http://127.0.0.1:2379`), others a list (`#initially=[127.0.0.1:2379]`). gRPC makes
//! no use of it, and a Go server takes anything, but the HTTP/2 implementation under
//! this server resets such streams. So the first header block of each connection is
//! looked at on its way in. Is its authority one, or absent, then nothing is changed,
//! and what follows is not looked at. Is it not, then all header blocks of the
//! connection are read and written again, without authorities that are none.
//!
//! Owns: what a socket has given and the server has not read yet, until the first
//! header block is complete, and for good if the connection is rewritten. Never does:
//! answer, refuse what the server would take, or touch what is written.

mod filter;
mod hpack;
mod tables;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

pub(super) use filter::PREFACE;

use filter::Filter;

use super::read_through::{ReadThrough, Reader};

/// How much is read at once while a connection is looked at.
const READ_BYTES: usize = 16 << 10;

/// What a client sent is no HTTP/2, or larger than allowed.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// A socket from which a server reads no authority that it would refuse.
pub(super) type AnyAuthority<S> = ReadThrough<S, Box<Watch>>;

/// What stands between a socket and its reader.
pub(super) struct Watch {
    filter: Filter,
    /// What was read from the socket, and how much of it is there and is used up.
    input: Box<[u8]>,
    read: usize,
    used: usize,
    /// What the reader is to get, and how much of it the reader has.
    output: Vec<u8>,
    given: usize,
}

/// Looks at the authorities that come out of `socket`.
pub(super) fn any_authority<S>(socket: S) -> AnyAuthority<S> {
    let watch = Watch {
        filter: Filter::new(),
        input: vec![0; READ_BYTES].into_boxed_slice(),
        read: 0,
        used: 0,
        output: Vec::new(),
        given: 0,
    };
    ReadThrough::new(socket, Box::new(watch))
}

impl Reader for Box<Watch> {
    /// Reads through the filter. Nothing is added at the end of the connection.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        loop {
            self.give(buffer);
            let given = buffer.filled().len() > start;
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.used < self.read {
                match self.step() {
                    Ok(()) => continue,
                    // What came before is still the server's to answer.
                    Err(Malformed) if given => return Poll::Ready(Ok(())),
                    Err(Malformed) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                }
            }
            if given {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_fill(socket, context))? == 0 {
                self.filter.finish(&mut self.output);
                self.give(buffer);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.filter.passing() && self.used == self.read && self.output.is_empty()
    }
}

impl Watch {
    fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut input = ReadBuf::new(&mut self.input);
        ready!(Pin::new(socket).poll_read(context, &mut input))?;
        (self.read, self.used) = (input.filled().len(), 0);
        Poll::Ready(Ok(self.read))
    }

    fn step(&mut self) -> Result<(), Malformed> {
        let mut input = &self.input[self.used..self.read];
        let result = self.filter.step(&mut input, &mut self.output);
        self.used = self.read - input.len();
        result
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.output[self.given..];
        let part = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(part);
        self.given += part.len();
        if self.given == self.output.len() {
            self.output.clear();
            self.given = 0;
        }
    }
}
