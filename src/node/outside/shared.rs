//! Accounts that several machines of an office have, of which one at a time is registered: the number of the office, say. Who holds the
//! lease `trunk.NAME` registers; when it dies, another one has the lease once that has run out, and registers. Whom a call rings
//! goes by the number that was called.
//!
//! The lease is looked at before every call and every registration: who lost it lets go of the account and takes nothing back, since
//! by then it is another's.

use super::{Node, Upstream};
use crate::core::Instant;
use crate::sip::msg::{HeaderName, Message, Uri};
use crate::ua::AccountId;
use std::time::Duration;

/// What the lease is asked for; renewed at half.
const SPAN: Duration = Duration::from_secs(60);
/// The kind of lease.
const TRUNK: &str = "trunk";

impl Node {
    /// Wants the leases of the shared accounts.
    pub(super) fn begin_shared(&mut self, now: Instant) {
        let shared = self.outside.accounts.iter().filter(|(_, up)| up.dormant.is_some());
        let names: Vec<_> = shared.map(|(id, up)| (*id, up.config.name.to_ascii_lowercase())).collect();
        for (id, name) in names {
            match self.want_lease(now, TRUNK, &name, SPAN) {
                Ok(lease) => {
                    if let Some(up) = self.outside.accounts.get_mut(&id) {
                        up.lease = Some(lease);
                    }
                }
                Err(fault) => tracing::warn!(%name, %fault, "an account cannot be shared under this name"),
            }
        }
    }

    /// Registers what this node has become the holder of, and lets go of what it is not any more.
    pub(in crate::node) fn settle_shared(&mut self, now: Instant) {
        let shared = self.outside.accounts.iter().filter_map(|(id, up)| Some((*id, up.lease.clone()?)));
        for (id, lease) in shared.collect::<Vec<_>>() {
            let held = self.lease(now, &lease).is_some() && self.stopping.is_none();
            match (held, self.ua.account(id).is_some()) {
                (true, false) => {
                    let config = self.outside.accounts.get(&id).and_then(|up| up.dormant.clone());
                    if let Some(config) = config {
                        self.ua.register_with(id, config);
                    }
                }
                (false, true) if self.stopping.is_none() => {
                    self.count("shared accounts let go");
                    self.ua.forget_account(id);
                    self.outside.timers.cancel(&id);
                    if let Some(up) = self.outside.accounts.get_mut(&id) {
                        up.flow = None;
                        up.known.clear();
                    }
                }
                _ => {}
            }
        }
    }

    /// This node stops: the next one can have them.
    pub(in crate::node) fn give_shared_back(&mut self, now: Instant) {
        let leases: Vec<_> = self.outside.accounts.values().filter_map(|up| up.lease.clone()).collect();
        leases.into_iter().for_each(|lease| self.give_lease_back(now, &lease));
    }

    /// Whom a call by an account rings: by the number that was called, else the account's `reception`, else this user.
    pub(super) fn rings(&self, id: AccountId, message: &Message) -> String {
        let up = self.outside.accounts.get(&id);
        let user = up.and_then(|up| up.user_for(message)).map(|user| user.to_ascii_lowercase());
        user.unwrap_or_else(|| self.user().to_owned())
    }
}

impl Upstream {
    fn user_for(&self, message: &Message) -> Option<String> {
        let (dids, reception) = (&self.config.dids, &self.config.reception);
        let called = message.addresses(HeaderName::Other("P-Called-Party-ID")).ok().and_then(|a| a.into_iter().next());
        let uris = [called.map(|c| c.uri), message.to().ok().map(|to| to.uri), Uri::parse(message.request_uri()).ok()];
        let users = uris.into_iter().flatten().filter_map(|uri| Some(uri.user_unescaped()?.into_owned()));
        let did = users.filter_map(|user| dids.get(&user).cloned()).next();
        did.or(Some(reception.clone()).filter(|r| !r.is_empty()))
    }
}
