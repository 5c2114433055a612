//! The arguments. The flags of `start` are made from [`KEYS`], so that the command line, the
//! configuration file and its example cannot drift apart.

use crate::config::{KEYS, Key};
use crate::node::control::RingRight;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Everything on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "chordial",
    version,
    about = "A phone system without a server: a SIP softphone whose peers carry registration and lookup on a Chord ring",
    after_help = "Without a command: start. Exit code 0 only when the thing was done.",
    override_usage = "chordial [OPTIONS] [COMMAND]",
    subcommand_required = true
)]
pub struct Cli {
    /// Where this device keeps its keys and accounts; it also picks the running program that a command is for.
    /// Default: $CHORDIAL_DATA, else $XDG_DATA_HOME/chordial or ~/.local/share/chordial.
    #[arg(long, value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this device: a phone, and a peer of the overlay.
    Start(StartArgs),
    /// Show everything on this machine: seven peers, a standard phone, calls, a crash; print a report.
    Demo(DemoArgs),
    /// Found an office, let others into it, or join one.
    #[command(subcommand)]
    Office(Office),
    /// Print a one-time code by which USER joins this office (also: office invite).
    Invite(InviteArgs),
    /// Join an office by the code that its `invite` printed (also: office join), or a family by a contact link.
    Join(JoinArgs),
    /// Revoke a user with all devices, or one device (also: office revoke).
    Revoke(RevokeArgs),
    /// Your devices: list them, add one, revoke one.
    Devices {
        /// Without one: list.
        #[command(subcommand)]
        command: Option<Devices>,
    },
    /// Become a device of USER on this machine, by name and password.
    Login(LoginArgs),
    /// Set your password for logging in on other machines.
    Password(PasswordArgs),
    /// Accounts of standard phones.
    #[command(subcommand)]
    Phone(Phone),
    /// Names for TARGETs, the same on all your devices; and people of other overlays, by contact link.
    #[command(subcommand)]
    Contacts(Contacts),
    /// Relays (STUN, TURN) that this device may use, with a credential for standard TURN clients; the best one first.
    Relays,
    /// The accounts with outside registrars: state, until when, and what went wrong last.
    Accounts,
    /// Who from other overlays is known here, who knocked, who is blocked.
    Strangers,
    /// Let TARGET ring no more: a contact, user@overlay, @overlay, or a key that `strangers` shows.
    Block(BlockArgs),
    /// Take a block back.
    Unblock(BlockArgs),
    /// Call TARGET and report how it went.
    Call(CallArgs),
    /// Accept a ringing call.
    Answer(WhichCall),
    /// End or decline a call.
    Hangup(WhichCall),
    /// Put the other end of a call on hold.
    Hold(WhichCall),
    /// Take a call back from hold.
    Resume(WhichCall),
    /// Send silence in a call instead of what is said.
    Mute(MuteArgs),
    /// Transfer the other end of a call to TARGET, or to the other end of a second call.
    Transfer(TransferArgs),
    /// Send DTMF digits in a call.
    Dtmf(DtmfArgs),
    /// Send TARGET a message; for who is absent it waits up to seven days.
    Message(MessageArgs),
    /// The messages received and sent. Without a word: list.
    Messages {
        /// What with them.
        #[command(subcommand)]
        what: Option<Messages>,
    },
    /// Who, where and with whom the running program is.
    Status,
    /// The peers that it knows.
    Peers,
    /// Where a user can be reached, and which peers had to be asked.
    Lookup(LookupArgs),
    /// The calls under way and the latest ended ones.
    Calls,
    /// The microphones and loudspeakers that --audio-in and --audio-out can name. Needs no running program.
    Audio,
    /// Leave the overlay and end the running program.
    Stop,
    /// Run the same nodes on a virtual clock and count.
    Sim(SimArgs),
}

