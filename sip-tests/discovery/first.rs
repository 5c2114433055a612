//! The first contact: machines that belong to nobody yet find whom they join on the local network, by six digits and by
//! name and password, without an address; and a family by a contact link.

use crate::lan::{Lan, Machine, one_ring};
use crate::{alone, open};
use serde_json::Value;

#[test]
fn six_digits_and_a_password_are_enough_on_a_local_network() {
    let Some(lan) = Lan::new("six_digits_and_a_password_are_enough_on_a_local_network", 4) else { return };
    lan.run(0, "founder", &["office", "create", "hq.test", "--name", "anna"]);
    let anna = lan.start(0, "founder", &[]);
    one_ring(std::slice::from_ref(&anna));
    // Another overlay's peer answers on the same network, and is left alone.
    let stranger = lan.start(3, "mallory", &open("mallory", "other.test"));
    let digits = anna.json(&["invite", "ben", "--pair"])["digits"].as_str().map(str::to_owned).expect("digits");
    lan.run(1, "joiner", &["join", &digits]);
    let mut office = vec![anna, lan.start(1, "joiner", &[])];
    one_ring(&office);
    office[0].finds("ben");

    // The password's shares lie with both.
    let set = lan.typed(0, "founder", &["password", "--password-stdin"], "correct horse battery staple");
    assert_eq!(set["password"], "set", "{set}");
    let wrong = lan.try_typed(2, "second", &["login", "anna@hq.test", "--password-stdin"], "wrong horse");
    assert!(wrong.is_err(), "{wrong:?}");
    let done = lan.typed(2, "second", &["login", "anna@hq.test", "--password-stdin"], "correct horse battery staple");
    assert_eq!(done["logged_in"], Value::from("hq.test"), "{done}");
    office.push(lan.start(2, "second", &["--auto-answer"]));
    office[2].finds("ben");
    office[1].finds("anna");
    assert!(alone(&stranger), "{}", stranger.status());
}

#[test]
fn a_family_is_joined_by_a_contact_link() {
    let Some(lan) = Lan::new("a_family_is_joined_by_a_contact_link", 2) else { return };
    let anna = lan.start(0, "anna", &open("anna", "family.test"));
    one_ring(std::slice::from_ref(&anna));
    let link = anna.json(&["contacts", "link", "--ring", "once"])["link"].as_str().map(str::to_owned).expect("a link");
    lan.run(1, "ben", &["join", &link, "--name", "ben"]);
    // Neither overlay nor bootstrap address is said again, and the network is not asked.
    let ben = lan.start(1, "ben", &["--discover", "none", "--audio-in", "tone"]);
    let family = [anna, ben];
    one_ring(&family);
    family[1].finds("anna");
    family[1].call("anna");
    let known = |machine: &Machine, name: &str| {
        let report = machine.json(&["strangers"]);
        report["contacts"].as_array().into_iter().flatten().any(|c| c["name"] == name)
    };
    assert!(known(&family[1], "anna") && known(&family[0], "ben"), "{}", family[0].json(&["strangers"]));
}
