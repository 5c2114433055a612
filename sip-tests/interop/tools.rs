//! Which foreign programs are here, which ports are free, and how to wait.

use std::env;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up; far beyond what a slow machine needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Program and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("baresip", "baresip-core"),
    ("faketime", "faketime"),
    ("kamailio", "kamailio"),
    ("miniupnpd", "miniupnpd-nftables"),
    ("nft", "nftables"),
    ("node", "nodejs"),
    ("pactl", "pulseaudio-utils"),
    ("paplay", "pulseaudio-utils"),
    ("parec", "pulseaudio-utils"),
    ("pulseaudio", "pulseaudio"),
    ("sipp", "sip-tester"),
    ("sipsak", "sipsak"),
    ("tshark", "tshark"),
    ("turnserver", "coturn"),
    ("turnutils_uclient", "coturn"),
    ("dumpcap", "wireshark-common"),
];

/// True when all `programs` are installed. Otherwise says loudly what is missing, or fails where it is required.
pub fn have(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|p| which(p).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let package = |p: &str| PACKAGES.iter().find(|(name, _)| *name == p).map_or(p.to_owned(), |(_, pkg)| (*pkg).into());
    let packages: Vec<_> = missing.iter().map(|p| package(p)).collect();
    let missing: Vec<_> = missing.into_iter().copied().collect();
    skip(test, &format!("no {}; install: apt-get install {}", missing.join(", "), packages.join(" ")))
}

/// True when this process may capture packets (CAP_NET_RAW); otherwise as [`have`].
pub fn may_capture(test: &str) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim).unwrap_or("0");
    let capable = u64::from_str_radix(effective, 16).is_ok_and(|bits| bits >> 13 & 1 == 1);
    capable || skip(test, "no right to capture on lo; run as root. What it needs: apt-get install tshark")
}

/// One heavy thing (sound in real time, load) at a time: the machine may have two slow cores.
pub fn heavy() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again and again until there is an answer; fails with `what` and the last refusal after [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if Instant::now() > end => panic!("{what}: not within {} s; last: {last}", DEADLINE.as_secs()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The first of `count` neighbouring ports of 127.0.0.1 that are free for UDP and TCP. Below the range that the
/// kernel gives to outgoing connections and below the program's media ports, so that nobody takes one meanwhile;
/// and of four digits, because sipsak cuts off a fifth.
pub fn free_ports(count: u16) -> u16 {
    const FIRST: u16 = 6_100;
    const SPAN: u16 = 3_800;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id() % 97) as u16 * 37;
    for _ in 0..SPAN {
        let at = NEXT.fetch_add(count, Ordering::Relaxed);
        let base = FIRST + offset.wrapping_add(at) % (SPAN - count);
        let free =
            |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + count).all(free) {
            return base;
        }
    }
    panic!("no {count} neighbouring ports are free on 127.0.0.1 between {FIRST} and {}", FIRST + SPAN);
}

fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file())
}

pub fn skip(test: &str, why: &str) -> bool {
    assert!(env::var("CHORDIAL_INTEROP").as_deref() != Ok("required"), "{test}: {why}");
    // Straight to the descriptor: the harness would swallow what a passing test prints.
    use std::io::Write;
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "\nSKIPPED: {test}: {why}\n");
    false
}
