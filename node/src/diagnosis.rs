//! What is wrong or worth knowing, from lanes, roster and links, each with what to do about it.

use std::collections::BTreeMap;

use srcos_lanes::error::StoreError;
use srcos_lanes::ids::DeviceId;
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{Snapshot, Waiting};
use srcos_replication::roster::Roster;
use srcos_schemas::lanes::{LaneState, LaneStatus, LanesStatus};
use srcos_schemas::status::{Diagnosis, Severity};

use crate::documents::{is_late, time};

/// Journals of one lane of which it is said what they wait for, at most: the oldest tell where to look.
pub const WAITING_SHOWN_MAX: usize = 3;

fn warning(code: &str, message: String, hint: impl Into<String>) -> Diagnosis {
    Diagnosis { severity: Severity::Warning, code: code.to_owned(), message, hint: hint.into() }
}

fn words(number: u64, one: &str) -> String {
    crate::render::count(usize::try_from(number).unwrap_or(usize::MAX), one)
}

/// From the state of the lanes.
pub fn of_lanes(status: &LanesStatus) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for lane in &status.lanes {
        let name = &lane.name;
        if lane.status == LaneState::Unsafe {
            found.push(of_fork(name));
        }
        if lane.objects.quarantined > 0 {
            let count = lane.objects.quarantined;
            found.push(warning(
                "objects_quarantined",
                format!("lane {name} has {}", words(count, "quarantined object")),
                format!("see them with: srcos-node list {name}"),
            ));
        }
        if lane.objects.conflicted > 0 {
            let count = lane.objects.conflicted;
            found.push(Diagnosis {
                severity: Severity::Info,
                code: "objects_conflicted".into(),
                message: format!(
                    "lane {name} has {} with concurrent values",
                    words(count, "object")
                ),
                hint: format!("look at one with: srcos-node get {name} ID --conflicts"),
            });
        }
    }
    found
}

/// That a journal of a lane has two histories. It makes nothing else unsafe: were the node to refuse
/// work for it, one member could take all others out of use, for good.
pub fn of_fork(lane: &str) -> Diagnosis {
    Diagnosis {
        severity: Severity::Critical,
        code: "journal_forked".into(),
        message: format!("in lane {lane} a device signed two different histories"),
        hint: "find out which device was cloned; see: srcos-node peers".into(),
    }
}

/// What the lanes that are late wait for.
pub fn of_waiting(
    snapshot: &Snapshot,
    status: &LanesStatus,
    names: &BTreeMap<DeviceId, String>,
) -> Result<Vec<Diagnosis>, StoreError> {
    let mut found = Vec::new();
    for state in &status.lanes {
        let Ok(lane) = state.name.parse::<LaneId>() else { continue };
        if !is_late(lane, &state.journal) {
            continue;
        }
        let waiting = snapshot.waiting(lane, WAITING_SHOWN_MAX)?;
        found.push(late(state, &waiting, names));
    }
    Ok(found)
}

fn late(state: &LaneStatus, waiting: &[Waiting], names: &BTreeMap<DeviceId, String>) -> Diagnosis {
    let named = |device: DeviceId| match names.get(&device) {
        Some(name) => format!("{name} ({})", device.short()),
        None => format!("{}, which this mesh does not know", device.short()),
    };
    let mut message = format!(
        "lane {} is late: {} entries are held and not applied, the oldest for {} s",
        state.name,
        state.journal.unapplied_entries,
        state.journal.oldest_unapplied_ms.unwrap_or(0) / 1_000
    );
    for journal in waiting {
        let (seq, of) = (journal.seq, named(journal.author.device));
        message.push_str(&match journal.wants {
            Some((author, wanted)) => {
                format!(
                    "; entry {seq} of {of} waits for entry {wanted} of {}",
                    named(author.device)
                )
            }
            None => format!("; entry {seq} of {of} is damaged in this store"),
        });
    }
    let mut wanted = waiting.iter().filter_map(|journal| journal.wants);
    let strange = wanted.any(|(author, _)| !names.contains_key(&author.device));
    let hint = if waiting.iter().any(|journal| journal.wants.is_none()) {
        "put back a backup, or pair this device anew; see: srcos-node provenance verify"
    } else if strange {
        "what they build on was written outside this mesh and cannot come: write these objects again"
    } else {
        "connect a device that has what they wait for; see: srcos-node peers"
    };
    warning("lane_late", message, hint)
}

/// What keeps this device from being a member of its mesh, if anything.
pub fn of_membership(roster: &Roster, own: DeviceId) -> Option<Diagnosis> {
    if roster.is_member(own) {
        return None;
    }
    let why = match roster.revoked().get(&own) {
        Some(gone) if gone.by == own => {
            format!("this device left the mesh at {} ({})", time(gone.at), gone.reason)
        }
        Some(gone) => {
            let by = gone.by.short();
            let by = roster.members().get(&gone.by).map_or(by, |member| member.name.clone());
            format!("this device was revoked by {by} at {} ({})", time(gone.at), gone.reason)
        }
        None => "this device is no member: who admitted it was revoked".to_owned(),
    };
    Some(warning(
        "device_revoked",
        format!("{why}; nothing is sent to other devices or taken from them"),
        "to come back, join with a ticket from a member: srcos-node pair join TICKET",
    ))
}

/// Of members that turned this device away as revoked without showing who put it out.
pub fn of_refusals<'a>(
    refusing: impl IntoIterator<Item = &'a DeviceId>,
    names: &BTreeMap<DeviceId, String>,
) -> Vec<Diagnosis> {
    let name = |device: &DeviceId| names.get(device).cloned().unwrap_or_else(|| device.short());
    let refusals = refusing.into_iter().map(|device| {
        warning(
            "refused_as_revoked",
            format!("{} refuses this device as revoked, and showed no proof of it", name(device)),
            "ask on that device: srcos-node peers",
        )
    });
    refusals.collect()
}
