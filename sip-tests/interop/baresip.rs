//! One headless baresip (Debian's baresip-core 1.0), driven over its `ctrl_tcp` module: commands and events are
//! JSON objects in netstrings.
//!
//! What it needs to know here: `net_interface` has to be the address, not `lo`; `sip_listen` takes the next port too
//! (TLS); `aufile` plays a file once from the start of the call and wants the codec's rate and channels; an audio
//! player has to be there for the receiving half to run (`aubridge`); what is heard is written by `sndfile`, and
//! `ctrl_tcp` serves one client.

use crate::audio::Sound;
use crate::process::Process;
use crate::tools::{DEADLINE, eventually, free_ports};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Codec of all calls of one phone.
#[derive(Clone, Copy, PartialEq)]
pub enum Codec {
    /// Opus, 48 kHz stereo.
    Opus,
    /// G.711 mu-law.
    Pcmu,
}

impl Codec {
    /// Module, name in `audio_codecs`, rate, channels.
    fn facts(self) -> (&'static str, &'static str, u32, u16) {
        match self {
            Codec::Opus => ("opus", "opus/48000/2", 48_000, 2),
            Codec::Pcmu => ("g711", "PCMU/8000/1", 8_000, 1),
        }
    }
}

/// What a phone registers over.
#[derive(Clone, Copy)]
pub enum Transport<'a> {
    /// Datagrams.
    Udp,
    /// A connection that it keeps.
    Tcp,
    /// The same under TLS, to who shows the certificate in this file.
    Tls(&'a Path),
}

/// A running phone.
pub struct Phone {
    dir: PathBuf,
    process: Process,
    control: TcpStream,
    buffer: Vec<u8>,
    events: Vec<Value>,
    taken: usize,
}

