//! L0: the configuration. Every key is defined once, in `keys`: its type, its default, the flag of
//! `chordial start` that sets it, and its description. The reader, the example file and the command
//! line are all made from that one definition.

mod bootstrap;
mod keys;
mod outside;
mod proxy;
mod turn;

pub use bootstrap::{Bootstrap, BootstrapError, OVERLAY_PORT, PORT_443};
pub use keys::{
    Addresses, Config, Discover, Dns, Encryption, Ice, KEYS, Key, Log, MapPort, Media, Nat, Overlay, Phone, PhoneAuth,
    Port443, Relay, RelayFor, Serve, Sip, Strangers, User,
};
pub use outside::{OutsideAccount, host_port};
pub use proxy::{HttpProxy, ProxyAddr};
pub use turn::TurnServer;

use thiserror::Error;

/// Most entries of `overlay.bootstrap`.
const MAX_BOOTSTRAP: usize = 16;

/// Why a configuration was refused. The text names the place and the fault.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The text is not TOML, or has a key or a value that is not known.
    #[error("line {line}: {fault}")]
    Invalid {
        /// Line in the file, from 1.
        line: usize,
        /// What is wrong there.
        fault: String,
    },
    /// A flag's value does not fit its key.
    #[error("{flag}: {fault}")]
    Flag {
        /// The flag as it is written on the command line.
        flag: String,
        /// What is wrong with its value.
        fault: String,
    },
    /// Two keys that cannot stand together, or a value out of its range.
    #[error("{0}")]
    Conflict(&'static str),
    /// A table of `[[account]]` that cannot be.
    #[error("{0}")]
    Account(String),
}

impl Config {
    /// Reads a TOML text; what it does not name has its default.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the line of the first fault; [`ConfigError::Conflict`]; [`ConfigError::Account`].
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|e| invalid(text, &e))?;
        config.check()?;
        Ok(config)
    }

    /// Overrides keys by flags: pairs of a [`Key::flag`] and its value as text.
    ///
    /// # Errors
    /// [`ConfigError::Flag`] when a value does not fit; [`ConfigError::Conflict`].
    pub fn with_flags(self, flags: &[(&str, String)]) -> Result<Config, ConfigError> {
        let mut config = self;
        for (flag, value) in flags {
            let key = KEYS.iter().find(|k| k.flag == Some(*flag));
            let key =
                key.ok_or_else(|| ConfigError::Flag { flag: format!("--{flag}"), fault: "no such flag".into() })?;
            config = config.with_value(key, value)?;
        }
        config.check()?;
        Ok(config)
    }

    fn with_value(&self, key: &Key, value: &str) -> Result<Config, ConfigError> {
        let fault = |fault: String| ConfigError::Flag { flag: format!("--{}", key.flag.unwrap_or(key.name)), fault };
        let mut table = toml::Table::try_from(self).map_err(|e| fault(e.to_string()))?;
        let parsed = match key.default_value() {
            toml::Value::Boolean(_) => value.parse().map(toml::Value::Boolean).ok(),
            toml::Value::Integer(_) => value.parse().map(toml::Value::Integer).ok(),
            toml::Value::Array(_) => {
                let items = value.split(',').map(str::trim).filter(|s| !s.is_empty());
                Some(toml::Value::Array(items.map(|s| toml::Value::String(s.into())).collect()))
            }
            _ => Some(toml::Value::String(value.into())),
        };
        let parsed = parsed.ok_or_else(|| fault(format!("\"{value}\" does not fit")))?;
        if let Some(toml::Value::Table(section)) = table.get_mut(key.section) {
            section.insert(key.name.into(), parsed);
        }
        table.try_into().map_err(|e: toml::de::Error| fault(e.message().to_owned()))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.overlay.bootstrap.len() > MAX_BOOTSTRAP {
            return Err(ConfigError::Conflict("overlay.bootstrap: more than 16 entries; a handful is enough"));
        }
        if self.media.ports.0 > self.media.ports.1 {
            return Err(ConfigError::Conflict("media.ports: the first port is above the last"));
        }
        self.check_proxy()?;
        if self.account.len() > outside::MAX_ACCOUNTS {
            return Err(ConfigError::Conflict("more than 16 tables [[account]]"));
        }
        for (n, account) in self.account.iter().enumerate() {
            account.check().map_err(ConfigError::Account)?;
            if self.account.iter().take(n).any(|other| other.name.eq_ignore_ascii_case(&account.name)) {
                return Err(ConfigError::Account(format!("two tables [[account]] are named {}", account.name)));
            }
        }
        Ok(())
    }

    fn check_proxy(&self) -> Result<(), ConfigError> {
        let (file, env) =
            (!self.nat.http_proxy_password_file.as_os_str().is_empty(), !self.nat.http_proxy_password_env.is_empty());
        let beside = matches!(&self.nat.http_proxy, HttpProxy::At(at) if at.password.is_some());
        if usize::from(file) + usize::from(env) + usize::from(beside) > 1 {
            return Err(ConfigError::Conflict(
                "nat.http_proxy: more than one password; give it by http_proxy_password_file or by http_proxy_password_env alone",
            ));
        }
        let user = matches!(&self.nat.http_proxy, HttpProxy::At(at) if at.user.is_some());
        if (file || env) && !user {
            return Err(ConfigError::Conflict(
                "nat.http_proxy: a password without a user; write http_proxy = \"USER@HOST:PORT\"",
            ));
        }
        Ok(())
    }

    /// The example file: every key with its description and its default.
    pub fn example() -> String {
        let mut text = String::from(
            "# Every key of Chordial with its default. A file may name only what it changes.\n\
             # The same names are flags of `chordial start` where a flag is given.\n",
        );
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                text.push_str(&format!("\n[{section}]\n"));
            }
            for line in key.help.trim().lines() {
                text.push_str(&format!("# {}\n", line.trim()));
            }
            if let Some(flag) = key.flag {
                text.push_str(&format!("# flag: --{flag}\n"));
            }
            text.push_str(&format!("{} = {}\n", key.name, key.default_value()));
        }
        text.push_str(outside::EXAMPLE);
        text
    }
}

