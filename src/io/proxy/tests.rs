use super::*;
use std::net::Ipv4Addr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const OK: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
/// Longer than anything takes here.
pub(in crate::io) const LONG: Duration = Duration::from_secs(60);
/// An address that nobody is at.
const TARGET: &str = "192.0.2.1:443";

/// What a scripted proxy does once it was asked.
#[derive(Clone)]
pub(in crate::io) enum Script {
    /// Says this, and nothing more.
    Say(String),
    /// Says this, and carries bytes to there, whoever was asked for.
    Carry(SocketAddr),
    /// Says this over and over.
    Repeat(&'static str),
}

/// Where it is, and the requests that it gets.
pub(in crate::io) async fn proxy(script: Script) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (asked, requests) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(act(tcp, script.clone(), asked.clone()));
        }
    });
    (at, requests)
}

async fn act(mut tcp: TcpStream, script: Script, asked: mpsc::Sender<String>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(tcp.read_u8().await?);
    }
    _ = asked.send(String::from_utf8(request).unwrap()).await;
    match script {
        Script::Say(text) => {
            tcp.write_all(text.as_bytes()).await?;
            // Open until the other end goes.
            tcp.read_to_end(&mut Vec::new()).await?;
        }
        Script::Carry(to) => {
            let mut there = TcpStream::connect(to).await?;
            tcp.write_all(OK.as_bytes()).await?;
            tokio::io::copy_bidirectional(&mut tcp, &mut there).await?;
        }
        Script::Repeat(text) => loop {
            tcp.write_all(text.as_bytes()).await?;
            tokio::task::yield_now().await;
        },
    }
    Ok(())
}

async fn open(
    who: &str,
    script: Script,
    answer_time: Duration,
) -> (Arc<Proxy>, Result<(TcpStream, Tunnel), ProxyError>, String) {
    let (at, mut requests) = proxy(script).await;
    let proxy = Proxy::anywhere(&format!("{who}{at}"), answer_time);
    let opened = proxy.open(TARGET.parse().unwrap(), |_, _| Ok(())).await;
    let request = requests.recv().await.unwrap();
    (proxy, opened, request)
}

async fn refused(who: &str, text: impl Into<String>) -> String {
    let (proxy, opened, _) = open(who, Script::Say(text.into()), LONG).await;
    let why = opened.expect_err("a tunnel").to_string();
    assert_eq!(proxy.status().fault.as_ref(), Some(&why));
    assert!(why.contains(TARGET), "{why}");
    why
}

#[tokio::test]
async fn what_follows_the_head_is_the_tunnels() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    for head in [OK.to_owned(), format!("{interim}{OK}"), "HTTP/1.0 200 \nContent-Length: 9\n\n".into()] {
        let (proxy, opened, request) = open("", Script::Say(format!("{head}first words")), LONG).await;
        let (mut tcp, tunnel) = opened.unwrap();
        let mut words = [0; 11];
        timeout(LONG, tcp.read_exact(&mut words)).await.expect("they are lost").unwrap();
        assert_eq!(&words, b"first words");
        assert_eq!(request, format!("CONNECT {TARGET} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n"));
        assert_eq!((proxy.status().tunnels, proxy.status().fault), (1, None));
        drop(tunnel);
        assert_eq!(proxy.status().tunnels, 0);
    }
}

#[tokio::test]
async fn a_long_head_is_read_in_pieces() {
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(5000));
    let (_, opened, _) = open("", Script::Say(format!("{head}z")), LONG).await;
    assert_eq!(opened.unwrap().0.read_u8().await.unwrap(), b'z');
}

