//! What a person does at a node, and what is seen of it.

use super::*;

impl World {
    pub fn command(&mut self, host: usize, command: Command) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.hand(host, Input::Command { request, command });
        request
    }

    /// A command that is answered at once.
    pub fn ask(&mut self, host: usize, command: Command) -> Result<Reply, CommandError> {
        let request = self.command(host, command);
        self.hosts[host].replies.remove(&request).expect("an answer at once")
    }

    pub fn call(&mut self, host: usize, target: &str) -> RequestId {
        self.command(
            host,
            Command::Call { target: target.into(), play: None, record: None, duration: None, account: None },
        )
    }

    pub fn hang_up(&mut self, host: usize) {
        self.ask(host, Command::Hangup { call: None }).unwrap();
    }

    pub fn answer(&mut self, host: usize) {
        self.ask(host, Command::Answer { call: None }).unwrap();
    }

    /// Runs until a call command is answered; the report and how long that took.
    pub fn report(&mut self, host: usize, request: RequestId, within: Duration) -> (CallReport, Duration) {
        let took = self.until(within, "the end of the call", |w| w.hosts[host].replies.contains_key(&request));
        match self.hosts[host].replies.get(&request) {
            Some(Ok(Reply::Call(report))) => (report.clone(), took),
            other => panic!("{other:?}"),
        }
    }

    pub fn until_event(&mut self, host: usize, what: &str, fits: impl Fn(&Event) -> bool) -> Duration {
        self.until(Duration::from_secs(20), what, |w| w.hosts[host].events.iter().any(|(_, e)| fits(e)))
    }

    pub fn until_ringing_at(&mut self, host: usize) {
        self.until_event(host, "the incoming call", |e| matches!(e, Event::Incoming { .. }));
    }

    /// Runs until the node has let voice flow `times` times.
    pub fn until_voice(&mut self, host: usize, times: usize) {
        self.until(Duration::from_secs(20), "voice", |w| w.hosts[host].plans().len() >= times);
    }
}

impl Host {
    /// What a link shows of it to `judge`.
    pub(super) fn proven_to(&self, judge: &Host) -> Proven {
        match (&self.verified, &self.anchor) {
            (Some(verified), own) if *own == judge.anchor => match judge.revoked.check(verified) {
                Ok(()) => Proven::Member(verified.clone()),
                Err(_) => Proven::Nobody,
            },
            (Some(verified), Some(own)) => {
                Proven::Foreign(Arc::new(Foreign { anchor: own.clone(), verified: (**verified).clone() }))
            }
            _ => Proven::Nobody,
        }
    }

    pub fn plans(&self) -> Vec<&MediaPlan> {
        let plan = |m: &'_ MediaCommand| matches!(m, MediaCommand::Start { .. });
        let plans = self.media.iter().filter(|m| plan(m));
        plans
            .map(|m| match m {
                MediaCommand::Start { plan, .. } => &**plan,
                _ => unreachable!("filtered"),
            })
            .collect()
    }

    pub fn closed_media(&self) -> usize {
        self.media.iter().filter(|m| matches!(m, MediaCommand::Close { .. })).count()
    }

    /// Ended calls that nobody's command waited for.
    pub fn ended(&self) -> Vec<&CallReport> {
        let ended = self.events.iter().filter_map(|(_, e)| match e {
            Event::Ended { report, .. } => Some(&**report),
            _ => None,
        });
        ended.collect()
    }

    pub fn counter(&self, now: Instant, name: &str) -> u64 {
        self.node.status(now).counters.get(name).copied().unwrap_or(0)
    }
}

impl World {
    /// The connections that a node has open.
    pub fn links(&self, host: usize) -> Vec<ConnId> {
        self.streams.keys().filter(|(place, _)| *place == Place::Node(host)).map(|(_, conn)| *conn).collect()
    }
}
