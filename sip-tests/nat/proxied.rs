//! A network that lets nothing out but its HTTP proxy: a member joins by it and calls, with voice both ways.

use crate::calls::{Lab, loudness, tail};
use crate::process::Process;
use crate::tools::eventually;
use std::path::Path;

const PORT: &str = "3128";

#[test]
fn where_nothing_leads_out_but_an_http_proxy_members_call() {
    let test = "where_nothing_leads_out_but_an_http_proxy_members_call";
    let Some(lab) = Lab::new(test, "rv=host,ips=2 px=host a=port b=host") else { return };
    let (rv, px) = (format!("{}:5061", lab.say(&["addr", "rv", "v4"])), lab.say(&["addr", "px", "v4"]));
    // The router of `a` lets nothing through but to the proxy.
    let wall = format!(
        "table inet wall {{ chain forward {{ type filter hook forward priority -10; policy accept; \
         iifname \"lan\" ip daddr != {px} drop; iifname \"lan\" meta l4proto != tcp drop; iifname \"lan\" tcp dport != {PORT} drop; }}\n}}"
    );
    lab.say(&["exec", "a-nat", "nft", &wall]);
    let mut command = lab.inside("px", "python3");
    command.args(["sip-tests/nat/connect_proxy.py", &px, PORT, "anna:s@cret"]);
    let proxy = Process::start("proxy", &mut command, Path::new(&lab.path("")));

    let _rv = lab.start("rv", "rv", &["--role", "supernode"]);
    let (heard, said) = (lab.path("bob.wav"), lab.path("alice.wav"));
    let out = format!("wav:{heard}");
    let bob = lab.start("b", "bob", &["--role", "ordinary", "--bootstrap", &rv, "--audio-out", &out]);
    std::fs::write(lab.path("password"), "s@cret\n").unwrap();
    let settings =
        format!("[nat]\nhttp_proxy = \"anna@{px}:{PORT}\"\nhttp_proxy_password_file = \"{}\"\n", lab.path("password"));
    std::fs::write(lab.path("alice.toml"), settings).unwrap();
    let config = lab.path("alice.toml");
    let alice = lab.start("a", "alice", &["--role", "ordinary", "--bootstrap", &rv, "--config", &config]);
    alice.finds("bob");
    bob.finds("alice");
    let status = alice.json(&["status"]).unwrap();
    assert!(status["proxy"]["tunnels"].as_u64() > Some(0), "{status}");

    let report = eventually("a call that both hear", || {
        let report = alice.json(&["call", "bob", "--play", "tone", "--record", &said, "--duration", "4"])?;
        let loud = [&heard, &said].map(|file| loudness(Path::new(file)));
        let good = report["result"] == "completed" && loud.iter().all(|l| *l > 300.0);
        let told = || format!("{report} heard {loud:?}\n{}\n{}", tail(&alice), tail(&bob));
        if good { Ok(report.clone()) } else { Err(told()) }
    });
    assert!(report["path"].as_str().unwrap_or_default().starts_with("relay "), "{report}");
    assert_eq!((&report["transport"], &report["security"]), (&"tls".into(), &"dtls-srtp".into()), "{report}");
    let asked = proxy.stdout();
    assert!(asked.lines().count() >= 2 && asked.lines().all(|l| l.ends_with(":443")), "{asked}");
}
