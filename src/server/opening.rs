//! How long a connection may take to say what it speaks.
//!
//! HTTP/1 has a time limit for each header, and HTTP/2 asks who is silent for a sign of
//! life. Both begin when it is known which of them is spoken. Until then, this counts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::PREFACE;

/// The time that is left to say something.
type Patience = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket that fails with [`TimedOut`](io::ErrorKind::TimedOut) when patience is over
/// before what was read can be told to be HTTP/1, or the whole preface of HTTP/2.
pub(super) struct Opening<S> {
    socket: S,
    /// Absent as soon as it is known what is spoken.
    patience: Option<Patience>,
    /// How much of the preface has come.
    known: usize,
}

impl<S> Opening<S> {
    pub(super) fn new(socket: S, patience: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { socket, patience: Some(Box::pin(patience)), known: 0 }
    }

    fn heard(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.known..];
        let length = bytes.len().min(expected.len());
        self.known += length;
        if bytes[..length] != expected[..length] || self.known == PREFACE.len() {
            self.patience = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(context, buffer);
        let Some(patience) = &mut this.patience else { return result };
        if result.is_ready() {
            this.heard(&buffer.filled()[start..]);
            return result;
        }
        patience.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// What becomes of a connection whose other side says no more than this, in pieces:
    /// why reading failed, or `None` if it goes on.
    async fn becomes(pieces: &[&[u8]]) -> Option<io::ErrorKind> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let mut ours = Opening::new(ours, sleep(PATIENCE));
        for piece in pieces {
            theirs.write_all(piece).await.unwrap();
            ours.read_exact(&mut vec![0; piece.len()]).await.unwrap();
        }
        let read = timeout(4 * PATIENCE, ours.read_u8()).await;
        read.ok().map(|read| read.unwrap_err().kind())
    }

    #[tokio::test]
    async fn who_does_not_say_what_it_speaks_is_given_up() {
        let over = Some(io::ErrorKind::TimedOut);
        assert_eq!(becomes(&[]).await, over);
        assert_eq!(becomes(&[&PREFACE[..1]]).await, over);
        assert_eq!(becomes(&[&PREFACE[..10], &PREFACE[10..23]]).await, over);
    }

    #[tokio::test]
    async fn who_has_said_it_may_be_silent() {
        assert_eq!(becomes(&[PREFACE]).await, None);
        assert_eq!(becomes(&[&PREFACE[..23], &PREFACE[23..]]).await, None);
        assert_eq!(becomes(&[b"P", b"OST"]).await, None);
        assert_eq!(becomes(&[b"G"]).await, None);
    }
}
