//! What peers claim to hold of this device's own journal, by their word alone.
//!
//! A device that was put back from a backup hears so from its peers, and must not go on in a journal
//! of which they hold more than it does. So the first word is believed at once. It may be a lie: then
//! it costs an incarnation, of which others take a bounded number (ADR 0018). So a peer that has
//! claimed what it never showed waits longer each time, over restarts too, and from some number of
//! journals on nobody's word is enough. An entry that this device signed is proof, and always is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use srcos_lanes::error::{StoreError, WriteError};
use srcos_lanes::ids::{Author, DeviceId, Incarnation, MonoMillis, Now};
use srcos_lanes::lane::LaneId;
use srcos_lanes::store::{DEVICE_JOURNALS_MAX, Snapshot, Store};

use super::{Engine, Event, RENEW_EVERY_MS};

/// Longest time for which a peer whose claims were not proven is not believed again, in milliseconds.
/// The time doubles with each such claim, from [`RENEW_EVERY_MS`] on.
pub const RENEW_WAIT_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// Journals of this device in one lane from which on no claim is believed before it is proven: half of
/// those that others take, so that claims alone never use them up.
pub const CLAIM_JOURNALS_MAX: usize = DEVICE_JOURNALS_MAX / 2;

/// The name under which the claims of a peer are kept in the store.
const FACT: &str = "claims-1";

/// The claims of each peer that were believed and not proven.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(BTreeMap<DeviceId, Claim>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Claim {
    unproven: u32,
    /// What the last of them was about.
    of: Option<Incarnation>,
    /// When the next one is believed. Not known after a restart, until the next one comes.
    #[serde(skip)]
    until: Option<MonoMillis>,
}

impl Claim {
    fn wait_ms(&self) -> u64 {
        let doublings = self.unproven.saturating_sub(1).min(16);
        (RENEW_EVERY_MS << doublings).min(RENEW_WAIT_MS_MAX)
    }

    fn is_believed(&mut self, now: MonoMillis) -> bool {
        // After a restart: one claim may have been cut short on its way to be proven.
        let begins = if self.unproven > 1 { now.after_ms(self.wait_ms()) } else { now };
        *self.until.get_or_insert(begins) <= now
    }
}

impl Claims {
    /// What the store remembers of the claims of a peer.
    pub(super) fn load(&mut self, snapshot: &Snapshot, device: DeviceId) -> Result<(), StoreError> {
        let bytes = match snapshot.peer_fact(device, FACT) {
            // Damaged: it is believed once more than it should be.
            Err(StoreError::Damaged { .. }) => None,
            read => read?,
        };
        let claim: Option<Claim> = bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok());
        self.0.extend(claim.filter(|claim| claim.unproven > 0).map(|claim| (device, claim)));
        Ok(())
    }

    /// As if a device had claimed so much that it never showed, and were not believed until then.
    #[cfg(test)]
    pub(super) fn doubt(&mut self, device: DeviceId, unproven: u32, until: MonoMillis) {
        self.0.insert(device, Claim { unproven, of: None, until: Some(until) });
    }

    #[cfg(test)]
    pub(super) fn unproven(&self, device: DeviceId) -> u32 {
        self.0.get(&device).map_or(0, |claim| claim.unproven)
    }

    /// A device is no member any more.
    pub(super) fn forget(&mut self, device: DeviceId) {
        self.0.remove(&device);
    }

    /// An entry of this device was shown that its store had lost: who claimed so was right.
    pub(super) fn prove(
        &mut self,
        store: &mut Store,
        incarnation: Incarnation,
    ) -> Result<(), StoreError> {
        for (device, claim) in self.0.iter_mut().filter(|(_, c)| c.of == Some(incarnation)) {
            *claim =
                Claim { unproven: claim.unproven.saturating_sub(1), of: None, until: claim.until };
            if claim.unproven == 0 {
                claim.until = None;
            }
            keep(store, *device, claim)?;
        }
        Ok(())
    }
}

fn keep(store: &mut Store, device: DeviceId, claim: &Claim) -> Result<(), StoreError> {
    // Encoding plain data into a Vec has no way to fail.
    let bytes = postcard::to_stdvec(claim).expect("a claim encodes");
    store.put_peer_fact(device, FACT, &bytes)
}

impl Engine {
    /// A peer says that it holds more of this device's present journal than this store does.
    pub(super) fn hear_claim(
        &mut self,
        store: &mut Store,
        now: Now,
        device: DeviceId,
        lane: LaneId,
    ) -> Result<(), StoreError> {
        let author = store.author();
        let journals = |lane| store.device_journals(lane, author.device);
        let many = LaneId::ALL.into_iter().any(|lane| journals(lane) >= CLAIM_JOURNALS_MAX);
        let claim = self.claims.0.entry(device).or_default();
        if many || !claim.is_believed(now.mono) {
            let why = match many {
                true => "this device has begun so many journals that it believes entries alone",
                false => "it claimed before to hold entries of this device, and has shown none",
            };
            let (from, code, why) = (device, "entries_never_written", why.to_owned());
            self.push_event(Event::Refused { from, lane, author, code, why });
            return Ok(());
        }
        claim.unproven = claim.unproven.saturating_add(1);
        claim.of = Some(author.incarnation);
        claim.until = Some(now.mono.after_ms(claim.wait_ms()));
        keep(store, device, claim)?;
        self.renew(store, device)
    }

    /// A peer has shown an entry that this device signed and that this store has lost: it was put back.
    /// What was said of it was no lie, and what may follow in that journal is not known, so
    /// nothing more is written to it.
    pub(super) fn take_back(
        &mut self,
        store: &mut Store,
        shown_by: DeviceId,
        author: Author,
    ) -> Result<(), StoreError> {
        self.claims.prove(store, author.incarnation)?;
        if author == store.author() { self.renew(store, shown_by) } else { Ok(()) }
    }

    /// Starts a new incarnation.
    pub(super) fn renew(&mut self, store: &mut Store, told_by: DeviceId) -> Result<(), StoreError> {
        let random = self.draw();
        store.begin_incarnation(random)?;
        self.push_event(Event::IncarnationStarted { told_by });
        let mut spent = LaneId::ALL.into_iter().filter(|lane| store.journals_spent(*lane));
        if let Some(lane) = spent.next() {
            let author = store.author();
            let why = WriteError::JournalsSpent { lane, max: DEVICE_JOURNALS_MAX }.to_string();
            let code = "journals_spent";
            self.push_event(Event::Refused { from: told_by, lane, author, code, why });
        }
        Ok(())
    }
}