/// Of `start`.
#[derive(Debug, Default)]
pub struct StartArgs {
    /// The TOML file.
    pub config: Option<PathBuf>,
    /// Ask nothing, found nothing, join nothing.
    pub headless: bool,
    /// [`Key::flag`] and value, for `Config::with_flags`.
    pub flags: Vec<(&'static str, String)>,
}

/// Of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep recordings, logs and data directories in DIR, which must be empty or absent.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `office ...`.
#[derive(Debug, Subcommand)]
pub enum Office {
    /// Found an office. Its recovery sheet is printed once: keep it on paper.
    Create(CreateArgs),
    /// Print a one-time code by which USER joins this office.
    Invite(InviteArgs),
    /// Join an office by the code that its `invite` printed.
    Join(JoinArgs),
    /// Take another office in: prints a code for its administrator. With --code: merge this office into the one of the code.
    Merge {
        /// The code that the other office's administrator has printed.
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
    },
    /// Who is in the office, with devices, open invites and what is revoked.
    Users,
    /// Revoke a user with all devices, or one device; with --by-root an administrator that was lost or went rogue.
    Revoke(RevokeArgs),
    /// Which members' devices may take standard phones of any name upon themselves.
    #[command(subcommand)]
    Adapters(Adapters),
    /// Administrators beside this one.
    #[command(subcommand)]
    Owner(Owner),
    /// Become an administrator of an office by its recovery sheet, on a new machine.
    Recover(RecoverArgs),
    /// Write this device's identity, accounts, book and revocations into FILE, under a passphrase.
    Backup(ArchiveArgs),
    /// Read what `backup` wrote into an empty data directory.
    Restore(ArchiveArgs),
}

/// Of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// User name, USER/LABEL of a device, or the fingerprint of a user's or device's key.
    #[arg(value_name = "USER|DEVICE")]
    pub target: String,
    /// An administrator's device or key, by the root: the recovery sheet is asked for.
    #[arg(long)]
    pub by_root: bool,
    /// With --by-root: what it signed from then on counts no more, in seconds since 1970. Default: from now on.
    #[arg(long, value_name = "SECONDS", requires = "by_root")]
    pub since: Option<u64>,
}

/// `office adapters ...`.
#[derive(Debug, Subcommand)]
pub enum Adapters {
    /// It may.
    Allow {
        /// Fingerprint of the device's key.
        #[arg(value_name = "DEVICE")]
        device: String,
    },
    /// It may not take further ones.
    Forbid {
        /// Fingerprint of the device's key.
        #[arg(value_name = "DEVICE")]
        device: String,
    },
}

/// `office owner ...`.
#[derive(Debug, Subcommand)]
pub enum Owner {
    /// Make USER's running device an administrator's too. The recovery sheet is asked for.
    Add {
        /// User name.
        #[arg(value_name = "USER")]
        user: String,
    },
}

/// `devices ...`.
#[derive(Debug, Subcommand)]
pub enum Devices {
    /// Print a one-time code by which a further device of yours joins: chordial join CODE.
    Add {
        /// What to call it. Default: the name that it gives itself.
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// Hand your user key over, so that the new device can add and revoke devices too.
        #[arg(long)]
        with_key: bool,
    },
    /// Revoke one.
    Remove {
        /// Its label, or the fingerprint of its key.
        #[arg(value_name = "DEVICE")]
        device: String,
    },
}

/// Of `office recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Name of the office, as on the sheet.
    #[arg(value_name = "NAME")]
    pub office: String,
    /// Your user name in it. Default: your login name.
    #[arg(long = "name", value_name = "USER", env = "USER", hide_env = true)]
    pub user: String,
}

/// Of `office backup` and `office restore`.
#[derive(Debug, Args)]
pub struct ArchiveArgs {
    /// The archive.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Of `office create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the office, the domain of its addresses: a-z, 0-9, dot and hyphen.
    #[arg(value_name = "NAME")]
    pub office: String,
    /// Your user name in it. Default: your login name.
    #[arg(long = "name", value_name = "USER", env = "USER", hide_env = true)]
    pub user: String,
}

/// Of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// User name of who is to join.
    #[arg(value_name = "USER")]
    pub user: String,
    /// A number by which the user is called too.
    #[arg(long, value_name = "N")]
    pub extension: Option<String>,
    /// Show six digits for a machine on the same network, instead of the long code.
    #[arg(long)]
    pub pair: bool,
}

/// Of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The code, as it was printed: the long one, or the six digits of `invite --pair`; or, to join a family (an open overlay),
    /// a contact link of somebody in it. Default: ask for the digits.
    #[arg(value_name = "CODE|LINK")]
    pub code: Option<String>,
    /// With a contact link: your user name in the family. Default: your login name.
    #[arg(
        long = "name",
        value_name = "USER",
        env = "USER",
        hide_env = true,
        default_value = "",
        hide_default_value = true
    )]
    pub name: String,
    /// What to call this device in lists.
    #[arg(long, value_name = "TEXT", env = "HOSTNAME", hide_env = true, default_value = "", hide_default_value = true)]
    pub label: String,
    /// With six digits: the inviter's machine. Default: the one on the local network that waits for them.
    #[arg(long, value_name = "HOST:PORT")]
    pub via: Option<String>,
}

