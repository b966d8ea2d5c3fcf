use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn now() -> DateTime<Utc> {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn work(workers: u32) -> Work<'static> {
    Work { workers, repo: None, now: now() }
}

fn anchor(value: &Value) -> Anchor {
    let bytes = serde_json::to_vec(value).unwrap();
    Anchor { text: parse(&bytes).unwrap(), repo: None, digest: String::new() }
}

/// With a key more, or another value.
fn with(pointer: &str, value: Value) -> Value {
    let mut text = json!({ "version": 2, "parallelism_isolation": { "allowed": true } });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    text.pointer_mut(parent).unwrap()[key] = value;
    text
}

const MAX_WORKERS: &str = "/parallelism_isolation/max_workers";

#[track_caller]
fn refuses(text: &Value, words: &[&str]) {
    let reason = parse(&serde_json::to_vec(text).unwrap()).unwrap_err();
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in: {reason}");
    }
}

#[test]
fn one_worker_needs_none_and_more_need_one_that_allows_it() {
    assert_eq!(decide(None, &work(1)), Ok(()));
    let refused = decide(None, &work(2)).unwrap_err().to_string();
    assert!(refused.contains("--anchor-path") && refused.contains("One worker needs none"), "{refused}");
    let open = anchor(&json!({ "version": 2, "parallelism_isolation": { "allowed": true } }));
    assert_eq!(decide(Some(&open), &work(500)), Ok(()));
    let shut = anchor(&with("/parallelism_isolation/allowed", json!(false)));
    assert_eq!(decide(Some(&shut), &work(1)), Ok(()));
    let refused = decide(Some(&shut), &work(2)).unwrap_err().to_string();
    assert!(refused.contains("parallelism_isolation.allowed is false"), "{refused}");
}

#[test]
fn its_bounds_hold() {
    let three = anchor(&with(MAX_WORKERS, json!(3)));
    assert_eq!(decide(Some(&three), &work(3)), Ok(()));
    assert_eq!(decide(Some(&three), &work(4)), Err(NotAllowed::TooMany { workers: 4, most: 3 }));
    let until = |text: &str| decide(Some(&anchor(&with("/expires_at", json!(text)))), &work(2));
    assert_eq!(until("2026-06-01T12:00:01Z"), Ok(()));
    assert_eq!(until("2026-06-01T13:59:59+01:00"), Ok(()));
    for over in ["2026-06-01T12:00:00Z", "2026-06-01T12:59:59+01:00"] {
        assert!(until(over).unwrap_err().to_string().starts_with("expires_at is 2026-06-01T1"), "{over}");
    }
}

#[test]
fn only_what_is_named_and_what_is_in_it_may_be_touched() {
    let paths = |paths: Value| anchor(&with("/paths", paths));
    let anchor = paths(json!(["src/web/", "./README.md"]));
    for path in ["src/web", "src/web/a/b.rs", "README.md"] {
        assert_eq!(anchor.may_touch(Path::new(path)), Ok(()));
    }
    for path in ["src", "src/website", "/src/web", "src/web/../db", "../src/web", ""] {
        let refused = anchor.may_touch(Path::new(path)).unwrap_err().to_string();
        assert!(refused.contains("src/web, README.md"), "{refused}");
    }
    assert_eq!(paths(json!(["."])).may_touch(Path::new("a")), Ok(()));
    assert!(paths(json!([])).may_touch(Path::new("a")).is_err());
}

