//! Where a process answers over HTTP, and whom.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{Config, ConfigError, Source};

/// The token itself, for those who have no file for it.
const TOKEN_VARIABLE: &str = "SYSTOLE_HTTP_TOKEN";

/// A shorter token is guessed.
const TOKEN_LENGTH_MIN: usize = 16;

/// What `nodes` has room for.
const ADVERTISED_MAX: usize = 300;

/// An address, and the token that is asked for there. Its `Debug` shows no token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) token: Option<String>,
    /// How others reach it, where that is not the address itself.
    pub(crate) advertise: Option<String>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.listen)
    }
}

impl Config {
    /// Where to answer; `None` if nowhere.
    pub(crate) fn http(&self) -> Result<Option<Http>, ConfigError> {
        let text = self.text("http.listen").unwrap_or("off");
        if text == "off" {
            return Ok(None);
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        let expected = "ADDRESS:PORT, such as 127.0.0.1:7070 or [::]:7070, or off";
        let listen = address.ok_or_else(|| self.refuse("http.listen", expected))?;
        let token = self.http_token()?;
        if !listen.ip().is_loopback() && token.is_none() {
            let (_, source) = &self.values["http.listen"];
            return Err(ConfigError::Unprotected { listen, source_name: source.to_string() });
        }
        let advertise = self.text("http.advertise").map(str::to_owned);
        if advertise.as_deref().is_some_and(|address| !is_reachable(address)) {
            return Err(self.refuse("http.advertise", "HOST:PORT, such as build-3.example.com:7070"));
        }
        Ok(Some(Http { listen, token, advertise }))
    }

    /// Whether a node answers for the whole fleet as well.
    pub(crate) fn http_fleet(&self) -> Result<bool, ConfigError> {
        self.truth("http.fleet")
    }

    /// The same, unless nobody has asked for it.
    pub(crate) fn http_if_asked(&self) -> Result<Option<Http>, ConfigError> {
        match self.values.get("http.listen") {
            None | Some((_, Source::Default)) => Ok(None),
            Some(_) => self.http(),
        }
    }

    fn http_token(&self) -> Result<Option<String>, ConfigError> {
        let refuse = |place: String, problem: String| ConfigError::Token { place, problem };
        let (place, text) = match (std::env::var(TOKEN_VARIABLE).ok(), self.text("http.token_file")) {
            (Some(text), _) if !text.is_empty() => (TOKEN_VARIABLE.to_owned(), text),
            (_, Some(path)) => {
                let text = std::fs::read_to_string(PathBuf::from(path));
                let text = text.map_err(|error| refuse(path.to_owned(), format!("cannot be read: {error}")))?;
                (path.to_owned(), text)
            }
            (_, None) => return Ok(None),
        };
        let token = text.trim().to_owned();
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        match is_plain && token.len() >= TOKEN_LENGTH_MIN {
            true => Ok(Some(token)),
            false => Err(refuse(place, format!("holds no {TOKEN_LENGTH_MIN} characters without spaces"))),
        }
    }
}

/// Whether it names a host and a port, in a length that the database takes.
fn is_reachable(address: &str) -> bool {
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let named = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0));
    address.len() <= ADVERTISED_MAX && (named || address.parse::<SocketAddr>().is_ok())
}
