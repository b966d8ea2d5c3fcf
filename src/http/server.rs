//! The port and the thread behind it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

use super::gate::{Admission, Gate};
use crate::config::Http;
use crate::elapsed::Instant;
use crate::metrics::{Family, Metrics, route_label};

/// How many are answered at once. More wait to be let in, outside of this process.
const CONNECTIONS_MAX: usize = 64;

/// How many of them may be another machine's: one that has shown no token must not keep everybody else out.
const CONNECTIONS_EACH_MAX: usize = 16;

/// How long somebody may take to say what he wants, and how long to hear all of the answer.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
const CONNECTION_MAX: Duration = Duration::from_secs(15);

/// What a request may take of our memory.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// After somebody could not be let in, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is ours, and not answered at yet.
pub(crate) struct Door {
    listener: TcpListener,
    address: SocketAddr,
    advertised: Option<String>,
    gate: Gate,
}

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error(
        "port {} of {} is taken, perhaps by another systole on this host: give this one another (--http {}:{}), or none \
         (--http off)", .0.port(), .0.ip(), .0.ip(), .0.port().wrapping_add(1)
    )]
    Taken(SocketAddr),
    #[error(
        "{address} cannot be listened at: {error}. Give another address (--http ADDRESS:PORT), or none (--http off)"
    )]
    Unusable { address: SocketAddr, error: io::Error },
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Door({})", self.address)
    }
}

impl Door {
    /// Takes the port.
    pub(crate) fn open(http: &Http) -> Result<Door, DoorError> {
        let open = || {
            let listener = TcpListener::bind(http.listen)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            // All addresses of this machine are none to which somebody could be sent.
            let own = || (!address.ip().is_unspecified()).then(|| address.to_string());
            let advertised = http.advertise.clone().or_else(own);
            Ok(Door { listener, address, advertised, gate: Gate::at(address, http.token.clone()) })
        };
        open().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => DoorError::Taken(http.listen),
            _ => DoorError::Unusable { address: http.listen, error },
        })
    }

    /// Where it is, with the port that was chosen if none was named.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How others reach it, if anybody knows.
    pub(crate) fn advertised(&self) -> Option<&str> {
        self.advertised.as_deref()
    }
}

/// Whom all requests pass.
struct Front {
    gate: Gate,
    metrics: Metrics,
}

/// Answers from now on, for as long as this process lives: its last scrape may see it go.
pub(crate) fn serve(door: Door, router: Router, metrics: Metrics) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Door { listener, gate, .. } = door;
    let front = Arc::new(Front { gate, metrics });
    let router = router.fallback(unknown).layer(middleware::from_fn_with_state(front, pass));
    std::thread::Builder::new()
        .name("systole-http".to_owned())
        .spawn(move || runtime.block_on(answer(listener, router)))?;
    Ok(())
}

async fn answer(listener: TcpListener, router: Router) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block, and we are in a runtime");
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Peers::default();
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let Ok((stream, address)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(peer) = peers.admit(address.ip()) else { continue };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_PATIENCE)
                .max_buf_size(REQUEST_BYTES_MAX)
                // A place is for one request: who keeps it idle keeps others out.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever does not take his answer in time goes without.
            let _ = tokio::time::timeout(CONNECTION_MAX, connection).await;
            drop((peer, place));
        });
    }
}

/// How many connections each machine has.
#[derive(Debug, Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection of this machine.
struct Peer {
    peers: Peers,
    ip: IpAddr,
}

impl Peers {
    fn admit(&self, ip: IpAddr) -> Option<Peer> {
        let mut counts = self.counts();
        let count = counts.entry(ip).or_default();
        if *count >= CONNECTIONS_EACH_MAX && !ip.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Peer { peers: self.clone(), ip })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Entry::Occupied(mut count) = counts.entry(self.ip) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn pass(State(front): State<Arc<Front>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = route_label(request.uri().path());
    let admission = admission(&front.gate, &request);
    let response = match admission {
        Admission::Known | Admission::Stranger => {
            request.extensions_mut().insert(admission);
            next.run(request).await
        }
        Admission::TokenWanted => {
            let wanted = "the token of this process is wanted: Authorization: Bearer TOKEN\n";
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], wanted).into_response()
        }
        Admission::UnknownHost => {
            let unknown = "this address is this machine's alone: ask for it as localhost or 127.0.0.1\n";
            (StatusCode::MISDIRECTED_REQUEST, unknown).into_response()
        }
    };
    let code = match response.status().as_u16() {
        500.. => "5xx",
        400.. => "4xx",
        _ => "2xx",
    };
    front.metrics.count(Family::HttpRequests, [route, code]);
    front.metrics.took(Family::HttpRequestDuration, [route], Instant::now().since(begun));
    response
}

fn admission(gate: &Gate, request: &Request) -> Admission {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    gate.admit(request.uri().path(), text(header::HOST), text(header::AUTHORIZATION))
}

async fn unknown() -> Response {
    (
        StatusCode::NOT_FOUND,
        "a node has /livez, /readyz, /metrics and /sd, an exporter /livez, /metrics/fleet and /sd\n",
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_machine_takes_all_places() {
        let peers = Peers::default();
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..CONNECTIONS_MAX).filter_map(|_| peers.admit(stranger)).collect();
        assert_eq!(held.len(), CONNECTIONS_EACH_MAX);
        assert!(peers.admit("192.0.2.2".parse().unwrap()).is_some());
        let ours: Vec<_> = (0..CONNECTIONS_MAX).map(|_| peers.admit("::1".parse().unwrap())).collect();
        assert!(ours.iter().all(Option::is_some));
        drop((held, ours));
        assert!(peers.counts().is_empty());
    }
}
