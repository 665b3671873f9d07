//! A stream of responses that ends when the node does, or when the leader is lost.

use std::pin::Pin;
use std::task::{Context, Poll};

use castd_actors::Error;
use futures::Stream;
use tonic::{Code, Status};

use super::call::Ending;
use super::error::status;
use super::faces::{Faces, Phase};

/// Why a stream is ended from here.
pub(super) type Interrupt = Pin<Box<dyn Future<Output = Error> + Send>>;

/// Resolves when streams are to end: with `Stopped` when the node leaves, and, if the
/// client asked for a leader, with `NoLeader` when there has been none for too long.
pub(super) fn interrupt(faces: &Faces, wants_leader: bool) -> Interrupt {
    let mut phase = faces.phase();
    let mut leaderless = faces.leaderless();
    Box::pin(async move {
        let leaves = phase.wait_for(|phase| *phase > Phase::Serving);
        let loses = async {
            // An error says that nobody watches any more: the node is on its way out.
            if !wants_leader || leaderless.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = leaves => Error::Stopped,
            () = loses => Error::NoLeader,
        }
    })
}

/// A method's responses, with an eye on what ends them early, and their end counted.
pub(super) struct Supervised<S> {
    /// Gone once the stream has ended, and with it what it holds in the company.
    responses: Option<S>,
    interrupt: Interrupt,
    ending: Option<Ending>,
}

impl<S> Supervised<S> {
    pub(super) fn new(responses: S, interrupt: Interrupt, ending: Option<Ending>) -> Self {
        Self { responses: Some(responses), interrupt, ending }
    }

    fn end(&mut self, code: Code) {
        self.responses = None;
        if let Some(mut ending) = self.ending.take() {
            ending.code(code);
        }
    }

    fn fail<T>(&mut self, status: Status) -> Poll<Option<Result<T, Status>>> {
        self.end(status.code());
        Poll::Ready(Some(Err(status)))
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Supervised<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(responses) = &mut this.responses else { return Poll::Ready(None) };
        match Pin::new(responses).poll_next(context) {
            Poll::Ready(Some(Ok(response))) => Poll::Ready(Some(Ok(response))),
            Poll::Ready(Some(Err(status))) => this.fail(status),
            Poll::Ready(None) => {
                this.end(Code::Ok);
                Poll::Ready(None)
            }
            // Only an idle stream looks up: a busy one has no time for it.
            Poll::Pending => match this.interrupt.as_mut().poll(context) {
                Poll::Ready(error) => this.fail(status(error)),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}
