//! The Watch service: one gRPC stream, many watchers.
//!
//! Requests are passed to the hub by a task of the stream's own, since a client may ask
//! and be told at the same time. The task ends with the client's last request; the
//! stream goes on until the client drops it, the hub closes it, or the node leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use castd_actors::{Chunk, Error, StreamRequest, WatchHandle};
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{WatchRequest, WatchResponse};
use futures::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::{Status, Streaming};

use super::call::{Call, Responses};
use super::codec::Answer;
use super::error::{Failure, in_go_words, status};

pub(super) async fn watch(
    call: Call,
    requests: Streaming<WatchRequest>,
) -> Result<Responses<Answer<WatchResponse>>, Failure> {
    let (handle, responses) = call.faces.company.watch().await?;
    let handle = Arc::new(handle);
    let (failed, failure) = oneshot::channel();
    let asker = tokio::spawn(ask(Arc::clone(&handle), call, requests, failed)).abort_handle();
    Ok(Box::pin(WatchStream {
        decoded: Default::default(),
        responses,
        failure: Some(failure),
        asker,
        _handle: handle,
    }))
}

/// Passes the client's requests on until it has no more of them.
async fn ask(
    handle: Arc<WatchHandle>,
    call: Call,
    mut requests: Streaming<WatchRequest>,
    failed: oneshot::Sender<Status>,
) {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            // Half-closed: the client still listens.
            Ok(None) => return,
            Err(status) => {
                let failures = &call.faces.metrics.faces.stream_failures;
                failures.with_label_values(&["receive", "watch"]).inc();
                // Nobody to tell: the stream is gone.
                let _ = failed.send(in_go_words(status));
                return;
            }
        };
        let asked = match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => StreamRequest::Create(create),
            Some(RequestUnion::CancelRequest(cancel)) => StreamRequest::Cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => StreamRequest::Progress,
            None => continue,
        };
        if !handle.ask(vec![asked]).await {
            // The hub has closed the stream; its receiver says so too.
            return;
        }
    }
}

struct WatchStream {
    responses: mpsc::Receiver<Chunk>,
    decoded: std::collections::VecDeque<WatchResponse>,
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
    type Item = Result<Answer<WatchResponse>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(response) = self.decoded.pop_front() {
            return Poll::Ready(Some(Ok(Answer::Message(response))));
        }
        match self.responses.poll_recv(context) {
            Poll::Ready(Some(chunk)) => {
                self.decoded.extend(chunk.decode().unwrap_or_default());
                self.poll_next(context)
            }
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
