//! Who owns the schema, and who may do what in it: the statements of `deploy/postgres`, in the schema's own words.

use tokio_postgres::Error;
use tokio_postgres::types::Type;

use super::session::Session;

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");
const OWN: &str = include_str!("../../deploy/postgres/own.sql");
const GRANTS: &str = include_str!("../../deploy/postgres/grants.sql");

/// The roles that this cluster lacks.
pub(super) async fn missing(session: &Session) -> Result<Vec<String>, Error> {
    const MISSING: &str = "-- roles.missing
        SELECT name FROM unnest(ARRAY['systole_owner', 'systole_worker', 'systole_client', 'systole_viewer']) AS name
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)";
    Ok(session.query(MISSING, &[]).await?.iter().map(|row| row.get(0)).collect())
}

/// Creates the roles that are missing, and returns which those were.
pub(super) async fn create(session: &mut Session) -> Result<Vec<String>, Error> {
    let missing = missing(session).await?;
    let roles = session.schema().qualify(ROLES).into_owned();
    session.client().batch_execute(&roles).await?;
    Ok(missing)
}

/// Whether there is a schema, and it is somebody else's than the owner role's.
pub(super) async fn belongs_to_another(session: &Session) -> Result<bool, Error> {
    let ours = format!("{}_owner", session.schema());
    Ok(owner(session).await?.is_some_and(|owner| owner != ours))
}

async fn owner(session: &Session) -> Result<Option<String>, Error> {
    const FIND: &str = "-- roles.find_owner
        SELECT pg_get_userbyid(nspowner)::text AS owner FROM pg_namespace WHERE nspname = $1";
    let found = session.query(FIND, &[(&session.schema().as_str(), Type::TEXT)]).await?;
    Ok(found.first().map(|row| row.get("owner")))
}

/// Makes sure of the schema, and becomes its owner, so that all that is created belongs to one role.
pub(super) async fn become_owner(session: &mut Session, roles: bool) -> Result<(), Error> {
    let schema = session.schema().clone();
    let ours = format!("{schema}_owner");
    let owner = owner(session).await?;
    let owner = match owner {
        None if roles => {
            session.client().batch_execute(&format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION {ours}")).await?;
            ours
        }
        None => {
            session.client().batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
            return enter(session).await;
        }
        Some(owner) if roles && owner != ours => {
            let own = schema.qualify(OWN).replace("'systole'", &format!("'{schema}'"));
            session.client().batch_execute(&own).await?;
            ours
        }
        Some(owner) => owner,
    };
    const BECOME: &str = "-- roles.become
        SELECT set_config('role', $1, false)
         WHERE $1 <> current_user
           AND pg_has_role($1::name,
                   CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)";
    session.query(BECOME, &[(&owner, Type::TEXT)]).await?;
    enter(session).await
}

/// Tables and functions are created in the first schema of the path, and functions pin it.
async fn enter(session: &mut Session) -> Result<(), Error> {
    let path = format!("SET search_path TO \"{}\", pg_temp", session.schema());
    session.client().batch_execute(&path).await
}

/// Gives each role its rights, if the roles are there.
pub(super) async fn grant(session: &mut Session) -> Result<(), Error> {
    if !missing(session).await?.is_empty() {
        return Ok(());
    }
    let schema = session.schema().clone();
    // Named without a dot there, so the schema is put in by itself.
    let grants = schema.qualify(GRANTS).replace("SCHEMA systole ", &format!("SCHEMA \"{schema}\" "));
    session.client().batch_execute(&format!("BEGIN; {grants}; COMMIT")).await
}

/// What the owner lacks, and only a superuser can give.
pub(super) async fn warnings(session: &Session) -> Result<Vec<String>, Error> {
    const LACKING: &str = "-- roles.lacking
        SELECT name FROM unnest(ARRAY['pg_read_all_stats', 'pg_signal_backend']) AS name
         WHERE NOT pg_has_role(current_user, name, 'USAGE')";
    let rows = session.query(LACKING, &[]).await?;
    let owner = format!("{}_owner", session.schema());
    let warning = |right: &str| format!("{owner} lacks {right}; as a superuser: GRANT {right} TO {owner};");
    Ok(rows.iter().map(|row| warning(row.get(0))).collect())
}
