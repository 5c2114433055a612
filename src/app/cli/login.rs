//! `login` and `password`. The password stays in this process: the running program gets what is made of it, the office a
//! blinded form.

use super::args::{LoginArgs, PasswordArgs};
use super::{ask, out, password, print, spinner};
use crate::app::Failure;
use crate::core::Redacted;
use crate::identity::login::{COST, PasswordParts};
use crate::identity::split_aor;
use crate::io::disk::DataDir;
use crate::io::{login, seed};
use crate::node::control::{Command, Reply};
use serde_json::json;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

/// `password`.
pub async fn set_password(data: &Path, args: &PasswordArgs, json: bool) -> Result<(), Failure> {
    // Before anybody types a password, see whose it is to be.
    let Reply::Status(status) = ask::request(data, &Command::Status, json).await? else {
        return Err(ask::unexpected());
    };
    let Some((user, overlay)) = split_aor(&status.aor).filter(|_| !status.peer_id.is_empty()) else {
        return Err(Failure::said("this is a plain SIP phone", "set its password at its registrar"));
    };
    let password = password::new(args.password_stdin, &status.aor)?;
    let mut rng = seed::rng().map_err(|source| Failure::System { what: "cannot draw keys", source })?;
    let parts = PasswordParts::make(user, overlay, &password, COST, &mut rng);
    let parts = parts.map_err(|e| Failure::said(e.to_string(), "choose another password"))?;
    let command = Command::Password { parts: Redacted::new(parts.to_hex().to_string()) };
    let reply = ask::request(data, &command, json).await?;
    match (json, &reply) {
        (true, Reply::Password { holders, needed }) => {
            out(&json!({ "password": "set", "aor": status.aor, "holders": holders, "needed": needed }).to_string());
        }
        _ => out(print::reply(&reply).trim_end()),
    }
    Ok(())
}

/// `login`.
pub fn log_in(data: &Path, args: &LoginArgs, json: bool) -> Result<(), Failure> {
    let Some((user, office)) = args.user.trim_start_matches("sip:").split_once('@') else {
        return Err(Failure::said(format!("{} names no office", args.user), "write USER@OFFICE"));
    };
    let via = args.via.as_deref().map(addresses).transpose()?;
    let data = DataDir::open(data)?;
    let _lock = data.lock()?;
    let failed = |e: crate::io::office::OfficeError| Failure::said(e.to_string(), e.next());
    crate::io::office::free(&data).map_err(failed)?;
    let password = password::existing(args.password_stdin, &format!("Password for {}: ", args.user))?;
    let bar = if json { indicatif::ProgressBar::hidden() } else { spinner() };
    let told = |what: &str| bar.set_message(what.to_owned());
    let wanted = login::Wanted { user, office, password: &password, label: &args.label, via: via.unwrap_or_default() };
    let identity = login::log_in(&data, &wanted, told);
    bar.finish_and_clear();
    let identity = identity.map_err(failed)?;
    if json {
        out(&json!({ "logged_in": identity.overlay(), "aor": identity.aor() }).to_string());
    } else {
        out(&format!("this device is now one of {}; now: chordial start", identity.aor()));
    }
    Ok(())
}

/// The addresses of `HOST:PORT`.
///
/// # Errors
/// There are none.
pub fn addresses(via: &str) -> Result<Vec<SocketAddr>, Failure> {
    let found = via.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => {
            Err(Failure::said(format!("--via: {via} has no address"), "name a host and a port, such as 192.0.2.7:5061"))
        }
        Err(e) => Err(Failure::said(format!("--via: {via}: {e}"), "name a host and a port, such as 192.0.2.7:5061")),
    }
}