/// `contacts ...`.
#[derive(Debug, Subcommand)]
pub enum Contacts {
    /// Put TARGET under NAME, which then stands for it in call and the like; replaces what was there.
    Add {
        /// What you call them; in any case.
        #[arg(value_name = "NAME")]
        name: String,
        /// Extension, user name, address (user@overlay) or sip: URI.
        #[arg(value_name = "TARGET")]
        target: String,
    },
    /// List them.
    List,
    /// Remove one.
    Remove {
        /// Its name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print this user's contact link, for people of other offices and families; on a terminal also as a QR code.
    Link(LinkArgs),
    /// Take up who a contact link names, whom a contact has introduced, or who knocked (by address or key, as `strangers`
    /// shows them).
    Accept(AcceptArgs),
    /// Give somebody your word about a contact's key, in a message that is sealed to them.
    Introduce {
        /// The contact, by name or address.
        #[arg(value_name = "CONTACT")]
        who: String,
        /// Who is told: a contact's name, user name or address of this overlay.
        #[arg(long, value_name = "TARGET")]
        to: String,
        /// Take it back, where they have not made them a contact yet.
        #[arg(long)]
        withdraw: bool,
    },
    /// Drop a contact that was made by key, or who was met before, and the key known of it.
    Forget {
        /// Its name or address.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Of `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Your user name and the name of your office.
    #[arg(value_name = "USER@OFFICE")]
    pub user: String,
    /// A peer of the office. Default: one that is found on the local network.
    #[arg(long, value_name = "HOST:PORT")]
    pub via: Option<String>,
    /// What to call this device in lists.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub label: String,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

/// Of `password`.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// Read the password from the first line of standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

/// `phone ...`.
#[derive(Debug, Subcommand)]
pub enum Phone {
    /// Make an account. The password is asked for; where nobody can be asked, or none is given, one is
    /// made and printed once.
    Add(PhoneAddArgs),
    /// List the accounts.
    List,
    /// Remove an account.
    Remove {
        /// User name.
        #[arg(value_name = "USER")]
        user: String,
    },
    /// Further devices that serve a phone, for when this one is down.
    #[command(subcommand)]
    Adapter(PhoneAdapter),
}

/// `phone adapter ...`.
#[derive(Debug, Subcommand)]
pub enum PhoneAdapter {
    /// Let a member's device serve the phone too: it gets the account, sealed. Name it in the phone as second registrar.
    Add {
        /// User name of the phone.
        #[arg(value_name = "USER")]
        user: String,
        /// User name of the member; MEMBER/KEY where several devices of hers run.
        #[arg(value_name = "MEMBER")]
        member: String,
    },
    /// Let a device forget the phone.
    Remove {
        /// User name of the phone.
        #[arg(value_name = "USER")]
        user: String,
        /// User name of the member, or the fingerprint of the device's key.
        #[arg(value_name = "MEMBER|DEVICE")]
        device: String,
    },
}

/// Of `phone add`.
#[derive(Debug, Args)]
pub struct PhoneAddArgs {
    /// User name.
    #[arg(value_name = "USER")]
    pub user: String,
    /// What to call the phone in lists.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub label: String,
    /// Let this member's device serve the phone too (see phone adapter add).
    #[arg(long, value_name = "MEMBER")]
    pub also: Vec<String>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

/// Of `contacts link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Whether whoever has the link may ring: ask (as strangers may), once (the first who calls with it, within 30 days),
    /// always. Who rang by a link is a contact from then on.
    #[arg(long, value_name = "RIGHT", default_value = "ask", value_parser = ring_right)]
    pub ring: RingRight,
    /// Draw the QR code also where standard output is no terminal.
    #[arg(long)]
    pub qr: bool,
}

/// Of `contacts accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// The link, or the address or key of one who knocked or was introduced.
    #[arg(value_name = "LINK|WHO")]
    pub who: String,
    /// What to call them. Default: their user name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// Of `block` and `unblock`.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// A contact's name, user@overlay, @overlay, or a key's short fingerprint.
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// Of `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// A contact's name, user name, address (user@overlay) or sip: URI.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Play this sound file to the other end (also: tone, null, device, device:NAME).
    #[arg(long, value_name = "WAV")]
    pub play: Option<String>,
    /// Record what the other end says into this file (also: null, device, device:NAME).
    #[arg(long, value_name = "WAV")]
    pub record: Option<String>,
    /// Hang up this many seconds after the answer.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Call by this account with an outside registrar; TARGET may be a number then.
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
}

/// Of `answer`, `hangup`, `hold` and `resume`.
#[derive(Debug, Args)]
pub struct WhichCall {
    /// Its number as `calls` shows it. Default: the only one.
    #[arg(value_name = "CALL")]
    pub call: Option<u64>,
}

/// Of `mute`.
#[derive(Debug, Args)]
pub struct MuteArgs {
    /// Its number as `calls` shows it. Default: the only one.
    #[arg(value_name = "CALL")]
    pub call: Option<u64>,
    /// Send again what is said.
    #[arg(long)]
    pub off: bool,
}

/// Of `transfer`.
#[derive(Debug, Args)]
pub struct TransferArgs {
    /// CALL and TARGET, or TARGET alone where there is only one call; with --attended CALL or nothing.
    #[arg(value_name = "CALL|TARGET", num_args = 0..=2)]
    pub what: Vec<String>,
    /// To the other end of this call, which it takes over.
    #[arg(long, value_name = "CALL")]
    pub attended: Option<u64>,
}

/// Of `dtmf`.
#[derive(Debug, Args)]
pub struct DtmfArgs {
    /// CALL and DIGITS (0-9, *, #, A-D), or DIGITS alone where there is only one call.
    #[arg(value_name = "CALL|DIGITS", num_args = 1..=2, required = true, value_parser = digits)]
    pub what: Vec<String>,
    /// The call's number as `calls` shows it. Default: the only one.
    #[arg(long, value_name = "CALL")]
    pub call: Option<u64>,
}

/// Of `message`.
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// User name, address (user@overlay) or sip: URI.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The text, in one or several words; "-" reads it from standard input.
    #[arg(value_name = "TEXT", required = true, num_args = 1..)]
    pub text: Vec<String>,
}

/// `messages ...`.
#[derive(Debug, Subcommand)]
pub enum Messages {
    /// List them, oldest first.
    List {
        /// Only those that were received and not read.
        #[arg(long)]
        unread: bool,
    },
    /// Show one with its whole text.
    Read {
        /// Its number in the list. Default: the oldest unread one.
        #[arg(value_name = "N")]
        message: Option<u64>,
    },
    /// Take one out of the list.
    Delete {
        /// Its number in the list.
        #[arg(value_name = "N")]
        message: u64,
    },
}

/// Of `lookup`.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// User name, address (user@overlay) or sip: URI.
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Ask hop by hop from here instead of letting the ring carry the request.
    #[arg(long)]
    pub iterative: bool,
}

