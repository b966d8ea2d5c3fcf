//! The schema that holds our tables and functions: `systole`, unless the fleet has named another.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The name used in every statement of ours, and the default.
const DEFAULT: &str = "systole";

/// The longest: `NAME_worker` is a role, and a name has 63 bytes.
const LENGTH_MAX: usize = 48;

/// Schemas that are not ours alone: we own ours, and take every right to its functions away from PUBLIC.
const SHARED: [&str; 2] = ["public", "information_schema"];

/// A schema's name, safe to be put into a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of the schema: it needs 1 to 48 lower-case letters, digits and _, no digit or pg_ first, \
     and a schema of its own, so not public"
)]
pub struct InvalidSchema(String);

impl Default for Schema {
    fn default() -> Schema {
        Schema(DEFAULT.to_owned())
    }
}

impl FromStr for Schema {
    type Err = InvalidSchema;

    fn from_str(text: &str) -> Result<Schema, InvalidSchema> {
        let possible = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins_well = !text.starts_with(|c: char| c.is_ascii_digit()) && !text.starts_with("pg_");
        let ours_alone = !SHARED.contains(&text);
        if (1..=LENGTH_MAX).contains(&text.len()) && text.chars().all(possible) && begins_well && ours_alone {
            Ok(Schema(text.to_owned()))
        } else {
            Err(InvalidSchema(text.to_owned()))
        }
    }
}

impl Schema {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }

    /// A statement of ours, which says `systole.` and `systole_worker`, in this schema's words. Read once: its name may
    /// itself look like something to be replaced.
    pub(super) fn qualify<'a>(&self, statement: &'a str) -> Cow<'a, str> {
        if self.is_default() {
            return Cow::Borrowed(statement);
        }
        let mut parts = statement.split(DEFAULT);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for behind in parts {
            if behind.starts_with('.') {
                text.push_str(&format!("\"{}\"", self.0));
            } else if ["_owner", "_worker", "_client", "_viewer"].iter().any(|role| behind.starts_with(role)) {
                text.push_str(&self.0);
            } else {
                text.push_str(DEFAULT);
            }
            text.push_str(behind);
        }
        Cow::Owned(text)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_put_into_its_words() {
        let jobs: Schema = "jobs".parse().unwrap();
        assert_eq!(jobs.qualify("SELECT systole.beat($1)"), "SELECT \"jobs\".beat($1)");
        assert_eq!(jobs.qualify("GRANT systole_owner TO x"), "GRANT jobs_owner TO x");
        assert_eq!(Schema::default().qualify("systole.beat"), "systole.beat");
        let worker: Schema = "systole_worker".parse().unwrap();
        assert_eq!(worker.qualify("systole.x TO systole_worker"), "\"systole_worker\".x TO systole_worker_worker");
    }

    #[test]
    fn a_name_that_could_end_a_quotation_is_none() {
        for bad in ["", "a\"b", "Jobs", "1a", "pg_jobs", "a.b", "public", &"a".repeat(49)] {
            assert!(bad.parse::<Schema>().is_err(), "{bad}");
        }
    }
}
