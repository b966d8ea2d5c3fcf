//! The schema that holds our tables and functions: `systole`, unless the fleet has named another.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The name used in every statement of ours, and the default.
const DEFAULT: &str = "systole";

/// The longest: `NAME_worker` is a role, and a name has 63 bytes.
const LENGTH_MAX: usize = 48;

/// A schema's name, safe to be put into a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(String);

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of the schema: it needs 1 to 48 lower-case letters, digits and _, and no digit first"
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
        if (1..=LENGTH_MAX).contains(&text.len()) && text.chars().all(possible) && begins_well {
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

    /// A statement of ours, which says `systole.` and `systole_worker`, in this schema's words.
    pub(super) fn qualify<'a>(&self, statement: &'a str) -> Cow<'a, str> {
        if self.is_default() {
            return Cow::Borrowed(statement);
        }
        let mut text = statement.replace("systole.", &format!("\"{}\".", self.0));
        for role in ["owner", "worker", "client", "viewer"] {
            text = text.replace(&format!("systole_{role}"), &format!("{}_{role}", self.0));
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
    }

    #[test]
    fn a_name_that_could_end_a_quotation_is_none() {
        for bad in ["", "a\"b", "Jobs", "1a", "pg_jobs", "a.b", &"a".repeat(49)] {
            assert!(bad.parse::<Schema>().is_err(), "{bad}");
        }
    }
}
