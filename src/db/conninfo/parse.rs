//! The two forms of a connection string, taken apart into keywords and values.

use super::InvalidTarget;

type Pairs = Vec<(String, String)>;

/// All keywords with their values, in the order in which they were written.
pub(super) fn pairs(text: &str) -> Result<Pairs, InvalidTarget> {
    let text = text.trim();
    if text.contains('\0') {
        return Err(unreadable("it contains a zero byte"));
    }
    match text.split_once("://") {
        Some(("postgresql" | "postgres", rest)) => url(rest),
        // An = before it: the :// is within a value.
        Some((scheme, _)) if !scheme.contains('=') => {
            Err(unreadable(&format!("{scheme:?} is not a scheme of PostgreSQL's; write postgresql://")))
        }
        _ => words(text),
    }
}

fn unreadable(reason: &str) -> InvalidTarget {
    InvalidTarget::Unreadable { reason: reason.to_owned() }
}

/// A password with a / in it ends the hosts, and what there is of it looks like a port, or a database. Not repeated.
const CUT_SHORT: &str = "a port is not a number, or the database's name has an @ in it. \
     In a password write %2F for /, %3F for ?, %23 for # and %40 for @";

/// `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`
fn url(rest: &str) -> Result<Pairs, InvalidTarget> {
    let mut pairs = Pairs::new();
    let mut give = |keyword: &str, value: String| pairs.push((keyword.to_owned(), value));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // The first slash ends the hosts: sockets and passwords are written with %2F.
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            if !user.is_empty() {
                give("user", decoded(user)?);
            }
            if !password.is_empty() {
                give("password", decoded(password)?);
            }
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = host_and_port(host)?;
            if !port.bytes().all(|byte| byte.is_ascii_digit()) || (database.contains('@') && !authority.contains('@')) {
                return Err(unreadable(CUT_SHORT));
            }
            names.push(decoded(name)?);
            ports.push(port);
        }
        if names != [""] {
            give("host", names.join(","));
        }
        if ports.iter().any(|port| !port.is_empty()) {
            give("port", ports.join(","));
        }
    }
    if !database.is_empty() {
        give("dbname", decoded(database)?);
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) = parameter
            .split_once('=')
            .ok_or_else(|| unreadable("behind the ? there is something without a value: write keyword=value"))?;
        match (decoded(keyword)?, decoded(value)?) {
            // What JDBC's URLs say.
            (keyword, value) if keyword == "ssl" && value == "true" => give("sslmode", "require".to_owned()),
            (keyword, value) => give(&keyword, value),
        }
    }
    Ok(pairs)
}

/// `host`, `host:port`, `[::1]:port`.
fn host_and_port(text: &str) -> Result<(&str, &str), InvalidTarget> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or_else(|| unreadable("an IPv6 address has no closing ]"))?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if rest.is_empty() => Ok((host, "")),
            None => Err(unreadable("behind the ] of an IPv6 address there is something other than :port")),
        };
    }
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    if port.contains(':') {
        return Err(unreadable("an IPv6 address must be in brackets: [::1]"));
    }
    Ok((host, port))
}

fn decoded(text: &str) -> Result<String, InvalidTarget> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        if *first == b'%' {
            let digit = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                return Err(unreadable("a % is not followed by two hexadecimal digits; write %25 for a % itself"));
            };
            bytes.push((high * 16 + low) as u8);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| unreadable("what its % stand for is not UTF-8 text"))
}

/// `keyword = value keyword='a value'`, a backslash before a quote or another backslash.
fn words(text: &str) -> Result<Pairs, InvalidTarget> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let keyword = &rest[..end];
        let Some(behind) = rest[end..].trim_start().strip_prefix('=').filter(|_| !keyword.is_empty()) else {
            return Err(unreadable("it is neither a URL nor a list of keyword=value"));
        };
        let (value, behind) = word(behind.trim_start())?;
        pairs.push((keyword.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(pairs)
}

/// The value that `text` begins with, and what is behind it.
fn word(text: &str) -> Result<(String, &str), InvalidTarget> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(unreadable("a quote ' is not closed")) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).unwrap()
    }

    fn expect(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(read(text), expected, "{text}");
    }

    #[test]
    fn urls_are_taken_apart_as_libpq_does() {
        expect("postgresql://", &[]);
        expect("postgres://h", &[("host", "h")]);
        expect("postgresql:///d?host=%2Frun&port=5433", &[("dbname", "d"), ("host", "/run"), ("port", "5433")]);
        expect(
            "postgresql://u:p%40%2F@[::1]:6/d%20b",
            &[("user", "u"), ("password", "p@/"), ("host", "::1"), ("port", "6"), ("dbname", "d b")],
        );
        expect(
            "postgresql://a:1,b:2/d?target_session_attrs=read-write",
            &[("host", "a,b"), ("port", "1,2"), ("dbname", "d"), ("target_session_attrs", "read-write")],
        );
        expect(
            "postgresql://%2Fvar%2Frun/d?ssl=true",
            &[("host", "/var/run"), ("dbname", "d"), ("sslmode", "require")],
        );
    }

    #[test]
    fn words_are_taken_apart_as_libpq_does() {
        expect("", &[]);
        expect(" host = h  dbname='a \\'b\\\\' user=", &[("host", "h"), ("dbname", "a 'b\\"), ("user", "")]);
        expect("options='-c x=1' port=5", &[("options", "-c x=1"), ("port", "5")]);
        expect("dbname=a://b", &[("dbname", "a://b")]);
    }

    #[test]
    fn nonsense_is_refused_without_being_repeated() {
        for text in [
            "hunter2",
            "mysql://u:hunter2@h/d",
            "postgresql://u:hunter2%zz@h",
            "postgresql://u:hunter2@[::1",
            "postgresql://u:hunter2@::1/d",
            "postgresql://u:hunter2@h/d?x",
            "password='hunter2",
            "=hunter2",
            "postgresql://u:hunter2%00@h",
            "postgresql://u:hunter2/x@h/d",
            "postgresql://u:17/hunter2@h/d",
        ] {
            let error = pairs(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
