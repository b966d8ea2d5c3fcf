//! Money that moves between accounts in the name of runs, so that whoever moves some of it too late is found out.
//!
//! Each transfer first locks its run's row in `tenures`, draws its number under that lock, and ends with `systole.fence()`.
//! So of one run the numbers stand in the order of the commits, and fences must never fall with them.

use std::collections::HashSet;

use tokio_postgres::Error;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::Session;

/// What each account begins with. They may go below zero.
const BALANCE: i64 = 1000;
const ACCOUNTS: i64 = 16;

const MAKE: [&str; 5] = [
    "CREATE SCHEMA systole_drill_ledger",
    "CREATE TABLE systole_drill_ledger.accounts (account bigint PRIMARY KEY, balance bigint NOT NULL)",
    "CREATE TABLE systole_drill_ledger.tenures (run_id text PRIMARY KEY, fence bigint NOT NULL)",
    "CREATE TABLE systole_drill_ledger.transfers (
         number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, transfer_id uuid NOT NULL UNIQUE, run_id text NOT NULL,
         fence bigint NOT NULL, payer bigint NOT NULL, payee bigint NOT NULL, amount bigint NOT NULL)",
    "INSERT INTO systole_drill_ledger.accounts SELECT account, $1 FROM generate_series(1, $2) AS account",
];
const ENTER: &str = "INSERT INTO systole_drill_ledger.tenures AS t (run_id, fence) VALUES ($1, $2)
     ON CONFLICT (run_id) DO UPDATE SET fence = greatest(t.fence, EXCLUDED.fence)";
const RECORD: &str = "INSERT INTO systole_drill_ledger.transfers (transfer_id, run_id, fence, payer, payee, amount)
     VALUES ($1, $2, $3, $4, $5, $6)";
const BOOK: &str = "UPDATE systole_drill_ledger.accounts SET balance = balance + $2 WHERE account = $1";
const FENCE: &str = "SELECT systole.fence($1, $2)";
const IS_THERE: &str = "SELECT 1 FROM systole_drill_ledger.transfers WHERE transfer_id = $1";
const FENCE_SEEN: &str = "SELECT fence FROM systole_drill_ledger.tenures WHERE run_id = $1";
const TRANSFERS: &str = "SELECT transfer_id FROM systole_drill_ledger.transfers";
const FALLEN: &str = "SELECT run_id, fence, before FROM
     (SELECT number, run_id, fence, max(fence) OVER (PARTITION BY run_id ORDER BY number) AS before
        FROM systole_drill_ledger.transfers) t WHERE fence < before ORDER BY number";
const OFF_BALANCE: &str = "SELECT account, balance, booked::bigint AS booked FROM
     (SELECT account, balance, $1 - coalesce((SELECT sum(amount) FROM systole_drill_ledger.transfers WHERE payer = account), 0)
                             + coalesce((SELECT sum(amount) FROM systole_drill_ledger.transfers WHERE payee = account), 0) AS booked
        FROM systole_drill_ledger.accounts) a WHERE balance <> booked";
const TOTAL: &str = "SELECT sum(balance)::bigint AS total FROM systole_drill_ledger.accounts";

/// Money on its way.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    pub(super) transfer_id: Uuid,
    pub(super) run_id: String,
    pub(super) fence: i64,
    payer: i64,
    payee: i64,
    amount: i64,
}

impl Transfer {
    /// Between accounts that its own name decides.
    pub(super) fn of(run_id: &str, fence: i64) -> Transfer {
        let transfer_id = Uuid::new_v4();
        let bytes = transfer_id.as_bytes();
        let account = |byte: u8| i64::from(byte) % ACCOUNTS + 1;
        let (payer, payee) = (account(bytes[0]), account(bytes[0].wrapping_add(1 + bytes[1] % 15)));
        Transfer { transfer_id, run_id: run_id.to_owned(), fence, payer, payee, amount: i64::from(bytes[2]) + 1 }
    }

    /// In a transaction of its own, statement by statement, as a program of a user's would do it.
    pub(super) async fn carry_out(&self, session: &Session, is_fenced: bool) -> Result<(), Error> {
        session.query("BEGIN", &[]).await?;
        let (run_id, fence) = ((&self.run_id as _, Type::TEXT), (&self.fence as _, Type::INT8));
        session.query(ENTER, &[run_id.clone(), fence.clone()]).await?;
        let ints = [&self.payer, &self.payee, &self.amount].map(|value| (value as _, Type::INT8));
        let [payer, payee, amount] = ints;
        session
            .query(RECORD, &[(&self.transfer_id, Type::UUID), run_id.clone(), fence.clone(), payer, payee, amount])
            .await?;
        // Everybody books in the order of the accounts.
        let mut entries = [(self.payer, -self.amount), (self.payee, self.amount)];
        entries.sort_unstable();
        for (account, change) in &entries {
            session.query(BOOK, &[(account, Type::INT8), (change, Type::INT8)]).await?;
        }
        if is_fenced {
            session.query(FENCE, &[run_id, fence]).await?;
        }
        session.query("COMMIT", &[]).await.map(drop)
    }

    /// Whether it was committed: for whoever had no answer.
    pub(super) async fn is_there(&self, session: &Session) -> Result<bool, Error> {
        Ok(!session.query(IS_THERE, &[(&self.transfer_id, Type::UUID)]).await?.is_empty())
    }
}

/// Makes the tables and the accounts.
pub(super) async fn make(session: &Session) -> Result<(), Error> {
    let [tables @ .., accounts] = MAKE;
    for statement in tables {
        session.query(statement, &[]).await?;
    }
    session.query(accounts, &[(&BALANCE, Type::INT8), (&ACCOUNTS, Type::INT8)]).await.map(drop)
}

/// The highest fence in whose name money of this run was moved.
pub(super) async fn fence_seen(session: &Session, run_id: &str) -> Result<Option<i64>, Error> {
    Ok(session.query(FENCE_SEEN, &[(&run_id, Type::TEXT)]).await?.first().map(|row| row.get("fence")))
}

/// What the ledger says at the end.
#[derive(Debug, Default)]
pub(super) struct Closing {
    pub(super) transfers: HashSet<Uuid>,
    /// What is wrong with it, a sentence each.
    pub(super) errors: Vec<String>,
}

/// Closes the books.
pub(super) async fn close(session: &Session) -> Result<Closing, Error> {
    let transfers = session.query(TRANSFERS, &[]).await?.iter().map(|row| row.get("transfer_id")).collect();
    let mut errors = Vec::new();
    for row in session.query(FALLEN, &[]).await? {
        let (run_id, fence, before): (String, i64, i64) = (row.get("run_id"), row.get("fence"), row.get("before"));
        errors
            .push(format!("run \"{run_id}\": money was moved with fence {fence} after fence {before} had moved some"));
    }
    for row in session.query(OFF_BALANCE, &[(&BALANCE, Type::INT8)]).await? {
        let (account, balance, booked): (i64, i64, i64) = (row.get("account"), row.get("balance"), row.get("booked"));
        errors.push(format!("account {account} has {balance}, and its transfers say {booked}"));
    }
    let total: i64 = session.query(TOTAL, &[]).await?.first().expect("an aggregate has a row").get("total");
    if total != BALANCE * ACCOUNTS {
        errors.push(format!("all accounts together have {total}, and began with {}", BALANCE * ACCOUNTS));
    }
    Ok(Closing { transfers, errors })
}