#[test]
fn another_name_of_the_repository_is_the_repository_and_another_folder_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, link) = (folder.path().join("shop"), folder.path().join("link"));
    fs::create_dir(&shop).unwrap();
    std::os::unix::fs::symlink(&shop, &link).unwrap();
    let path = shop.join("anchor.json");
    let says = |repo: &str| {
        fs::write(&path, serde_json::to_vec(&with("/repo", json!(repo))).unwrap()).unwrap();
        Anchor::read(&path).unwrap()
    };
    let decide = |anchor: &Anchor, repo: Option<&Path>| {
        let repo = repo.map(Repo::at);
        super::decide(Some(anchor), &Work { workers: 2, repo: repo.as_ref(), now: now() })
    };
    for name in [".", "../link", shop.to_str().unwrap()] {
        for repo in [&shop, &link, &shop.join("../shop")] {
            assert_eq!(decide(&says(name), Some(repo)), Ok(()), "{name}");
        }
        let refused = decide(&says(name), Some(folder.path())).unwrap_err().to_string();
        assert!(refused.contains("repo is ") && refused.contains("/shop in the anchor"), "{refused}");
        assert!(decide(&says(name), None).unwrap_err().to_string().contains("no repository was named"));
    }
    // A bind mount is another name as well, where one can be made.
    let bound = folder.path().join("bound");
    fs::create_dir(&bound).unwrap();
    if rustix::mount::mount_bind(&shop, &bound).is_ok() {
        let decided = decide(&says("."), Some(&bound));
        rustix::mount::unmount(&bound, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(decided, Ok(()));
    }
    let gone = says("../gone");
    assert!(decide(&gone, Some(&folder.path().join("gone"))).unwrap_err().to_string().contains("is not there"));
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    refuses(&json!({}), &["version"]);
    refuses(&with("/version", json!(1)), &["version: it is 1", "should be 2"]);
    refuses(&json!({ "version": 2 }), &["parallelism_isolation"]);
    refuses(&json!({ "version": 2, "parallelism_isolation": {} }), &["parallelism_isolation", "allowed"]);
    refuses(&with("/parallelism_isolation/allowed", json!("true")), &["parallelism_isolation.allowed", "boolean"]);
    refuses(&with(MAX_WORKERS, json!(0)), &["parallelism_isolation.max_workers: it is 0", "from 1 to 1024"]);
    refuses(&with(MAX_WORKERS, json!(null)), &["parallelism_isolation.max_workers"]);
    refuses(&with("/parallelism_isolation/isolation", json!("none")), &["parallelism_isolation.isolation", "worktree"]);
    refuses(&with("/parallelism_isolation/max_worker", json!(2)), &["max_worker`", "max_workers"]);
    refuses(&with("/parallel", json!(2)), &["`parallel`", "parallelism_isolation"]);
    refuses(&with("/expires_at", json!("tomorrow")), &["expires_at", "\"tomorrow\"", "2026-12-31T23:59:59Z"]);
    refuses(&with("/repo", json!("")), &["repo: ", "path of a repository"]);
    refuses(&with("/paths", json!(["a", "../b"])), &["paths[1]", "without .."]);
    refuses(&with("/paths", json!(vec!["a"; 1001])), &["paths: ", "1001", "1000"]);
    refuses(&with("/\u{1b}[31m", json!(1)), &["\\u{1b}[31m"]);
    for (text, word) in [
        ("", "EOF"),
        ("2", "expected struct"),
        ("{\"version\":2,\"version\":2", "duplicate field `version`"),
        (r#"{"version":2,"parallelism_isolation":{"allowed":false,"allowed":true}}"#, "duplicate field `allowed`"),
        (r#"{"version":2,"parallelism_isolation":{"allowed":true}} {}"#, "trailing"),
    ] {
        let reason = parse(text.as_bytes()).unwrap_err();
        assert!(reason.contains(word), "{text}: {reason}");
    }
}

#[test]
fn what_is_no_anchor_by_its_size_or_kind_is_refused_without_being_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchor.json");
    let read = || Anchor::read(&path).unwrap_err().to_string();
    assert!(read().contains("anchor.json cannot be read: No such file"), "{}", read());
    for deep in ["[", "{\"a\":"] {
        fs::write(&path, deep.repeat(10_000)).unwrap();
        assert!(read().contains("anchor.json cannot be used"), "{}", read());
    }
    // Sparse: as long as it likes.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(read().contains("longer than 64 kB"), "{}", read());
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(read().contains("it is not a file"), "{}", read());
    assert!(Anchor::read(folder.path()).unwrap_err().to_string().contains("it is not a file"));
}

#[test]
fn its_digest_is_that_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anchor.json");
    let text = "{\"version\": 2, \"parallelism_isolation\": {\"allowed\": true}}\n";
    fs::write(&path, text).unwrap();
    // As sha256sum prints it.
    let expected = "ec1bd774a04169bba19451229ad05e51cdbfd33ae9b31bcb4fc42354440f1759";
    assert_eq!(Anchor::read(&path).unwrap().digest(), expected);
}

