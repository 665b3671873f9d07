//! Gets and puts in a given ratio.

use std::rc::Rc;

use castd_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::Rng;

use super::KeyRoom;
use super::put::{PUT, put};
use super::range::{RANGE, check_get};
use crate::driver::{Caller, Done, Share, Work};
use crate::grpc::{CallError, Route, Rpc};
use crate::keys::{KeySpace, Picker, Values};

/// Reads and writes the keys of a space, which must have been filled.
#[derive(Debug)]
pub(crate) struct MixedWork {
    /// The keys.
    pub(crate) space: KeySpace,
    /// The values.
    pub(crate) values: Values,
    /// Share of reads, from 0 to 1.
    pub(crate) reads: f64,
    /// Whether the member may answer reads from its own state.
    pub(crate) serializable: bool,
}

/// One client that reads and writes.
#[derive(Debug)]
pub(crate) struct MixedCaller {
    room: Rc<KeyRoom>,
    picker: Picker,
    reads: f64,
    template: RangeRequest,
    range: Route,
    put: Route,
    rpc: Rpc,
}

impl Work for MixedWork {
    const KINDS: &'static [&'static str] = &["get", "put"];
    type Room = KeyRoom;
    type Caller = MixedCaller;
    type Harvest = ();

    fn room(&self, share: Share) -> KeyRoom {
        KeyRoom::new(&self.space, &self.values, share)
    }

    fn caller(&self, room: &Rc<KeyRoom>, client: usize, rpc: Rpc) -> MixedCaller {
        MixedCaller {
            room: Rc::clone(room),
            picker: room.picker(client),
            reads: self.reads,
            template: RangeRequest { serializable: self.serializable, ..RangeRequest::default() },
            range: rpc.route(RANGE),
            put: rpc.route(PUT),
            rpc,
        }
    }

    fn harvest(&self, _: &KeyRoom) {}
}

impl Caller for MixedCaller {
    async fn call(&mut self) -> Result<Done, CallError> {
        let key = self.room.table.key(self.picker.pick());
        if self.picker.random().random_bool(self.reads) {
            self.template.key = key;
            let answer: RangeResponse = self.rpc.unary(&self.range, &self.template).await?;
            check_get(&answer)?;
            return Ok(Done::one(0));
        }
        let value = self.room.values.value(self.picker.random());
        put(&mut self.rpc, &self.put, key, value).await?;
        Ok(Done::one(1))
    }

    fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}
