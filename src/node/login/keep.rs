//! The shares of this device's own user: placed when a password is set, looked after from then on by every device that holds
//! the user's key, placed again where a holder is gone. For that nobody needs the password: the OPRF keys lie sealed to the
//! user's key in the credential, and a lost share's key goes to another supernode.
//!
//! Holders are the peers responsible for positions made of the address and a number ([`share_position`]), no two the same, this
//! device itself only where there is nobody else. A holder counts as gone when two rounds have not found it.

use super::{LoginAsked, LoginOp, SOON, is_old};
use crate::core::{Id, Instant};
use crate::identity::login::{
    CREDENTIAL, Credential, Owned, PasswordParts, SHARES, ShareAnswer, ShareRequest, THRESHOLD, credential_aor,
    share_position,
};
use crate::identity::{Certificate, Entry, EntryKind, KeyPair, SignedEntry, TrustAnchor, resource_key};
use crate::node::Node;
use crate::node::control::{CommandError, Reply, RequestId};
use crate::node::lookup::Op;
use crate::overlay::{self, Command, Mode, OpId, PeerRef, PutError};
use std::collections::BTreeSet;
use std::time::Duration;

/// Positions at which holders are sought.
const POSITIONS: u8 = 12;
/// How long a whole job may take.
const PATIENCE: Duration = Duration::from_secs(45);
/// Writes that a later sequence number may turn back.
const WRITES: u8 = 3;
/// Former holders that are still to be told to forget.
const STALE: usize = 64;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) enum KeepOp {
    Read,
    Holder(usize),
    Candidate,
    Former(Id),
    Write,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) enum KeepAsked {
    Check(usize, PeerRef),
    Hold(usize, PeerRef),
    Forget(Id),
}

/// What is remembered from one round to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    epoch: [u8; 16],
    /// Rounds in which a share's holder was not found.
    missed: [u8; SHARES],
    /// Who held shares of older passwords, or of this one, and has not said that it has forgotten them.
    stale: BTreeSet<Id>,
    sequence: u64,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct Keeping {
    job: u64,
    /// Who waits: a person that sets a password; nobody in a round.
    request: Option<RequestId>,
    until: Instant,
    parts: Option<PasswordParts>,
    target: Option<(Credential, Owned)>,
    waiting: usize,
    alive: [Option<PeerRef>; SHARES],
    candidates: Vec<PeerRef>,
    changed: bool,
    writes: u8,
}

impl Keeping {
    pub(super) fn deadline(&self) -> Instant {
        self.until
    }
}

impl Node {
    /// A person has set a password; the parts were made where it was typed.
    pub(in crate::node) fn set_password(&mut self, now: Instant, request: RequestId, parts: &str) {
        let fault = |what: &str, next: &str| Err(CommandError::new(what, next));
        let answer = match (&self.identity, PasswordParts::from_hex(parts)) {
            (None, _) => fault("this is a plain SIP phone", "set its password at its registrar"),
            (Some(i), _) if !matches!(i.anchor, TrustAnchor::Office { .. }) => {
                fault("an open overlay has no log-in by password", "copy the data directory, or found an office")
            }
            (Some(i), _) if i.user_key.is_none() => {
                fault("this device does not hold its user's key", "ask on the device that joined by invitation")
            }
            (_, Err(_)) => fault("the password's parts make no sense", "use the same version of both programs"),
            (_, Ok(_)) if self.ring.state() != crate::node::ring::State::In => {
                fault("this device is in no ring yet", "try again when chordial status says joined")
            }
            (_, Ok(_)) if self.login.keeping.as_ref().is_some_and(|k| k.request.is_some()) => {
                fault("a password is being set already", "try again in a minute")
            }
            (_, Ok(parts)) => {
                self.begin_keeping(now, Some(request), Some(parts));
                return;
            }
        };
        self.reply(request, answer);
    }

    /// A round: is everything where the credential says?
    pub(super) fn look_after_shares(&mut self, now: Instant) {
        let office = self.identity.as_ref().is_some_and(|i| matches!(i.anchor, TrustAnchor::Office { .. }));
        let holds = self.identity.as_ref().is_some_and(|i| i.user_key.is_some());
        if office && holds && self.login.keeping.is_none() {
            self.begin_keeping(now, None, None);
        }
    }

