//! How long a connection may take to say what it speaks.
//!
//! HTTP/1 has a time limit for each header, and HTTP/2 asks who is silent for a sign of
//! life. Both begin when it is known which of them is spoken. Until then, this counts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::authority::PREFACE;
use super::read_through::Reader;

/// The time that is left to say something.
type Patience = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Fails with [`TimedOut`](io::ErrorKind::TimedOut) when patience is over before what was
/// read can be told to be HTTP/1, or the whole preface of HTTP/2.
pub(super) struct Opening {
    patience: Patience,
    /// How much of the preface has come.
    known: usize,
    /// Whether it is known what is spoken.
    is_over: bool,
}

impl Opening {
    pub(super) fn new(patience: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { patience: Box::pin(patience), known: 0, is_over: false }
    }

    fn heard(&mut self, bytes: &[u8]) {
        let expected = &PREFACE[self.known..];
        let length = bytes.len().min(expected.len());
        self.known += length;
        self.is_over = bytes[..length] != expected[..length] || self.known == PREFACE.len();
    }
}

impl Reader for Opening {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        socket: &mut S,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        let result = Pin::new(socket).poll_read(context, buffer);
        if result.is_ready() {
            self.heard(&buffer.filled()[start..]);
            return result;
        }
        self.patience.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn is_done(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{sleep, timeout};

    use super::super::read_through::ReadThrough;
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// What becomes of a connection whose other side says no more than this, in pieces:
    /// why reading failed, or `None` if it goes on.
    async fn becomes(pieces: &[&[u8]]) -> Option<io::ErrorKind> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let mut ours = ReadThrough::new(ours, Opening::new(sleep(PATIENCE)));
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