/// Of `sim`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct SimArgs {
    /// How many peers.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub peers: u32,
    /// Of a hundred peers, how many are in the ring; the others hang on them.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub supernodes: u8,
    /// The same seed gives the same history.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How many lookups. Default: 1000.
    #[arg(long, value_name = "N")]
    pub lookups: Option<u32>,
    /// Mean one-way latency between two peers, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20.0, value_parser = milliseconds)]
    pub latency_ms: f64,
    /// Share of datagrams lost, 0 to 0.9.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub loss: f64,
    /// From the last join to the first lookup, seconds. Default: 20; a ring is at rest after some minutes.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub settle_seconds: Option<u32>,
    /// Chord as in the paper, to compare with: fingers of base 2, no member list, nothing remembered.
    #[arg(long)]
    pub plain: bool,
}

impl Cli {
    /// Reads the arguments, the program's name first. Flags without a command belong to `start`.
    ///
    /// # Errors
    /// clap's, which also stand for `--help` and `--version`; they print themselves.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        if let Some(at) = start_is_meant(&args) {
            args.insert(at, "start".into());
        }
        Cli::try_parse_from(args)
    }
}

/// Where `start` is to be put, when no command is named.
fn start_is_meant(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        match args.get(at).and_then(|a| a.to_str()) {
            None if at >= args.len() => return Some(at.min(args.len().max(1))),
            Some("--json") => at += 1,
            Some("--data") => at += 2,
            Some(arg) if arg.starts_with("--data=") => at += 1,
            Some("-h" | "--help" | "-V" | "--version") => return None,
            Some(arg) if arg.starts_with('-') => return Some(at),
            _ => return None,
        }
    }
}

