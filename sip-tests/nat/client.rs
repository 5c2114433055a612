//! Our client: at our relay, and at coturn's `turnserver`.

use crate::relay;
use crate::tools::{eventually, free_ports, have};
use chordial::core::{Redacted, Rng, Transport};
use chordial::io::media::clock;
use chordial::nat::turn::Client;
use chordial::nat::turn::client::{Config, Fault, Input, Output};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What leads to the server.
enum Line {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

/// A client with its socket.
struct Run {
    client: Client,
    line: Line,
    seen: Vec<Output>,
}

impl Run {
    fn new(server: SocketAddr, transport: Transport, username: &str, password: &str, seed: u64) -> Run {
        let line = match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(server).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                Line::Datagrams(socket)
            }
            _ => {
                let stream = TcpStream::connect(server).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
                Line::Stream(stream)
            }
        };
        let password = Redacted::new(password.to_owned());
        let config = Config { server, transport, username: username.into(), password, family: None };
        Run { client: Client::new(clock::now(), config, Rng::from_seed(seed)), line, seen: Vec::new() }
    }

    fn step(&mut self) {
        let mut buffer = [0; 4096];
        match &mut self.line {
            Line::Datagrams(socket) => {
                if let Ok(read) = socket.recv(&mut buffer) {
                    self.client.handle(clock::now(), Input::Datagram(&buffer[..read]));
                }
            }
            Line::Stream(stream) => {
                if let Ok(read @ 1..) = stream.read(&mut buffer) {
                    self.client.handle(clock::now(), Input::Stream(&buffer[..read]));
                }
            }
        }
        if self.client.poll_timeout().is_some_and(|at| at <= clock::now()) {
            self.client.handle_timeout(clock::now());
        }
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Transmit(bytes) => match &mut self.line {
                    Line::Datagrams(socket) => drop(socket.send(&bytes)),
                    Line::Stream(stream) => stream.write_all(&bytes).unwrap(),
                },
                other => self.seen.push(other),
            }
        }
    }
}

/// Steps all of `runs` until `done`.
fn until<T>(what: &str, runs: &mut [&mut Run], mut done: impl FnMut(&mut [&mut Run]) -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        runs.iter_mut().for_each(|r| r.step());
        if let Some(found) = done(runs) {
            return found;
        }
        let seen: Vec<_> = runs.iter().map(|r| &r.seen).collect();
        assert!(Instant::now() < end, "{what}: not within a minute; seen: {seen:?}");
    }
}

fn relayed(run: &Run) -> Option<SocketAddr> {
    run.seen.iter().find_map(|o| match o {
        Output::Allocated { relayed, .. } => Some(relayed[0]),
        Output::Failed(fault) => panic!("{fault}"),
        _ => None,
    })
}

/// Two clients of one server say something to each other, first by indications and then by channels, and give it back.
fn meet(ann: &mut Run, ben: &mut Run) {
    let a = until("ann's allocation", &mut [ann], |r| relayed(r[0]));
    let b = until("ben's allocation", &mut [ben], |r| relayed(r[0]));
    for i in 0..40u8 {
        until("both hear", &mut [ann, ben], |runs| {
            runs[0].client.send(clock::now(), b, &[b'a', i]);
            runs[1].client.send(clock::now(), a, &[b'b', i]);
            let has = |run: &Run, peer, bytes: &[u8]| run.seen.contains(&Output::Data { peer, bytes: bytes.to_vec() });
            (has(runs[0], b, &[b'b', i]) && has(runs[1], a, &[b'a', i])).then_some(())
        });
    }
    for run in [ann, ben] {
        run.client.close(clock::now());
        until("it is given back", &mut [run], |r| r[0].seen.contains(&Output::Closed).then_some(()));
    }
}

#[test]
fn our_client_at_our_relay() {
    let running = relay::start(&[], 10);
    let (ann, ben) = (running.mint("ann"), running.mint("ben"));
    for (x, y) in [(Transport::Udp, Transport::Udp), (Transport::Udp, Transport::Tcp), (Transport::Tcp, Transport::Tcp)]
    {
        let at = |t| if t == Transport::Udp { running.udp() } else { running.tcp() };
        let mut ann = Run::new(at(x), x, &ann.username, ann.password.reveal(), 1);
        let mut ben = Run::new(at(y), y, &ben.username, ben.password.reveal(), 2);
        meet(&mut ann, &mut ben);
    }
    eventually("no allocation stays", || match running.relay.figures().allocations {
        0 => Ok(()),
        n => Err(format!("{n} are there")),
    });
    let mut liar = Run::new(running.udp(), Transport::Udp, &ann.username, "guess", 3);
    until("a refusal", &mut [&mut liar], |r| r[0].seen.contains(&Output::Failed(Fault::Refused(401))).then_some(()));
}

/// Killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_client_at_coturn() {
    if !have("our_client_at_coturn", &["turnserver"]) {
        return;
    }
    let port = free_ports(2);
    let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let data = tempfile::tempdir().unwrap();
    let path = |name: &str| data.path().join(name).display().to_string();
    let child = Command::new("turnserver")
        .args([
            "-n",
            "--lt-cred-mech",
            "--user",
            "ann:secret",
            "--realm",
            "coturn.test",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
        ])
        .args(["--allow-loopback-peers", "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
        .args([
            "--listening-port",
            &port.to_string(),
            "--log-file",
            "stdout",
            "--min-port",
            "30000",
            "--max-port",
            "31000",
        ])
        .args(["--pidfile", &path("pid"), "--userdb", &path("db")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    eventually("coturn listens", || TcpStream::connect(server).map(drop).map_err(|e| e.to_string()));
    for (x, y) in [(Transport::Udp, Transport::Udp), (Transport::Tcp, Transport::Udp)] {
        meet(&mut Run::new(server, x, "ann", "secret", 1), &mut Run::new(server, y, "ann", "secret", 2));
    }
    let mut liar = Run::new(server, Transport::Udp, "ann", "guess", 3);
    until("a refusal", &mut [&mut liar], |r| r[0].seen.contains(&Output::Failed(Fault::Refused(401))).then_some(()));
}
