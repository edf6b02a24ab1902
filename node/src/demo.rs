//! demo placeholder
use crate::api::ApiError;
/// demo
pub fn demo(_json: bool, _args: &crate::cli::args::DemoArgs) -> Result<(), ApiError> { Err(ApiError::internal("not yet")) }
