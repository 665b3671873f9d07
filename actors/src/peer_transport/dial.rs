//! Connections to other members: the one place where they are made.

use std::time::Duration;

use castd_proto::castdpb::peer_client::PeerClient;
use tonic::transport::{Channel, Endpoint};

use super::settings::{FRAME_BYTES_MAX, PeerSettings};
use super::wire::Refusal;

/// What the other side may send on one stream before we read it, in bytes. Bulk flows the
/// other way, and its windows are the listener's.
const WINDOW_BYTES: u32 = 1 << 20;

/// Why a link does not work.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The URL is none to connect to.
    #[error("peer URL {url}: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The member has no URL.
    #[error("the member has no peer URL")]
    NoUrl,
    /// The other side does not answer in time.
    #[error("{url} does not answer")]
    Silent {
        /// The URL.
        url: String,
    },
    /// No connection can be made.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// The URL.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// The other side does not want to talk to us.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other side ended the stream, or the connection broke.
    #[error("{0}")]
    Broken(String),
}

impl From<tonic::Status> for LinkError {
    fn from(status: tonic::Status) -> Self {
        match Refusal::of(&status) {
            Some(refusal) => Self::Refused(refusal),
            None => Self::Broken(with_causes(status.message().to_owned(), &status)),
        }
    }
}

/// A client on a connection of its own. The name in the URL is resolved anew. The connection
/// is given up when the other side gives no sign of life for `silence`: on a slow line, that
/// sign waits behind what is on its way.
///
/// The seat of TLS: a connection that is to be encrypted is so from here on.
pub(super) async fn dial(
    url: &str,
    settings: &PeerSettings,
    silence: Duration,
) -> Result<PeerClient<Channel>, LinkError> {
    let invalid = |reason: String| LinkError::Url { url: url.to_owned(), reason };
    if !url.starts_with("http://") && !url.starts_with("unix://") {
        return Err(invalid("only http and unix are spoken between members".to_owned()));
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| invalid(reason(&e)))?;
    let interval = silence / 2;
    let channel = endpoint
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(silence - interval)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await
        .map_err(|e| LinkError::Connect { url: url.to_owned(), reason: reason(&e) })?;
    Ok(PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX))
}

/// What an error says, and what its causes say that it does not.
fn reason(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error)
}

fn with_causes(mut text: String, error: &dyn std::error::Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
