use crate::chord::make;
use crate::net::{Death, Net, Users, entry, key_of};
use chordial::core::Id;
use chordial::overlay::{Command, Mode, Overlay};
use std::time::Duration;

fn rss() -> usize {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore]
fn big() {
    let n: usize = std::env::var("N").ok().and_then(|v| v.parse().ok()).unwrap_or(200);
    let before = rss();
    let mut net = Net::new(std::env::var("SEED").ok().and_then(|v| v.parse().ok()).unwrap_or(1), make);
    let t = std::time::Instant::now();
    for i in 0..n {
        let peer = net.add(Id::sha1(format!("peer {i}").as_bytes()));
        if i == 0 { net.command(peer, Command::Create) } else { let b = net.draw(i); net.join(peer, b); }
        net.run(Duration::from_millis(200));
    }
    println!("joined {} in {:?}, messages {}", net.around().len(), t.elapsed(), net.messages);
    net.run(Duration::from_secs(180));
    println!("{:?}", net.reports.iter().filter(|(_, o)| *o != chordial::overlay::Output::Joined).collect::<Vec<_>>());
    if std::env::var("J").is_ok() { return; }
    println!("wrong {} after settle, {:?}, messages {}", net.wrong(8).len(), t.elapsed(), net.messages);
    let m = net.messages;
    net.run(Duration::from_secs(600));
    println!("at rest: {:.3} messages/s/peer; {:?}", (net.messages - m) as f64 / 600.0 / n as f64, t.elapsed());
    println!("rss per peer {} kB", (rss() - before) / n);
    for mode in [Mode::Iterative, Mode::Recursive, Mode::Auto] {
        let mut hops = 0u64;
        for i in 0..500 {
            let p = net.draw(n);
            let (r, tr) = net.find(p, Id::sha1(format!("t{i}").as_bytes()), mode);
            r.unwrap();
            hops += tr.hops as u64;
        }
        println!("{mode:?} mean hops {}", hops as f64 / 500.0);
    }
    let mut latest = std::collections::BTreeMap::new();
    let mut users = Users::new(1);
    let people: Vec<_> = (0..50).map(|i| users.user(&format!("u{i}"))).collect();
    for (i, u) in people.iter().enumerate() {
        let p = net.living()[i % net.living().len()];
        net.put(p, &entry(u, 1, b"x", 86400)).1.unwrap();
    }
    for death in [Death::Refused, Death::Silent] {
        net.death = death;
        let (mut bad, mut total, mut worst, mut sum) = (0, 0, Duration::ZERO, Duration::ZERO);
        for round in 0..60 {
            // one join and one crash per 2.5 s
            let living = net.around();
            let victim = living[net.draw(living.len())];
            net.crash(victim);
            let peer = net.add(Id::sha1(format!("churn {death:?} {round}").as_bytes()));
            let living = net.around();
            let b = living[net.draw(living.len())];
            net.join(peer, b);
            let end = net.now + Duration::from_millis(2500);
            while net.now < end {
                let living = net.around();
                let p = living[net.draw(living.len())];
                let u = net.draw(people.len());
                if net.draw(4) == 0 {
                    let e = entry(&people[u], 10 + total as u64 + if death == Death::Silent { 100000 } else { 0 }, format!("{total}").as_bytes(), 86400);
                    let (acks, r, tr) = net.put(p, &e);
                    if r.is_err() { println!("put {acks} {r:?} {tr:?}"); }
                    latest.insert(u, e.entry().sequence);
                }
                let living = net.around();
                let p = living[net.draw(living.len())];
                let (r, tr) = net.get(p, key_of(&people[u]), Mode::Auto);
                if let Ok(f) = &r && let Some(e) = f.first() && latest.get(&u).is_some_and(|s| *s != e.entry().sequence) { let k = key_of(&people[u]); println!("STALE u{u} want {:?} got {} owner {:?} {tr:?}", latest.get(&u), e.entry().sequence, net.peers[net.owner(&k)].me.id);
 for i in net.living() { for s in 0..2 { if net.peers[i].overlay.resources().contains(&(k, s)) { println!("   held by {:?} slot {s} {:?}", net.peers[i].me.id, net.peers[i].overlay.sequences(&(k, s))); } } }  }
                total += 1;
                if r.as_ref().map(|f| f.len()) != Ok(1) { bad += 1; println!("bad {r:?} {tr:?}"); }
                worst = worst.max(tr.took);
                sum += tr.took;
            }
        }
        println!("{death:?}: {bad} bad of {total}, worst {worst:?}, mean {:?}; {:?}", sum / total, t.elapsed());
    }
    net.run(Duration::from_secs(60));
    println!("wrong {}", net.wrong(8).len());
    let mut c = chordial::overlay::Counters::default();
    for p in &net.peers { let k = p.overlay.counters(); c.rpc_timeout += k.rpc_timeout; c.lookups_failed += k.lookups_failed; c.repaired += k.repaired; c.rpc_failed += k.rpc_failed; }
    println!("{c:?}");
}
