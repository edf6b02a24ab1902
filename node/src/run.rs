//! The daemon from start to end: open, listen, serve, and stop when told.

mod signals;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use libp2p::Multiaddr;
use srcos_schemas::status::{InitDocument, ReadyDocument};
use tokio_util::sync::CancellationToken;

use crate::api::{ApiError, ErrorKind, Node};
use crate::cli::Backend;
use crate::cli::args::{DemoArgs, Globals, HttpAddress, RunArgs, Transport as TransportArg};
use crate::core::{Core, DaemonFacts};
use crate::data_dir::{Clock, DataDir, check_length, internal, store_error};
use crate::http::{self, Access, TcpAccess, Token};
use crate::runtime::{self, Handle, Parts, STOP_TIMEOUT};
use crate::served::Served;
use crate::transport::{self, Transports};
use crate::{demo, discovery};

/// The commands over real stores.
pub struct Real;

impl Backend for Real {
    fn init(&self, data_dir: &Path, name: Option<&str>) -> Result<InitDocument, ApiError> {
        let dir = DataDir::new(data_dir);
        let (key, roster) = dir.init(name)?;
        let device = key.device();
        let name = roster.members().get(&device).map(|member| member.name.clone());
        Ok(InitDocument {
            device: device.to_string(),
            name: name.unwrap_or_default(),
            mesh: roster.mesh().to_string(),
            data_dir: DataDir::new(data_dir).path().display().to_string(),
        })
    }

    fn open(&self, data_dir: &Path) -> Result<Arc<dyn Node>, ApiError> {
        Ok(Arc::new(Served::direct(DataDir::new(data_dir))?))
    }

    fn run(&self, data_dir: &Path, globals: &Globals, args: RunArgs) -> Result<(), ApiError> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(internal)?;
        let told = {
            let _runtime = tokio.enter();
            signals::taken().map_err(internal)?
        };
        let dir = DataDir::new(data_dir);
        if args.init && !dir.is_initialised() {
            dir.init(args.name.as_deref())?;
        }
        let dir = DataDir::new(data_dir);
        let result = tokio.block_on(serve(dir, globals.json, args, told));
        // What still blocks a thread must not keep the process.
        tokio.shutdown_timeout(std::time::Duration::from_millis(200));
        result
    }

    fn demo(&self, globals: &Globals, args: DemoArgs) -> Result<(), ApiError> {
        demo::demo(globals.json, &args)
    }
}

async fn serve(
    dir: DataDir,
    json: bool,
    args: RunArgs,
    told: CancellationToken,
) -> Result<(), ApiError> {
    let clock = Clock::start();
    let transports = Transports {
        quic: args.transport.contains(&TransportArg::Quic),
        tcp: args.transport.contains(&TransportArg::Tcp),
    };
    let listen = addresses("--listen", &args.listen, transports)?;
    let peers = addresses("--peer", &args.peer, transports)?;
    check_length(dir.path())?;
    // The store's lock makes this the only daemon of the directory.
    let mut core = Core::open(clock, &dir)?;
    if told.is_cancelled() {
        return core.store.close().map_err(store_error);
    }
    let key = core.key.clone();
    let http = match args.http {
        HttpAddress::Off => None,
        HttpAddress::At(address) => Some(bind_http(&dir, address).await?),
    };
    let http_address = http.as_ref().map(|(_, _, address)| *address);
    core.daemon = Some(DaemonFacts {
        started_at: clock.now().wall,
        http: http_address.map(|address| address.to_string()),
    });
    let (unix, socket) = http::bind_unix(dir.path()).map_err(cannot_serve)?;

    let config = transport::Config { transports, ..transport::Config::default() };
    let (network, events) = transport::spawn(&config, &key).map_err(|error| {
        let hint = "name quic, tcp or both with --transport";
        ApiError::new(ErrorKind::BadInput, "network_unusable", error.to_string(), hint)
    })?;
    // Before anything is listened on, so that nobody gets in before the runtime hears of it, which
    // lets them in, or not.
    network.set_offline(true).map_err(internal)?;
    let listen = if listen.is_empty() { transports.listen_anywhere() } else { listen };
    let loopback = listen.iter().all(is_loopback);
    let (events, bound) = listen_all(&network, events, &listen).await?;
    let discovery = if args.no_mdns {
        None
    } else {
        let config = discovery::Config { loopback, ..discovery::Config::default() };
        Some(discovery::spawn(config, key.device()).map_err(internal)?)
    };
    core.network.listen.extend(bound.iter().map(ToString::to_string));
    let parts =
        Parts { core, transport: network, network: events, discovery, peers, listen: bound };
    let (handle, mut ended) = runtime::start(parts)?;

    let node: Arc<dyn Node> = Arc::new(Served::daemon(dir, handle.clone()));
    let stop = CancellationToken::new();
    let owner = http::router(Arc::clone(&node), Access::Local, stop.clone());
    let serving = tokio::spawn(http::serve_unix(unix, owner, stop.clone()));
    let serving_http = http.map(|(listener, access, _)| {
        let app = http::router(Arc::clone(&node), Access::Tcp(access), stop.clone());
        tokio::spawn(http::serve_tcp(listener, app, stop.clone()))
    });
    say_ready(json, &handle, &key.device().to_string(), http_address).await?;

    let result = tokio::select! {
        () = told.cancelled() => {
            handle.shutdown();
            None
        }
        result = &mut ended => Some(result),
    };
    stop.cancel();
    let result = match result {
        Some(result) => result,
        None => tokio::time::timeout(STOP_TIMEOUT, ended).await.map_err(|_| {
            ApiError::internal(format!("the writer did not end within {STOP_TIMEOUT:?}"))
        })?,
    };
    let _ = serving.await;
    if let Some(serving) = serving_http {
        let _ = serving.await;
    }
    drop(socket);
    result.map_err(|_| ApiError::internal("the writer ended without a word"))?
}