fn invalid(text: &str, e: &toml::de::Error) -> ConfigError {
    let at = e.span().map_or(0, |s| s.start.min(text.len()));
    let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
    ConfigError::Invalid { line, fault: e.message().trim().replace('\n', " ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_is_what_the_definition_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/chordial.toml");
        if std::env::var_os("CHORDIAL_WRITE_EXAMPLE").is_some() {
            std::fs::write(path, Config::example()).unwrap();
        }
        let on_disk = std::fs::read_to_string(path).unwrap();
        assert_eq!(on_disk, Config::example(), "stale; run this test with CHORDIAL_WRITE_EXAMPLE=1");
        assert_eq!(Config::from_toml(&on_disk).unwrap(), Config::default());
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let e = Config::from_toml("[user]\nname = \"x\"\n\n[sip]\nlistne = \"127.0.0.1:5060\"\n").unwrap_err();
        assert!(matches!(&e, ConfigError::Invalid { line: 5, fault } if fault.contains("listne")), "{e}");
        let e = Config::from_toml("[user]\nname = 7\n").unwrap_err();
        assert!(matches!(&e, ConfigError::Invalid { line: 2, .. }), "{e}");
    }

    #[test]
    fn flags_override_and_bad_values_name_the_flag() {
        let flags = [("name", "bob".to_owned()), ("codec", "pcmu,opus".to_owned()), ("open", "true".to_owned())];
        let config = Config::default().with_flags(&flags).unwrap();
        assert_eq!((config.user.name.as_str(), config.overlay.open), ("bob", true));
        assert_eq!(config.media.codec, ["pcmu", "opus"]);
        let e = Config::default().with_flags(&[("sip-listen", "nowhere".to_owned())]).unwrap_err();
        assert!(e.to_string().starts_with("--sip-listen:"), "{e}");
    }
}
