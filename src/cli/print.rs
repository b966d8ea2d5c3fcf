//! How things look: tables, JSON, ages, and text from strangers made harmless.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::Write;

/// Prints text to stdout. A reader that has gone away (`| head`) ends the program quietly.
pub(super) fn text(text: &str) {
    if try_text(text).is_err() {
        std::process::exit(0);
    }
}

/// The same for whom his exit code is more than what is read.
pub(super) fn try_text(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Says something to stderr, whether anybody can hear it or not.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "systole: {text}");
}

/// Prints a value as JSON, indented.
pub(super) fn json(value: &impl Serialize) {
    text(&json_text(value));
}

/// The same, not printed yet.
pub(super) fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("what we print has string keys")
}

/// Prints a value as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) {
    text(&serde_json::to_string(value).expect("what we print has string keys"));
}

/// Prints rows under headers, or a sentence if there are none.
pub(super) fn table(headers: &[&str], rows: Vec<Vec<String>>, if_empty: &str) {
    if rows.is_empty() {
        return text(if_empty);
    }
    text(&self::rows(headers, rows));
}

/// The same, not printed yet.
pub(super) fn rows(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(headers);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| plain(&cell)));
    }
    table.trim_fmt()
}

/// The text with every control character escaped: what others wrote must not steer this terminal.
pub(super) fn plain(text: &str) -> String {
    // Nor what turns the direction of what is read.
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().flat_map(|c| if steers(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// An age in words: `3 s ago`, `12 min ago`.
pub(super) fn ago(seconds: f64) -> String {
    let (value, unit) = match seconds.max(0.0) {
        s if s < 120.0 => (s, "s"),
        s if s < 7200.0 => (s / 60.0, "min"),
        s if s < 172_800.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "days"),
    };
    format!("{value:.0} {unit} ago")
}

/// A size in words: `3.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// A moment in a table: seconds, UTC.
pub(super) fn moment(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A value that may be missing.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_purpose_cannot_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d"), "a\\u{1b}[2Jb\\nc\\u{202e}d");
    }

    #[test]
    fn ages_are_said_in_the_largest_sensible_unit() {
        assert_eq!(ago(3.2), "3 s ago");
        assert_eq!(ago(720.0), "12 min ago");
        assert_eq!(ago(-5.0), "0 s ago");
    }
}
