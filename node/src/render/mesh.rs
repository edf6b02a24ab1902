//! Devices, pairing and provenance, in words and tables.

use std::fmt::Write as _;

use comfy_table::Color;
use srcos_schemas::peers::{InviteDocument, JoinDocument, JoinStatus, Membership, PeersDocument};
use srcos_schemas::provenance::{ContentState, ProvenanceLog, ProvenanceVerify};

use super::{absent_bodies, cell, plain, short, table};

/// `pair invite`.
pub fn invite(invite: &InviteDocument, _coloured: bool) -> String {
    let mut text = format!(
        "on the other device: srcos-node pair join {}\nthe code holds for one device until {}\n\n\
         or with the ticket, where the devices do not find each other:\n{}\n",
        plain(&invite.code),
        invite.expires_at,
        plain(&invite.ticket)
    );
    // A ticket too long for a QR code can still be pasted.
    if let Ok(code) = qrcode::QrCode::new(invite.ticket.as_bytes()) {
        let picture = code
            .render::<qrcode::render::unicode::Dense1x2>()
            .dark_color(qrcode::render::unicode::Dense1x2::Light)
            .light_color(qrcode::render::unicode::Dense1x2::Dark)
            .build();
        let _ = writeln!(text, "\n{picture}");
    }
    text
}

/// One step of `pair join`.
pub fn join_step(status: &JoinStatus) -> String {
    match status {
        JoinStatus::Searching => "looking for the device that invites".to_owned(),
        JoinStatus::Connecting { address } => format!("connecting to {}", plain(address)),
        JoinStatus::Authenticating => "checking the code".to_owned(),
        JoinStatus::Receiving => "receiving the roster".to_owned(),
        JoinStatus::Joined { .. } => "joined".to_owned(),
        JoinStatus::Failed { .. } => "failed".to_owned(),
    }
}

/// `pair join`.
pub fn join(join: &JoinDocument, _coloured: bool) -> String {
    match &join.status {
        JoinStatus::Joined { mesh, admitted_by } => format!(
            "joined mesh {}, admitted by {} ({})",
            short(mesh),
            plain(&admitted_by.name),
            short(&admitted_by.device)
        ),
        other => join_step(other),
    }
}

/// `peers`.
pub fn peers(peers: &PeersDocument, coloured: bool) -> String {
    let mut list = table(&["name", "device", "membership", "link", "last seen"], coloured);
    for peer in &peers.peers {
        let (membership, color) = match (peer.membership, peer.this_device) {
            (Membership::Member, true) => ("this device", None),
            (Membership::Member, false) => ("member", None),
            (Membership::Revoked, true) => ("this device, revoked", Some(Color::Red)),
            (Membership::Revoked, false) => ("revoked", Some(Color::Red)),
        };
        let link = match (&peer.link, &peer.last_error) {
            (Some(link), _) => {
                let rtt = link.rtt_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
                format!("{} {}{rtt}", link.transport, link.address)
            }
            (None, Some(error)) => format!("none: {error}"),
            (None, None) => "none".to_owned(),
        };
        let seen = peer.last_seen_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        list.add_row([
            cell(&peer.name, None),
            cell(short(&peer.device), None),
            cell(membership, color),
            cell(link, None),
            cell(if peer.this_device { "" } else { &seen }, None),
        ]);
    }
    format!("mesh {}\n{list}", short(&peers.mesh))
}

/// `provenance log`.
pub fn provenance_log(log: &ProvenanceLog, coloured: bool) -> String {
    let header = ["life", "change", "author", "entry", "at", "signature", "content"];
    let mut list = table(&header, coloured);
    for change in &log.changes {
        let name = change.author_name.as_deref().unwrap_or("not in the roster");
        let (signature, color) =
            if change.verified { ("verified", Color::Green) } else { ("WRONG", Color::Red) };
        let content = match change.content {
            ContentState::Held => "held",
            ContentState::Withheld => "withheld",
            ContentState::Purged => "purged",
            ContentState::Missing => "missing",
        };
        list.add_row([
            cell(change.life.to_string(), None),
            cell(short(&change.change), None),
            cell(format!("{name} ({})", short(&change.author)), None),
            cell(format!("{} ({})", change.seq, short(&change.entry)), None),
            cell(change.at.to_string(), None),
            cell(signature, Some(color)),
            cell(content, None),
        ]);
    }
    format!("{}/{}\n{list}", log.lane, plain(&log.id))
}

/// `provenance verify`.
pub fn provenance_verify(verified: &ProvenanceVerify, coloured: bool) -> String {
    let header =
        ["lane", "journals", "entries", "signatures", "bodies", "not here", "rows", "wrong"];
    let mut list = table(&header, coloured);
    for lane in &verified.lanes {
        let wrong = lane.findings.len();
        let color = if wrong == 0 { Color::Green } else { Color::Red };
        list.add_row([
            cell(&lane.name, None),
            cell(lane.journals.to_string(), None),
            cell(lane.entries.to_string(), None),
            cell(lane.signatures.to_string(), None),
            cell(lane.bodies.to_string(), None),
            cell(lane.absent_bodies.total().to_string(), None),
            cell(lane.rows.to_string(), None),
            cell(wrong.to_string(), Some(color)),
        ]);
    }
    let mut text = format!("{list}\n");
    for lane in &verified.lanes {
        for found in &lane.findings {
            let _ = writeln!(text, "{}: {} ({})", lane.name, plain(&found.message), found.code);
        }
    }
    for lane in verified.lanes.iter().filter(|lane| lane.absent_bodies.total() > 0) {
        let _ = writeln!(text, "{}: {}", lane.name, absent_bodies(&lane.absent_bodies));
    }
    text.push_str(if verified.verified {
        "what is here verifies: the chain of every journal, signatures, bodies, and that the rows which \
         reads use are as they were written"
    } else {
        "not all of it verifies"
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_shows_code_ticket_and_picture() {
        let document = InviteDocument {
            id: "1".into(),
            code: "7-alpha-beta".into(),
            ticket: "srcos1ticket".into(),
            expires_at: srcos_schemas::time::Timestamp(0),
        };
        let text = invite(&document, false);
        assert!(text.contains("pair join 7-alpha-beta"));
        assert!(text.contains("srcos1ticket"));
        assert!(text.contains('█') || text.contains('▀'));
    }
}
