//! How the accounts are, for a person: state, until when, and the last error with what to do about it.

use super::{Node, PHONE, Upstream};
use crate::core::Instant;
use crate::node::control::{AccountStatus, Reply};
use crate::ua::{Account, AccountId};

impl Node {
    /// To `accounts`.
    pub(in crate::node) fn accounts(&self, now: Instant) -> Reply {
        let rows = self.outside.accounts.iter();
        Reply::Accounts { accounts: rows.map(|(id, up)| self.account_status(now, *id, up)).collect() }
    }

    pub(in crate::node) fn account_name(&self, id: AccountId) -> String {
        let name = self.outside.accounts.get(&id).map(|up| up.config.name.clone()).unwrap_or_default();
        if id == PHONE { "phone".to_owned() } else { name }
    }

    fn account_status(&self, now: Instant, id: AccountId, up: &Upstream) -> AccountStatus {
        let account = self.ua.account(id);
        let granted = account.and_then(|a| a.granted());
        let state = match (account, granted, account.and_then(Account::refused)) {
            (None, ..) if up.dormant.is_some() => "standby",
            (None, ..) => "off",
            (_, _, Some(_)) => "failed",
            (_, Some(granted), _) if granted.until > now => "registered",
            _ => "registering",
        };
        let refused = account.and_then(Account::refused);
        let server = up.flow.map(|f| format!("{} {}", f.transport, f.remote)).unwrap_or_default();
        let (error, next) = refused.map(|r| self.in_words(id, up, r.status, &r.reason)).unwrap_or_default();
        let secs = |at: Instant| at.since(now).as_secs();
        AccountStatus {
            name: self.account_name(id),
            aor: account.map(|a| a.config().aor.clone()).unwrap_or_default(),
            state: state.into(),
            expires: granted.map_or(0, |g| secs(g.until)),
            server,
            contact: account.map(|a| a.contact().to_string()).unwrap_or_default(),
            gruu: granted.and_then(|g| g.pub_gruu.clone()).unwrap_or_default(),
            outbound: granted.is_some_and(|g| g.outbound),
            error,
            next,
            again: refused.map_or(0, |r| secs(r.again)),
        }
    }

    /// What happened, to what; and what to do next.
    fn in_words(&self, id: AccountId, up: &Upstream, status: u16, reason: &str) -> (String, String) {
        let (host, name) = (&up.host, self.account_name(id));
        let user = self.ua.account(id).and_then(|a| a.config().credentials.clone()).map(|(user, _)| user);
        let user = user.unwrap_or_default();
        match status {
            0 => {
                let why = up.why.clone().unwrap_or_else(|| reason.to_owned());
                (
                    format!("{host} cannot be asked: {why}"),
                    "check registrar, proxy and transport, and the network".into(),
                )
            }
            401 | 407 if user.is_empty() => (
                format!("{host} wants a password and {name} has none"),
                "set password_file or password_env of the account".into(),
            ),
            401 | 403 | 407 => (
                format!("{host} refused the user {user} with its password ({status} {reason})"),
                "check user, aor and the password of the account, then start again".into(),
            ),
            404 | 410 | 604 => {
                (format!("{host} does not know the address ({status} {reason})"), "check the aor of the account".into())
            }
            423 => (format!("{host} wants a longer registration ({reason})"), "raise expires of the account".into()),
            500..=599 => {
                (format!("{host} cannot register it now ({status} {reason})"), "wait, or ask the provider".into())
            }
            _ => (format!("{host} refused the registration ({status} {reason})"), "ask the provider".into()),
        }
    }
}
