//! Which account a call goes by: the one that was named; for an address of an account's own domain that one; for a number the first
//! whose `numbers` it begins with; for a plain SIP address of somebody else's domain the first that takes such.

use super::{Node, Upstream};
use crate::node::control::CommandError;
use crate::sip::msg::Uri;
use crate::ua::AccountId;

impl Node {
    /// The account that was named, and whom it calls.
    pub(in crate::node) fn call_by(&self, name: &str, target: &str) -> Result<(AccountId, Uri), CommandError> {
        let named = |(_, up): &(&AccountId, &Upstream)| up.config.name.eq_ignore_ascii_case(name);
        let Some((id, up)) = self.outside.accounts.iter().find(named).filter(|_| !name.is_empty()) else {
            return Err(CommandError::new(format!("there is no account {name}"), "see `chordial accounts`"));
        };
        if self.ua.account(*id).is_none() {
            let what = format!("the account {name} is another machine's for now");
            return Err(CommandError::new(what, "call from that one, or by another account"));
        }
        let target = target.trim();
        let address = ["sip:", "tel:"].iter().any(|scheme| target.starts_with(scheme));
        let uri = match (address, target.contains('@')) {
            (true, _) => Uri::parse(target).ok(),
            (false, true) => Uri::parse(&format!("sip:{target}")).ok(),
            (false, false) => dialled(target).map(|number| up.address_of(&number)),
        };
        let uri = uri.filter(|uri| !target.is_empty() && (uri.is_sip() || target.starts_with("tel:")));
        let wrong =
            || CommandError::new(format!("not an address: \"{target}\""), "name a number, a user or a sip: URI");
        let uri = uri.ok_or_else(wrong)?;
        let number = || dialled(&uri.canonical_aor().replace("tel:", "")).map(|number| up.address_of(&number));
        let uri = if uri.is_sip() { uri.clone() } else { number().ok_or_else(wrong)? };
        Ok((*id, uri))
    }

    /// The account that takes what was dialled, where one does.
    pub(in crate::node) fn account_for_number(&self, target: &str) -> Option<(AccountId, Uri)> {
        let number = dialled(target.trim().trim_start_matches("tel:"))?;
        let begins = |up: &Upstream| up.config.numbers.iter().any(|n| !n.is_empty() && number.starts_with(n.as_str()));
        let here = |id: &AccountId| self.ua.account(*id).is_some();
        let (id, up) = self.outside.accounts.iter().find(|(id, up)| here(id) && begins(up))?;
        Some((*id, up.address_of(&number)))
    }

    /// The account that calls a plain SIP address.
    pub(in crate::node) fn account_for_uri(&self, uri: &Uri) -> Option<AccountId> {
        let own = |up: &Upstream| {
            let (_, domain) = up.config.user_and_domain();
            !domain.is_empty() && uri.host.eq_ignore_ascii_case(domain)
        };
        let mut all = self.outside.accounts.iter().filter(|(id, _)| self.ua.account(**id).is_some());
        let found = all.clone().find(|(_, up)| own(up)).or_else(|| {
            // A contact of another overlay, and an overlay known by its domain, are reached by their own keys.
            let overlay = uri.host.to_ascii_lowercase();
            let known = self.strangers.known.root_of(&overlay).is_some();
            all.find(|(_, up)| up.config.uris && !known)
        });
        found.map(|(id, _)| *id)
    }
}

impl Upstream {
    /// A number or user at this account's domain.
    fn address_of(&self, number: &str) -> Uri {
        let (_, domain) = self.config.user_and_domain();
        Uri::sip(Some(number), if domain.is_empty() { &self.host } else { domain }, None)
    }
}

/// What was dialled, without what only separates digits for the eye; none where it cannot be one user.
fn dialled(text: &str) -> Option<String> {
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '*' || c == '#');
    let digits: String = text.chars().filter(|c| !(number && " -./()".contains(*c))).collect();
    let fits = |c: char| c.is_ascii_alphanumeric() || "+*#-_.!~'".contains(c);
    (!digits.is_empty() && digits.len() <= 64 && digits.chars().all(fits)).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!(dialled("+49 (30) 123-45").as_deref(), Some("+493012345"));
        assert_eq!(dialled("*100#").as_deref(), Some("*100#"));
        assert_eq!(dialled("joe.smith").as_deref(), Some("joe.smith"));
        for wrong in ["", "a b", "a@b", "sip:a", "1;x=2", &"1".repeat(65)] {
            assert_eq!(dialled(wrong), None, "{wrong}");
        }
    }
}