#[tokio::test]
async fn who_asks_is_told_where_the_proxy_wants_it() {
    // RFC 7617 section 2.
    let (_, opened, request) = open("Aladdin:open%20sesame@", Script::Say(OK.into()), LONG).await;
    opened.unwrap();
    assert!(request.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{request}");
    let wants = "HTTP/1.1 407 Who?\r\nproxy-authenticate: Negotiate, Basic realm=\"x\"\r\n\r\n";
    let why = refused("", wants).await;
    assert!(why.contains("wants a user name") && why.contains("nat.http_proxy_password_file"), "{why}");
    let why = refused("anna:wrong@", wants).await;
    assert!(why.contains("does not take this user") && !why.contains("wrong"), "{why}");
    let why = refused("anna:wrong@", "HTTP/1.1 407 Who?\r\nProxy-Authenticate: NTLM\r\n\r\n").await;
    assert!(why.contains("another proof"), "{why}");
}

#[tokio::test]
async fn what_it_refuses_is_said_in_words() {
    let why = refused("", "HTTP/1.1 403 \u{1b}[31mno\r\n\r\n").await;
    assert!(why.contains("(403); ask who runs it to allow CONNECT to port 443") && !why.contains('\u{1b}'), "{why}");
    assert!(refused("", "HTTP/1.1 502 Bad Gateway\r\n\r\n").await.contains("(502)"));
}

#[tokio::test]
async fn what_is_no_answer_opens_no_tunnel() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
    ] {
        assert!(refused("", garbage).await.contains("something else than HTTP"), "{garbage}");
    }
    let endless = Script::Repeat("HTTP/1.1 100 Continue\r\n\r\n");
    for script in [Script::Repeat("HTTP/1.1 200 OK\r\nX: y"), endless] {
        let (_, opened, _) = open("", script, LONG).await;
        assert!(opened.unwrap_err().to_string().contains("does not end"));
    }
    for part in ["", "HTTP/1.1 200 OK\r\n"] {
        let (_, opened, _) = open("", Script::Say(part.into()), Duration::from_millis(20)).await;
        assert!(opened.unwrap_err().to_string().contains("does not answer"), "{part}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there() {
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let opened = Proxy::anywhere(&nobody.to_string(), LONG).open(TARGET.parse().unwrap(), |_, _| Ok(())).await;
    let why = opened.unwrap_err().to_string();
    assert!(why.contains("cannot be reached") && why.contains(&nobody.to_string()), "{why}");
}

#[test]
fn the_environment_names_one_and_the_configuration_overrides_it() {
    let of = |config: &str, environment: &[(&str, &str)]| {
        let environment: Vec<_> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let read = move |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let config = Config::from_toml(&format!("[nat]\n{config}")).unwrap();
        Proxy::of(&config, Some(Redacted::new("p".into())), read)
    };
    let place = |proxy: Option<Arc<Proxy>>| proxy.map(|p| (p.at.place(), p.named));
    let environment =
        [("https_proxy", "socks5://s:1"), ("HTTPS_PROXY", ""), ("ALL_PROXY", "http://a:1"), ("no_proxy", "10.0.0.0/8")];
    assert_eq!(place(of("", &environment)), Some(("a:1".into(), "ALL_PROXY")));
    assert_eq!(
        place(of("", &[("https_proxy", "b:2"), ("ALL_PROXY", "http://a:1")])),
        Some(("b:2".into(), "https_proxy"))
    );
    assert_eq!(place(of("http_proxy = \"off\"", &environment)), None);
    assert_eq!(place(of("", &[("no_proxy", "x"), ("http_proxy", "http://a:1")])), None);
    let at = of("http_proxy = \"anna@c:3\"", &environment).unwrap();
    assert_eq!((at.at.place(), at.named), ("c:3".into(), "nat.http_proxy"));
    assert_eq!(at.at.password.as_ref().map(|p| p.reveal().as_str()), Some("p"));
    let serves = |proxy: &Proxy, ip: &str| proxy.serves(ip.parse().unwrap(), None);
    let auto = of("", &environment).unwrap();
    assert!(serves(&at, "10.0.0.1") && !serves(&auto, "10.0.0.1") && serves(&auto, "192.0.2.1"));
    assert!(!serves(&at, "127.0.0.1") && !serves(&auto, "::1"), "this machine is not behind it");
}
