//! The command line: reads the arguments, asks the running program, prints its answers.

mod args;
mod ask;
mod audio;
mod contacts;
mod login;
mod office;
pub mod password;
mod print;

pub use args::{
    AcceptArgs, Adapters, ArchiveArgs, BlockArgs, CallArgs, Cli, Command, Contacts, CreateArgs, DemoArgs, Devices,
    DtmfArgs, InviteArgs, JoinArgs, LinkArgs, LoginArgs, LookupArgs, MessageArgs, Messages, Office, Owner,
    PasswordArgs, Phone, PhoneAdapter, PhoneAddArgs, RecoverArgs, RevokeArgs, SimArgs, StartArgs, WhichCall,
};
pub use ask::spinner;
pub use login::addresses;
pub use password::asked;
pub use print::{held, message_line, out, renamed, table};

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
            let command = match args.pair {
                true => control::Command::Pair { user: args.user },
                false => control::Command::Invite { user: args.user, extension: args.extension },
            };
            client(ask::one(&data()?, command, json))
        }
        Command::Office(Office::Merge { code }) => {
            client(ask::one(&data()?, control::Command::OfficeMerge { code }, json))
        }
        Command::Office(Office::Users) => client(ask::one(&data()?, control::Command::OfficeUsers, json)),
        Command::Office(Office::Revoke(args)) | Command::Revoke(args) => client(office::revoke(&data()?, args, json)),
        Command::Office(Office::Adapters(adapters)) => {
            let (device, allow) = match adapters {
                Adapters::Allow { device } => (device, true),
                Adapters::Forbid { device } => (device, false),
            };
            client(ask::one(&data()?, control::Command::OfficeAdapters { device, allow }, json))
        }
        Command::Office(Office::Owner(Owner::Add { user })) => client(office::owner_add(&data()?, user, json)),
        Command::Office(Office::Recover(args)) => start::recover_office(&data()?, &args, json),
        Command::Office(Office::Backup(args)) => start::backup(&data()?, &args, json),
        Command::Office(Office::Restore(args)) => start::restore(&data()?, &args, json),
        Command::Devices { command: None } => client(ask::one(&data()?, control::Command::Devices, json)),
        Command::Devices { command: Some(Devices::Add { label, with_key }) } => {
            client(ask::one(&data()?, control::Command::DeviceAdd { label, with_key }, json))
        }
        Command::Devices { command: Some(Devices::Remove { device }) } => {
            client(ask::one(&data()?, control::Command::DeviceRemove { device }, json))
        }
        Command::Contacts(Contacts::Add { name, target }) => {
            client(ask::one(&data()?, control::Command::ContactAdd { name, target }, json))
        }
        Command::Contacts(Contacts::Remove { name }) => {
            client(ask::one(&data()?, control::Command::ContactRemove { name }, json))
        }
        Command::Contacts(Contacts::List) => client(ask::one(&data()?, control::Command::ContactList, json)),
        Command::Login(args) => login::log_in(&data()?, &args, json),
        Command::Password(args) => client(login::set_password(&data()?, &args, json)),
        Command::Phone(Phone::Add(args)) => client(ask::phone_add(&data()?, args, json)),
        Command::Phone(Phone::List) => client(ask::one(&data()?, control::Command::PhoneList, json)),
        Command::Phone(Phone::Remove { user }) => {
            client(ask::one(&data()?, control::Command::PhoneRemove { user }, json))
        }
        Command::Phone(Phone::Adapter(PhoneAdapter::Add { user, member })) => {
            client(ask::one(&data()?, control::Command::PhoneShare { user, member }, json))
        }
        Command::Phone(Phone::Adapter(PhoneAdapter::Remove { user, device })) => {
            client(ask::one(&data()?, control::Command::PhoneUnshare { user, device }, json))
        }
        Command::Contacts(Contacts::Link(args)) => client(contacts::link(&data()?, args, json)),
        Command::Contacts(Contacts::Accept(args)) => {
            let command = control::Command::ContactAccept { who: args.who, name: args.name };
            client(ask::one(&data()?, command, json))
        }
        Command::Contacts(Contacts::Introduce { who, to, withdraw }) => {
            client(contacts::introduce(&data()?, control::Command::Introduce { who, to, withdraw }, json))
        }
        Command::Contacts(Contacts::Forget { name }) => {
            client(ask::one(&data()?, control::Command::ContactForget { name }, json))
        }
        Command::Relays => client(ask::one(&data()?, control::Command::Relays, json)),
        Command::Accounts => client(ask::one(&data()?, control::Command::Accounts, json)),
        Command::Strangers => client(ask::one(&data()?, control::Command::Strangers, json)),
        Command::Block(args) => client(ask::one(&data()?, control::Command::Block { target: args.target }, json)),
        Command::Unblock(args) => client(ask::one(&data()?, control::Command::Unblock { target: args.target }, json)),
        Command::Call(args) => client(ask::call(&data()?, args, json)),
        Command::Answer(w) => client(ask::one(&data()?, control::Command::Answer { call: w.call }, json)),
        Command::Hangup(w) => client(ask::one(&data()?, control::Command::Hangup { call: w.call }, json)),
        Command::Hold(w) => client(ask::one(&data()?, control::Command::Hold { call: w.call }, json)),
        Command::Resume(w) => client(ask::one(&data()?, control::Command::Resume { call: w.call }, json)),
        Command::Mute(args) => {
            let command = control::Command::Mute { call: args.call, off: args.off };
            client(ask::one(&data()?, command, json))
        }
        Command::Transfer(args) => {
            let attended = args.attended;
            let (call, target) = args.read().map_err(|e| Failure::said(e, "see `chordial calls`"))?;
            client(ask::one(&data()?, control::Command::Transfer { call, target, attended }, json))
        }
        Command::Dtmf(args) => {
            let (call, digits) = args.read();
            let command = control::Command::Dtmf { call, digits };
            client(ask::one(&data()?, command, json))
        }
        Command::Message(args) => client(ask::message(&data()?, args, json)),
        Command::Messages { what } => {
            let command = match what.unwrap_or(Messages::List { unread: false }) {
                Messages::List { unread } => control::Command::Messages { unread },
                Messages::Read { message } => control::Command::MessageRead { message },
                Messages::Delete { message } => control::Command::MessageDelete { message },
            };
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
