//! What PeerTransport is given of the company: the state it sends to others,
//! and the room for states that come.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use raft::eraftpb::ConfState;

use crate::peer_transport::{SnapshotExport, SnapshotSource, SpoolRoom, SpoolSink};
use crate::shared::Error;
use crate::snapshot::{Export, Exporter, Spool, SpoolWriter};

impl SnapshotSource for Exporter {
    fn export(&self) -> BoxFuture<'_, Result<Box<dyn SnapshotExport>, Error>> {
        Exporter::export(self)
            .map(|export| export.map(|export| Box::new(export) as Box<dyn SnapshotExport>))
            .boxed()
    }
}

impl SnapshotExport for Export {
    fn index(&self) -> u64 {
        Export::index(self)
    }

    fn term(&self) -> u64 {
        Export::term(self)
    }

    fn conf_state(&self) -> ConfState {
        Export::conf_state(self)
    }

    fn size_hint(&self) -> u64 {
        Export::size_hint(self)
    }

    fn into_pieces(self: Box<Self>, piece_bytes: usize) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(Export::into_pieces(*self, piece_bytes))
    }
}

/// The directory that received snapshots wait in.
pub(super) struct SpoolDir(pub(super) PathBuf);

impl SpoolRoom for SpoolDir {
    fn create(&self) -> io::Result<Box<dyn SpoolSink>> {
        Ok(Box::new(SpoolWriter::create(&self.0)?))
    }
}

impl SpoolSink for SpoolWriter {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        SpoolWriter::write(self, piece)
    }

    fn finish(self: Box<Self>) -> io::Result<Spool> {
        SpoolWriter::finish(*self).map_err(io::Error::other)
    }
}
