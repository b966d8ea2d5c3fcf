//! Whether this login may do what it is here for: each call of a worker's and of a client's, and each table they read.

use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::Check;
use crate::db::{Rights, Session};

/// What is there, is given to a role, and is not this login's. What is not there yet is the schema's matter.
const LACKING: &str = "-- doctor.lacking
    SELECT coalesce(bool_and(CASE WHEN lacking.function IS NULL THEN has_table_privilege(r.oid, lacking.relation, 'SELECT')
                                  ELSE has_function_privilege(r.oid, lacking.function, 'EXECUTE') END), false) AS role_may,
           coalesce(bool_and(pg_has_role(r.oid, 'USAGE')), false) AS is_member,
           array_agg(lacking.name ORDER BY array_position($2::text[] || $3::text[], lacking.name)) AS names
      FROM (SELECT p.proname::text AS name, p.oid AS function, NULL::oid AS relation FROM pg_proc p
             WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND p.proname = ANY ($2)
               AND NOT has_function_privilege(p.oid, 'EXECUTE')
             UNION ALL
            SELECT c.relname::text, NULL, c.oid FROM pg_class c
             WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) AND c.relname = ANY ($3)
               AND NOT has_table_privilege(c.oid, 'SELECT')) AS lacking
      LEFT JOIN pg_roles r ON r.rolname = $4
    HAVING count(*) > 0";

/// What this login may not, of what a role may, and how to mend it.
struct Lack {
    names: String,
    remedy: String,
}

/// `server` is the row of `doctor.server`.
pub(super) async fn examine(session: &Session, server: &Row, schema: &str) -> Result<Check, Error> {
    let (login, owner): (&str, &str) = (server.get("role"), server.get("owner"));
    if let Some(work) = lack(session, schema, "worker", login).await? {
        let found = match lack(session, schema, "client", login).await? {
            None => format!(
                "role {login} may do what a client does, and not what a worker does, for lack of {}",
                work.names
            ),
            Some(_) => format!(
                "role {login} may do neither what a worker does nor what a client does, for lack of {}",
                work.names
            ),
        };
        return Ok(Check::bad("roles", found, work.remedy));
    }
    let [may_write, owner_is_super, owner_may_signal] =
        ["may_write", "owner_is_super", "owner_may_signal"].map(|name| server.get::<_, bool>(name));
    if !owner_may_signal {
        return Ok(Check::bad(
            "roles",
            format!(
                "role {login} may work; owner {owner} may not end a transaction that keeps a dead executor's run locked"
            ),
            format!("as a superuser: GRANT pg_signal_backend TO {owner};"),
        ));
    }
    let powers = match (may_write, owner_is_super) {
        (true, true) => {
            " (it may write the tables too, and the functions run as a superuser: systole migrate --roles separates that)"
        }
        (true, false) => " (it may write the tables too)",
        _ => "",
    };
    Ok(Check::good("roles", format!("role {login} may work{powers}, owner {owner} may end blocking transactions")))
}

async fn lack(session: &Session, schema: &str, kind: &str, login: &str) -> Result<Option<Lack>, Error> {
    let (rights, role) = (Rights::of(kind), format!("{schema}_{kind}"));
    let rows = session
        .query(
            LACKING,
            &[
                (&schema, Type::TEXT),
                (&rights.functions, Type::TEXT_ARRAY),
                (&rights.tables, Type::TEXT_ARRAY),
                (&role, Type::TEXT),
            ],
        )
        .await?;
    Ok(rows.first().map(|row| {
        let names: Vec<&str> = row.get("names");
        let remedy = match (row.get("role_may"), row.get("is_member")) {
            (true, _) => format!("GRANT {role} TO {login};"),
            (false, true) => "systole migrate --roles, which gives each role its rights anew".to_owned(),
            (false, false) => format!("systole migrate --roles, then: GRANT {role} TO {login};"),
        };
        Lack { names: names.join(", "), remedy }
    }))
}
