//! The house rules that a machine can check: imports point down, files stay one idea, every SQL constant prepares.

#![allow(clippy::unwrap_used)] // it is a test

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the top to the bottom, as in ARCHITECTURE.md. Neighbours on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["daemon", "drill"],
    &["attempt"],
    &["fleet"],
    &["http"],
    &["config"],
    &["run", "node", "output", "baseline"],
    &["instance", "supervise", "workspace"],
    &["guard"],
    &["db"],
    &["state_dir"],
    &["tenure"],
    &["log"],
    &["outcome", "identity", "ids", "elapsed", "backoff", "metrics", "anchor"],
];

/// Above this a file is asked whether it still is one idea.
const LINES_MAX: usize = 400;

#[test]
fn imports_point_down() {
    let layer_of: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(depth, names)| names.iter().map(move |name| (*name, depth))).collect();
    let mut upwards = Vec::new();
    let mut seen = 0;
    for path in rust_files(Path::new("src")) {
        let Some(chapter) = chapter_of(&path) else { continue };
        let Some(own) = layer_of.get(chapter.as_str()) else {
            upwards.push(format!("{} is in no layer", path.display()));
            continue;
        };
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(theirs) = layer_of.get(name.as_str()) else { continue };
                seen += 1;
                if name != chapter && theirs <= own {
                    upwards.push(format!("{}:{}: {chapter} imports {name}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were seen: the check is blind");
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn no_file_is_longer_than_one_idea() {
    for path in rust_files(Path::new("src")).into_iter().chain(rust_files(Path::new("tests"))) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// Each constant that begins with `-- name` is a statement of ours, wherever it stands.
#[test]
fn every_statement_prepares_against_a_migrated_database() {
    let database = support::Database::new();
    let mut statements = Vec::new();
    for path in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("&str = \"-- ").skip(1) {
            // To the quotation mark that ends it; an escaped one is within.
            let part = part.replace("\\\"", "\u{0}");
            let statement = part.split('"').next().unwrap().replace('\u{0}', "\"");
            statements.push((path.clone(), format!("-- {statement}")));
        }
    }
    assert!(statements.len() >= 12, "only {} statements were found", statements.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = database.connect().await;
        for (path, statement) in &statements {
            if let Err(error) = client.prepare(statement).await {
                panic!("{}: {statement}: {error:?}", path.display());
            }
        }
    });
}

/// A SQL function that is not in the list would never be installed.
#[test]
fn every_function_file_is_installed() {
    let list = fs::read_to_string("src/db/migrate.rs").unwrap();
    for entry in fs::read_dir("migrations/functions").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(list.contains(&format!("functions/{name}\"")), "{name} is not in FUNCTIONS");
    }
}

/// Those up to this one were merged before there was the rule, and stay as they are.
const LAST_WITHOUT_RULE: u32 = 8;

/// Tables of one row: there is nothing to look at.
const ONE_ROW: [&str; 2] = ["settings", "takeover_brake"];

/// A migration is one transaction. What looks at every row of a table that fleets work in keeps their heartbeats waiting.
#[test]
fn no_migration_looks_at_all_rows_under_a_lock() {
    let mut by_version = BTreeMap::new();
    for entry in fs::read_dir("migrations").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Some((version, _)) = name.strip_prefix('V').and_then(|name| name.split_once("__")) {
            by_version.insert(version.parse::<u32>().unwrap(), scans(&fs::read_to_string(&path).unwrap()));
        }
    }
    // V6 has a CHECK that is validated at once, V7 a CHECK and indexes on tables with a history.
    assert!(by_version[&6].len() == 1 && by_version[&7].len() > 2, "the check is blind: {by_version:#?}");
    assert!(by_version[&8].is_empty(), "a new table may have what it wants: {by_version:#?}");
    by_version.retain(|version, scans| *version > LAST_WITHOUT_RULE && !scans.is_empty());
    assert!(by_version.is_empty(), "see Migrations in CONTRIBUTING.md: {by_version:#?}");

    let refused = [
        "CREATE INDEX i ON runs (x)",
        "create unique index if not exists i on only runs (x)",
        "ALTER TABLE runs ADD COLUMN y int CHECK (y > 0)",
        "ALTER TABLE runs ADD CONSTRAINT c CHECK (x IN (1, 2)) NOT VALID, ADD CONSTRAINT d CHECK (y > 0)",
        "ALTER TABLE runs ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES t",
        "ALTER TABLE runs ADD CONSTRAINT c UNIQUE (x)",
        "ALTER TABLE runs ADD CONSTRAINT c CHECK (x > 0) NOT VALID; ALTER TABLE runs VALIDATE CONSTRAINT c",
        "CREATE TABLE t (x int); -- ON t\nCREATE INDEX i ON runs (x)",
    ];
    for sql in refused {
        assert_eq!(scans(sql).len(), 1, "{sql}");
    }
    let allowed = [
        "CREATE TABLE IF NOT EXISTS t (x int UNIQUE CHECK (x > 0)); CREATE INDEX i ON t (x); ALTER TABLE t ADD CHECK (x > 1)",
        "ALTER TABLE runs ADD COLUMN x int NOT NULL DEFAULT 0, ADD COLUMN y int REFERENCES t",
        "ALTER TABLE runs ADD CONSTRAINT c CHECK (x IN (1, 2)) NOT VALID",
        "ALTER TABLE runs VALIDATE CONSTRAINT c",
        "ALTER TABLE settings ADD COLUMN x int CHECK (x > 0)",
        "COMMENT ON TABLE runs IS 'ALTER TABLE runs; CREATE INDEX i ON runs'; -- CREATE INDEX i ON runs",
    ];
    for sql in allowed {
        assert!(scans(sql).is_empty(), "{sql}");
    }
}

