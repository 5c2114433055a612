//! The session timer of one dialog (RFC 4028): who refreshes, how often, and when a session that nobody refreshes is over.
//!
//! Where the other end knows no session timers this end refreshes all the same, so that a session whose other end has vanished
//! does not last for ever (section 7.2 leaves that open). Left out: what a proxy does (section 8); ours forwards the fields.

use crate::core::Instant;
use crate::sip::msg::{HeaderName, Message};
use std::time::Duration;

/// Shortest interval that anybody may ask for, seconds (section 5).
pub const MIN_SE: u32 = 90;
/// The option tag.
pub const TIMER: &str = "timer";
/// Nobody means a longer interval than a day.
const MAX_SE: u32 = 86_400;

/// Who refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refresher {
    /// This end.
    Us,
    /// The other end.
    Them,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Refresh by UPDATE or INVITE.
    Refresh,
    /// Nobody has refreshed: the session is to be ended by BYE.
    Expired,
}

/// The timer, from the first INVITE on.
#[derive(Clone, Debug)]
pub struct SessionTimer {
    /// Interval that we ask for, or that was agreed; seconds.
    interval: u32,
    /// The highest Min-SE that was seen, ours at first.
    min: u32,
    refresher: Option<Refresher>,
    refresh: Option<Instant>,
    expire: Option<Instant>,
}

impl SessionTimer {
    /// Asks for `interval` seconds; brought into the range that the RFC allows.
    pub fn new(interval: u32) -> SessionTimer {
        let interval = interval.clamp(MIN_SE, MAX_SE);
        SessionTimer { interval, min: MIN_SE, refresher: None, refresh: None, expire: None }
    }

    /// Puts what we want into an INVITE or UPDATE of ours; `Supported: timer` is the caller's.
    pub fn ask(&self, request: &mut Message) {
        let who = match self.refresher {
            None => "",
            Some(Refresher::Us) => ";refresher=uac",
            Some(Refresher::Them) => ";refresher=uas",
        };
        request.set(HeaderName::SessionExpires, format_args!("{}{who}", self.interval));
        request.set(HeaderName::MinSe, self.min);
    }

    /// Looks at a received INVITE or UPDATE. `Err` when its interval is too small: 422 with this Min-SE (section 9).
    pub fn check(request: &Message) -> Result<(), u32> {
        match wanted(request) {
            Some((interval, _)) if interval < MIN_SE && supports(request) => Err(MIN_SE),
            _ => Ok(()),
        }
    }

    /// Settles a received INVITE or UPDATE by our 2xx, into which the outcome goes.
    pub fn accept(&mut self, now: Instant, request: &Message, response: &mut Message) {
        let (theirs, supported) = (wanted(request), supports(request));
        let min = min_se(request).unwrap_or(MIN_SE);
        let own = self.interval.max(min);
        self.interval = theirs.map_or(own, |(interval, _)| interval.min(own)).clamp(min.max(MIN_SE), MAX_SE);
        self.min = self.min.max(min).min(MAX_SE);
        // Table 2: an end that does not know the timer cannot refresh; one that does is asked to, unless it says otherwise.
        let refresher = match theirs {
            _ if !supported => Refresher::Us,
            Some((_, Some(false))) => Refresher::Us,
            _ => Refresher::Them,
        };
        if supported || theirs.is_some() {
            let who = if refresher == Refresher::Us { "uas" } else { "uac" };
            response.set(HeaderName::SessionExpires, format_args!("{};refresher={who}", self.interval));
            if supported {
                response.push(HeaderName::Require, TIMER);
            }
        }
        self.start(now, refresher);
    }

    /// Settles an INVITE or UPDATE of ours by its 2xx.
    pub fn learn(&mut self, now: Instant, response: &Message) {
        let refresher = match wanted(response) {
            None => Refresher::Us,
            Some((interval, by_uac)) => {
                self.interval = interval.clamp(self.min.min(MAX_SE), MAX_SE);
                if by_uac == Some(false) { Refresher::Them } else { Refresher::Us }
            }
        };
        self.start(now, refresher);
    }

    /// Takes the Min-SE of a 422; false when it does not help to ask again.
    pub fn too_small(&mut self, response: &Message) -> bool {
        match min_se(response) {
            Some(min) if min > self.interval && min <= MAX_SE => {
                (self.interval, self.min) = (min, min);
                true
            }
            _ => false,
        }
    }

    /// A refresh failed: it is tried again at `at`.
    pub fn retry(&mut self, at: Instant) {
        self.refresh = Some(at);
    }

    /// When [`handle_timeout`](SessionTimer::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.refresh.into_iter().chain(self.expire).min()
    }

    /// What is due now.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.expire.is_some_and(|at| at <= now) {
            (self.refresh, self.expire) = (None, None);
            return Some(Due::Expired);
        }
        self.refresh.take_if(|at| *at <= now).map(|_| Due::Refresh)
    }

    /// Who refreshes, once it is agreed.
    pub fn refresher(&self) -> Option<Refresher> {
        self.refresher
    }

    /// Seconds.
    pub fn interval(&self) -> u32 {
        self.interval
    }

    /// Section 10: refreshed at half the interval, ended a third of it, 32 s at most, before it is over.
    fn start(&mut self, now: Instant, refresher: Refresher) {
        let interval = Duration::from_secs(u64::from(self.interval));
        self.refresher = Some(refresher);
        self.refresh = (refresher == Refresher::Us).then(|| now + interval / 2);
        self.expire = Some(now + interval - (interval / 3).min(Duration::from_secs(32)));
    }
}

