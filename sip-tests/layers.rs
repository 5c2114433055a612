//! Holds the direction of imports: a module names only modules of its own layer or below, siblings of
//! L2 do not name each other, and `overlay::chord` has never heard of SIP.
//!
//! It reads `crate::` paths in the sources, so it also sees what a `cfg` leaves out of this build.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and what it may name besides itself. Longest prefix wins.
const ALLOWED: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("config", &["core"]),
    ("sip::msg", &["core"]),
    ("sip::frame", &["core", "sip::msg"]),
    ("sdp", &["core"]),
    ("rtp", &["core"]),
    ("stun", &["core"]),
    ("identity", &["core"]),
    ("sip::tx", L1),
    ("sip::dialog", L1),
    ("sip::auth", L1),
    ("overlay::chord", &["core", "identity", "overlay"]),
    ("overlay", L1),
    ("media", L1),
    ("secure", L1),
    ("nat", L1),
    (
        "ua",
        &[
            CORE,
            "config",
            MSG,
            "sip::frame",
            "sdp",
            "rtp",
            "stun",
            "identity",
            "sip::tx",
            "sip::dialog",
            "sip::auth",
            "overlay",
            "media",
            "secure",
        ],
    ),
    (
        "pbx",
        &[
            CORE,
            "config",
            MSG,
            "sip::frame",
            "sdp",
            "rtp",
            "stun",
            "identity",
            "sip::tx",
            "sip::dialog",
            "sip::auth",
            "overlay",
            "media",
            "secure",
            "ua",
        ],
    ),
    (
        "node",
        &[
            CORE,
            "config",
            MSG,
            "sip::frame",
            "sdp",
            "rtp",
            "stun",
            "identity",
            "sip::tx",
            "sip::dialog",
            "sip::auth",
            "overlay",
            "media",
            "secure",
            "nat",
            "ua",
            "pbx",
        ],
    ),
    (
        "io",
        &[
            CORE,
            "config",
            MSG,
            "sip::frame",
            "sdp",
            "rtp",
            "stun",
            "identity",
            "sip::tx",
            "sip::dialog",
            "sip::auth",
            "overlay",
            "media",
            "secure",
            "nat",
            "ua",
            "pbx",
            "node",
        ],
    ),
    (
        "sim",
        &[
            CORE,
            "config",
            MSG,
            "sip::frame",
            "sdp",
            "rtp",
            "stun",
            "identity",
            "sip::tx",
            "sip::dialog",
            "sip::auth",
            "overlay",
            "media",
            "secure",
            "nat",
            "ua",
            "pbx",
            "node",
        ],
    ),
    // `app` sees the node through its commands and events; it starts `io` and `sim`.
    ("app", &[CORE, "config", "identity", "media", "node::control", "io", "sim", "pbx"]),
];
const CORE: &str = "core";
const MSG: &str = "sip::msg";
const L1: &[&str] = &["core", "config", "sip::msg", "sip::frame", "sdp", "rtp", "stun", "identity"];

/// Crates that must not be named below L5, and the word that names them.
const BANNED_BELOW_IO: &[&str] = &[
    "tokio::",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::thread",
    "std::fs::",
    "getrandom::",
];

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// `src/sip/msg/uri.rs` is `sip::msg::uri`.
fn module_of(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap().with_extension("");
    let parts: Vec<_> = relative.iter().map(|p| p.to_str().unwrap()).filter(|p| *p != "mod").collect();
    parts.join("::")
}

fn rule_of(module: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let under = |prefix: &str| module == prefix || module.starts_with(&format!("{prefix}::"));
    ALLOWED.iter().filter(|(prefix, _)| under(prefix)).max_by_key(|(prefix, _)| prefix.len())
}

/// Every path after `crate::`, groups in braces written out one level deep.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        if at > 0 && text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        let head = rest[..end].trim_end_matches(':').to_owned();
        match rest[end..].strip_prefix('{') {
            Some(group) => {
                let group = &group[..group.find(';').unwrap_or(group.len())];
                for item in split_group(group) {
                    let joined = if head.is_empty() { item } else { format!("{head}::{item}") };
                    paths.insert(joined);
                }
            }
            None => {
                paths.insert(head);
            }
        }
    }
    paths
}

fn split_group(group: &str) -> Vec<String> {
    let (mut depth, mut item, mut items) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            c if depth == 0 => item.push(c),
            _ => {}
        }
    }
    items.push(item);
    let trim = |i: String| i.trim().trim_end_matches("::").trim().split(" as ").next().unwrap_or("").to_owned();
    items.into_iter().map(trim).filter(|i| !i.is_empty()).collect()
}

fn breaches(module: &str, text: &str) -> Vec<String> {
    let Some((own, allowed)) = rule_of(module) else {
        return vec![format!("{module}: no rule in sip-tests/layers.rs")];
    };
    let mut found = Vec::new();
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    for path in crate_paths(&code) {
        let within = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
        if !within(own) && !allowed.iter().any(|p| within(p)) {
            found.push(format!("{module} names crate::{path}"));
        }
    }
    let below_io = !["io", "app", "sim"].iter().any(|l| module == *l || module.starts_with(&format!("{l}::")));
    let shipped = code.split("#[cfg(test)]").next().unwrap_or("");
    if below_io && !module.ends_with("tests") {
        found.extend(BANNED_BELOW_IO.iter().filter(|b| shipped.contains(**b)).map(|b| format!("{module} names {b}")));
    }
    found
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 20, "found only {} sources", files.len());
    let mut found = Vec::new();
    for file in files {
        let module = module_of(&root, &file);
        if !["lib", "main", "sip"].contains(&module.as_str()) {
            found.extend(breaches(&module, &fs::read_to_string(&file).unwrap()));
        }
    }
    assert!(found.is_empty(), "imports that the layers forbid:\n{}", found.join("\n"));
}

#[test]
fn planted_breaches_are_seen() {
    for (module, text) in [
        ("overlay::chord::ring", "use crate::sip::msg::Message;"),
        ("overlay::chord", "use crate::{core::Id, sip::{msg, tx}};"),
        ("sip::tx::client", "fn f() { crate::sip::dialog::Dialog::new() }"),
        ("media::jitter", "use crate::overlay::Id;"),
        ("node", "use crate::io::Endpoint;"),
        ("sim", "use crate::io::Endpoint;"),
        ("io", "use crate::sim::run;"),
        ("app::cli", "use crate::node::Node;"),
        ("ua::call", "use crate::pbx::router::Router;"),
        ("ua::call", "let t = tokio::time::sleep(d);"),
        ("core", "use crate::config::Config;"),
    ] {
        assert!(!breaches(module, text).is_empty(), "{module}: {text}");
    }
    assert!(breaches("pbx::router", "use crate::ua::Call;\n// crate::io is not for us").is_empty());
}
