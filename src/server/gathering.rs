//! A socket that gathers small writes until they are flushed.
//!
//! HTTP/2 over a socket that can write vectors sends every message of 256 bytes or more
//! with a system call of its own, since it would rather not copy it. A call's answer is
//! often a little larger than that, and a copy is a hundred times cheaper than the call.
//! Over a socket that says it cannot, messages of less than 1 KiB go out together. For
//! larger ones this socket joins the header with the message again.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes of fewer bytes wait for the next one or a flush.
const SMALL_BYTES: usize = 8 << 10;

/// What waits is written before it grows beyond this.
const WAITING_BYTES_MAX: usize = 32 << 10;

/// A socket whose small writes wait for company. Whoever writes must flush.
pub(super) struct Gathering<I> {
    socket: I,
    waiting: BytesMut,
}

impl<I> Gathering<I> {
    pub(super) fn new(socket: I) -> Self {
        Self { socket, waiting: BytesMut::new() }
    }
}

impl<I: AsyncWrite + Unpin> Gathering<I> {
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(context, &self.waiting))?;
            self.wrote(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the socket took of the waiting bytes off them.
    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.waiting.advance(bytes);
        Ok(())
    }

    /// Writes what waits and `more` in one go; gives how much of `more` was written.
    fn poll_both(&mut self, context: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let slices = [IoSlice::new(&self.waiting), IoSlice::new(more)];
        let socket = Pin::new(&mut self.socket);
        let written = ready!(socket.poll_write_vectored(context, &slices))?;
        match written.checked_sub(self.waiting.len()) {
            Some(of_more @ 1..) => {
                self.waiting.clear();
                Poll::Ready(Ok(of_more))
            }
            _ => {
                self.wrote(written)?;
                // Nothing of `more` went out. The socket has room or wakes us.
                ready!(self.poll_waiting(context))?;
                Pin::new(&mut self.socket).poll_write(context, more)
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gathering<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gathering<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if bytes.len() < SMALL_BYTES {
            if this.waiting.len() + bytes.len() > WAITING_BYTES_MAX {
                ready!(this.poll_waiting(context))?;
            }
            this.waiting.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        if this.waiting.is_empty() {
            return Pin::new(&mut this.socket).poll_write(context, bytes);
        }
        this.poll_both(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_waiting(context))?;
        Pin::new(&mut this.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_waiting(context))?;
        Pin::new(&mut this.socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn small_writes_wait_for_a_flush() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut socket = Gathering::new(ours);
        socket.write_all(b"one ").await.unwrap();
        socket.write_all(b"two").await.unwrap();
        let mut early = [0; 16];
        let nothing = futures::FutureExt::now_or_never(theirs.read(&mut early));
        assert!(nothing.is_none(), "nothing was flushed");
        socket.flush().await.unwrap();
        let read = theirs.read(&mut early).await.unwrap();
        assert_eq!(&early[..read], b"one two");
    }

    #[tokio::test]
    async fn bytes_keep_their_order_whatever_their_number() {
        // A pipe so narrow that every write is cut somewhere.
        for width in [1, 7, 1000, 9000, 100_000] {
            let (ours, mut theirs) = tokio::io::duplex(width);
            let sizes = [10, 9000, 1, 8191, 8192, 5, 5, 40_000, 3, 8000, 8000, 8000, 8000, 8000];
            let written: Vec<Vec<u8>> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| (0..*size).map(|at| (at * 7 + number) as u8).collect())
                .collect();
            let expected = written.concat();
            let writer = tokio::spawn(async move {
                let mut socket = Gathering::new(ours);
                for bytes in &written {
                    socket.write_all(bytes).await.unwrap();
                }
                socket.shutdown().await.unwrap();
            });
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).await.unwrap();
            writer.await.unwrap();
            assert!(read == expected, "width {width}");
        }
    }
}
