//! What commands say of their progress goes behind a heartbeat, and never into it: a heartbeat must not depend on it.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::operation::Held;
use crate::db::Link;
use crate::ids::InstanceId;

const TELL: &str = "-- instance.tell
    SELECT told FROM systole.tell($1, $2)";

/// Tells what was not told yet. What does not get through goes behind the next heartbeat.
pub(super) async fn tell(link: &mut Link, held: &HashMap<InstanceId, Held>) {
    let untold = held.iter().filter_map(|(instance_id, held)| Some((*instance_id, held.gauges.message().untold()?)));
    let untold: Vec<(InstanceId, String)> = untold.collect();
    if untold.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = untold.iter().map(|(instance_id, _)| instance_id.0).collect();
    let messages: Vec<&str> = untold.iter().map(|(_, message)| message.as_str()).collect();
    let parameters = [(&ids as _, Type::UUID_ARRAY), (&messages as _, Type::TEXT_ARRAY)];
    let Ok(rows) = link.call(async |session| session.query(TELL, &parameters).await).await else { return };
    let told: Vec<Uuid> = rows.first().map(|row| row.get("told")).unwrap_or_default();
    for (instance_id, text) in untold.iter().filter(|(instance_id, _)| told.contains(&instance_id.0)) {
        held[instance_id].gauges.message().told(text);
    }
}
