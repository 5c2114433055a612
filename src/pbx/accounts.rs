//! Accounts of standard phones: who may register here, and the digest secret of each.
//!
//! Never the password: a [`Ha1`] per account, which is bound to the realm, and the realm is the overlay's name. It is
//! as good as the password within this overlay, so the file form belongs on disk with the rights of a secret.
//!
//! File form, TOML: `realm = "office"`, then `[[account]]` tables with `user`, `label`, `md5`, `sha256` (hexadecimal), and `[[share]]`
//! tables of the further adapters ([`Share`]).
//! Import: lines `user,password` or `user,password,label`; a field with a comma stands in quotes, a quote in it is
//! doubled (RFC 4180, except that no field spans lines); blank lines, lines that start with `#` and a first line
//! `user,password` are passed over.

use super::{Share, Shares};
use crate::sip::auth::Ha1;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One phone's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User name: the user part of the AOR and the digest user name.
    pub user: String,
    /// What a person calls the phone; may be empty.
    pub label: String,
    /// The digest secret.
    pub ha1: Ha1,
}

/// What is wrong with an account or a file of accounts. Always the fault of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Empty, longer than 64 bytes, or with white space, control characters or one of `@ : " < > \ ,`.
    #[error("\"{0}\" cannot be a user name")]
    User(String),
    /// An empty password, or one with control characters.
    #[error("the password of \"{0}\" is empty or holds control characters")]
    Password(String),
    /// The table is full.
    #[error("there are {0} accounts already, no more are taken")]
    Full(usize),
    /// A line of an imported file.
    #[error("line {line}: {fault}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        fault: Box<AccountError>,
    },
    /// Not two or three fields.
    #[error("expected user,password or user,password,label (quote a field that holds a comma)")]
    Fields,
    /// The same user twice in one file.
    #[error("\"{0}\" stands in the file twice")]
    Twice(String),
    /// The file form is not the TOML expected.
    #[error("the accounts file is damaged: {0}")]
    File(String),
    /// The secrets are of another overlay.
    #[error("the accounts file belongs to \"{found}\", not to \"{expected}\"")]
    Realm {
        /// What the file says.
        found: String,
        /// The overlay's name.
        expected: String,
    },
}

/// The accounts held by one adapter, by user name.
#[derive(Clone, Debug)]
pub struct Accounts {
    realm: String,
    by_user: BTreeMap<String, Account>,
    shares: Shares,
    capacity: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    realm: String,
    #[serde(default)]
    account: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    share: Vec<Share>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    user: String,
    #[serde(default)]
    label: String,
    md5: String,
    sha256: String,
}

impl Accounts {
    /// No accounts yet; `realm` is the overlay's name, taken in lower case.
    pub fn new(realm: &str) -> Accounts {
        let (by_user, shares) = Default::default();
        Accounts { realm: realm.to_ascii_lowercase(), by_user, shares, capacity: ACCOUNTS }
    }

    /// Adds an account, or gives an existing one a new label and password.
    ///
    /// # Errors
    /// [`AccountError::User`], [`AccountError::Password`], [`AccountError::Full`].
    pub fn add(&mut self, user: &str, label: &str, password: &str) -> Result<(), AccountError> {
        if password.is_empty() || password.chars().any(char::is_control) {
            return Err(AccountError::Password(user.into()));
        }
        let ha1 = Ha1::new(user, &self.realm, password);
        self.shares.again(user);
        self.insert(Account { user: user.into(), label: label.into(), ha1 })
    }

    /// Adds an account whose secret is known already.
    ///
    /// # Errors
    /// [`AccountError::User`], [`AccountError::Full`].
    pub fn insert(&mut self, account: Account) -> Result<(), AccountError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || "@:\"<>\\,".contains(c);
        if account.user.is_empty() || account.user.len() > 64 || account.user.contains(bad) {
            return Err(AccountError::User(account.user));
        }
        if self.by_user.len() >= self.capacity && !self.by_user.contains_key(&account.user) {
            return Err(AccountError::Full(self.capacity));
        }
        self.by_user.insert(account.user.clone(), account);
        Ok(())
    }

    /// Removes an account; false where there was none.
    pub fn remove(&mut self, user: &str) -> bool {
        self.by_user.remove(user).is_some()
    }

    /// Adds every account of a CSV text, or none where a line is at fault. Gives how many.
    ///
    /// # Errors
    /// [`AccountError::Line`] for the first line at fault, [`AccountError::Full`].
    pub fn import_csv(&mut self, text: &str) -> Result<usize, AccountError> {
        let mut next = self.clone();
        let mut seen = std::collections::BTreeSet::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut first = true;
        for (n, line) in text.lines().enumerate() {
            let row = line.trim();
            if row.is_empty() || row.starts_with('#') {
                continue;
            }
            let header = std::mem::take(&mut first) && row.to_ascii_lowercase().starts_with("user,password");
            if header {
                continue;
            }
            let taken = csv_fields(row).and_then(|fields| {
                let (user, password, label) = match fields.as_slice() {
                    [user, password] => (user, password, ""),
                    [user, password, label] => (user, password, label.as_str()),
                    _ => return Err(AccountError::Fields),
                };
                next.add(user, label, password)?;
                if seen.insert(user.clone()) { Ok(()) } else { Err(AccountError::Twice(user.clone())) }
            });
            taken.map_err(|fault| AccountError::Line { line: n + 1, fault: Box::new(fault) })?;
        }
        *self = next;
        Ok(seen.len())
    }

    /// Reads the file form.
    ///
    /// # Errors
    /// [`AccountError::File`], [`AccountError::Realm`], and those of [`insert`](Accounts::insert).
    pub fn from_toml(realm: &str, text: &str) -> Result<Accounts, AccountError> {
        let file: File = toml::from_str(text).map_err(|e| AccountError::File(e.to_string()))?;
        let mut accounts = Accounts::new(realm);
        if file.realm != accounts.realm {
            return Err(AccountError::Realm { found: file.realm, expected: accounts.realm });
        }
        for row in file.account {
            let (Some(md5), Some(sha256)) = (from_hex(&row.md5), from_hex(&row.sha256)) else {
                return Err(AccountError::File(format!("the secret of \"{}\" is no hexadecimal hash", row.user)));
            };
            accounts.insert(Account { user: row.user, label: row.label, ha1: Ha1 { md5, sha256 } })?;
        }
        for share in file.share {
            accounts.shares.set(share);
        }
        Ok(accounts)
    }

    /// The further adapters of these accounts.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The same, to change them.
    pub fn shares_mut(&mut self) -> &mut Shares {
        &mut self.shares
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The account of a user.
    pub fn get(&self, user: &str) -> Option<&Account> {
        self.by_user.get(user)
    }

    /// All accounts by user name.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.by_user.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// The file form.
    pub fn to_toml(&self) -> String {
        let row = |a: &Account| Row {
            user: a.user.clone(),
            label: a.label.clone(),
            md5: to_hex(&a.ha1.md5),
            sha256: to_hex(&a.ha1.sha256),
        };
        let share = self.shares.iter().cloned().collect();
        let file = File { realm: self.realm.clone(), account: self.iter().map(row).collect(), share };
        // Strings and tables of strings only: there is nothing in it that TOML cannot say.
        toml::to_string(&file).unwrap_or_default()
    }
}

