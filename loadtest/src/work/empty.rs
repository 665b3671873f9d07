//! A call that does nothing, and the server that does nothing with it: the floor under every
//! other figure on the same machine.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::driver::{Caller, Done, Share, Work};
use crate::error::LoadError;
use crate::grpc::{CallError, Route, Rpc};

/// The method's path.
const EMPTY: &str = "/loadtest.Empty/Call";
/// Receive windows of streams and connections.
const WINDOW_BYTES: u32 = 16 << 20;

/// Request and answer: no fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Nothing {}

/// Empty calls.
#[derive(Debug)]
pub(crate) struct EmptyWork;

/// One client of empty calls.
#[derive(Debug)]
pub(crate) struct EmptyCaller {
    route: Route,
    rpc: Rpc,
}

impl Work for EmptyWork {
    const KINDS: &'static [&'static str] = &["empty"];
    type Room = ();
    type Caller = EmptyCaller;
    type Harvest = ();

    fn room(&self, _: Share) {}

    fn caller(&self, _: &Rc<()>, _: usize, rpc: Rpc) -> EmptyCaller {
        EmptyCaller { route: rpc.route(EMPTY), rpc }
    }

    fn harvest(&self, (): &()) {}
}

impl Caller for EmptyCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        let Nothing {} = self.rpc.unary(&self.route, &Nothing {}).await?;
        Ok(Done::one(0))
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}

/// Serves empty calls on `listen` until the process ends: one current-thread runtime, large
/// windows, no Nagle delay, no router.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) fn serve(listen: SocketAddr) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LoadError::Runtime)?;
    runtime.block_on(async {
        let failed = |source| LoadError::File {
            what: "cannot listen on",
            path: listen.to_string().into(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        println!("serving empty calls on {bound}, pid {}", std::process::id());
        loop {
            let (socket, _) = listener.accept().await.map_err(failed)?;
            tokio::spawn(session(socket));
        }
    })
}

async fn session(socket: TcpStream) {
    let served = async {
        socket.set_nodelay(true)?;
        http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_concurrent_streams(None)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(EmptyService))
            .await
            .map_err(std::io::Error::other)
    };
    if let Err(error) = served.await {
        eprintln!("connection: {error}");
    }
}

/// tonic's handling of a unary method, with nothing around it.
#[derive(Debug, Clone, Copy)]
struct EmptyService;

impl Service<http::Request<hyper::body::Incoming>> for EmptyService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != EMPTY {
                let text = format!("no method {}", request.uri().path());
                return Ok(Status::new(Code::Unimplemented, text).into_http());
            }
            let codec: ProstCodec<Nothing, Nothing> = ProstCodec::default();
            Ok(Grpc::new(codec).unary(Echo, request).await)
        })
    }
}

/// The method itself.
struct Echo;

impl UnaryService<Nothing> for Echo {
    type Response = Nothing;
    type Future = Ready<Result<Response<Nothing>, Status>>;

    fn call(&mut self, request: Request<Nothing>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
