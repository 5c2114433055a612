//! demo
use super::Failure;
use std::path::PathBuf;
/// run
pub async fn run(keep: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let _ = (keep, json);
    Ok(())
}
