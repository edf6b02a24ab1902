//! What the network reports of links, and what follows.

use std::net::IpAddr;

use srcos_lanes::ids::{DeviceId, Now};
use srcos_replication::engine::ConnId;

use super::{Daemon, bare};
use crate::api::ApiError;
use crate::data_dir::{internal, store_error};
use crate::roaming;
use crate::transport::{self, ConnId as LinkId, DialErrorKind, SendError};

impl Daemon {
    pub(super) fn handle_network(&mut self, event: transport::Event) {
        let now = self.core.now();
        match event {
            transport::Event::Listening { addr } => {
                tracing::info!(%addr, "listening");
                self.core.network.listen.insert(addr.to_string());
                self.listen.insert(addr);
                self.announce();
            }
            transport::Event::NotListening { addr } => {
                tracing::info!(%addr, "no longer listening");
                self.core.network.listen.remove(&addr.to_string());
                self.listen.remove(&addr);
                self.announce();
                self.doubt(now, |link, source| roaming::loses(&link.addr, source, &addr));
            }
            transport::Event::ListenFailed { addr, error } => {
                let addr = addr.map(|addr| addr.to_string()).unwrap_or_default();
                tracing::warn!(addr, error, "cannot listen");
            }
            transport::Event::Connected(connected) => {
                let conn = ConnId(connected.conn.0);
                let device = connected.device;
                let dialled = connected.outbound.then(|| bare(&connected.addr).to_string());
                self.dialer.connected(device, dialled.as_deref(), now.mono);
                let source = roaming::source_towards(&connected.addr);
                self.links.insert(connected.conn, (connected, source));
                self.core.engine.handle_connected(&self.core.store, now, conn, device);
            }
            transport::Event::Frame { conn, bytes } => {
                self.core.network.add("srcos_frame_bytes_in_total", "", bytes.len() as u64);
                if let Some((link, _)) = self.links.get(&conn) {
                    self.dialer.heard(link.device, now.mono);
                }
                let handled = self.core.engine.handle_frame(
                    &mut self.core.store,
                    now,
                    ConnId(conn.0),
                    &bytes,
                );
                self.note_failure(handled.map_err(store_error));
            }
            transport::Event::Probed { conn, alive } => {
                self.doubt(now, |link, _| !alive && link.conn == conn);
            }
            transport::Event::Writable { conn } => self.writable(conn),
            transport::Event::Disconnected { conn, device, reason } => {
                self.disconnected(now, conn, device, &reason);
            }
            transport::Event::DialFailed { device, attempts } => {
                // That this node could not dial says nothing of an address.
                let ours = [DialErrorKind::Offline, DialErrorKind::Limit];
                let tried = attempts.iter().filter(|attempt| !ours.contains(&attempt.kind));
                let tried: Vec<String> =
                    tried.map(|attempt| bare(&attempt.addr).to_string()).collect();
                self.dialer.failed(device, &tried, now.mono);
                let why: Vec<String> = attempts
                    .iter()
                    .map(|attempt| format!("{}: {}", attempt.addr, attempt.error))
                    .collect();
                tracing::debug!(%device, attempts = why.join("; "), "dial failed");
                self.core.network.count("srcos_dials_failed_total", "");
                // A link in doubt that was dialled anew in vain may well be alive.
                if !self.core.network.links.contains_key(&device) {
                    let why = format!("dial failed: {}", why.join("; "));
                    self.note_error(device, why);
                }
            }
            transport::Event::PeerAddresses { device, addrs, .. } => {
                let addrs: Vec<String> = addrs.iter().map(|addr| bare(addr).to_string()).collect();
                self.dialer.said(device, &addrs, now.mono);
                self.keep_addresses(device);
            }
            transport::Event::Pairing(pairing) => {
                self.pairings.opened(&self.core, now, pairing);
            }
            transport::Event::PairingFailed { attempt, why } => {
                self.pairings.not_opened(now, attempt, &why);
            }
        }
    }

    fn writable(&mut self, conn: LinkId) {
        if let Some(frame) = self.held.remove(&conn)
            && let Err(SendError::Full(frame)) = self.transport.try_send(conn, frame)
        {
            self.held.insert(conn, frame);
            return;
        }
        self.core.engine.handle_blocked(ConnId(conn.0), false);
    }

    fn disconnected(
        &mut self,
        now: Now,
        conn: LinkId,
        device: DeviceId,
        reason: &transport::DisconnectReason,
    ) {
        self.core.engine.handle_disconnected(now, ConnId(conn.0));
        self.held.remove(&conn);
        self.links.remove(&conn);
        if self.links.values().any(|(link, _)| link.device == device) {
            return;
        }
        // Strangers may come and go as they like, but not fill the log.
        if self.is_known(device) {
            tracing::info!(%device, %reason, "link closed");
        } else {
            tracing::debug!(%device, %reason, "link of a stranger closed");
        }
        self.core.network.links.remove(&device);
        self.core.network.count("srcos_links_closed_total", reason.code());
        // That it was turned away says more than that the link is gone.
        if !self.core.network.refused_by.contains(&device) {
            self.note_error(device, format!("link closed: {reason}"));
        }
        self.dialer.disconnected(device, now.mono);
    }

    /// Dials the devices of some links anew: an address changed, and they may be dead.
    fn doubt(
        &mut self,
        now: Now,
        in_doubt: impl Fn(&transport::Connected, Option<IpAddr>) -> bool,
    ) {
        for (link, source) in self.links.values().filter(|(link, source)| in_doubt(link, *source)) {
            tracing::info!(device = %link.device, addr = %link.addr, ?source, "link in doubt: an address changed");
            self.dialer.doubt(link.device, now.mono);
        }
    }

    pub(super) fn set_offline(&mut self, offline: bool) -> Result<(), ApiError> {
        let now = self.core.now();
        self.transport.set_offline(offline).map_err(internal)?;
        self.dialer.set_offline(offline, now.mono);
        self.core.network.offline = offline;
        // What this turn commits is no reason to wait. After a failed write no link is of any use.
        if !self.write_failed {
            self.dial(now);
        }
        Ok(())
    }
}