impl Phone {
    /// Starts a phone with the account `user` of `domain` at `registrar`, says `speech` in every call, answers by
    /// itself, and registers.
    pub fn start(
        dir: &Path,
        (user, password): (&str, &str),
        domain: &str,
        registrar: SocketAddr,
        how: (Codec, Transport<'_>),
        speech: &Sound,
    ) -> Phone {
        Phone::start_with(dir, (user, password), domain, registrar, how, speech, "")
    }

    /// The same with a contact, to whom its `message` goes.
    pub fn start_with(
        dir: &Path,
        (user, password): (&str, &str),
        domain: &str,
        registrar: SocketAddr,
        (codec, transport): (Codec, Transport<'_>),
        speech: &Sound,
        contact: &str,
    ) -> Phone {
        let dir = dir.join(format!("baresip-{user}"));
        fs::create_dir_all(&dir).unwrap();
        let (module, codec_name, rate, channels) = codec.facts();
        let play = dir.join("play.wav");
        speech.at_rate(rate).write(&play, channels);
        let base = free_ports(12);
        let (control, rtp) = (base + 2, base + 3);
        let config = format!(
            "poll_method epoll\nsip_listen 127.0.0.1:{base}\nnet_interface 127.0.0.1\nmodule_path {modules}\n\
             call_local_timeout 60\naudio_player aubridge,{user}-play\naudio_alert aubridge,{user}-alert\n\
             audio_source aufile,{play}\nausrc_srate {rate}\nauplay_srate {rate}\nausrc_channels {channels}\n\
             auplay_channels {channels}\nrtp_ports {rtp}-{last}\nsnd_path {dir}\nctrl_tcp_listen 127.0.0.1:{control}\n\
             module {module}.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\nmodule_tmp uuid.so\n\
             module_tmp account.so\nmodule_app menu.so\nmodule_app contact.so\nmodule_app ctrl_tcp.so\n",
            modules = modules().display(),
            play = play.display(),
            last = base + 11,
            dir = dir.display(),
        );
        let (transport, trusted) = match transport {
            Transport::Udp => ("udp", String::new()),
            Transport::Tcp => ("tcp", String::new()),
            Transport::Tls(file) => ("tls", format!("sip_cafile {}\nsip_verify_server yes\n", file.display())),
        };
        let config = config + &trusted;
        let account = format!(
            "<sip:{user}@{domain};transport={transport}>;regint=600;audio_codecs={codec_name};answermode=auto;\
             outbound=\"sip:{registrar};transport={transport}\";auth_user={user};auth_pass={password}\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        fs::write(dir.join("accounts"), account).unwrap();
        fs::write(
            dir.join("contacts"),
            if contact.is_empty() { String::new() } else { format!("\"x\" <{contact}>\n") },
        )
        .unwrap();
        let mut command = Command::new("baresip");
        command.arg("-f").arg(&dir).env("TERM", "dumb");
        if !contact.is_empty() {
            command.arg("-s"); // It shows messages to its terminal alone; its SIP trace shows them to us.
        }
        let mut process = Process::start(&format!("baresip-{user}"), &mut command, &dir);
        let control = eventually("baresip takes commands", || {
            assert!(process.ended().is_none(), "baresip ended: {}{}", process.stdout(), process.stderr());
            TcpStream::connect(("127.0.0.1", control)).map_err(|e| e.to_string())
        });
        control.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        // Events before our connection are lost to us, and the registration may be one: its log tells as well.
        eventually("baresip registers", || {
            let log = process.stdout();
            if log.contains("200 OK") { Ok(()) } else { Err(log) }
        });
        Phone { dir, process, control, buffer: Vec::new(), events: Vec::new(), taken: 0 }
    }

    /// A command of baresip's menu by its long name.
    pub fn command(&mut self, command: &str, params: &str) {
        let text = json!({ "command": command, "params": params, "token": "t" }).to_string();
        self.control.write_all(format!("{}:{text},", text.len()).as_bytes()).unwrap();
    }

    /// Waits for the next event of a type, such as `CALL_ESTABLISHED`; an event is taken once.
    pub fn wait_for(&mut self, kind: &str) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            while let Some(event) = self.events.get(self.taken) {
                self.taken += 1;
                if event["type"] == kind {
                    return event.clone();
                }
            }
            assert!(Instant::now() < end, "baresip: no {kind}; saw {:?}", self.seen());
            assert!(self.process.ended().is_none(), "baresip ended: {}", self.process.stdout());
            self.read();
        }
    }

    /// Everything that it has printed.
    pub fn printed(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// What the phone heard in its latest call, once that has ended and is at least `seconds` long; the file's header
    /// is written at the end.
    pub fn heard(&self, seconds: f64) -> Sound {
        eventually("baresip's recording is complete", || {
            let newest = fs::read_dir(&self.dir)
                .map_err(|e| e.to_string())?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
                .max_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
            let sound = Sound::read(&newest.ok_or("no dump-*-dec.wav")?)?;
            if sound.seconds() >= seconds { Ok(sound) } else { Err(format!("{:.1} s", sound.seconds())) }
        })
    }

    fn seen(&self) -> Vec<&str> {
        self.events.iter().filter_map(|e| e["type"].as_str()).collect()
    }

    fn read(&mut self) {
        let mut bytes = [0; 4096];
        match self.control.read(&mut bytes) {
            Ok(n) => self.buffer.extend(&bytes[..n]),
            Err(_) => return,
        }
        while let Some(colon) = self.buffer.iter().position(|b| *b == b':') {
            let length: usize = std::str::from_utf8(&self.buffer[..colon]).unwrap().parse().unwrap();
            let end = colon + 1 + length;
            if self.buffer.len() <= end {
                return;
            }
            self.events.push(serde_json::from_slice(&self.buffer[colon + 1..end]).unwrap_or(Value::Null));
            self.buffer.drain(..=end);
        }
    }
}

/// Where the distribution puts baresip's modules.
fn modules() -> &'static Path {
    ["/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules", "/usr/local/lib/baresip/modules"]
        .iter()
        .map(Path::new)
        .find(|p| p.is_dir())
        .expect("baresip's modules")
}