/// Opens every listener, and waits until each has an address or has failed.
async fn listen_all(
    network: &transport::Transport,
    mut events: transport::Events,
    listen: &[Multiaddr],
) -> Result<(transport::Events, Vec<Multiaddr>), ApiError> {
    let mut bound = Vec::new();
    let mut failed = Vec::new();
    for addr in listen {
        network.listen(addr.clone()).map_err(internal)?;
        loop {
            let event = tokio::time::timeout(std::time::Duration::from_secs(5), events.recv());
            match event.await {
                Ok(Some(transport::Event::Listening { addr })) => {
                    bound.push(addr);
                    break;
                }
                Ok(Some(transport::Event::ListenFailed { error, .. })) => {
                    failed.push(format!("{addr}: {error}"));
                    break;
                }
                // Without links there is nothing else to hear of.
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    failed.push(format!("{addr}: it did not answer"));
                    break;
                }
            }
        }
    }
    if bound.is_empty() {
        return Err(ApiError::new(
            // As for HTTP: an address that is taken is one that was not to be chosen.
            ErrorKind::BadInput,
            "cannot_listen",
            format!("no address can be listened on: {}", failed.join("; ")),
            "choose other addresses with --listen, or port 0 for a free one",
        ));
    }
    for failed in failed {
        tracing::warn!(failed, "an address cannot be listened on");
    }
    Ok((events, bound))
}

async fn say_ready(
    json: bool,
    handle: &Handle,
    device: &str,
    http: Option<SocketAddr>,
) -> Result<(), ApiError> {
    let (asked, device) = (handle.clone(), device.to_owned());
    let listen = tokio::task::spawn_blocking(move || {
        asked.call(|core| Ok(core.network.listen.iter().cloned().collect::<Vec<_>>()))
    });
    let listen = listen.await.map_err(internal)??;
    let ready =
        ReadyDocument { ready: true, device, listen, http: http.map(|http| http.to_string()) };
    let line = if json {
        serde_json::to_string(&ready).map_err(internal)?
    } else {
        let http = ready.http.as_deref().unwrap_or("off");
        format!(
            "ready: device {}, listening on {}, http {http}",
            ready.device,
            ready.listen.join(" ")
        )
    };
    use std::io::Write as _;
    let mut out = std::io::stdout();
    // Nobody may be reading; the node runs all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    Ok(())
}

async fn bind_http(
    dir: &DataDir,
    address: SocketAddr,
) -> Result<(tokio::net::TcpListener, TcpAccess, SocketAddr), ApiError> {
    let token = Token::load_or_create(dir.path()).map_err(|error| directory_unusable(&error))?;
    let (listener, address) = http::bind_tcp(address).await.map_err(cannot_serve)?;
    Ok((listener, TcpAccess::new(address, token), address))
}