    pub(super) fn keeping_due(&mut self, now: Instant) {
        if self.login.keeping.as_ref().is_some_and(|k| k.until <= now) {
            self.end_keeping(now, Err("the supernodes did not answer in time"));
        }
    }

    fn begin_keeping(&mut self, now: Instant, request: Option<RequestId>, parts: Option<PasswordParts>) {
        let Some((user, overlay)) = self.own_name() else { return };
        let job = self.login.next();
        self.login.keeping = Some(Keeping {
            job,
            request,
            until: now + PATIENCE,
            parts,
            target: None,
            waiting: 0,
            alive: [None; SHARES],
            candidates: Vec::new(),
            changed: false,
            writes: 0,
        });
        let aor = credential_aor(&user, &overlay);
        self.begin_op(now, Op::Login(LoginOp::Keep(job, KeepOp::Read)), &aor, Mode::Auto);
    }

    fn own_name(&self) -> Option<(String, String)> {
        self.identity.as_ref().map(|i| (i.user().to_owned(), i.overlay().to_owned()))
    }

    /// The user's key and what stands above it.
    fn own_proof(&self) -> Option<(KeyPair, Certificate, Certificate)> {
        let identity = self.identity.as_ref()?;
        let [enroller, user] = identity.above_device() else { return None };
        Some((identity.user_key.clone()?, enroller.clone(), user.clone()))
    }

    /// The job, when `job` is the one under way.
    fn keeping(&mut self, job: u64) -> Option<&mut Keeping> {
        self.login.keeping.as_mut().filter(|k| k.job == job)
    }

    /// The credential was read; `None` when that failed.
    pub(in crate::node) fn on_keep_read(&mut self, now: Instant, job: u64, entries: Option<&[SignedEntry]>) {
        let Some((key, enroller, user)) = self.own_proof() else { return self.end_keeping(now, Err("no user's key")) };
        let (unix, aor) = (self.unix(now), self.identity.as_ref().map(|i| i.aor()).unwrap_or_default());
        let Some(Keeping { parts, .. }) = self.keeping(job) else { return };
        let parts = parts.take();
        let Some(entries) = entries else { return self.end_keeping(now, Err("the overlay did not answer")) };
        let device = self.identity.as_ref().map(|i| i.device_key());
        let own = |e: &&SignedEntry| Some(e.entry().device) == device && e.entry().kind == CREDENTIAL;
        let written = entries.iter().filter(own).map(|e| e.entry().sequence).max().unwrap_or(0);
        self.login.watch.sequence = self.login.watch.sequence.max(written);
        // Of those that the user's key opens: an entry of somebody who had the name before is none of ours.
        let mut ours: Vec<(Credential, Owned, &SignedEntry)> = Vec::new();
        for entry in entries.iter().filter(|e| e.entry().kind == CREDENTIAL) {
            let credential = Credential::decode(&entry.entry().body).ok();
            if let Some((credential, owned)) = credential.and_then(|c| c.owned(&key).map(|o| (c, o))) {
                ours.push((credential, owned, entry));
            }
        }
        let best = ours.into_iter().max_by_key(|(c, ..)| c.order());
        if let Some(parts) = parts {
            let set = best.as_ref().map_or(unix, |(c, ..)| unix.max(c.set + Duration::from_secs(1)));
            let former = best.iter().flat_map(|(c, ..)| c.holders.into_iter().flatten());
            self.login.watch.stale.extend(former.take(STALE));
            match Credential::new(&parts, &key, &enroller, &user, set, &mut self.rng) {
                Ok(target) => {
                    self.login.watch =
                        Watch { epoch: target.0.epoch, missed: [0; SHARES], ..std::mem::take(&mut self.login.watch) };
                    if let Some(keeping) = self.keeping(job) {
                        (keeping.target, keeping.changed) = (Some(target), true);
                    }
                    self.seek_holders(now, job);
                }
                Err(_) => self.end_keeping(now, Err("the user's certificates do not fit into a credential")),
            }
            return;
        }
        // No password is set, or none that this user's key opens.
        let Some((mut credential, owned, entry)) = best else {
            self.login.keeping = None;
            return;
        };
        let mut changed = is_old(entry.entry().issued, unix);
        if !credential.is_about(&owned, &aor, &enroller, &user) {
            // The certificates were renewed: whoever logs in is to have the new ones.
            changed |= credential.seal(&owned, &key, &enroller, &user, &mut self.rng).is_ok();
        }
        if self.login.watch.epoch != credential.epoch {
            (self.login.watch.epoch, self.login.watch.missed) = (credential.epoch, [0; SHARES]);
        }
        let holders = credential.holders;
        let Some(keeping) = self.keeping(job) else { return };
        (keeping.target, keeping.changed) = (Some((credential, owned)), changed);
        let named: Vec<(usize, Id)> = holders.iter().enumerate().filter_map(|(n, id)| Some((n, (*id)?))).collect();
        keeping.waiting = named.len();
        if named.is_empty() {
            return self.seek_holders(now, job);
        }
        for (n, id) in named {
            self.begin_find(now, LoginOp::Keep(job, KeepOp::Holder(n)), id);
        }
    }

