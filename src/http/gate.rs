//! Who may ask what. Pure.

use std::net::{IpAddr, SocketAddr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What is told to anybody who can reach the port: probes of an orchestrator carry no token.
const OPEN_TO_ALL: [&str; 2] = ["/livez", "/readyz"];

/// The rules of one listener. Shows no token.
pub(crate) struct Gate {
    is_loopback: bool,
    token: Option<String>,
}

/// What a request may have.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Everything.
    Known,
    /// An answer, without the reasons for it.
    Stranger,
    /// Nothing without the token.
    TokenWanted,
    /// Nothing: it was meant for somebody else. A page in a browser of this machine can have its own name resolve to us.
    UnknownHost,
}

impl Gate {
    /// Beyond this machine there has to be a token: the configuration sees to that.
    pub(super) fn at(address: SocketAddr, token: Option<String>) -> Gate {
        Gate { is_loopback: address.ip().is_loopback(), token }
    }

    /// By the request's path and its headers `Host` and `Authorization`.
    pub(super) fn admit(&self, path: &str, host: Option<&str>, authorization: Option<&str>) -> Admission {
        if self.is_loopback && !host.is_some_and(is_this_machine) {
            return Admission::UnknownHost;
        }
        let Some(token) = &self.token else { return Admission::Known };
        match authorization.and_then(bearer) {
            Some(said) if is_same(said, token) => Admission::Known,
            _ if OPEN_TO_ALL.contains(&path) => Admission::Stranger,
            _ => Admission::TokenWanted,
        }
    }
}

/// An address of this machine, or the name that it has everywhere: with a port or without.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// In a time that depends on neither: not even on their lengths.
fn is_same(said: &str, token: &str) -> bool {
    Sha256::digest(said).ct_eq(&Sha256::digest(token)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn gate(address: &str, token: Option<&str>) -> Gate {
        Gate::at(address.parse().unwrap(), token.map(str::to_owned))
    }

    #[test]
    fn on_loopback_only_this_machine_is_asked_for() {
        let gate = gate("127.0.0.1:7070", None);
        for host in ["127.0.0.1:7070", "127.0.0.1", "localhost:1", "LocalHost", "[::1]:7070", "[::1]", "127.3.2.1:80"] {
            assert_eq!(gate.admit("/metrics", Some(host), None), Admission::Known, "{host}");
        }
        for host in ["evil.example", "evil.example:7070", "localhost.evil.example", "10.0.0.1:7070", "0.0.0.0:7070", ""]
        {
            assert_eq!(gate.admit("/livez", Some(host), None), Admission::UnknownHost, "{host}");
        }
        assert_eq!(gate.admit("/livez", None, None), Admission::UnknownHost);
    }

    #[test]
    fn beyond_it_the_token_is_asked_for_and_any_name_will_do() {
        let gate = gate("0.0.0.0:7070", Some(TOKEN));
        let ask = |path: &str, said: Option<&str>| gate.admit(path, Some("node7.example:7070"), said);
        assert_eq!(ask("/metrics", Some("Bearer 0123456789abcdef")), Admission::Known);
        assert_eq!(ask("/readyz", Some("bearer 0123456789abcdef")), Admission::Known);
        for wrong in
            [None, Some("Bearer 0123456789abcdeX"), Some("Bearer "), Some("Basic 0123456789abcdef"), Some(TOKEN)]
        {
            assert_eq!(ask("/metrics", wrong), Admission::TokenWanted, "{wrong:?}");
            assert_eq!(ask("/anything", wrong), Admission::TokenWanted, "{wrong:?}");
            assert_eq!(ask("/livez", wrong), Admission::Stranger, "{wrong:?}");
        }
    }
}
