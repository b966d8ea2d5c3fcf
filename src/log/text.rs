//! Lines for people.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::What;

/// `systole: [run] what happened`. Who waits for a node to be ready finds that at the beginning of a line.
pub(super) struct ForPeople {
    pub(super) one_run: bool,
    pub(super) leaves_out: Vec<What>,
}

/// What of a line is shown to people.
#[derive(Default)]
struct Shown {
    name: String,
    run: Option<String>,
    message: String,
}

impl Visit for Shown {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => value.clone_into(&mut self.name),
            "run" => self.run = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        }
    }
}

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut shown = Shown::default();
        event.record(&mut shown);
        if self.leaves_out.iter().any(|what| what.name() == shown.name) {
            return Ok(());
        }
        if shown.name != What::Ready.name() {
            writer.write_str("systole: ")?;
        }
        // Whoever names his run in his own words need not be told twice.
        match &shown.run {
            Some(run) if !self.one_run && !shown.message.contains(&format!("run \"{run}\"")) => {
                writeln!(writer, "[{run}] {}", shown.message)
            }
            _ => writeln!(writer, "{}", shown.message),
        }
    }
}