    pub(super) fn on_keep_found(&mut self, now: Instant, job: u64, step: KeepOp, found: Option<PeerRef>) {
        if let KeepOp::Former(id) = step {
            // Told whether or not the job still runs.
            if let Some(peer) = found.filter(|p| p.id == id) {
                let request = ShareRequest::Forget { keep: Some(self.login.watch.epoch) };
                self.ask_holder(now, peer, &request, LoginAsked::Keep(job, KeepAsked::Forget(id)));
            }
            return;
        }
        let Some(keeping) = self.keeping(job) else { return };
        match step {
            KeepOp::Holder(n) => {
                let target = keeping.target.as_ref().map(|(c, _)| (c.epoch, c.holders[n]));
                match (found, target) {
                    (Some(peer), Some((epoch, Some(id)))) if peer.id == id => {
                        let asked = LoginAsked::Keep(job, KeepAsked::Check(n, peer));
                        self.ask_holder(now, peer, &ShareRequest::Check { epoch }, asked);
                    }
                    _ => self.checked(now, job, n, None),
                }
            }
            KeepOp::Candidate => {
                keeping.candidates.extend(found);
                keeping.waiting = keeping.waiting.saturating_sub(1);
                if keeping.waiting == 0 {
                    self.choose_holders(now, job);
                }
            }
            KeepOp::Read | KeepOp::Write | KeepOp::Former(_) => {}
        }
    }

    pub(super) fn on_keep_answer(&mut self, now: Instant, job: u64, step: KeepAsked, answer: Option<ShareAnswer>) {
        match step {
            KeepAsked::Check(n, peer) => {
                if answer == Some(ShareAnswer::No) {
                    // It is there and has lost it: no need to wait for a second round.
                    self.login.watch.missed[n] = u8::MAX;
                }
                self.checked(now, job, n, (answer == Some(ShareAnswer::Yes)).then_some(peer));
            }
            KeepAsked::Hold(n, peer) => {
                let Some(keeping) = self.keeping(job) else { return };
                if answer == Some(ShareAnswer::Yes) {
                    (keeping.alive[n], keeping.changed) = (Some(peer), true);
                    keeping.waiting = keeping.waiting.saturating_sub(1);
                    self.login.watch.missed[n] = 0;
                    self.placed(now, job);
                } else if !self.offer(now, job, n) {
                    if let Some(keeping) = self.keeping(job) {
                        keeping.waiting = keeping.waiting.saturating_sub(1);
                    }
                    self.placed(now, job);
                }
            }
            KeepAsked::Forget(id) => {
                if answer.is_some() {
                    self.login.watch.stale.remove(&id);
                }
            }
        }
    }

    /// One holder was looked at.
    fn checked(&mut self, now: Instant, job: u64, n: usize, alive: Option<PeerRef>) {
        let missed = &mut self.login.watch.missed[n];
        *missed = if alive.is_some() { 0 } else { missed.saturating_add(1) };
        let Some(keeping) = self.keeping(job) else { return };
        keeping.alive[n] = alive;
        keeping.waiting = keeping.waiting.saturating_sub(1);
        if keeping.waiting == 0 {
            self.seek_holders(now, job);
        }
    }

