use super::*;

fn collect(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &[(&str, &str)]) -> Config {
    let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let file = file.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let lookup = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::collect(
        &flags,
        lookup,
        Some((PathBuf::from("systole.toml"), file::Values { keys: file, commands: BTreeMap::new() })),
    )
    .unwrap()
}

#[test]
fn the_nearest_source_wins_and_is_named() {
    let config = collect(
        &[("fence_after", "12s")],
        &[("SYSTOLE_FENCE_AFTER", "13s"), ("SYSTOLE_KILL_GRACE", "2s")],
        &[("fence_after", "14s"), ("kill_grace", "1s"), ("stale_after", "40s")],
    );
    let timing = config.timing().unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((timing.fence_after, timing.kill_grace, timing.stale_after), (seconds(12), seconds(2), seconds(40)));
    let explained = config.explain();
    let source = |key| explained.iter().find(|(name, ..)| *name == key).unwrap().2.clone();
    assert_eq!(source("fence_after"), "--fence-after");
    assert_eq!(source("kill_grace"), "SYSTOLE_KILL_GRACE");
    assert_eq!(source("stale_after"), "systole.toml");
    assert_eq!(source("heartbeat_interval"), "default");
}

#[test]
fn the_poll_interval_goes_by_its_custom_name_where_nobody_sets_it_by_ours() {
    let poll = |environment: &[(&str, &str)], file: &[(&str, &str)]| collect(&[], environment, file).poll_interval();
    let seconds = Duration::from_secs;
    let custom = [("WORKER_CHECK_INTERVAL", "30")];
    assert_eq!(poll(&custom, &[]).unwrap(), seconds(30));
    assert_eq!(poll(&custom, &[("poll_interval", "2s")]).unwrap(), seconds(2));
    assert_eq!(poll(&[custom[0], ("SYSTOLE_POLL_INTERVAL", "3s")], &[]).unwrap(), seconds(3));
    assert_eq!(poll(&[("WORKER_CHECK_INTERVAL", "")], &[]).unwrap(), seconds(5));
    let error = poll(&[("WORKER_CHECK_INTERVAL", "soon")], &[]).unwrap_err().to_string();
    assert!(error.contains("WORKER_CHECK_INTERVAL") && error.contains("soon"), "{error}");
}

#[test]
fn there_is_never_a_silent_database() {
    assert!(matches!(collect(&[], &[], &[]).database(), Err(ConfigError::NoDatabase)));
    assert_eq!(collect(&[("embedded", "true")], &[("DATABASE_URL", "x")], &[]).database().unwrap(), Database::Embedded);
    let both = collect(&[("embedded", "true"), ("database_url", "x=y")], &[], &[]);
    let url = |url: &str| Database::Url { url: url.to_owned(), direct: None };
    assert_eq!(both.database().unwrap(), url("x=y"));
    let nearer = collect(&[], &[("SYSTOLE_DATABASE_URL", "a"), ("DATABASE_URL", "b")], &[]);
    assert_eq!(nearer.database().unwrap(), url("a"));
}

#[test]
fn a_bad_value_is_named_with_its_source() {
    let error = collect(&[], &[("SYSTOLE_FENCE_AFTER", "fifteen")], &[]).timing().unwrap_err().to_string();
    assert_eq!(
        error,
        "fence_after from SYSTOLE_FENCE_AFTER is \"fifteen\", but should be a duration such as 500ms, 30s or 5m"
    );
}

#[test]
fn a_password_may_come_by_any_way_but_the_command_line() {
    let url = "postgresql://me:hunter2@localhost/x";
    let error = collect(&[("database_url", url)], &[], &[]).database().unwrap_err().to_string();
    assert!(error.contains("SYSTOLE_DATABASE_URL") && !error.contains("hunter2"), "{error}");
    assert!(collect(&[], &[("SYSTOLE_DATABASE_URL", url)], &[]).database().is_ok());
    assert!(collect(&[], &[], &[("database_url", url)]).database().is_ok());
    assert!(collect(&[("database_url", "host=x"), ("direct_url", url)], &[], &[]).database().is_err());
}

#[test]
fn a_size_has_a_unit_or_is_in_bytes() {
    let size = |text: &str| collect(&[("log_bytes_max", text)], &[], &[]).log_bytes_max();
    for (text, bytes) in [("200000", 200_000), ("128KiB", 1 << 17), ("2 GiB", 2 << 30), ("1MB", 1_000_000)] {
        assert_eq!(size(text).unwrap(), bytes, "{text}");
    }
    for bad in ["", "many", "-1", "127KiB", "64MiX", "99999999999GiB"] {
        let error = size(bad).unwrap_err().to_string();
        assert!(error.contains("such as 64MiB"), "{error}");
    }
    assert_eq!(collect(&[], &[], &[]).log_bytes_max().unwrap(), 64 << 20);
}

#[test]
fn secrets_are_not_explained() {
    let config = collect(&[("database_url", "postgresql://me:hunter2@localhost/x")], &[], &[]);
    assert!(!format!("{:?}", config.explain()).contains("hunter2"));
}

#[test]
fn http_is_for_this_machine_unless_there_is_a_token() {
    let listen = |text: &str| collect(&[("http.listen", text)], &[], &[]).http();
    assert_eq!(listen("off").unwrap(), None);
    for (text, address) in [("127.0.0.1:0", "127.0.0.1:0"), ("localhost:71", "127.0.0.1:71"), ("[::1]:7", "[::1]:7")] {
        assert_eq!(listen(text).unwrap().unwrap().listen, address.parse().unwrap());
    }
    for bad in ["7070", "here:7070", "127.0.0.1", ""] {
        assert!(listen(bad).unwrap_err().to_string().contains("ADDRESS:PORT"), "{bad}");
    }
    for wide in ["0.0.0.0:7070", "[::]:7070", "10.1.2.3:7070"] {
        let error = listen(wide).unwrap_err().to_string();
        assert!(error.contains("SYSTOLE_HTTP_TOKEN") && error.contains("127.0.0.1:7070"), "{error}");
    }
    assert_eq!(collect(&[], &[], &[]).http_if_asked().unwrap(), None);
    assert!(collect(&[], &[], &[("http.listen", "127.0.0.1:0")]).http_if_asked().unwrap().is_some());
}

#[test]
fn a_token_comes_from_a_file_and_is_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token").display().to_string();
    let http = || collect(&[("http.listen", "0.0.0.0:0"), ("http.token_file", &path)], &[], &[]).http();
    assert!(http().unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, "short\n").unwrap();
    let error = http().unwrap_err().to_string();
    assert!(error.contains(&path) && !error.contains("short"), "{error}");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let http = http().unwrap().unwrap();
    assert_eq!(http.token.as_deref(), Some("0123456789abcdef"));
    assert!(!format!("{http:?}").contains("0123456789abcdef"));
}

#[test]
fn what_others_are_told_of_is_a_host_and_a_port() {
    let advertise = |address: &str| collect(&[("http.advertise", address)], &[], &[]).http();
    for address in ["build-3.example.com:7070", "192.0.2.1:80", "[2001:db8::1]:7070"] {
        assert_eq!(advertise(address).unwrap().unwrap().advertise.as_deref(), Some(address));
    }
    for address in
        ["build-3", "build-3:0", "http://build-3:7070", ":7070", "a b:1", &format!("{}:7070", "a".repeat(300))]
    {
        let told = advertise(address).unwrap_err().to_string();
        assert!(told.contains(address) && told.contains("HOST:PORT"), "{told}");
    }
}
