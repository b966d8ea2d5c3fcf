//! A drill from its beginning to its verdict, and the removal of all it has made.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::faults::Injector;
use super::fleet::Fleet;
use super::leash::Leash;
use super::network::{self, Network};
use super::obstacles::obstacles;
use super::plan::{Kind, plan};
use super::server::Server;
use super::verdict::{Evidence, Verdict};
use super::work::Work;
use super::{DrillError, evidence, ledger};
use crate::elapsed::Instant;
use crate::supervise::Signals;

/// How long the last runs may take when nothing is broken any more: a stale one twice, and the longest work.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// How long the processes of a fleet that has ended may take to be gone.
const DEATH_PATIENCE: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) duration: Duration,
    pub(crate) seed: u64,
    /// Whether transfers end with systole.fence(). Without it the drill has to fail.
    pub(crate) is_fenced: bool,
    /// Somebody's database that may be thrown away, instead of a private one.
    pub(crate) database_url: Option<String>,
}

/// Holds it. The folder with all logs is kept if a promise was broken.
pub(crate) async fn run(order: &Order) -> Result<Verdict, DrillError> {
    let mut signals = Signals::catch().map_err(DrillError::at("catch signals"))?;
    let leash = Leash::make()?;
    let held = hold(order, &leash.folder, &mut signals).await;
    let is_kept = held.as_ref().map_or(true, |verdict| !verdict.clean);
    let folder = leash.folder.clone();
    leash.let_go(is_kept).map_err(DrillError::at(format!("remove {}", folder.display())))?;
    match held {
        Ok(verdict) => Ok(Verdict { folder: is_kept.then(|| folder.display().to_string()), ..verdict }),
        Err(error) => {
            eprintln!("systole: all logs are in {}", folder.display());
            Err(error)
        }
    }
}

async fn hold(order: &Order, folder: &Path, signals: &mut Signals) -> Result<Verdict, DrillError> {
    let no_network = network::obstacle().or_else(|| {
        order
            .database_url
            .is_some()
            .then(|| "takes a network around the server, and a database that was given has its own".to_owned())
    });
    let server = match &order.database_url {
        Some(url) => Server::given(url)?,
        None => {
            let network = if no_network.is_none() { Some(Network::make()?) } else { None };
            Server::own(folder, network)?
        }
    };
    server.prepare().await?;
    let verdict = play(order, folder, server, no_network.as_deref(), signals).await;
    if let Some(url) = &order.database_url {
        Server::given(url)?.clear().await?;
    }
    verdict
}

async fn play(
    order: &Order,
    folder: &Path,
    server: Server,
    no_network: Option<&str>,
    signals: &mut Signals,
) -> Result<Verdict, DrillError> {
    let (logs, probes) = (folder.join("nodes"), folder.join("probes"));
    for made in [&logs, &probes] {
        fs::create_dir(made).map_err(DrillError::at(format!("make {}", made.display())))?;
    }
    let mark = format!("{:032x}", rand::random::<u128>());
    server.link().call(async |session| ledger::make(session).await).await?;
    let mut work = Work::new(&server, &probes, &mark, order.seed, order.is_fenced)?;
    let fleet = Fleet::start(&server, folder, &logs, &mark)?;
    let not_injected = obstacles(&server, &fleet, no_network);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| !not_injected.contains_key(kind)).collect();
    let plan = plan(order.seed, order.duration, &kinds);
    eprintln!(
        "systole: drill with seed {}: {} faults within {:?}, {}",
        order.seed,
        plan.len(),
        order.duration,
        if no_network.is_none() { "each host in a network of its own" } else { "all hosts in one network" }
    );
    let mut injector = Injector::new(fleet, server, &mark).await?;
    let begun = Instant::now();
    let is_cut_short = tokio::select! {
        carried_out = async {
            injector.carry_out(&plan).await?;
            injector.look_on_until(begun + order.duration).await
        } => {
            carried_out?;
            false
        }
        () = work.keep_busy() => unreachable!("it never ends by itself"),
        () = told_to_end(signals) => true,
    };
    let duration = Instant::now().since(begun);
    eprintln!("systole: {:>6.1} s  nothing is broken any more, and the last runs end", duration.as_secs_f64());
    injector.heal_all().await?;
    let drained = Instant::now() + DRAIN_PATIENCE;
    tokio::select! {
        looked_on = injector.look_on_until(drained) => looked_on?,
        () = work.drain() => {}
    }
    let stuck_nodes = injector.fleet.end();
    work.hunt_the_last(DEATH_PATIENCE).await;
    let node_logs: Vec<PathBuf> = injector.fleet.places.iter().map(|place| place.log.clone()).collect();
    let node_logs: Vec<&Path> = node_logs.iter().map(PathBuf::as_path).collect();
    let offset = injector.now() - Instant::now().as_nanos() as f64 / 1e9;
    let faults = std::mem::take(&mut injector.faults);
    let (collected, transfers) =
        evidence::collect(&injector.server, &probes, &node_logs, faults, (&injector.chronicle, offset)).await?;
    let evidence = Evidence { orphans: work.orphans.values().cloned().collect(), stuck_nodes, ..collected };
    let verdict = Verdict {
        seed: order.seed,
        duration_seconds: duration.as_secs_f64(),
        is_fenced: order.is_fenced,
        is_cut_short,
        not_injected: not_injected.into_iter().map(|(kind, why)| (kind.name(), why)).collect::<BTreeMap<_, _>>(),
        missed: injector.missed,
        transfers: transfers.count,
        transfers_lost_in_failovers: transfers.lost_in_failovers,
        late_writes_refused: work.late_writes_refused,
        hot_ratio: work.hot_ratio(),
        ..Verdict::of(&evidence)
    };
    let faults = serde_json::to_vec_pretty(&evidence.faults).expect("it has string keys");
    fs::write(folder.join("faults.json"), faults).map_err(DrillError::at("write faults.json"))?;
    Ok(verdict)
}

async fn told_to_end(signals: &mut Signals) {
    while !matches!(signals.next().await.0, SIGHUP | SIGINT | SIGQUIT | SIGTERM) {}
}
