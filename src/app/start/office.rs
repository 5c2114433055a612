//! `office create` and `join`: a device gets its identity while nothing runs on its data directory.

use crate::app::Failure;
use crate::app::cli::{CreateArgs, out};
use crate::core::{Rng, UnixTime};
use crate::identity::{Identity, IdentityError};
use crate::io::disk::{DataDir, IDENTITY, Lock};
use crate::io::{seed, wall};
use serde_json::json;
use std::path::Path;

/// Founds an office in the data directory and prints its recovery sheet, once.
///
/// # Errors
/// The directory already holds an identity, or is in use; a name does not fit.
pub fn create_office(data: &Path, args: &CreateArgs, json: bool) -> Result<(), Failure> {
    let (data, _lock, now, mut rng) = fresh(data)?;
    let founded = Identity::found(&args.office, &args.user, None, now, &mut rng);
    let (identity, sheet) = founded.map_err(|e| {
        let next = match e {
            IdentityError::UserName => "choose another --name",
            _ => "choose another NAME",
        };
        Failure::said(format!("cannot found {} with user {}: {e}", args.office, args.user), next)
    })?;
    data.write(IDENTITY, identity.to_bytes().reveal())?;
    let (office, aor, secret) = (identity.overlay(), identity.aor(), sheet.secret_text());
    if json {
        let done = format!("office {office} is founded");
        out(&json!({ "done": done, "office": office, "aor": aor, "peer_id": identity.peer_id().to_string(),
            "recovery": { "office": office, "secret": secret } })
        .to_string());
        return Ok(());
    }
    out(&format!("Office {office} is founded; this device is {aor} and lets others in."));
    out(&format!(
        "\nRecovery sheet of {office}. It is shown once and kept nowhere: put it on paper, off all machines."
    ));
    out(&format!("Whoever has it can make administrators of this office.\n\n    {secret}\n"));
    out("Next: chordial start, then chordial invite USER for everybody else.");
    Ok(())
}

/// A data directory without an identity, and what it takes to make one.
pub(super) fn fresh(data: &Path) -> Result<(DataDir, Lock, UnixTime, Rng), Failure> {
    let data = DataDir::open(data)?;
    let lock = data.lock()?;
    let now = wall::now();
    if let Some(bytes) = data.read(IDENTITY)? {
        let path = data.path().join(IDENTITY);
        let has = match Identity::from_bytes(&bytes, now) {
            Ok(identity) => format!("this device is {} already", identity.aor()),
            Err(e) => format!("{} is there and cannot be used: {e}", path.display()),
        };
        return Err(Failure::said(has, "use another --data for another identity"));
    }
    let rng = seed::rng().map_err(|source| Failure::System { what: "cannot make keys", source })?;
    Ok((data, lock, now, rng))
}