fn schema() -> jsonschema::Validator {
    let text = fs::read_to_string("docs/anchor.schema.json").unwrap();
    jsonschema::options().should_validate_formats(true).build(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[track_caller]
fn assert_agree(schema: &jsonschema::Validator, text: &Value) -> bool {
    let parsed = parse(&serde_json::to_vec(text).unwrap());
    let said: Vec<String> = schema.iter_errors(text).map(|error| error.to_string()).collect();
    assert_eq!(parsed.is_ok(), said.is_empty(), "{text}\nparser: {parsed:?}\nschema: {said:?}");
    parsed.is_ok()
}

#[test]
fn the_schema_and_the_parser_agree_on_each_kind_of_mistake() {
    let schema = schema();
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(2),
        json!(2.0),
        json!(2.5),
        json!(-1),
        json!(1024),
        json!(1025),
        json!(1e300),
        json!(""),
        json!("worktree"),
        json!("a/b"),
        json!("./a"),
        json!("."),
        json!("/a"),
        json!("a/../b"),
        json!(".."),
        json!("..."),
        json!("a/.."),
        json!("a\n/../b"),
        json!("a\u{0}b"),
        json!([]),
        json!(["a", ".b/c"]),
        json!(["a", 1]),
        json!({}),
        json!("2026-12-31T23:59:59Z"),
        json!("2026-12-31T23:59:60Z"),
        json!("2026-02-30T00:00:00Z"),
        json!("2026-12-31t23:59:59z"),
        json!("2026-12-31 23:59:59Z"),
        json!("2026-12-31T23:59:59.123+02:00"),
        json!("2026-12-31T24:00:00Z"),
        json!("2026-12-31T23:59:59"),
        json!("2026-12-31T23:59:59+24:00"),
        json!("12026-12-31T23:59:59Z"),
    ];
    let keys = [
        "/$schema",
        "/version",
        "/parallelism_isolation",
        "/repo",
        "/expires_at",
        "/paths",
        "/unknown",
        "/parallelism_isolation/allowed",
        MAX_WORKERS,
        "/parallelism_isolation/isolation",
        "/parallelism_isolation/unknown",
    ];
    let mut accepted = 0;
    for (key, value) in keys.iter().flat_map(|key| values.iter().map(move |value| (key, value))) {
        accepted += usize::from(assert_agree(&schema, &with(key, value.clone())));
        let each = with("/paths", json!([value]));
        accepted += usize::from(*key == "/paths" && assert_agree(&schema, &each));
    }
    assert!((20..100).contains(&accepted), "the test is blind: {accepted}");
    for missing in
        [json!({}), json!([]), json!({ "version": 2 }), json!({ "parallelism_isolation": { "allowed": true } })]
    {
        assert!(!assert_agree(&schema, &missing));
    }
    assert!(assert_agree(&schema, &with("/paths", json!(vec!["a"; 1000]))));
    assert!(!assert_agree(&schema, &with("/paths", json!(vec!["a"; 1001]))));
}

proptest! {
    #[test]
    fn they_agree_on_any_moment(
        year in 0_u32..9999, month in 0_u32..14, day in 0_u32..33, hour in 0_u32..26, minute in 0_u32..62, second in 0_u32..62,
        fraction in "([.][0-9]{0,12})?", zone in "Z|z||[+-][0-2][0-9]:[0-6][0-9]|[+-][0-9]{4}",
    ) {
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}");
        assert_agree(&schema(), &with("/expires_at", json!(text)));
    }

    #[test]
    fn they_agree_on_any_path(text in "[./a\\\\ \n\u{0}é]{0,8}") {
        assert_agree(&schema(), &with("/paths", json!([text.clone()])));
        assert_agree(&schema(), &with("/repo", json!(text)));
    }
}
