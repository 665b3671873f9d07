//! The Auth service of a member on which authentication is off.

use castd_actors::Error;
use castd_proto::etcdserverpb::{
    AuthStatusRequest, AuthStatusResponse, AuthenticateRequest, AuthenticateResponse,
};

use super::call::Call;
use super::error::Failure;

/// The revision of an auth store in which nothing was ever changed.
const FIRST_REVISION: u64 = 1;

pub(super) async fn status(
    call: Call,
    _request: AuthStatusRequest,
) -> Result<AuthStatusResponse, Failure> {
    let header = call.header_now();
    Ok(AuthStatusResponse { header, enabled: false, auth_revision: FIRST_REVISION })
}

pub(super) async fn authenticate(
    _call: Call,
    _request: AuthenticateRequest,
) -> Result<AuthenticateResponse, Failure> {
    Err(Error::AuthNotEnabled.into())
}