impl Args for StartArgs {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        command = command
            .arg(Arg::new("config").long("config").value_name("F").help("Read this TOML file; flags override it"))
            .arg(
                Arg::new("headless")
                    .long("headless")
                    .action(ArgAction::SetTrue)
                    .help("Ask nothing, found nothing and join nothing that was not named"),
            );
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            let arg = Arg::new(flag).long(flag).help(help(key)).help_heading(key.section);
            command = command.arg(if key.switch {
                arg.action(ArgAction::SetTrue)
            } else {
                arg.value_name(value_name(key)).action(ArgAction::Append)
            });
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StartArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = StartArgs {
            config: matches.get_one::<String>("config").map(PathBuf::from),
            headless: matches.get_flag("headless"),
            flags: Vec::new(),
        };
        for key in KEYS {
            let Some(flag) = key.flag else { continue };
            if key.switch {
                if matches.get_flag(flag) {
                    args.flags.push((flag, "true".into()));
                }
                continue;
            }
            let given: Vec<&str> = matches.get_many::<String>(flag).into_iter().flatten().map(String::as_str).collect();
            match given[..] {
                [] => {}
                [value] => args.flags.push((flag, value.into())),
                // A list may be given by commas, by repetition, or both.
                _ if key.default_value().is_array() => args.flags.push((flag, given.join(","))),
                _ => {
                    let text = format!("--{flag} is given {} times; it takes one value\n", given.len());
                    return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, text));
                }
            }
        }
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn help(key: &Key) -> String {
    let text = key.help.trim().lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match key.default_value() {
        toml::Value::String(s) if !s.is_empty() => format!("{text} [default: {s}]"),
        toml::Value::Array(list) if !list.is_empty() => {
            let items: Vec<_> = list.iter().filter_map(|v| v.as_str()).collect();
            format!("{text} [default: {}]", items.join(","))
        }
        _ => text,
    }
}

fn value_name(key: &Key) -> &'static str {
    match key.help {
        help if help.contains("IP:PORT") => "IP:PORT",
        help if help.trim_start().starts_with("A file") => "FILE",
        _ if key.default_value().is_array() => "LIST",
        _ => "VALUE",
    }
}

fn ring_right(text: &str) -> Result<RingRight, &'static str> {
    match text {
        "ask" => Ok(RingRight::Ask),
        "once" => Ok(RingRight::Once),
        "always" => Ok(RingRight::Always),
        _ => Err("ask, once or always is wanted"),
    }
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|s: &f64| *s > 0.0 && s.is_finite()).ok_or("a number of seconds above 0 is wanted")
}

fn milliseconds(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|s: &f64| *s >= 0.0 && s.is_finite()).ok_or("a number of milliseconds is wanted")
}

fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|s: &f64| (0.0..0.9).contains(s)).ok_or("a number from 0 to below 0.9 is wanted")
}

impl DtmfArgs {
    /// The call that is named, and the digits.
    pub fn read(self) -> (Option<u64>, String) {
        let (call, digits) = last_of(self.what);
        (self.call.or(call.and_then(|c| c.parse().ok())), digits.unwrap_or_default())
    }
}

impl TransferArgs {
    /// The call that is named, and the target.
    ///
    /// # Errors
    /// What is not a number where a call's is meant.
    pub fn read(self) -> Result<(Option<u64>, Option<String>), String> {
        let (call, target) = match self.attended {
            Some(_) => (self.what.into_iter().next(), None),
            None => last_of(self.what),
        };
        let number = |call: String| call.parse().map_err(|_| format!("\"{call}\" is no call's number"));
        Ok((call.map(number).transpose()?, target))
    }
}

/// What stands before the last word, and the last word.
fn last_of(mut words: Vec<String>) -> (Option<String>, Option<String>) {
    let last = words.pop();
    (words.pop(), last)
}

fn digits(text: &str) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(|c| "0123456789*#ABCDabcd".contains(c));
    fits.then(|| text.to_ascii_uppercase()).ok_or("1 to 64 of 0-9, *, #, A-D are wanted")
}

#[cfg(test)]
mod tests;
