use super::*;
use crate::config::Config;
use clap::CommandFactory;

fn read(line: &str) -> Cli {
    try_read(line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

fn try_read(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(std::iter::once("chordial").chain(line.split_whitespace()).map(OsString::from))
}

fn start(line: &str) -> StartArgs {
    match read(line).command {
        Command::Start(args) => args,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_key_with_a_flag_is_a_flag_of_start() {
    let help = Cli::command().find_subcommand_mut("start").unwrap().render_long_help().to_string();
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        assert!(help.contains(&format!("--{flag}")), "--{flag} is not in the help");
        let line = if key.switch { format!("start --{flag}") } else { format!("start --{flag} x") };
        assert_eq!(start(&line).flags[0].0, flag);
    }
    assert!(help.contains("IP:PORT") && help.contains("[default: opus,pcmu,pcma]"), "{help}");
}

#[test]
fn start_may_be_left_out() {
    assert!(matches!(read("").command, Command::Start(_)));
    assert_eq!(start("--open --name bob").flags, [("name", "bob".to_owned()), ("open", "true".to_owned())]);
    let cli = read("--data /x --json --headless");
    assert!(matches!(&cli.command, Command::Start(s) if s.headless));
    assert_eq!((cli.data, cli.json), (Some(PathBuf::from("/x")), true));
    assert!(matches!(read("--data /x").command, Command::Start(_)));
    assert!(matches!(read("--data=/x").command, Command::Start(_)));
    assert!(matches!(read("--data /x status").command, Command::Status));
    assert!(try_read("nonsense").is_err());
    assert!(try_read("--data").is_err());
}

#[test]
fn flags_of_start_make_a_configuration() {
    let args = start(
        "start --headless --open --name bob --overlay-listen 127.0.0.1:5061 --sip-listen 127.0.0.1:5060 \
         --bootstrap 127.0.0.1:1 --bootstrap 127.0.0.1:2,127.0.0.1:3 --auto-answer --codec pcmu,opus --config c.toml",
    );
    assert_eq!(args.config, Some(PathBuf::from("c.toml")));
    let config = Config::default().with_flags(&args.flags).unwrap();
    assert_eq!(config.overlay.bootstrap.len(), 3);
    assert_eq!(config.sip.listen, "127.0.0.1:5060".parse().ok());
    assert!(config.overlay.open && config.user.auto_answer);
    assert_eq!(config.media.codec, ["pcmu", "opus"]);
    let e = try_read("start --name a --name b").unwrap_err().to_string();
    assert!(e.contains("--name is given 2 times"), "{e}");
}

#[test]
fn messages_and_their_words() {
    assert!(
        matches!(read("message bob are you there").command, Command::Message(m) if m.text.join(" ") == "are you there")
    );
    assert!(matches!(read("messages").command, Command::Messages { what: None }));
    assert!(matches!(
        read("messages read 3").command,
        Command::Messages { what: Some(Messages::Read { message: Some(3) }) }
    ));
    assert!(try_read("message bob").is_err() && try_read("messages delete").is_err());
}

#[test]
fn commands_with_their_arguments() {
    let Command::Call(call) = read("call bob --play a.wav --duration 2.5 --json").command else { panic!() };
    assert_eq!((call.target.as_str(), call.duration), ("bob", Some(2.5)));
    assert!(matches!(read("office invite bob").command, Command::Office(Office::Invite(_))));
    assert!(matches!(read("invite bob").command, Command::Invite(_)));
    assert!(matches!(read("office join CODE").command, Command::Office(Office::Join(_))));
    assert!(matches!(read("join CODE").command, Command::Join(_)));
    let create = read("office create acme --name ann").command;
    assert!(matches!(create, Command::Office(Office::Create(c)) if c.office == "acme" && c.user == "ann"));
    let Command::Phone(Phone::Add(add)) = read("phone add desk --label Hall --password-stdin").command else {
        panic!()
    };
    assert!(add.password_stdin && add.label == "Hall");
    assert!(matches!(read("hangup 3").command, Command::Hangup(WhichCall { call: Some(3) })));
    assert!(matches!(read("answer").command, Command::Answer(WhichCall { call: None })));
    let dtmf = |text: &str| match read(text).command {
        Command::Dtmf(d) => d.read(),
        other => panic!("{other:?}"),
    };
    assert_eq!(dtmf("dtmf 12a#"), (None, "12A#".into()));
    assert_eq!(dtmf("dtmf 3 12"), (Some(3), "12".into()));
    let transfer = |text: &str| match read(text).command {
        Command::Transfer(t) => (t.attended, t.read()),
        other => panic!("{other:?}"),
    };
    assert_eq!(transfer("transfer carol"), (None, Ok((None, Some("carol".into())))));
    assert_eq!(transfer("transfer 2 carol"), (None, Ok((Some(2), Some("carol".into())))));
    assert_eq!(transfer("transfer 2 --attended 3"), (Some(3), Ok((Some(2), None))));
    assert_eq!(transfer("transfer --attended 3"), (Some(3), Ok((None, None))));
    assert!(transfer("transfer x carol").1.is_err());
    assert!(matches!(read("hold 3").command, Command::Hold(WhichCall { call: Some(3) })));
    assert!(matches!(read("mute --off").command, Command::Mute(MuteArgs { call: None, off: true })));
    assert!(matches!(read("lookup bob --iterative").command, Command::Lookup(l) if l.iterative));
    let Command::Sim(sim) = read("sim --peers 50 --seed 7 --loss 0.1 --json").command else { panic!() };
    assert_eq!((sim.peers, sim.seed, sim.lookups, sim.loss), (50, 7, None, 0.1));
    for wrong in ["call bob --duration -1", "dtmf 12x", "sim --loss 1", "sim --peers 0", "hangup x", "phone", "office"]
    {
        assert!(try_read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn help_names_what_exists_and_nothing_else() {
    let names: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert_eq!(
        names.join(" "),
        "start demo office invite join revoke devices login password phone contacts relays accounts strangers block unblock call answer \
         hangup hold resume mute transfer dtmf message messages status peers lookup calls audio stop sim"
    );
    let every = Cli::command().get_subcommands().all(|c| c.get_about().is_some());
    assert!(every, "a command says nothing of itself");
}