/// The interval, and whether its refresher is the sender of the request; a value that is none counts as absent.
fn wanted(message: &Message) -> Option<(u32, Option<bool>)> {
    let value = message.header(HeaderName::SessionExpires)?;
    let (interval, params) = value.split_once(';').unwrap_or((value, ""));
    let refresher = params.split(';').filter_map(|p| p.split_once('=')).find_map(|(name, who)| {
        let who = who.trim();
        let by_uac = who.eq_ignore_ascii_case("uac").then_some(true);
        let by_uas = who.eq_ignore_ascii_case("uas").then_some(false);
        name.trim().eq_ignore_ascii_case("refresher").then_some(by_uac.or(by_uas)).flatten()
    });
    Some((interval.trim().parse().ok()?, refresher))
}

fn min_se(message: &Message) -> Option<u32> {
    message.header(HeaderName::MinSe)?.split(';').next()?.trim().parse().ok()
}

fn supports(message: &Message) -> bool {
    [HeaderName::Supported, HeaderName::Require]
        .into_iter()
        .any(|name| message.values(name).any(|v| v.eq_ignore_ascii_case(TIMER)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::msg::Method;

    const fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn invite(fields: &[(&str, &str)]) -> Message {
        let mut invite = Message::request(Method::Invite, "sip:bob@example.com");
        for (name, value) in fields {
            invite.push(*name, value);
        }
        invite
    }

    fn settled(fields: &[(&str, &str)]) -> (SessionTimer, Message) {
        let request = invite(fields);
        let mut ok = Message::reply(&request, 200, "OK");
        let mut timer = SessionTimer::new(1800);
        timer.accept(at(0), &request, &mut ok);
        (timer, ok)
    }

    #[test]
    fn both_roles_of_the_one_who_answers() {
        let (timer, ok) = settled(&[("Supported", "100rel, timer"), ("Session-Expires", "120;refresher=uac")]);
        assert_eq!(ok.header("Session-Expires"), Some("120;refresher=uac"));
        assert_eq!((ok.header("Require"), timer.refresher()), (Some("timer"), Some(Refresher::Them)));
        assert_eq!(timer.poll_timeout(), Some(at(88)));
        let (mut timer, ok) = settled(&[("k", "timer"), ("x", "120 ; Refresher=UAS")]);
        assert_eq!(ok.header("Session-Expires"), Some("120;refresher=uas"));
        assert_eq!(timer.poll_timeout(), Some(at(60)));
        assert_eq!((timer.handle_timeout(at(59)), timer.handle_timeout(at(60))), (None, Some(Due::Refresh)));
        assert_eq!((timer.handle_timeout(at(87)), timer.handle_timeout(at(88))), (None, Some(Due::Expired)));
        assert_eq!(timer.poll_timeout(), None);
    }

    #[test]
    fn the_answerer_lowers_to_its_own_but_not_below_what_is_asked() {
        let (timer, _) = settled(&[("Supported", "timer"), ("Session-Expires", "7200")]);
        assert_eq!(timer.interval(), 1800);
        let (timer, _) = settled(&[("Supported", "timer"), ("Session-Expires", "7200"), ("Min-SE", "3600")]);
        assert_eq!(timer.interval(), 3600);
        let (timer, ok) = settled(&[]);
        assert_eq!((timer.interval(), timer.refresher()), (1800, Some(Refresher::Us)));
        assert!(!ok.has("Session-Expires") && !ok.has("Require"), "whoever knows no timer is told of none");
        let (timer, ok) = settled(&[("Session-Expires", "600;refresher=uac")]);
        assert_eq!((timer.refresher(), ok.has("Require")), (Some(Refresher::Us), false));
        assert_eq!(ok.header("Session-Expires"), Some("600;refresher=uas"));
    }

    #[test]
    fn too_small_an_interval_is_refused_and_learned_from() {
        let brief = invite(&[("Supported", "timer"), ("Session-Expires", "60")]);
        assert_eq!(SessionTimer::check(&brief), Err(90));
        assert_eq!(SessionTimer::check(&invite(&[("Session-Expires", "60")])), Ok(()));
        let mut timer = SessionTimer::new(90);
        let refusal = |min: &str| {
            let mut no = Message::reply(&brief, 422, "Session Interval Too Small");
            no.push("Min-SE", min);
            no
        };
        assert!(timer.too_small(&refusal("400")) && !timer.too_small(&refusal("400")));
        assert!(!timer.too_small(&refusal("4000000000")) && !timer.too_small(&refusal("x")));
        let mut again = invite(&[]);
        timer.ask(&mut again);
        assert_eq!((again.header("Session-Expires"), again.header("Min-SE")), (Some("400"), Some("400")));
    }

    #[test]
    fn the_answer_tells_the_caller_who_refreshes() {
        let request = invite(&[]);
        let learned = |expires: Option<&str>| {
            let mut ok = Message::reply(&request, 200, "OK");
            if let Some(expires) = expires {
                ok.push("Session-Expires", expires);
            }
            let mut timer = SessionTimer::new(1800);
            timer.learn(at(10), &ok);
            timer
        };
        let timer = learned(Some("200;refresher=uas"));
        assert_eq!((timer.refresher(), timer.poll_timeout()), (Some(Refresher::Them), Some(at(178))));
        let mut update = invite(&[]);
        timer.ask(&mut update);
        assert_eq!(update.header("Session-Expires"), Some("200;refresher=uas"));
        assert_eq!(learned(Some("200;refresher=uac")).poll_timeout(), Some(at(110)));
        assert_eq!(learned(None).poll_timeout(), Some(at(910)));
        // What no RFC allows does no harm.
        assert_eq!(learned(Some("0;refresher=uac")).interval(), 90);
        assert_eq!(learned(Some("junk")).interval(), 1800);
    }
}
