//! `office owner` and `office revoke`: what takes the root key. The recovery sheet is typed, used for the signatures that the command
//! is about, and kept nowhere.

use super::args::RevokeArgs;
use super::{ask, password};
use crate::app::Failure;
use crate::io::control::Client;
use crate::node::control::Command;
use std::path::Path;

const SHEET: &str = "Recovery sheet (the groups of letters and digits): ";

/// `office owner add`.
pub async fn owner_add(data: &Path, user: String, json: bool) -> Result<(), Failure> {
    drop(Client::connect(data).await?);
    let sheet = password::ask(SHEET)?;
    ask::one(data, Command::OwnerAdd { user, sheet }, json).await
}

/// `office revoke`: by this administrator's own word, or with `--by-root` another administrator by the root's.
pub async fn revoke(data: &Path, args: RevokeArgs, json: bool) -> Result<(), Failure> {
    let RevokeArgs { target, by_root, since } = args;
    if !by_root {
        return ask::one(data, Command::OfficeRevoke { target }, json).await;
    }
    drop(Client::connect(data).await?);
    let sheet = password::ask(SHEET)?;
    ask::one(data, Command::EnrollerRevoke { target, sheet, since }, json).await
}