/// What of a migration looks at all rows of a table that it did not make.
fn scans(migration: &str) -> Vec<String> {
    let bare: String = migration.lines().map(|line| format!("{} ", line.split("--").next().unwrap())).collect();
    let bare: String = bare.split('\'').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let (mut made, mut found, mut not_valid) = (Vec::from(ONE_ROW.map(str::to_owned)), Vec::new(), false);
    for statement in bare.split(';') {
        let spaced = statement.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> =
            spaced.split_whitespace().filter(|word| !["if", "not", "exists", "only"].contains(word)).collect();
        let behind = |word: &str| words.iter().position(|other| *other == word).and_then(|n| words.get(n + 1));
        let is_old = |table: Option<&&str>| table.is_some_and(|table| !made.iter().any(|made| made == table));
        match words[..] {
            ["create", "table", name, ..] => made.push(name.to_owned()),
            ["create", "index", ..] | ["create", "unique", "index", ..] if is_old(behind("on")) => {
                found.push(words.join(" "));
            }
            ["alter", "table", ..] if is_old(behind("table")) => {
                for action in actions(&spaced) {
                    let action = format!(" {} ", action.split_whitespace().collect::<Vec<_>>().join(" "));
                    let has = |words: &[&str]| words.iter().any(|words| action.contains(&format!(" {words} ")));
                    let scans = has(&["check", "foreign key"]) && !has(&["not valid"]);
                    // The lock with which the constraint was added lasts as long as the transaction.
                    let too_early = has(&["validate constraint"]) && not_valid;
                    not_valid |= has(&["not valid"]);
                    if scans || too_early || (has(&["unique", "primary key", "exclude"]) && !has(&["using index"])) {
                        found.push(action.trim().to_owned());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// The parts of an ALTER TABLE, at the commas that are in no parentheses.
fn actions(statement: &str) -> Vec<String> {
    let (mut depth, mut actions) = (0, vec![String::new()]);
    for c in statement.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => actions.push(String::new()),
            _ => actions.last_mut().expect("there is one").push(c),
        }
    }
    actions
}

/// Whoever calls a function of a definer without a pinned path chooses what its names mean. One that only reckons has no
/// definer, and no path of its own, so that it can be inlined where it is called.
#[test]
fn every_function_pins_its_search_path_and_is_revoked_from_public() {
    let database = support::Database::new();
    let bad = database.sql(
        "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname = 'systole'
            AND ((p.prosecdef OR p.provolatile <> 'i')
                     AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%pg_temp')
                 OR has_function_privilege('public', p.oid, 'EXECUTE'))",
    );
    assert!(bad.is_empty(), "{bad:?}");
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The module right below `src` that a file belongs to; none for lib.rs and main.rs.
fn chapter_of(path: &Path) -> Option<String> {
    let first = path.strip_prefix("src").ok()?.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}
