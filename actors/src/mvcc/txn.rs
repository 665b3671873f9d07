//! Transactions: compare, then one of two lists of operations.

use castd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use castd_proto::etcdserverpb::request_op::Request;
use castd_proto::etcdserverpb::response_op::Response;
use castd_proto::etcdserverpb::{
    Compare, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use std::cmp::Ordering;

use super::index::Entry;
use super::revision::KeyRange;
use super::store::{Store, Transaction};
use crate::shared::Error;

/// Which branch a transaction takes, and the same for the transactions inside
/// of that branch, in order. All compares are decided before anything changes.
#[derive(Debug)]
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Store {
    /// Applies a transaction: all of it, or nothing with an error.
    ///
    /// # Errors
    /// What an operation of the chosen branches meets: [`Error::KeyNotFound`],
    /// [`Error::LeaseNotFound`], [`Error::Compacted`], [`Error::FutureRevision`].
    pub fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let path = self.choose(&request);
        self.check(&request, &path)?;
        let mut transaction = self.begin();
        let response = self.run(&mut transaction, request, &path)?;
        self.commit(&transaction);
        Ok(response)
    }

    fn choose(&self, request: &TxnRequest) -> Path {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let nested = branch(request, succeeded)
            .iter()
            .filter_map(|op| match &op.request {
                Some(Request::RequestTxn(inner)) => Some(self.choose(inner)),
                _ => None,
            })
            .collect();
        Path { succeeded, nested }
    }

    /// Finds what would fail, before anything changes.
    fn check(&self, request: &TxnRequest, path: &Path) -> Result<(), Error> {
        let mut nested = path.nested.iter();
        for op in branch(request, path.succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    self.reader(None).check_revision(range.revision)?;
                }
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(inner)) => {
                    self.check(inner, nested.next().expect("choose() made one for each"))?;
                }
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        transaction: &mut Transaction,
        request: TxnRequest,
        path: &Path,
    ) -> Result<TxnResponse, Error> {
        let ops = if path.succeeded { request.success } else { request.failure };
        let mut nested = path.nested.iter();
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match op.request {
                Some(Request::RequestRange(range)) => {
                    let mut response = self.reader(Some(transaction)).range(&range)?;
                    response.header = self.header(transaction);
                    Some(Response::ResponseRange(response))
                }
                Some(Request::RequestPut(put)) => {
                    let mut response = self.put_in(transaction, put);
                    response.header = self.header(transaction);
                    Some(Response::ResponsePut(response))
                }
                Some(Request::RequestDeleteRange(delete)) => {
                    let mut response = self.delete_range_in(transaction, &delete);
                    response.header = self.header(transaction);
                    Some(Response::ResponseDeleteRange(response))
                }
                Some(Request::RequestTxn(inner)) => {
                    let path = nested.next().expect("choose() made one for each");
                    let mut response = self.run(transaction, inner, path)?;
                    response.header.get_or_insert_default();
                    Some(Response::ResponseTxn(response))
                }
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse { header: None, succeeded: path.succeeded, responses })
    }

    /// Inside of a transaction etcd's headers carry the revision alone.
    fn header(&self, transaction: &Transaction) -> Option<ResponseHeader> {
        let revision = self.reader(Some(transaction)).revision;
        Some(ResponseHeader { revision, ..Default::default() })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        if let KeyRange::Single(key) = &range {
            let entry = self.index.get(key).filter(Entry::is_live);
            return self.entry_holds(compare, entry);
        }
        let mut live =
            self.index.iter_range(&range).filter(|(_, entry)| entry.is_live()).peekable();
        if live.peek().is_none() {
            return self.entry_holds(compare, None);
        }
        live.all(|(_, entry)| self.entry_holds(compare, Some(entry)))
    }

    /// Compares one key; one that does not exist compares as zeros, and its
    /// value as nothing at all.
    fn entry_holds(&self, compare: &Compare, entry: Option<Entry>) -> bool {
        let number = |of: fn(&Entry) -> i64| entry.as_ref().map_or(0, of);
        // A target that is not known compares as equal, and a result that is not
        // known holds: both as in etcd.
        let Ok(target) = CompareTarget::try_from(compare.target) else {
            return result_holds(compare, Ordering::Equal);
        };
        let ordering = match (target, &compare.target_union) {
            (CompareTarget::Value, union) => {
                let Some(entry) = entry else { return false };
                let wanted: &[u8] = match union {
                    Some(TargetUnion::Value(value)) => value,
                    _ => &[],
                };
                let Some(record) = self.reader(None).record(entry.revision) else { return false };
                record.value.as_ref().cmp(wanted)
            }
            (CompareTarget::Version, union) => {
                let wanted = match union {
                    Some(TargetUnion::Version(wanted)) => *wanted,
                    _ => 0,
                };
                number(|entry| entry.version).cmp(&wanted)
            }
            (CompareTarget::Create, union) => {
                let wanted = match union {
                    Some(TargetUnion::CreateRevision(wanted)) => *wanted,
                    _ => 0,
                };
                number(|entry| entry.create_revision).cmp(&wanted)
            }
            (CompareTarget::Mod, union) => {
                let wanted = match union {
                    Some(TargetUnion::ModRevision(wanted)) => *wanted,
                    _ => 0,
                };
                number(|entry| entry.revision.main).cmp(&wanted)
            }
            (CompareTarget::Lease, union) => {
                let wanted = match union {
                    Some(TargetUnion::Lease(wanted)) => *wanted,
                    _ => 0,
                };
                number(|entry| entry.lease).cmp(&wanted)
            }
        };
        result_holds(compare, ordering)
    }
}

fn result_holds(compare: &Compare, ordering: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        Err(_) => true,
    }
}

fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &request.success } else { &request.failure }
}
