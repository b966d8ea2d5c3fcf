//! Passfiles and service files, in libpq's formats.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Conninfo, Environment, InvalidTarget};

/// The parameters of a service: from the user's file, else from the system's.
pub(super) fn service(
    name: &str,
    conninfo: &Conninfo,
    environment: &Environment<'_>,
) -> Result<Vec<(String, String)>, InvalidTarget> {
    let variable = |name: &str| (environment.variable)(name).filter(|value| !value.is_empty());
    let named =
        conninfo.text("servicefile").map(str::to_owned).or_else(|| variable("PGSERVICEFILE")).map(PathBuf::from);
    let users = named.or_else(|| environment.at_home(".pg_service.conf"));
    let systems = variable("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".to_owned());
    let candidates = [users, Some(Path::new(&systems).join("pg_service.conf"))];
    for path in candidates.into_iter().flatten() {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(conninfo.refuse_file("service", &path, error)),
        };
        if let Some(found) = section(&text, name).map_err(|reason| conninfo.refuse_file("service", &path, reason))? {
            return Ok(found);
        }
    }
    Err(conninfo.refuse(
        "service",
        name,
        "a section of ~/.pg_service.conf, PGSERVICEFILE or the system's pg_service.conf",
    ))
}

/// The lines of `[name]`.
fn section(text: &str, name: &str) -> Result<Option<Vec<(String, String)>>, String> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (title == name).then(Vec::new);
        } else if let Some(pairs) = &mut found {
            let (keyword, value) =
                line.split_once('=').ok_or_else(|| format!("line {} is not keyword=value", number + 1))?;
            if keyword == "service" {
                return Err(format!("line {}: a service cannot name another one", number + 1));
            }
            pairs.push((keyword.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

/// The password that a passfile has for this server and user; `None` if it has none, or is not there.
///
/// As libpq does, one that others can read is not used; unlike there, that is an error, and not a warning.
pub(in crate::db) fn password_of(
    path: &Path,
    host: &str,
    port: u16,
    database: &str,
    user: &str,
) -> Result<Option<String>, String> {
    let unreadable = |error: io::Error| format!("the passfile {} cannot be read: {error}", path.display());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_file() {
        return Ok(None);
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("the passfile {0} can be read by others: chmod 0600 {0}", path.display()));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let [at_host, at_port, at_database, as_user, password] = fields.as_slice() else { return None };
        let fits = |pattern: &String, value: &str| pattern == "*" || pattern == value;
        let all = fits(at_host, host)
            && fits(at_port, &port.to_string())
            && fits(at_database, database)
            && fits(as_user, user);
        all.then(|| password.clone())
    }))
}

/// `host:port:database:user:password`, a backslash before a colon or another backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => fields.last_mut().expect("there is one from the start").extend(characters.next()),
            // The password is all the rest.
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields.last_mut().expect("there is one from the start").push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "# c\n[a]\nhost=1\n[b]\n host=2 \nport=3\n[c]\nnonsense\n";
        let pair = |keyword: &str, value: &str| (keyword.to_owned(), value.to_owned());
        assert_eq!(section(text, "b").unwrap(), Some(vec![pair("host", "2"), pair("port", "3")]));
        assert_eq!(section(text, "x").unwrap(), None);
        assert_eq!(section(text, "c").unwrap_err(), "line 8 is not keyword=value");
    }

    #[test]
    fn a_passfile_is_matched_field_by_field_and_must_be_private() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "# c\nh:5432:d:u:one\n*:*:*:a\\:b:t\\\\w:o\nshort:line\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let find = |host, port, database, user| password_of(file.path(), host, port, database, user);
        assert_eq!(find("h", 5432, "d", "u").unwrap().as_deref(), Some("one"));
        assert_eq!(find("h", 5433, "d", "u").unwrap(), None);
        assert_eq!(find("z", 1, "y", "a:b").unwrap().as_deref(), Some("t\\w:o"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(find("h", 5432, "d", "u").unwrap_err().contains("chmod 0600"));
        assert_eq!(password_of(Path::new("/nonexistent"), "h", 1, "d", "u"), Ok(None));
    }
}
