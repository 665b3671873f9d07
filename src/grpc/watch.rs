//! The Watch service: one gRPC stream, many watchers.
//!
//! Requests are passed to the hub by a task of the stream's own, since a client may ask
//! and be told at the same time. The task ends with the client's last request; the
//! stream goes on until the client drops it, the hub closes it, or the node leaves.
//! Responses come from the hub in chunks, ready to be written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use castd_actors::watch_hub::REQUESTS_TOGETHER;
use castd_actors::{Chunk, Error, StreamRequest, WatchHandle};
use castd_proto::etcdserverpb::WatchRequest;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::{Status, Streaming};

use super::call::Call;
use super::error::{Failure, in_go_words, status};
use super::faces::Faces;

pub(super) async fn watch(
    call: Call,
    requests: Streaming<WatchRequest>,
) -> Result<WatchStream, Failure> {
    let (handle, responses) = call.faces.company.watch().await?;
    let handle = Arc::new(handle);
    let (failed, failure) = oneshot::channel();
    let asker = asker(Arc::clone(&handle), call.faces, requests, failed);
    Ok(WatchStream { responses, failure: Some(failure), asker, _handle: handle })
}

/// Passes the client's requests on until it has no more of them.
fn asker(
    handle: Arc<WatchHandle>,
    faces: Arc<Faces>,
    mut requests: Streaming<WatchRequest>,
    failed: oneshot::Sender<Status>,
) -> AbortHandle {
    // A block, and nothing moved within: a function would have its arguments in it twice,
    // and a stream keeps it all the time.
    let asking = async move {
        let failure = ask(&handle, &mut requests).await;
        if let Some(status) = failure {
            let failures = &faces.metrics.faces.stream_failures;
            failures.with_label_values(&["receive", "watch"]).inc();
            // Nobody to tell: the stream is gone.
            let _ = failed.send(in_go_words(status));
        }
    };
    tokio::spawn(asking).abort_handle()
}

/// Asks until the client asks no more. Gives what was wrong with its last request.
async fn ask(handle: &WatchHandle, requests: &mut Streaming<WatchRequest>) -> Option<Status> {
    loop {
        let (asked, after) = gather(requests).await;
        // Boxed, because streams wait for requests far longer than for the hub.
        if !asked.is_empty() && !Box::pin(handle.ask(asked)).await {
            // The hub has closed the stream; its receiver says so too.
            return None;
        }
        match after {
            After::More => {}
            // Half-closed: the client still listens.
            After::End => return None,
            After::Failure(status) => return Some(status),
        }
    }
}

/// What comes after the requests that were gathered.
enum After {
    More,
    End,
    Failure(Status),
}

/// Waits for a request, and takes along what has arrived with it.
async fn gather<S>(requests: &mut S) -> (Vec<StreamRequest>, After)
where
    S: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    let mut gathered = Vec::new();
    let mut next = requests.next().await;
    loop {
        match next {
            Some(Ok(request)) => gathered.extend(asked(request)),
            Some(Err(status)) => return (gathered, After::Failure(status)),
            None => return (gathered, After::End),
        }
        if gathered.len() == REQUESTS_TOGETHER {
            return (gathered, After::More);
        }
        let Some(ready) = requests.next().now_or_never() else {
            return (gathered, After::More);
        };
        next = ready;
    }
}

/// The hub's form of a request; `None` for one that this version does not know.
fn asked(request: WatchRequest) -> Option<StreamRequest> {
    request.request_union.map(|request| match request {
        RequestUnion::CreateRequest(create) => StreamRequest::Create(create),
        RequestUnion::CancelRequest(cancel) => StreamRequest::Cancel(cancel.watch_id),
        RequestUnion::ProgressRequest(_) => StreamRequest::Progress,
    })
}

pub(super) struct WatchStream {
    responses: mpsc::Receiver<Box<Chunk>>,
    /// What was wrong with the client's last request; `None` once it has no more.
    failure: Option<oneshot::Receiver<Status>>,
    asker: AbortHandle,
    /// Keeps the hub's side of the stream open.
    _handle: Arc<WatchHandle>,
}

impl WatchStream {
    fn poll_failure(&mut self, context: &mut Context<'_>) -> Option<Status> {
        let failure = self.failure.as_mut()?;
        match Pin::new(failure).poll(context) {
            Poll::Pending => None,
            Poll::Ready(told) => {
                self.failure = None;
                told.ok()
            }
        }
    }
}

impl Stream for WatchStream {
    type Item = Result<Chunk, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.responses.poll_recv(context) {
            Poll::Ready(Some(chunk)) => Poll::Ready(Some(Ok(*chunk))),
            Poll::Ready(None) => Poll::Ready(Some(Err(status(Error::Stopped)))),
            Poll::Pending => match self.poll_failure(context) {
                Some(status) => Poll::Ready(Some(Err(status))),
                None => Poll::Pending,
            },
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.asker.abort();
    }
}

#[cfg(test)]
mod tests {
    use castd_proto::etcdserverpb::WatchCancelRequest;
    use futures::stream;
    use tonic::Code;

    use super::*;

    fn cancel(watch_id: i64) -> Result<WatchRequest, Status> {
        let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
        Ok(WatchRequest { request_union: Some(cancel) })
    }

    fn ids(gathered: &[StreamRequest]) -> Vec<i64> {
        let id = |request: &StreamRequest| match request {
            StreamRequest::Cancel(id) => *id,
            other => panic!("{other:?}"),
        };
        gathered.iter().map(id).collect()
    }

    #[tokio::test]
    async fn requests_that_are_there_are_taken_together() {
        let unknown = Ok(WatchRequest { request_union: None });
        let there = stream::iter([cancel(1), unknown, cancel(2)]);
        let mut requests = there.chain(stream::pending());
        let (gathered, after) = gather(&mut requests).await;
        assert_eq!(ids(&gathered), [1, 2]);
        assert!(matches!(after, After::More));
        assert!(futures::poll!(Box::pin(gather(&mut requests))).is_pending());
    }

    #[tokio::test]
    async fn a_flood_of_requests_is_taken_in_pieces_and_in_order() {
        let count = REQUESTS_TOGETHER as i64 + 1;
        let mut requests = stream::iter((0..count).map(cancel));
        let (gathered, after) = gather(&mut requests).await;
        assert_eq!(ids(&gathered), (0..count - 1).collect::<Vec<_>>());
        assert!(matches!(after, After::More));
        let (gathered, after) = gather(&mut requests).await;
        assert_eq!(ids(&gathered), [count - 1]);
        assert!(matches!(after, After::End));
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_still_asked() {
        let mut requests = stream::iter([cancel(1), Err(Status::internal("broken"))]);
        let (gathered, after) = gather(&mut requests).await;
        assert_eq!(ids(&gathered), [1]);
        let After::Failure(status) = after else { panic!("no failure") };
        assert_eq!((status.code(), status.message()), (Code::Internal, "broken"));
    }
}
