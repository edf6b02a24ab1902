//! What the engine tells of its conversations with peers, and what follows.

use srcos_lanes::ids::DeviceId;
use srcos_replication::engine::{ConnId, Event};
use srcos_replication::wire::AbortReason;

use super::Daemon;
use crate::core::Link;
use crate::documents;
use crate::transport::ConnId as LinkId;

impl Daemon {
    pub(super) fn handle_engine(&mut self, event: Event) {
        match event {
            Event::Opened { conn, device } => self.opened(conn, device),
            Event::Close { conn, device, reason, detail, by_peer } => {
                let who = if by_peer { "the peer" } else { "this node" };
                if self.is_known(device) {
                    tracing::info!(%device, reason = reason.code(), detail, who, "closing a link");
                } else {
                    tracing::debug!(%device, reason = reason.code(), detail, who, "turning away");
                }
                self.core.network.count("srcos_closes_total", reason.code());
                if reason == AbortReason::Revoked && by_peer {
                    self.refused(device);
                } else if reason != AbortReason::ShuttingDown {
                    let why = format!("{who} ended the link: {}", reason.code());
                    self.note_error(device, why);
                }
                self.transport.disconnect(LinkId(conn.0));
            }
            Event::Refused { from, lane, author, code, why } => {
                tracing::warn!(%from, %lane, author = %author.device, code, why, "entries refused");
                self.core.network.count("srcos_entries_refused_total", code);
                self.note_error(from, format!("entries refused ({code}): {why}"));
            }
            Event::Equivocation { lane, author, seq } => {
                tracing::error!(
                    %lane, author = %author.device, seq,
                    "a device signed two histories; its journal is quarantined, the proof is kept"
                );
                self.core.network.count("srcos_equivocations_total", "");
                self.note_forks();
            }
            Event::Unreadable { lane, author, why } => {
                tracing::error!(%lane, author = %author.device, why, "entries cannot be sent on");
                self.core.network.count("srcos_journals_unreadable_total", "");
            }
            Event::IncarnationStarted { told_by } => {
                tracing::warn!(
                    %told_by,
                    "a peer holds more of this device's journal than this store: it was put back; \
                     writing goes on under a new incarnation"
                );
            }
            Event::RosterChanged => self.members_changed(),
            Event::InSync { device } => {
                // As with `opened`: the link may be gone within the turn that brought it.
                if self.core.network.links.contains_key(&device) {
                    tracing::info!(%device, "in sync");
                }
            }
            Event::Applied { feed_next } => {
                self.applied.send_replace(documents::cursor_before(feed_next).0);
            }
        }
    }

    fn opened(&mut self, conn: ConnId, device: DeviceId) {
        let link_id = LinkId(conn.0);
        self.transport.accept(link_id);
        let Some((link, _)) = self.links.get(&link_id) else { return };
        self.dialer.opened(device);
        self.core.network.errors.remove(&device);
        self.core.network.refused_by.remove(&device);
        self.core.network.count("srcos_links_opened_total", "");
        tracing::info!(%device, addr = %link.addr, "link open");
        let open = Link {
            transport: if link.quic { "quic" } else { "tcp" },
            address: link.addr.to_string(),
            since: self.core.now().wall,
        };
        self.core.network.links.insert(device, open);
        self.keep_addresses(device);
    }
}
