//! Setting up the swarm: transports, limits and behaviours.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport, Transport as _};
use libp2p::core::upgrade;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{
    PeerId, connection_limits, identify, identity, memory_connection_limits, noise, ping, quic,
    tcp, yamux,
};
use srcos_replication::dialer::ADDRESSES_MAX;

use super::behaviour::{Gate, Streams};
use super::{
    AGENT, Config, PING_INTERVAL, PING_TIMEOUT, QUIC_CONNECTION_WINDOW_BYTES, QUIC_IDLE_TIMEOUT,
    QUIC_STREAM_WINDOW_BYTES, StartError,
};

/// How long a dial and the proof of identity may take, all layers together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// Addresses of one device that are dialled side by side: all that are kept of it. One that leads nowhere
/// holds up its place for [`HANDSHAKE_TIMEOUT`] over QUIC. (None at all would not compile.)
const ADDRESSES_AT_ONCE: NonZeroU8 = NonZeroU8::new(ADDRESSES_MAX as u8).unwrap();

/// Dials under way. Beyond, further ones fail, and are tried again.
const DIALS_MAX: u32 = 64;

/// Established connections in all: a mesh has a few devices, and this is far above.
const CONNECTIONS_MAX: u32 = 256;

/// Connections of one device that is no member. Two would do for devices that dial each other at once,
/// but a dial that races several addresses may complete on more before it drops all but one.
const CONNECTIONS_PER_STRANGER_MAX: u32 = 4;

/// Streams of one TCP connection: sync, pairing, identify, ping, and room for retries.
const YAMUX_STREAMS_MAX: usize = 32;

/// Streams of one connection that are being negotiated.
const NEGOTIATING_MAX: usize = 8;

/// Everything that happens on connections.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    pub(super) streams: Streams,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

pub(super) fn swarm(
    config: &Config,
    key: &identity::Keypair,
    gate: Arc<Gate>,
) -> Result<Swarm<Behaviour>, StartError> {
    let peer = key.public().to_peer_id();
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_outgoing(Some(DIALS_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_STRANGER_MAX));
    let identify = identify::Config::new("/srcos/1".to_owned(), key.public())
        .with_agent_version(AGENT.to_owned())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    let ping = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        memory: memory_connection_limits::Behaviour::with_max_bytes(config.memory_bytes_max),
        streams: Streams::new(gate),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
    };
    let settings = libp2p::swarm::Config::with_tokio_executor()
        .with_dial_concurrency_factor(ADDRESSES_AT_ONCE)
        .with_idle_connection_timeout(config.idle_timeout)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        .with_smart_dial();
    Ok(Swarm::new(transport(config, key)?, behaviour, peer, settings))
}

type Muxed = Boxed<(PeerId, StreamMuxerBox)>;

fn transport(config: &Config, key: &identity::Keypair) -> Result<Muxed, StartError> {
    let tcp = config.transports.tcp.then(|| tcp_transport(key)).transpose()?;
    let quic = config.transports.quic.then(|| quic_transport(key));
    match (quic, tcp) {
        (Some(quic), Some(tcp)) => {
            Ok(OrTransport::new(quic, tcp).map(|either, _| either.into_inner()).boxed())
        }
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) => Err(StartError::NoTransport),
    }
}

fn tcp_transport(key: &identity::Keypair) -> Result<Muxed, StartError> {
    let noise =
        noise::Config::new(key).map_err(|error| StartError::Encryption(error.to_string()))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(YAMUX_STREAMS_MAX);
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .timeout(HANDSHAKE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

fn quic_transport(key: &identity::Keypair) -> Muxed {
    let mut config = quic::Config::new(key);
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.max_idle_timeout = QUIC_IDLE_TIMEOUT.as_millis() as u32;
    config.keep_alive_interval = PING_INTERVAL;
    config.max_concurrent_stream_limit = YAMUX_STREAMS_MAX as u32;
    config.max_stream_data = QUIC_STREAM_WINDOW_BYTES;
    config.max_connection_data = QUIC_CONNECTION_WINDOW_BYTES;
    quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}
