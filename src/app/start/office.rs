//! `office create` and `join`: a device gets its identity while nothing runs on its data directory.

use crate::app::Failure;
use crate::app::cli::{CreateArgs, JoinArgs, out, spinner};
use crate::core::{Rng, UnixTime};
use crate::identity::{EnrolError, Identity, IdentityError, InviteCode, Joining};
use crate::io::disk::{DataDir, IDENTITY, Lock, PEERS};
use crate::io::enrol::{EnrolFault, enrol};
use crate::io::{seed, wall};
use indicatif::ProgressBar;
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

/// Joins an office by the code that an administrator's `invite` printed.
///
/// # Errors
/// The directory already holds an identity, or is in use; the code is mistyped, spent or expired; nobody answers.
pub async fn join_office(data: &Path, args: &JoinArgs, json: bool) -> Result<(), Failure> {
    let code = InviteCode::parse(&args.code).map_err(|e| {
        let next = match e {
            EnrolError::Typo(_) => "type it again as it was printed",
            _ => "ask for a new one: chordial invite USER",
        };
        Failure::said(e.to_string(), next)
    })?;
    let (data, _lock, now, mut rng) = fresh(data)?;
    let joining = Joining::new(code.clone(), &host_name(), &mut rng);
    let joining = joining.map_err(|e| Failure::said(e.to_string(), "rename this machine"))?;
    let bar = if json { ProgressBar::hidden() } else { spinner() };
    bar.set_message("asking to be let in");
    let answer = enrol(&joining, &code.addrs, &mut rng).await.map_err(|e| {
        let next = match &e {
            EnrolFault::Refused { .. } => "a code works once, for 24 hours; ask for a new one: chordial invite USER",
            EnrolFault::Unreachable { .. } => "is chordial running there, and is that address reachable from here?",
            EnrolFault::Answer { .. } => "run the same version on both",
        };
        Failure::said(e.to_string(), next)
    })?;
    bar.finish_and_clear();
    let identity = joining.finish(&answer, now).map_err(|e| {
        Failure::said(format!("the answer is not to be trusted: {e}"), "ask for a new code: chordial invite USER")
    })?;
    data.write(IDENTITY, identity.to_bytes().reveal())?;
    // Who let us in is the first peer to join the ring by.
    let peers: String = code.addrs.iter().map(|a| format!("{a}\n")).collect();
    data.write(PEERS, peers.as_bytes())?;
    let (office, aor) = (identity.overlay(), identity.aor());
    let done = format!("joined {office} as {aor}");
    if json {
        out(&json!({ "done": done, "office": office, "aor": aor, "peer_id": identity.peer_id().to_string() })
            .to_string());
    } else {
        out(&format!("{done}\nNext: chordial start"));
    }
    Ok(())
}

/// What people call this machine; it stands in the device's certificate, which members can read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(32).collect()
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
