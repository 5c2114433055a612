//! A TURN server as a file names it: `USER:PASSWORD@IP:PORT`.

use crate::core::Redacted;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Where it is, and as whom it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TurnServer {
    /// Over UDP.
    pub addr: SocketAddr,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Redacted<String>,
}

impl TryFrom<String> for TurnServer {
    type Error = &'static str;

    fn try_from(text: String) -> Result<TurnServer, &'static str> {
        let wrong = "a TURN server is written USER:PASSWORD@IP:PORT";
        let (who, addr) = text.rsplit_once('@').ok_or(wrong)?;
        let (user, password) = who.split_once(':').ok_or(wrong)?;
        let addr = addr.parse().map_err(|_| wrong)?;
        Ok(TurnServer { addr, user: user.to_owned(), password: Redacted::new(password.to_owned()) })
    }
}

impl From<TurnServer> for String {
    fn from(server: TurnServer) -> String {
        format!("{}:{}@{}", server.user, server.password.reveal(), server.addr)
    }
}
