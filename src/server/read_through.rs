//! Sockets that are read through something, for as long as it has anything to do there.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What stands between a socket and its reader.
pub(super) trait Reader {
    /// Reads from the socket, as [`AsyncRead::poll_read`] does.
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Whether everything that is still to come may pass it by.
    fn is_done(&self) -> bool;
}

/// A socket that is read through a [`Reader`]. What is written passes it by.
pub(super) struct ReadThrough<S, R> {
    socket: S,
    /// Absent as soon as it is done.
    pub(super) reader: Option<R>,
}

impl<S, R> ReadThrough<S, R> {
    pub(super) fn new(socket: S, reader: R) -> Self {
        Self { socket, reader: Some(reader) }
    }
}

impl<S: AsyncRead + Unpin, R: Reader + Unpin> AsyncRead for ReadThrough<S, R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(reader) = &mut this.reader else {
            return Pin::new(&mut this.socket).poll_read(context, buffer);
        };
        let result = reader.poll_read(&mut this.socket, context, buffer);
        if reader.is_done() {
            this.reader = None;
        }
        result
    }
}

impl<S: AsyncWrite + Unpin, R: Unpin> AsyncWrite for ReadThrough<S, R> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, buffers)
    }
}