/// An interface could not be opened: an address is the caller's choice, the socket is not.
fn cannot_serve(error: http::ServeError) -> ApiError {
    use http::ServeError as E;
    match &error {
        E::NotLoopback(_) | E::Address { .. } => {
            let hint = "choose another address with --http, or --http off";
            ApiError::new(ErrorKind::BadInput, "interface_unusable", error.to_string(), hint)
        }
        E::InUse(_) => {
            let hint = "stop it first, or name another directory with --data-dir";
            ApiError::new(ErrorKind::StoreLocked, "socket_in_use", error.to_string(), hint)
        }
        E::Socket { .. } => directory_unusable(&error),
    }
}

fn directory_unusable(error: &dyn std::error::Error) -> ApiError {
    let hint = "check the owner, the mode and the disk of the data directory";
    ApiError::new(ErrorKind::StoreDamaged, "data_dir_unusable", error.to_string(), hint)
}

fn addresses(
    flag: &str,
    texts: &[String],
    transports: Transports,
) -> Result<Vec<Multiaddr>, ApiError> {
    texts.iter().map(|text| address(flag, text, transports)).collect()
}

/// An address that can be used, and not only read.
fn address(flag: &str, text: &str, transports: Transports) -> Result<Multiaddr, ApiError> {
    use libp2p::multiaddr::Protocol as P;
    let refused = |code, message: String, hint: &str| {
        Err(ApiError::new(ErrorKind::BadInput, code, message, hint))
    };
    let form = "write it like /ip4/192.0.2.7/udp/4001/quic-v1 or /ip4/192.0.2.7/tcp/4001";
    let address: Multiaddr = match text.parse() {
        Ok(address) => address,
        Err(error) => {
            let message = format!("{flag} {text:?} is no multiaddress: {error}");
            return refused("address_malformed", message, form);
        }
    };
    let parts: Vec<P<'_>> = address.iter().collect();
    let (used, name) = match parts.as_slice() {
        [P::Ip4(_) | P::Ip6(_), P::Udp(_), P::QuicV1, rest @ ..] if is_device(rest) => {
            (transports.quic, "quic")
        }
        [P::Ip4(_) | P::Ip6(_), P::Tcp(_), rest @ ..] if is_device(rest) => (transports.tcp, "tcp"),
        _ => {
            let message = format!("{flag} {text:?} is no address of a sort that this node uses");
            return refused("address_unsupported", message, form);
        }
    };
    if !used {
        let message = format!("{flag} {text:?} needs {name}, which --transport leaves out");
        let hint = "give an address for the transports that are used, or name this one too";
        return refused("transport_not_used", message, hint);
    }
    Ok(address)
}

/// Whether nothing, or a device, is named at the end of an address.
fn is_device(rest: &[libp2p::multiaddr::Protocol<'_>]) -> bool {
    matches!(rest, [] | [libp2p::multiaddr::Protocol::P2p(_)])
}

fn is_loopback(addr: &Multiaddr) -> bool {
    use libp2p::multiaddr::Protocol;
    addr.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_used_are_taken() {
        let device = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let code = |text: &str, quic: bool, tcp: bool| {
            let result = address("--peer", text, Transports { quic, tcp });
            result.map_or_else(|error| error.code, |_| "taken".to_owned())
        };
        let quic = "/ip4/192.0.2.7/udp/4101/quic-v1";
        for text in [quic, "/ip6/::1/udp/0/quic-v1", &format!("{quic}/p2p/{device}")] {
            assert_eq!(code(text, true, false), "taken", "{text}");
            assert_eq!(code(text, false, true), "transport_not_used", "{text}");
        }
        for text in ["/ip4/192.0.2.7/tcp/4101", &format!("/ip4/192.0.2.7/tcp/1/p2p/{device}")] {
            assert_eq!(code(text, false, true), "taken", "{text}");
            assert_eq!(code(text, true, false), "transport_not_used", "{text}");
        }
        let strange =
            ["/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4", "/dns4/x/tcp/1", "/ip4/1.2.3.4/tcp/1/ws"];
        for text in strange {
            assert_eq!(code(text, true, true), "address_unsupported", "{text}");
        }
        assert_eq!(code("192.0.2.7:4101", true, true), "address_malformed");
    }
}