    /// Looks for holders of the shares that have none, when it is time to.
    fn seek_holders(&mut self, now: Instant, job: u64) {
        let missed = self.login.watch.missed;
        let Some((user, overlay)) = self.own_name() else { return };
        let Some(keeping) = self.keeping(job) else { return };
        let Some((credential, _)) = &keeping.target else { return };
        let lost = |n: usize| keeping.alive[n].is_none() && (credential.holders[n].is_none() || missed[n] > 1);
        let lacking = (0..SHARES).any(lost);
        // A holder that was missed once is looked for again soon; what lacks a holder altogether has time.
        let once = (0..SHARES).any(|n| keeping.alive[n].is_none() && credential.holders[n].is_some() && missed[n] == 1);
        if once {
            self.login_again_at(now + SOON);
        }
        if !lacking {
            return self.placed(now, job);
        }
        if let Some(keeping) = self.keeping(job) {
            keeping.waiting = usize::from(POSITIONS);
        }
        for number in 0..POSITIONS {
            self.begin_find(now, LoginOp::Keep(job, KeepOp::Candidate), share_position(&user, &overlay, number));
        }
    }

    /// All positions are known: gives the shares that have no holder to peers that have no share.
    fn choose_holders(&mut self, now: Instant, job: u64) {
        let me = self.overlay.as_ref().map(|o| o.me().id);
        let around = self.overlay.as_ref().map(|o| [o.status().successors, vec![o.me()]].concat()).unwrap_or_default();
        let missed = self.login.watch.missed;
        let Some(keeping) = self.keeping(job) else { return };
        // In a small ring one peer may be responsible for all positions.
        keeping.candidates.extend(around);
        let Some((credential, _)) = &keeping.target else { return };
        // A holder that one round has missed may come back: it keeps its share.
        let kept: BTreeSet<Id> = (0..SHARES)
            .filter(|n| keeping.alive[*n].is_some() || missed[*n] < 2)
            .filter_map(|n| credential.holders[n])
            .collect();
        let mut seen = kept;
        keeping.candidates.retain(|p| seen.insert(p.id));
        // This device comes last: what it holds itself helps nobody when it is lost.
        keeping.candidates.sort_by_key(|p| Some(p.id) == me);
        keeping.candidates.reverse();
        let open: Vec<usize> = (0..SHARES)
            .filter(|n| keeping.alive[*n].is_none() && (credential.holders[*n].is_none() || missed[*n] > 1))
            .collect();
        keeping.waiting = open.len();
        for n in open {
            if !self.offer(now, job, n)
                && let Some(keeping) = self.keeping(job)
            {
                keeping.waiting = keeping.waiting.saturating_sub(1);
            }
        }
        self.placed(now, job);
    }

    /// Offers share `n` to the next candidate; false when there is none.
    fn offer(&mut self, now: Instant, job: u64, n: usize) -> bool {
        let Some(keeping) = self.keeping(job) else { return false };
        let (Some((credential, owned)), Some(peer)) = (&keeping.target, keeping.candidates.pop()) else { return false };
        let request = ShareRequest::Hold { epoch: credential.epoch, number: n as u8, key: owned.keys[n].to_bytes() };
        self.ask_holder(now, peer, &request, LoginAsked::Keep(job, KeepAsked::Hold(n, peer)));
        true
    }

    /// Whoever was to take a share has answered: write down who has which.
    fn placed(&mut self, now: Instant, job: u64) {
        let Some(keeping) = self.keeping(job).filter(|k| k.waiting == 0 && k.writes == 0) else { return };
        let alive = keeping.alive.iter().flatten().count();
        let fresh = keeping.request.is_some();
        if !keeping.changed {
            return self.end_keeping(now, Ok(()));
        }
        if fresh && alive < THRESHOLD {
            return self.end_keeping(now, Err("fewer than two supernodes took a share"));
        }
        let Some((credential, _)) = &mut keeping.target else { return };
        let mut former = Vec::new();
        for n in 0..SHARES {
            let Some(peer) = keeping.alive[n] else { continue };
            if let Some(old) = credential.holders[n].replace(peer.id).filter(|old| *old != peer.id) {
                former.push(old);
            }
        }
        credential.revision += u64::from(!fresh);
        self.login.watch.stale.extend(former.into_iter().take(STALE));
        self.write_credential(now, job);
    }

