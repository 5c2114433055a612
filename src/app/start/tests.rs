use super::*;
use crate::app::cli::CreateArgs;

fn start(data: &Path, flags: &[(&'static str, &str)]) -> Result<Setup, Failure> {
    let flags = flags.iter().map(|(f, v)| (*f, (*v).to_owned())).collect();
    prepare(data, &StartArgs { config: None, headless: true, flags })
}

fn refused(data: &Path, flags: &[(&'static str, &str)]) -> String {
    start(data, flags).unwrap_err().error().to_string()
}

#[test]
fn an_open_identity_is_made_once_and_kept() {
    let temp = tempfile::tempdir().unwrap();
    let bob = [("open", "true"), ("name", "bob"), ("overlay", "demo")];
    let first = start(temp.path(), &bob).unwrap().identity.unwrap();
    assert_eq!(first.aor(), "sip:bob@demo");
    let again = start(temp.path(), &[("open", "true")]).unwrap().identity.unwrap();
    assert_eq!(again.device_key(), first.device_key());
    let e = refused(temp.path(), &[("open", "true"), ("name", "eve")]);
    assert!(e.contains("this device is sip:bob@demo already: it cannot be eve; leave that flag out"), "{e}");
    let e = refused(temp.path(), &[("open", "true"), ("overlay", "other")]);
    assert!(e.contains("it is not of overlay other"), "{e}");
    std::fs::write(temp.path().join(IDENTITY), b"junk").unwrap();
    let e = refused(temp.path(), &bob);
    assert!(e.contains("identity.cbor") && e.contains("restore the file"), "{e}");
}

#[test]
fn nobody_joins_or_founds_by_accident() {
    let temp = tempfile::tempdir().unwrap();
    let e = refused(temp.path(), &[("name", "bob")]);
    assert!(e.starts_with("this device belongs to no office yet") && e.contains("--open --name USER"), "{e}");
    let e = refused(temp.path(), &[("open", "true")]);
    assert!(e.contains("give one with --name USER"), "{e}");
    let e = refused(temp.path(), &[("open", "true"), ("name", "b b")]);
    assert!(e.contains("a user name is"), "{e}");
    assert!(!temp.path().join(IDENTITY).exists());
}

#[test]
fn an_office_is_founded_once() {
    let temp = tempfile::tempdir().unwrap();
    let args = |office: &str| CreateArgs { office: office.into(), user: "ann".into() };
    let e = create_office(temp.path(), &args("no good"), true).unwrap_err().error().to_string();
    assert!(e.contains("an overlay name is") && e.contains("choose another NAME"), "{e}");
    create_office(temp.path(), &args("acme.example"), true).unwrap();
    let identity = start(temp.path(), &[]).unwrap().identity.unwrap();
    assert_eq!(identity.aor(), "sip:ann@acme.example");
    assert!(identity.enroller.is_some());
    let e = create_office(temp.path(), &args("acme"), true).unwrap_err().error().to_string();
    assert!(e.starts_with("this device is sip:ann@acme.example already"), "{e}");
    let e = refused(temp.path(), &[("open", "true")]);
    assert!(e.contains("it belongs to an office"), "{e}");
}

#[test]
fn a_plain_phone_has_a_password_and_no_identity() {
    let temp = tempfile::tempdir().unwrap();
    let (data, file) = (temp.path().join("data"), temp.path().join("password"));
    let path = file.display().to_string();
    let flags = [("registrar", "127.0.0.1:5060"), ("name", "desk"), ("password-file", path.as_str())];
    assert!(refused(&data, &flags).starts_with("cannot read "));
    std::fs::write(&file, "\n").unwrap();
    assert!(refused(&data, &flags).contains("holds no password; put it on its first line"));
    std::fs::write(&file, "s3cret \nrest\n").unwrap();
    assert!(!data.exists(), "nothing is made before all files are read");
    let setup = start(&data, &flags).unwrap();
    assert!(setup.identity.is_none());
    assert_eq!(setup.password.unwrap().reveal(), "s3cret ");
    assert!(!data.join(IDENTITY).exists());
}

#[test]
fn what_was_known_is_read_back() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join(PEERS), "127.0.0.1:5061\nnonsense\n[::1]:7\n").unwrap();
    std::fs::write(temp.path().join("p.csv"), "desk,pw\n").unwrap();
    let path = temp.path().join("p.csv").display().to_string();
    let setup = start(temp.path(), &[("open", "true"), ("name", "bob"), ("phones", &path)]).unwrap();
    assert_eq!(setup.known_peers, ["127.0.0.1:5061".parse().unwrap(), "[::1]:7".parse().unwrap()]);
    assert_eq!(setup.phones.unwrap().1.reveal(), "desk,pw\n");
    assert!(
        refused(&temp.path().join("x"), &[("phones", "/nonexistent/p.csv")]).starts_with("cannot read /nonexistent")
    );
}
