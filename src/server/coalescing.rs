//! Fewer system calls for answers, fewer copies of large ones, and no buffer for a
//! connection that is silent.
//!
//! h2 asks whether the socket takes several buffers at once. If it does, h2
//! sends every DATA frame of 256 bytes or more in a system call of its own; if
//! it does not, frames below a kilobyte are copied into one buffer, and a poll
//! of the connection sends all that became ready in one call. Most of our
//! answers are that small, and the system call is most of their cost. Larger
//! frames come here in two pieces, the head with a kilobyte of the payload, and
//! the rest: they go to the system together, without being joined first.
//!
//! What happens is told to many streams, one after the other and each by itself. As
//! long as that goes on, what is flushed waits for the thread's next lull, so that
//! small responses on one connection leave together.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::grpc;

/// What is held back at most, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// A piece of at least so many bytes is not held back, nor copied: it takes along what is.
const DIRECT_BYTES: usize = 4 * 1024;

/// A connection that has read so many bytes lets those go on who wait for them: what
/// arrived in one piece would otherwise be held in one piece, request by request.
const READ_BYTES: usize = 32 * 1024;

thread_local! {
    /// The buffer of whichever connection writes next: they do it one after the other.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A socket that takes one buffer at a time and sends when it is flushed.
#[derive(Debug)]
pub(super) struct Coalescing<S> {
    socket: S,
    /// What was written and not sent yet. Without room when there is nothing.
    held: Vec<u8>,
    /// How much of that was sent.
    sent: usize,
    /// What a flush waits for.
    lull: Option<Arc<Lull>>,
    /// What was read without a pause.
    read: usize,
}

impl<S: AsyncWrite + Unpin> Coalescing<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, held: Vec::new(), sent: 0, lull: None, read: 0 }
    }

    /// Whether a flush had better wait, since more will be written soon.
    fn gathers(&mut self, context: &Context<'_>) -> bool {
        match &self.lull {
            Some(lull) if lull.has_come() => {
                self.lull = None;
                false
            }
            Some(lull) => {
                // Another task polls the connection now: that is the one to be woken.
                if !lull.connection.will_wake(context.waker()) {
                    self.lull = Some(Lull::next(context));
                }
                true
            }
            None => {
                let gathers = !self.held.is_empty() && grpc::responses_go_out();
                self.lull = gathers.then(|| Lull::next(context));
                gathers
            }
        }
    }

    /// Hands everything to the system.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            match ready!(Pin::new(&mut self.socket).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// Hands over what is held and of `bytes` as much as the system takes.
    fn poll_send_with(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let rest = &self.held[self.sent..];
            let length = rest.len();
            let slices = [IoSlice::new(rest), IoSlice::new(bytes)];
            let slices = if length == 0 { &slices[1..] } else { &slices[..] };
            match ready!(Pin::new(&mut self.socket).poll_write_vectored(context, slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count if count <= length => self.sent += count,
                count => {
                    self.release();
                    return Poll::Ready(Ok(count - length));
                }
            }
        }
    }

    /// Everything was sent: the next connection may have the buffer.
    fn release(&mut self) {
        self.held.clear();
        self.sent = 0;
        if self.held.capacity() > 0 {
            SPARE.set(std::mem::take(&mut self.held));
        }
    }
}

/// The next time that a thread has polled all of its tasks that can go on, or enough of
/// them.
#[derive(Debug)]
struct Lull {
    come: AtomicBool,
    /// Who waits for it.
    connection: Waker,
}

impl Lull {
    /// Wakes the task of this context when it comes.
    fn next(context: &Context<'_>) -> Arc<Self> {
        let lull =
            Arc::new(Self { come: AtomicBool::new(false), connection: context.waker().clone() });
        // The runtime wakes those who yield when it is about to look for new input.
        let waker = Waker::from(Arc::clone(&lull));
        let yielded = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        if yielded.is_ready() {
            waker.wake();
        }
        lull
    }

    fn has_come(&self) -> bool {
        self.come.load(Acquire)
    }
}

impl Wake for Lull {
    fn wake(self: Arc<Self>) {
        self.come.store(true, Release);
        grpc::responses_are_out();
        self.connection.wake_by_ref();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalescing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.read >= READ_BYTES {
            this.read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        this.read = if polled.is_ready() { this.read + count } else { 0 };
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalescing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if bytes.len() >= DIRECT_BYTES {
            return this.poll_send_with(context, bytes);
        }
        if this.held.len() + bytes.len() > BUFFER_BYTES {
            ready!(this.poll_send(context))?;
        }
        if this.held.capacity() == 0 {
            this.held = SPARE.take();
            this.held.reserve_exact(BUFFER_BYTES);
        }
        this.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // As good as done: the lull has the connection polled, and each poll ends in a flush.
        if self.gathers(context) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
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
        assert_eq!(socket.held.capacity(), 0, "a silent connection keeps a buffer");
    }

    #[tokio::test]
    async fn whatever_is_written_arrives_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut socket = Coalescing::new(near);
        let sizes = [1, 999, DIRECT_BYTES - 1, DIRECT_BYTES, 5, 50_000, DIRECT_BYTES, 3000];
        let pieces: Vec<Vec<u8>> =
            (0..).zip(sizes).map(|(number, size)| vec![number; size]).collect();
        let expected = pieces.concat();
        let writing = async move {
            for piece in &pieces {
                socket.write_all(piece).await.unwrap();
            }
            socket.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut arrived));
        read.unwrap();
        assert!(arrived == expected, "something else arrived");
    }

    #[tokio::test]
    async fn what_is_told_to_many_leaves_together() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut socket = Coalescing::new(near);
        let mut buffer = [0; 64];
        for piece in [b"one", b"two"] {
            grpc::response_goes_out();
            socket.write_all(piece).await.unwrap();
            socket.flush().await.unwrap();
        }
        assert!(futures::poll!(Box::pin(far.read(&mut buffer))).is_pending());
        tokio::task::yield_now().await;
        socket.flush().await.unwrap();
        let read = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"onetwo");
        grpc::responses_are_out();
        socket.write_all(b"three").await.unwrap();
        socket.flush().await.unwrap();
        let read = futures::poll!(Box::pin(far.read(&mut buffer)));
        assert!(matches!(read, Poll::Ready(Ok(5))), "an answer to one waited");
    }

    #[tokio::test]
    async fn a_lull_has_the_connection_polled() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut socket = Coalescing::new(near);
        let connection = tokio::spawn(async move {
            grpc::response_goes_out();
            socket.write_all(b"one").await.unwrap();
            std::future::poll_fn(|context| {
                assert!(Pin::new(&mut socket).poll_flush(context).is_ready());
                Poll::<()>::Pending
            })
            .await;
        });
        let mut buffer = [0; 64];
        let read = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"one");
        connection.abort();
    }

    #[tokio::test]
    async fn a_connection_that_reads_much_lets_others_go_on() {
        let (near, mut far) = tokio::io::duplex(4 * READ_BYTES);
        far.write_all(&vec![1; 3 * READ_BYTES]).await.unwrap();
        let mut socket = Coalescing::new(near);
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..3 {
            let read = Box::pin(socket.read_exact(&mut buffer));
            assert!(futures::poll!(read).is_ready(), "so much at once");
            let mut one = [0];
            let more = Box::pin(socket.read(&mut one));
            assert!(futures::poll!(more).is_pending(), "then a pause");
        }
        // The pause was the third one, and nothing is left: it is over nevertheless.
        drop(far);
        assert_eq!(socket.read(&mut buffer).await.unwrap(), 0);
    }
}
