//! The house rules that a machine can check: imports point down, files stay one idea, every SQL constant prepares.

#![allow(clippy::unwrap_used)] // it is a test

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the top to the bottom, as in ARCHITECTURE.md. Neighbours on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["daemon"],
    &["attempt"],
    &["config"],
    &["run", "node"],
    &["instance", "supervise"],
    &["guard"],
    &["db"],
    &["state_dir"],
    &["outcome", "identity", "ids", "elapsed", "backoff"],
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
            let statement = part.split('"').next().unwrap();
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
