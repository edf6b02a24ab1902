//! What became of a dial: libp2p's nested errors, sorted into kinds with their text kept.

use std::error::Error;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::{ConnectionDenied, DialError};
use libp2p::{Multiaddr, PeerId};

use super::behaviour::Shut;

/// Why an address did not lead to the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DialErrorKind {
    /// The host is there, but nothing listens at that port.
    Refused,
    /// Nothing answered in time. Over QUIC a closed port looks like this too.
    Timeout,
    /// There is no way to that network or host.
    Unreachable,
    /// Another device answered.
    WrongPeer,
    /// Our own node answered.
    OwnAddress,
    /// Something answered that could not prove who it is, or does not speak the transport.
    Handshake,
    /// The address is of a kind that this node does not dial.
    Unsupported,
    /// The device answered, and does not speak the protocol; that of pairing is spoken only by a
    /// device with an open invitation.
    NotSpoken,
    /// This node is offline by command.
    Offline,
    /// A limit of this node forbids another connection.
    Limit,
    /// None of these; the text tells.
    Other,
}

/// One address that was tried.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The address.
    pub addr: Multiaddr,
    /// Why it failed.
    pub kind: DialErrorKind,
    /// What the layers below said.
    pub error: String,
}

/// The addresses that a failed dial accounts for. `addrs` are those that were dialled.
pub(super) fn attempts(error: &DialError, addrs: &[Multiaddr]) -> Vec<Attempt> {
    let all = |kind, error: String| {
        let attempt = |addr: &Multiaddr| Attempt { addr: addr.clone(), kind, error: error.clone() };
        addrs.iter().map(attempt).collect()
    };
    match error {
        DialError::LocalPeerId { address } => vec![Attempt {
            addr: without_peer(address),
            kind: DialErrorKind::OwnAddress,
            error: "this node itself answered".to_owned(),
        }],
        DialError::WrongPeerId { obtained, address } => vec![Attempt {
            addr: without_peer(address),
            kind: DialErrorKind::WrongPeer,
            error: wrong_peer(obtained),
        }],
        DialError::Transport(errors) => errors
            .iter()
            .map(|(addr, error)| Attempt {
                addr: without_peer(addr),
                kind: transport_kind(error),
                error: chain(error),
            })
            .collect(),
        DialError::Denied { cause } => all(denied_kind(cause), chain(cause)),
        DialError::NoAddresses => Vec::new(),
        error => all(DialErrorKind::Other, error.to_string()),
    }
}

fn wrong_peer(obtained: &PeerId) -> String {
    match crate::keys::device_of_peer(obtained) {
        Some(device) => format!("device {} answered", device.short()),
        None => format!("{obtained} answered, whose key is not ed25519"),
    }
}

fn denied_kind(cause: &ConnectionDenied) -> DialErrorKind {
    match cause.downcast_ref::<Shut>() {
        Some(Shut::Offline) => DialErrorKind::Offline,
        _ => DialErrorKind::Limit,
    }
}

fn transport_kind(error: &TransportError<io::Error>) -> DialErrorKind {
    match error {
        TransportError::MultiaddrNotSupported(_) => DialErrorKind::Unsupported,
        TransportError::Other(error) => io_kind(error, &chain(error)),
    }
}

fn io_kind(error: &io::Error, text: &str) -> DialErrorKind {
    use io::ErrorKind as K;
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                K::ConnectionRefused => return DialErrorKind::Refused,
                K::TimedOut => return DialErrorKind::Timeout,
                K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable => {
                    return DialErrorKind::Unreachable;
                }
                _ => {}
            }
            // `source` of a wrapping io::Error skips what it wraps.
            if let Some(inner) = io.get_ref() {
                at = Some(inner);
                continue;
            }
        }
        at = error.source();
    }
    // libp2p wraps some causes so that only their text remains.
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["refused"]) {
        DialErrorKind::Refused
    } else if has(&["timed out", "timeout"]) {
        DialErrorKind::Timeout
    } else if has(&["unreachable"]) {
        DialErrorKind::Unreachable
    } else if has(&[
        "handshake",
        "noise",
        "negotiat",
        "tls",
        "certificate",
        "multistream",
        "upgrade",
    ]) {
        DialErrorKind::Handshake
    } else if has(&["unexpected end of file", "connection reset", "aborted by peer", "eof"]) {
        // The transport was reached and went away before it proved anything.
        DialErrorKind::Handshake
    } else {
        DialErrorKind::Other
    }
}

/// An error with its causes, each said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut at = Some(error);
    while let Some(cause) = at {
        // Some of libp2p's wrappers say nothing but a colon.
        let said = cause.to_string();
        let said = said.trim_start_matches([':', ' ']);
        if !text.contains(said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(said);
        }
        at = cause.source();
    }
    text
}

/// The address without the peer id that libp2p appends to it.
pub(super) fn without_peer(addr: &Multiaddr) -> Multiaddr {
    use libp2p::multiaddr::Protocol;
    addr.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}