    fn write_credential(&mut self, now: Instant, job: u64) {
        let unix = self.unix(now);
        self.login.watch.sequence = (self.login.watch.sequence + 1).max(unix.secs() * 1000);
        let sequence = self.login.watch.sequence;
        let Some(keeping) = self.keeping(job) else { return };
        keeping.writes += 1;
        let Some((credential, _)) = &keeping.target else { return };
        let body = credential.encode();
        let Some(identity) = &self.identity else { return };
        let entry = Entry {
            kind: CREDENTIAL,
            aor: credential_aor(identity.user(), identity.overlay()),
            device: identity.device_key(),
            sequence,
            issued: unix,
            lifetime: EntryKind::CREDENTIAL_SHARE.rules().longest.as_secs() as u32,
            body,
        };
        let key = resource_key(&entry.aor);
        let Ok(entry) = identity.sign_entry(entry) else {
            return self.end_keeping(now, Err("the credential is too large for a record"));
        };
        let op = OpId(self.ring.next());
        self.ring.ops.insert(op, Op::Login(LoginOp::Keep(job, KeepOp::Write)));
        self.overlay_input(now, overlay::Input::Command(Command::Put { op, key, entry }));
    }

    pub(in crate::node) fn on_keep_written(&mut self, now: Instant, job: u64, result: &Result<(), PutError>) {
        let Some(keeping) = self.keeping(job) else { return };
        match result {
            Ok(()) => self.end_keeping(now, Ok(())),
            Err(PutError::Stale(held) | PutError::Conflict(held)) if keeping.writes < WRITES => {
                self.login.watch.sequence = self.login.watch.sequence.max(held.entry().sequence);
                self.write_credential(now, job);
            }
            Err(fault) => {
                tracing::debug!(%fault, "the credential was not written");
                self.end_keeping(now, Err("the credential could not be written"));
            }
        }
    }

    /// The job is over. After a success nobody needs older keys: holders and former ones are told to forget.
    fn end_keeping(&mut self, now: Instant, result: Result<(), &'static str>) {
        let Some(keeping) = self.login.keeping.take() else { return };
        let holders = keeping.alive.iter().flatten().count();
        if result.is_ok()
            && let Some((credential, _)) = &keeping.target
        {
            let epoch = credential.epoch;
            if keeping.request.is_some() {
                for peer in keeping.alive.into_iter().flatten() {
                    let asked = LoginAsked::Keep(keeping.job, KeepAsked::Forget(peer.id));
                    // Until it has answered it may have the one before as well.
                    self.login.watch.stale.insert(peer.id);
                    self.ask_holder(now, peer, &ShareRequest::Forget { keep: Some(epoch) }, asked);
                }
            }
            let current: BTreeSet<Id> = keeping.alive.iter().flatten().map(|p| p.id).collect();
            for id in self.login.watch.stale.clone() {
                if keeping.request.is_none() || !current.contains(&id) {
                    self.begin_find(now, LoginOp::Keep(keeping.job, KeepOp::Former(id)), id);
                }
            }
            if keeping.request.is_some() {
                self.login_again_at(now + SOON);
            }
        } else if result.is_err() {
            self.login_again_at(now + SOON);
        }
        let Some(request) = keeping.request else {
            return if let Err(why) = result {
                self.count("rounds over password shares that failed");
                tracing::debug!(why, "the shares of the password were not looked after");
            };
        };
        let answer = match result {
            Ok(()) => Ok(Reply::Password { holders: holders as u32, needed: THRESHOLD as u32 }),
            Err(why) => Err(CommandError::new(
                format!("the password was not set: {why}"),
                "see chordial peers; two supernodes at least have to run, four are better",
            )),
        };
        self.reply(request, answer);
    }
}
