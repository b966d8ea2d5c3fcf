//! Who owns the schema, and who may do what in it: the statements of `deploy/postgres`, in the schema's own words.

use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::schema::Schema;
use super::session::Session;
use super::step::step;

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");
const OWN: &str = include_str!("../../deploy/postgres/own.sql");
const GRANTS: &str = include_str!("../../deploy/postgres/grants.sql");

/// The four of a fleet, in their order.
const KINDS: [&str; 4] = ["owner", "worker", "client", "viewer"];

/// Whose the schema is, and who we are to its owner role.
pub(super) struct Standing {
    /// `None` while there is no schema.
    pub(super) owner: Option<String>,
    /// Whether we may act as its owner role; `None` if there is none.
    pub(super) may_own: Option<bool>,
    pub(super) login: String,
}

/// What `grants.sql` gives to a role, read from there.
pub(crate) struct Rights {
    /// What it may call.
    pub(crate) functions: Vec<&'static str>,
    /// What it may read.
    pub(crate) tables: Vec<&'static str>,
}

impl Rights {
    /// Those of a `worker`, a `client` or a `viewer`.
    pub(crate) fn of(kind: &str) -> Rights {
        let mut rights = Rights { functions: Vec::new(), tables: Vec::new() };
        for statement in GRANTS.split(';') {
            let lines = statement.lines().filter(|line| !line.starts_with("--"));
            let words: Vec<&str> =
                lines.flat_map(str::split_whitespace).map(|word| word.trim_end_matches(',')).collect();
            if !words.iter().any(|word| word.strip_prefix("systole_") == Some(kind)) {
                continue;
            }
            let names = words.iter().filter_map(|word| word.strip_prefix("systole."));
            match words[..] {
                ["GRANT", "EXECUTE", ..] => rights.functions.extend(names),
                // Not where it is for some columns alone.
                ["GRANT", "SELECT", "ON", ..] => rights.tables.extend(names),
                _ => {}
            }
        }
        rights
    }
}

/// The role that is to own the schema, where there are roles.
pub(super) fn owner_of(schema: &Schema) -> String {
    format!("{schema}_owner")
}

/// Looks at the schema and its owner role.
pub(super) async fn standing(session: &Session) -> Result<Standing, Error> {
    const STANDING: &str = "-- roles.standing
        SELECT (SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = $1) AS owner,
               (SELECT pg_has_role(oid,
                           CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
                  FROM pg_roles WHERE rolname = $2) AS may_own,
               current_user::text AS login";
    let schema = session.schema();
    let parameters = [(&schema.as_str() as _, Type::TEXT), (&owner_of(schema) as _, Type::TEXT)];
    let rows = session.query(STANDING, &parameters).await?;
    let row = rows.first().expect("without FROM there is one row");
    Ok(Standing { owner: row.get("owner"), may_own: row.get("may_own"), login: row.get("login") })
}

/// The roles that this cluster lacks.
pub(super) async fn missing(session: &Session) -> Result<Vec<String>, Error> {
    const MISSING: &str = "-- roles.missing
        SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)";
    let names = KINDS.map(|kind| format!("{}_{kind}", session.schema()));
    let rows = session.query(MISSING, &[(&names.as_slice(), Type::TEXT_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Creates the roles that are missing, and returns which those were.
pub(super) async fn create(session: &mut Session) -> Result<Vec<String>, Error> {
    let missing = missing(session).await?;
    let roles = session.schema().qualify(ROLES).into_owned();
    step(session, &roles).await?;
    Ok(missing)
}

/// Makes sure of the schema, and becomes its owner, so that all that is created belongs to one role.
pub(super) async fn become_owner(session: &mut Session) -> Result<(), Error> {
    let (schema, found) = (session.schema().clone(), standing(session).await?);
    let ours = owner_of(&schema);
    let owner = match found.owner {
        Some(owner) => owner,
        None if found.may_own.is_some() => {
            session.client().batch_execute(&format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION {ours}")).await?;
            ours
        }
        None => {
            session.client().batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
            found.login
        }
    };
    const BECOME: &str = "-- roles.become
        SELECT set_config('role', $1, false)
         WHERE $1 <> current_user
           AND pg_has_role($1::name,
                   CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)";
    session.query(BECOME, &[(&owner, Type::TEXT)]).await?;
    // Tables and functions are created in the first schema of the path, and functions pin it.
    let path = format!("SET search_path TO \"{schema}\", pg_temp");
    session.client().batch_execute(&path).await
}

/// What gives each role its rights, once all of them are there.
pub(super) fn grants(schema: &Schema) -> String {
    // Named without a dot there, so the schema is put in by itself.
    schema.qualify(GRANTS).replace("SCHEMA systole ", &format!("SCHEMA \"{schema}\" "))
}

/// Makes the schema its owner role's, if it is somebody else's, and gives each role its rights, in one transaction: those
/// who work as the former owner would have none in between.
pub(super) async fn hand_over(session: &mut Session) -> Result<(), Error> {
    let (schema, found) = (session.schema().clone(), standing(session).await?);
    let ours = owner_of(&schema);
    let mut script = String::new();
    if found.owner.is_some_and(|owner| owner != ours) {
        let own = schema.qualify(OWN).replace("'systole'", &format!("'{schema}'"));
        script = format!("RESET ROLE; {own}; SET ROLE {ours};");
    }
    script.push_str(&grants(&schema));
    step(session, &script).await
}

/// What no migration can mend: roles that are there in part, and what the owner lacks, and only a superuser can give.
pub(super) async fn warnings(session: &Session, with_roles: bool) -> Result<Vec<String>, Error> {
    let missing = missing(session).await?;
    if (1..KINDS.len()).contains(&missing.len()) {
        let missing = missing.join(", ");
        return Ok(vec![format!(
            "nobody was given rights, because of the four roles some are missing: {missing}. As an administrator: \
             systole migrate --roles"
        )]);
    }
    if !with_roles {
        return Ok(Vec::new());
    }
    const LACKING: &str = "-- roles.lacking
        SELECT name FROM unnest(ARRAY['pg_read_all_stats', 'pg_signal_backend']) AS name
         WHERE NOT pg_has_role($1::name, name, 'USAGE')";
    let owner = owner_of(session.schema());
    let rows = session.query(LACKING, &[(&owner, Type::TEXT)]).await?;
    let warning = |right: &str| format!("{owner} lacks {right}; as a superuser: GRANT {right} TO {owner};");
    Ok(rows.iter().map(|row| warning(row.get(0))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_as_they_are_granted() {
        let [worker, client, viewer] = ["worker", "client", "viewer"].map(Rights::of);
        assert!(
            ["claim", "beat", "finish", "claim_queued", "prune", "submit"]
                .iter()
                .all(|name| worker.functions.contains(name))
        );
        assert!(client.functions.contains(&"fence") && !client.functions.contains(&"claim"));
        assert_eq!(
            viewer.functions,
            ["holder", "rw_since", "why_waiting", "history", "quarantined_until", "fleet_snapshot"]
        );
        assert!(worker.tables.contains(&"run_output") && !client.tables.contains(&"run_output"));
        for role in [worker, client, viewer] {
            assert!(role.tables.contains(&"refinery_schema_history") && !role.tables.contains(&"run_specs"));
        }
    }
}
