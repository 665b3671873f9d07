//! Writes of one key each.

use std::rc::Rc;

use bytes::Bytes;
use castd_proto::etcdserverpb::{PutRequest, PutResponse};

use super::KeyRoom;
use crate::driver::{Caller, Done, Share, Work};
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, Picker, Values};

/// The method's path.
pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";

/// Puts values under the keys of a space.
#[derive(Debug)]
pub(crate) struct PutWork {
    /// The keys.
    pub(crate) space: KeySpace,
    /// The values.
    pub(crate) values: Values,
}

/// One writing client.
#[derive(Debug)]
pub(crate) struct PutCaller {
    room: Rc<KeyRoom>,
    picker: Picker,
    route: Route,
    rpc: Rpc,
}

/// Puts one value.
///
/// # Errors
/// As the server's, or of the connection.
pub(crate) async fn put(
    rpc: &mut Rpc,
    route: &Route,
    key: Bytes,
    value: Bytes,
) -> Result<PutResponse, CallError> {
    rpc.unary(route, &PutRequest { key, value, ..PutRequest::default() }).await
}

impl Work for PutWork {
    const KINDS: &'static [&'static str] = &["put"];
    type Room = KeyRoom;
    type Caller = PutCaller;
    type Harvest = ();

    fn room(&self, share: Share) -> KeyRoom {
        KeyRoom::new(&self.space, &self.values, share)
    }

    fn caller(&self, room: &Rc<KeyRoom>, client: usize, rpc: Rpc) -> PutCaller {
        let (route, picker) = (rpc.route(PUT), room.picker(client));
        PutCaller { room: Rc::clone(room), picker, route, rpc }
    }

    fn harvest(&self, _: &KeyRoom) {}
}

impl Caller for PutCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        let key = self.room.table.key(self.picker.pick());
        let value = self.room.values.value(self.picker.random());
        put(&mut self.rpc, &self.route, key, value).await?;
        Ok(Done::one(0))
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}