fn csv_fields(row: &str) -> Result<Vec<String>, AccountError> {
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let (field, tail) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (field.trim().to_owned(), tail)
            }
        };
        fields.push(field);
        rest = match tail.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if tail.is_empty() => return Ok(fields),
            None => return Err(AccountError::Fields),
        };
    }
}

/// The field behind an opening quote, and what follows its closing one.
fn quoted_field(quoted: &str) -> Result<(String, &str), AccountError> {
    let mut field = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if chars.next_if(|(_, c)| *c == '"').is_some() => field.push('"'),
            '"' => return Ok((field, quoted.get(at + 1..).unwrap_or_default().trim_start())),
            c => field.push(c),
        }
    }
    Err(AccountError::Fields)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut out = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(out)
}

/// Most accounts held by one adapter.
const ACCOUNTS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_form_both_ways_without_a_password() {
        let mut accounts = Accounts::new("Office");
        accounts.add("bob", "Bob's \"desk\"", "pa55word").unwrap();
        accounts.add("alice", "", "x").unwrap();
        let text = accounts.to_toml();
        assert!(!text.contains("pa55word"));
        let again = Accounts::from_toml("office", &text).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), accounts.iter().collect::<Vec<_>>());
        assert_eq!(again.get("bob").unwrap().ha1, Ha1::new("bob", "office", "pa55word"));
        let other = Accounts::from_toml("family", &text).unwrap_err();
        assert_eq!(other.to_string(), "the accounts file belongs to \"office\", not to \"family\"");
        assert!(matches!(Accounts::from_toml("office", &text.replace("md5", "md4")), Err(AccountError::File(_))));
        assert!(matches!(
            Accounts::from_toml("office", &text.replace("md5 = \"", "md5 = \"z")),
            Err(AccountError::File(_))
        ));
    }

    #[test]
    fn csv_import() {
        let mut accounts = Accounts::new("office");
        let text = "\u{feff}User,Password\r\n# phones\r\n\r\n100,secret\r\nbob,\"a,b\"\"c\", Desk \r\n";
        assert_eq!(accounts.import_csv(text), Ok(2));
        assert_eq!(accounts.get("100").unwrap().ha1, Ha1::new("100", "office", "secret"));
        let bob = accounts.get("bob").unwrap();
        assert_eq!((bob.label.as_str(), &bob.ha1), ("Desk", &Ha1::new("bob", "office", "a,b\"c")));
    }

    #[test]
    fn csv_faults_name_the_line_and_change_nothing() {
        for (text, told) in [
            ("a,b\nc\n", "line 2: expected user,password or user,password,label (quote a field that holds a comma)"),
            ("a,b,c,d", "line 1: expected user,password or user,password,label (quote a field that holds a comma)"),
            ("a,\"b", "line 1: expected user,password or user,password,label (quote a field that holds a comma)"),
            ("a,b\n\nx@y,z", "line 3: \"x@y\" cannot be a user name"),
            ("a,", "line 1: the password of \"a\" is empty or holds control characters"),
            ("a,b\na,c", "line 2: \"a\" stands in the file twice"),
        ] {
            let mut accounts = Accounts::new("office");
            assert_eq!(accounts.import_csv(text).unwrap_err().to_string(), told, "{text}");
            assert!(accounts.is_empty());
        }
    }

    #[test]
    fn no_more_than_its_capacity() {
        let mut accounts = Accounts::new("office");
        accounts.capacity = 1;
        accounts.add("a", "", "x").unwrap();
        accounts.add("a", "again", "y").unwrap();
        assert_eq!(accounts.add("b", "", "x"), Err(AccountError::Full(1)));
        assert!(accounts.remove("a") && !accounts.remove("a"));
    }
}
