//! Connection strings as libpq's: what people paste works here as it does in psql, or is refused by its name.
//!
//! Values come, nearest first, from the string, from a service file, from PG* variables. Passwords of a passfile are
//! looked up for each host when it is dialled, so that a password can change under a running executor.

mod files;
mod keywords;
mod parse;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) use files::password_of;
use keywords::{KEYWORDS, Meaning};

/// Why a connection string cannot be used; says what to write instead. Never shows the string, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// It is not a connection string at all.
    #[error(
        "the database URL cannot be read: {reason}. It looks like postgresql://user@host:5432/database, \
         or host=/var/run/postgresql dbname=systole"
    )]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// It names something that libpq does not know either.
    #[error("{origin} has a parameter {keyword:?}, which does not exist. Known are: {known}")]
    Unknown {
        /// The parameter.
        keyword: String,
        /// Where it was given.
        origin: String,
        /// All there are.
        known: String,
    },
    /// It asks for something that libpq has and systole has not.
    #[error("{keyword} from {origin} asks for something that systole cannot do: {reason}")]
    Unsupported {
        /// The parameter.
        keyword: &'static str,
        /// Where it was given.
        origin: String,
        /// What is possible.
        reason: &'static str,
    },
    /// A value makes no sense. Never one of a secret.
    #[error("{keyword} from {origin} is {value:?}, but should be {expected}")]
    Value {
        /// The parameter.
        keyword: &'static str,
        /// Where it was given.
        origin: String,
        /// Its value.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A file that it names cannot be used.
    #[error("{keyword} from {origin} names {}: {reason}", .path.display())]
    File {
        /// The parameter.
        keyword: &'static str,
        /// Where it was given.
        origin: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Every parameter that was given, with its origin: the URL, a service, a variable.
#[derive(Clone, Default)]
pub(super) struct Conninfo {
    values: BTreeMap<&'static str, (String, String)>,
}

/// What libpq would take from the process: variables and the home folder.
pub(super) struct Environment<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The account's, for where no variable names another.
    pub(super) home: Option<PathBuf>,
}

/// Whether a connection string holds a password itself. One that cannot be read is taken to hold one.
pub fn holds_password(text: &str) -> bool {
    parse::pairs(text)
        .map_or(true, |pairs| pairs.iter().any(|(keyword, _)| keyword == "password" || keyword == "sslpassword"))
}

impl Conninfo {
    /// Reads the string, and fills its gaps from its service and from PG* variables.
    pub(super) fn resolve(text: &str, environment: &Environment<'_>) -> Result<Conninfo, InvalidTarget> {
        let mut conninfo = Conninfo::default();
        for (keyword, value) in parse::pairs(text)? {
            conninfo.give(&keyword, value, "the database URL")?;
        }
        let given = |name: &str| (environment.variable)(name).filter(|value| !value.is_empty());
        if !conninfo.values.contains_key("service")
            && let Some(service) = given("PGSERVICE")
        {
            conninfo.give("service", service, "PGSERVICE")?;
        }
        if let Some(service) = conninfo.text("service").map(str::to_owned) {
            let origin = format!("service \"{service}\"");
            for (keyword, value) in files::service(&service, &conninfo, environment)? {
                // What the URL says itself is nearer.
                if !conninfo.values.contains_key(keyword.as_str()) {
                    conninfo.give(&keyword, value, &origin)?;
                }
            }
        }
        for keyword in KEYWORDS {
            if let Some(variable) = keyword.variable
                && !conninfo.values.contains_key(keyword.name)
                && let Some(value) = given(variable)
            {
                conninfo.give(keyword.name, value, variable)?;
            }
        }
        Ok(conninfo)
    }

    fn give(&mut self, keyword: &str, value: String, origin: &str) -> Result<(), InvalidTarget> {
        let Some(known) = KEYWORDS.iter().find(|known| known.name == keyword) else {
            let known: Vec<&str> = KEYWORDS.iter().map(|known| known.name).collect();
            let (keyword, origin) = (keyword.to_owned(), origin.to_owned());
            return Err(InvalidTarget::Unknown { keyword, origin, known: known.join(", ") });
        };
        if let Meaning::Only(values, reason) = known.meaning
            && !value.is_empty()
            && !values.iter().any(|possible| possible.eq_ignore_ascii_case(&value))
        {
            return Err(InvalidTarget::Unsupported { keyword: known.name, origin: origin.to_owned(), reason });
        }
        // As in libpq the last one counts. An empty value is none, and lets nothing that is farther away take its place.
        self.values.insert(known.name, (value, origin.to_owned()));
        Ok(())
    }

    /// A value, if one was given.
    pub(super) fn text(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A value as a list, one item per host.
    pub(super) fn list(&self, keyword: &str) -> Vec<&str> {
        self.text(keyword).map(|text| text.split(',').map(str::trim).collect()).unwrap_or_default()
    }

    /// A value read as something else.
    pub(super) fn read<T>(
        &self,
        keyword: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidTarget> {
        let Some(text) = self.text(keyword) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| self.refuse(keyword, text, expected))
    }

    /// A value that is, or holds, nonsense.
    pub(super) fn refuse(&self, keyword: &'static str, value: &str, expected: &'static str) -> InvalidTarget {
        InvalidTarget::Value { keyword, origin: self.origin(keyword), value: value.to_owned(), expected }
    }

    /// A file that cannot be used.
    pub(super) fn refuse_file(&self, keyword: &'static str, path: &Path, reason: impl ToString) -> InvalidTarget {
        let (path, reason) = (path.to_owned(), reason.to_string());
        InvalidTarget::File { keyword, origin: self.origin(keyword), path, reason }
    }

    fn origin(&self, keyword: &str) -> String {
        let given = self.values.get(keyword).filter(|(value, _)| !value.is_empty());
        given.map_or_else(|| "its default".to_owned(), |(_, origin)| origin.clone())
    }
}

impl Environment<'_> {
    /// A file in the home folder, as libpq's defaults are.
    pub(super) fn at_home(&self, name: &str) -> Option<PathBuf> {
        let named = (self.variable)("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        named.or_else(|| self.home.clone()).map(|home| home.join(name))
    }
}

/// Read or refused, and no password is ever repeated.
#[cfg(fuzzing)]
pub fn fuzz(text: &str) {
    let pairs = parse::pairs(text).unwrap_or_default();
    // A service is a file of the machine's, and not a matter of the text.
    if pairs.iter().any(|(keyword, _)| keyword.starts_with("service")) {
        return;
    }
    if let Err(error) = Conninfo::resolve(text, &Environment { variable: &|_| None, home: None }) {
        // Shorter ones stand in the messages by chance.
        let secrets = pairs.iter().filter(|(keyword, value)| keyword == "password" && value.len() > 60);
        let told = error.to_string();
        secrets.for_each(|(_, secret)| assert!(!told.contains(secret.as_str())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, variables: &[(&str, &str)]) -> Result<Conninfo, InvalidTarget> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Conninfo::resolve(text, &Environment { variable: &variable, home: None })
    }

    #[test]
    fn the_url_is_nearer_than_a_variable() {
        let found = resolve("postgresql://a@x/", &[("PGUSER", "b"), ("PGDATABASE", "d")]).unwrap();
        assert_eq!((found.text("user"), found.text("dbname")), (Some("a"), Some("d")));
    }

    #[test]
    fn an_empty_value_shuts_out_the_variable_and_an_empty_place_of_a_url_does_not() {
        let variables = [("PGUSER", "u"), ("PGHOST", "h"), ("PGPASSWORD", "p"), ("PGSERVICE", "nowhere")];
        for text in ["user='' host='' password='' service=''", "postgresql://?user=&host=&password=&service="] {
            let found = resolve(text, &variables).unwrap();
            for keyword in ["user", "host", "password", "service"] {
                assert_eq!(found.text(keyword), None, "{keyword} of {text}");
            }
        }
        for text in ["postgresql://@:5433?service=", "postgresql://:@/d?service="] {
            let found = resolve(text, &variables).unwrap();
            assert_eq!((found.text("user"), found.text("host")), (Some("u"), Some("h")), "{text}");
        }
    }

    #[test]
    fn a_misspelt_parameter_is_named_and_its_value_is_not() {
        let error = resolve("postgresql://x/?pasword=hunter2", &[]).err().unwrap().to_string();
        assert!(error.contains("\"pasword\"") && error.contains("passfile") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_cannot_be_done_is_never_silently_left_out() {
        let error = resolve("postgresql://x/", &[("PGREQUIREPEER", "postgres")]).err().unwrap().to_string();
        assert!(error.contains("requirepeer from PGREQUIREPEER"), "{error}");
        assert!(resolve("host=x gssencmode=prefer client_encoding=utf8", &[]).is_ok());
    }

    #[test]
    fn a_password_in_the_string_is_seen() {
        for text in ["postgresql://u:p@h/d", "postgresql://u@h/d?password=p", "host=h password='p q'", "=nonsense"] {
            assert!(holds_password(text), "{text}");
        }
        assert!(!holds_password("postgresql://u@h/d?passfile=/x"));
    }
}
