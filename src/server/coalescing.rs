//! Fewer system calls for answers.
//!
//! h2 asks whether the socket takes several buffers at once. If it does, h2
//! sends every DATA frame of 256 bytes or more in a system call of its own; if
//! it does not, frames below a kilobyte are copied into one buffer, and a poll
//! of the connection sends all that became ready in one call. Most of our
//! answers are that small, and the system call is most of their cost. Larger
//! frames come here in two pieces, head and payload, and are joined again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// A piece that is larger than this is written as it is.
const BUFFER_BYTES: usize = 32 * 1024;

/// A socket that takes one buffer at a time and sends when it is flushed.
#[derive(Debug)]
pub(super) struct Coalescing<S>(BufWriter<S>);

impl<S: AsyncWrite> Coalescing<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(BufWriter::with_capacity(BUFFER_BYTES, socket))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
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
    async fn pieces_arrive_together_when_they_are_flushed() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut socket = Coalescing::new(near);
        assert!(!socket.is_write_vectored());
        socket.write_all(b"head").await.unwrap();
        socket.write_all(b"payload").await.unwrap();
        let mut buffer = [0; 64];
        assert!(futures::poll!(Box::pin(far.read(&mut buffer))).is_pending());
        socket.flush().await.unwrap();
        let read = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"headpayload");
    }
}
