use super::*;
use tokio::task::LocalSet;

type Heard = Rc<RefCell<Vec<(SocketAddr, Vec<u8>)>>>;

fn noting(heard: &Heard) -> Take {
    let heard = heard.clone();
    Rc::new(move |from, packet: &[u8]| heard.borrow_mut().push((from, packet.to_vec())))
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        sleep(Duration::from_millis(2)).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new()
        .block_on(&runtime, async { timeout(Duration::from_secs(60), test).await.expect("within a minute") });
}

async fn listening(heard: &Heard) -> (SocketAddr, Rc<Connections>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (all, carry) = Connections::taken(listener, noting(heard));
    tokio::task::spawn_local(carry);
    (at, all)
}

#[test]
fn packets_go_both_ways_over_one_connection() {
    run(async {
        let (here, there) = (Heard::default(), Heard::default());
        let (at, taken) = listening(&there).await;
        let (made, carry) = Connections::made("127.0.0.1:9".parse().unwrap(), noting(&here));
        tokio::task::spawn_local(carry);
        for packet in [&b"one"[..], &[7; 1500], b""] {
            made.try_send_to(packet, at).unwrap();
        }
        until(|| there.borrow().len() == 3).await;
        let from = there.borrow()[0].0;
        let packets: Vec<_> = there.borrow().iter().map(|(_, p)| p.clone()).collect();
        assert_eq!(packets, [b"one".to_vec(), vec![7; 1500], Vec::new()]);
        assert!(there.borrow().iter().all(|(f, _)| *f == from), "one connection");
        assert!(taken.try_send_to(b"x", at).is_err(), "who is waited for is not called");
        taken.try_send_to(b"back", from).unwrap();
        until(|| here.borrow().len() == 1).await;
        assert_eq!(here.borrow()[0], (at, b"back".to_vec()));
        assert_eq!((made.open.borrow().len(), taken.open.borrow().len()), (1, 1));
    });
}

#[test]
fn strangers_are_few_and_end_no_connection_that_is_used() {
    run(async {
        let heard = Heard::default();
        let (at, taken) = listening(&heard).await;
        let mut friend = TcpStream::connect(at).await.unwrap();
        friend.write_all(b"\0\x02hi").await.unwrap();
        until(|| heard.borrow().len() == 1).await;
        let from = heard.borrow()[0].0;
        taken.try_send_to(b"you", from).unwrap();
        let mut strangers = Vec::new();
        for n in 1..=20 {
            let mut stranger = TcpStream::connect(at).await.unwrap();
            stranger.write_all(b"\0\x01?").await.unwrap();
            until(|| heard.borrow().len() == 1 + n).await;
            strangers.push(stranger);
            assert!(taken.open.borrow().len() <= 1 + UNPROVEN);
        }
        assert_eq!(strangers[0].read(&mut [0; 8]).await.unwrap_or(0), 0, "the oldest was ended");
        friend.write_all(b"\0\x03yes").await.unwrap();
        until(|| heard.borrow().last().unwrap().1 == b"yes").await;
        // Nor is more kept of one than a packet.
        while taken.open.borrow().iter().any(|c| c.remote == from) {
            let _ = friend.write_all(&[0xff; 8]).await;
            sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn what_nobody_answers_is_given_up_and_tried_again() {
    run(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (made, carry) = Connections::made("127.0.0.1:9".parse().unwrap(), noting(&Heard::default()));
        tokio::task::spawn_local(carry);
        for _ in 0..2 {
            made.try_send_to(b"?", free).unwrap();
            until(|| made.open.borrow().is_empty()).await;
        }
        for port in 1..=MOST as u16 {
            made.connect(SocketAddr::new([127, 0, 0, 1].into(), port)).unwrap();
        }
        assert!(made.try_send_to(b"?", free).is_err(), "so many at once");
    });
}
