//! The command line: reads the arguments, asks the running program, prints its answers.

mod args;
mod ask;
mod audio;
mod contacts;
mod password;
mod print;

pub use args::{
    AcceptArgs, BlockArgs, CallArgs, Cli, Command, Contacts, CreateArgs, DemoArgs, DtmfArgs, InviteArgs, JoinArgs,
    LinkArgs, LookupArgs, Office, Phone, PhoneAddArgs, SimArgs, StartArgs, WhichCall,
};
pub use ask::spinner;
pub use print::{out, table};

use super::{Failure, demo, start};
use crate::node::control;
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;

/// Carries out what the arguments say.
///
/// # Errors
/// Whatever kept the thing from being done.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { data, json, command } = cli;
    let data = || data.clone().map_or_else(|| default_data(|name| std::env::var_os(name)), Ok);
    match command {
        Command::Start(args) => start::run(start::prepare(&data()?, &args)?, json),
        Command::Demo(args) => client(demo::run(args.keep, json)),
        Command::Sim(args) => start::simulate(&args, json),
        Command::Office(Office::Create(args)) => start::create_office(&data()?, &args, json),
        Command::Office(Office::Join(args)) | Command::Join(args) => start::join_office(&data()?, &args, json),
        Command::Office(Office::Invite(args)) | Command::Invite(args) => {
            client(ask::one(&data()?, control::Command::Invite { user: args.user }, json))
        }
        Command::Phone(Phone::Add(args)) => client(ask::phone_add(&data()?, args, json)),
        Command::Phone(Phone::List) => client(ask::one(&data()?, control::Command::PhoneList, json)),
        Command::Phone(Phone::Remove { user }) => {
            client(ask::one(&data()?, control::Command::PhoneRemove { user }, json))
        }
        Command::Contacts(Contacts::Link(args)) => client(contacts::link(&data()?, args, json)),
        Command::Contacts(Contacts::Accept(args)) => {
            let command = control::Command::ContactAccept { who: args.who, name: args.name };
            client(ask::one(&data()?, command, json))
        }
        Command::Contacts(Contacts::Forget { name }) => {
            client(ask::one(&data()?, control::Command::ContactForget { name }, json))
        }
        Command::Strangers => client(ask::one(&data()?, control::Command::Strangers, json)),
        Command::Block(args) => client(ask::one(&data()?, control::Command::Block { target: args.target }, json)),
        Command::Unblock(args) => client(ask::one(&data()?, control::Command::Unblock { target: args.target }, json)),
        Command::Call(args) => client(ask::call(&data()?, args, json)),
        Command::Answer(w) => client(ask::one(&data()?, control::Command::Answer { call: w.call }, json)),
        Command::Hangup(w) => client(ask::one(&data()?, control::Command::Hangup { call: w.call }, json)),
        Command::Dtmf(args) => {
            let command = control::Command::Dtmf { call: args.call, digits: args.digits };
            client(ask::one(&data()?, command, json))
        }
        Command::Status => client(ask::one(&data()?, control::Command::Status, json)),
        Command::Peers => client(ask::one(&data()?, control::Command::Peers, json)),
        Command::Calls => client(ask::one(&data()?, control::Command::Calls, json)),
        Command::Audio => audio::list(json),
        Command::Stop => client(ask::one(&data()?, control::Command::Stop, json)),
        Command::Lookup(args) => client(ask::lookup(&data()?, args, json)),
    }
}

/// Where the data directory is when `--data` does not say.
fn default_data(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    let dir = |name| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(data) = dir("CHORDIAL_DATA") {
        return Ok(data);
    }
    let base = dir("XDG_DATA_HOME").or_else(|| dir("HOME").map(|home| home.join(".local/share")));
    base.map(|b| b.join("chordial")).ok_or(Failure::NoHome)
}

/// Runs what only asks others and waits.
fn client(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Failure::System { what: "cannot start the runtime", source })?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests;
