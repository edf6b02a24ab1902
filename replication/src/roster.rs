//! Who belongs to the mesh: a signed, replicated set of records, linked by hashes.
//!
//! Every device holds the same set sooner or later, in whatever order the records arrive, and
//! membership is a pure function of that set: no device asks another who belongs. The rules and
//! their reasons are in `docs/adr/0003-roster.md`; in short:
//!
//! - A record counts if its author was a member in the record's past.
//! - A revocation voids what its device wrote without the revoker's knowing, so a stolen device
//!   cannot date a revocation of the others back. Only an admission that knows of the revocation
//!   takes the device in again.
//! - Where two revoke each other, the senior one is believed.
//! - Of a revoked device's journals, what its revoker and the witnesses held is accepted.
//!
//! A [`Roster`] writes nothing down. `admit`, `revoke`, `witness` and `rename` give a signed record;
//! its owner stores the bytes, then calls [`Roster::insert`], then sends them on.

mod bits;
mod error;
mod facts;
mod judge;
mod record;
mod write;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

use srcos_lanes::ids::{DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use srcos_lanes::lane::LaneId;
use srcos_lanes::signature::Signer;

use bits::Bits;
pub use error::RosterError;
pub use facts::{Inserted, Member, Revoked, Verdict};
use judge::{Judgement, Node, judge};
pub use record::{
    Act, JournalMark, MARKS_MAX, NAME_BYTES_MAX, PARENTS_MAX, REASON_BYTES_MAX, RECORD_BYTES_MAX,
    Record, RecordBytes, RecordId, check_name, read_founding,
};

/// Most records of one mesh: some 50 devices over 20 years, with room. More is abuse, and the time
/// to judge the set must stay bounded.
pub const RECORDS_MAX: usize = 4096;

/// Most bytes of all records of one mesh: what a device that joins is sent and has to hold.
pub const ROSTER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most records that wait for their parents: a peer sends parents first, so few ever wait.
pub const ORPHANS_MAX: usize = 64;

/// How often this thread has judged a roster.
#[cfg(test)]
pub(crate) fn judged() -> u32 {
    judge::JUDGED.get()
}

#[derive(Clone)]
struct Orphan {
    record: Record,
    bytes: RecordBytes,
}

/// The records of one mesh, and what they say.
#[derive(Clone)]
pub struct Roster {
    mesh: MeshId,
    founder: DeviceId,
    /// Parents first, the founding record at place 0.
    nodes: Vec<Node>,
    places: BTreeMap<RecordId, usize>,
    admissions: BTreeMap<DeviceId, Vec<usize>>,
    heads: BTreeSet<RecordId>,
    orphans: BTreeMap<RecordId, Orphan>,
    bytes: usize,
    judgement: OnceLock<Judgement>,
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roster")
            .field("mesh", &self.mesh)
            .field("records", &self.nodes.len())
            .field("orphans", &self.orphans.len())
            .finish()
    }
}

impl Roster {
    /// Starts a mesh with the signer as the only member. `nonce` is random.
    pub fn found(
        name: &str,
        nonce: [u8; 16],
        at: WallMillis,
        signer: &dyn Signer,
    ) -> Result<Self, RosterError> {
        let act = Act::Found { name: name.to_owned(), nonce };
        let record = Record::new(None, Vec::new(), signer.device(), at, act);
        let (id, bytes) = record.seal(signer)?;
        Ok(Self::with_founding(id, record, bytes))
    }

    /// The roster of these records, which come in any order, found one mesh, and miss no parent.
    pub fn from_records<I>(records: I) -> Result<Self, RosterError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut founding = None;
        let mut waiting: BTreeMap<RecordId, Orphan> = BTreeMap::new();
        let mut bytes_read = 0;
        for bytes in records {
            let bytes = bytes.as_ref();
            let (id, record) = Record::open(bytes)?;
            if waiting.contains_key(&id) || founding.as_ref().is_some_and(|(f, _)| *f == id) {
                continue;
            }
            bytes_read += bytes.len();
            let records = waiting.len() + usize::from(founding.is_some());
            if records >= RECORDS_MAX || bytes_read > ROSTER_BYTES_MAX {
                return Err(RosterError::Full { records, bytes: bytes_read });
            }
            let orphan = Orphan { record, bytes: RecordBytes(bytes.to_vec()) };
            if !orphan.record.is_founding() {
                waiting.insert(id, orphan);
            } else if founding.is_none() {
                founding = Some((id, orphan));
            } else {
                return Err(RosterError::Foundings { found: 2 });
            }
        }
        let Some((id, founding)) = founding else {
            return Err(RosterError::Foundings { found: 0 });
        };
        let mut roster = Self::with_founding(id, founding.record, founding.bytes);
        roster.connect(waiting)?;
        Ok(roster)
    }

    fn with_founding(id: RecordId, record: Record, bytes: RecordBytes) -> Self {
        let mut roster = Self {
            mesh: MeshId(id.0),
            founder: record.by,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            admissions: BTreeMap::new(),
            heads: BTreeSet::new(),
            orphans: BTreeMap::new(),
            bytes: 0,
            judgement: OnceLock::new(),
        };
        roster.link(id, record, bytes);
        roster
    }

    /// Puts all of `waiting` into the set, children after parents, whatever order they came in.
    fn connect(&mut self, mut waiting: BTreeMap<RecordId, Orphan>) -> Result<(), RosterError> {
        let mut children: BTreeMap<RecordId, Vec<RecordId>> = BTreeMap::new();
        let mut lacking: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut ready = VecDeque::new();
        for (id, orphan) in &waiting {
            let missing =
                orphan.record.parents.iter().filter(|parent| !self.places.contains_key(parent));
            let mut count = 0;
            for parent in missing {
                children.entry(*parent).or_default().push(*id);
                count += 1;
            }
            lacking.insert(*id, count);
            if count == 0 {
                ready.push_back(*id);
            }
        }
        while let Some(id) = ready.pop_front() {
            let Some(orphan) = waiting.remove(&id) else {
                continue;
            };
            self.admit_to_set(&orphan.record)?;
            self.link(id, orphan.record, orphan.bytes);
            for child in children.remove(&id).unwrap_or_default() {
                let Some(count) = lacking.get_mut(&child) else {
                    continue;
                };
                *count -= 1;
                if *count == 0 {
                    ready.push_back(child);
                }
            }
        }
        if !waiting.is_empty() {
            let missing = children.keys().filter(|parent| !waiting.contains_key(parent)).count();
            return Err(RosterError::Incomplete { missing });
        }
        Ok(())
    }

    /// Takes in a record from anywhere. On an error nothing has changed.
    pub fn insert(&mut self, bytes: &[u8]) -> Result<Inserted, RosterError> {
        // What is held was verified when it came, and a stranger may send all of it at each connection.
        if self.holds(bytes) {
            return Ok(Inserted::Known);
        }
        let (id, record) = Record::open(bytes)?;
        if self.places.contains_key(&id) || self.orphans.contains_key(&id) {
            return Ok(Inserted::Known);
        }
        if record.mesh != Some(self.mesh) {
            return Err(RosterError::OtherMesh { mesh: self.mesh });
        }
        let missing = self.missing_parents(&record);
        if !missing.is_empty() {
            if self.orphans.len() >= ORPHANS_MAX {
                return Err(RosterError::OrphansFull);
            }
            self.orphans.insert(id, Orphan { record, bytes: RecordBytes(bytes.to_vec()) });
            return Ok(Inserted::Orphan(missing));
        }
        self.admit_to_set(&record)?;
        self.room_for(bytes.len())?;
        self.link(id, record, RecordBytes(bytes.to_vec()));
        let mut new = vec![id];
        // Each turn links or drops at least one orphan, of which there are few.
        while let Some(id) = self.orphan_with_all_parents() {
            let Some(orphan) = self.orphans.remove(&id) else {
                break;
            };
            let room = self.room_for(orphan.bytes.0.len());
            // One that is refused now is refused whenever it comes, so it is forgotten.
            if room.is_ok() && self.admit_to_set(&orphan.record).is_ok() {
                self.link(id, orphan.record, orphan.bytes);
                new.push(id);
            }
        }
        Ok(Inserted::New(new))
    }

    /// Whether these very bytes are held, their signature included.
    fn holds(&self, bytes: &[u8]) -> bool {
        let Some(id) = Record::id_of(bytes) else { return false };
        let linked = self.places.get(&id).map(|place| &self.nodes[*place].bytes);
        let held = linked.or_else(|| self.orphans.get(&id).map(|orphan| &orphan.bytes));
        held.is_some_and(|held| held.0 == bytes)
    }

    fn missing_parents(&self, record: &Record) -> Vec<RecordId> {
        let parents = record.parents.iter().copied();
        parents.filter(|parent| !self.places.contains_key(parent)).collect()
    }

    fn orphan_with_all_parents(&self) -> Option<RecordId> {
        let mut orphans = self.orphans.iter();
        orphans.find(|(_, o)| self.missing_parents(&o.record).is_empty()).map(|(id, _)| *id)
    }

    fn room_for(&self, bytes: usize) -> Result<(), RosterError> {
        if self.nodes.len() >= RECORDS_MAX || self.bytes + bytes > ROSTER_BYTES_MAX {
            return Err(RosterError::Full { records: self.nodes.len(), bytes: self.bytes });
        }
        Ok(())
    }

    /// Whether a record may be in the set at all: this looks at nothing but the record's own past,
    /// so every device answers alike.
    fn admit_to_set(&self, record: &Record) -> Result<(), RosterError> {
        if record.mesh != Some(self.mesh) {
            return Err(RosterError::OtherMesh { mesh: self.mesh });
        }
        let past = self.past_of(record);
        let admissions = self.admissions.get(&record.by).map_or(&[][..], Vec::as_slice);
        if !admissions.iter().any(|place| past.has(*place)) {
            return Err(RosterError::Stranger { by: record.by });
        }
        Ok(())
    }

    fn past_of(&self, record: &Record) -> Bits {
        let mut past = Bits::default();
        for place in record.parents.iter().filter_map(|parent| self.places.get(parent)) {
            past.set(*place);
            past.join(&self.nodes[*place].past);
        }
        past
    }

    fn link(&mut self, id: RecordId, record: Record, bytes: RecordBytes) {
        let past = self.past_of(&record);
        let place = self.nodes.len();
        for parent in &record.parents {
            self.heads.remove(parent);
        }
        self.heads.insert(id);
        if let Some(device) = record.admits() {
            self.admissions.entry(device).or_default().push(place);
        }
        self.bytes += bytes.0.len();
        self.places.insert(id, place);
        self.nodes.push(Node { id, record, bytes, past });
        self.judgement.take();
    }

    fn judgement(&self) -> &Judgement {
        self.judgement.get_or_init(|| judge(&self.nodes))
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Who founded it, a member or not.
    pub fn founder(&self) -> DeviceId {
        self.founder
    }

    /// The record that founds the mesh.
    pub fn founding(&self) -> &RecordBytes {
        // Made with its founding record, which is never taken away.
        &self.nodes[0].bytes
    }

    /// The members, by device.
    pub fn members(&self) -> &BTreeMap<DeviceId, Member> {
        &self.judgement().members
    }

    /// The devices that were put out and are out, by device.
    pub fn revoked(&self) -> &BTreeMap<DeviceId, Revoked> {
        &self.judgement().revoked
    }

    /// Whether `device` is a member.
    pub fn is_member(&self, device: DeviceId) -> bool {
        self.members().contains_key(&device)
    }

    /// Whether `device` founded the mesh.
    pub fn is_founder(&self, device: DeviceId) -> bool {
        self.founder == device
    }

    /// The devices that somebody admitted and of which nothing is accepted, since no admission of them
    /// counts: they are no members, and nobody ever put them out.
    pub fn void(&self) -> BTreeSet<DeviceId> {
        let judgement = self.judgement();
        let admitted = self.admissions.keys().copied();
        admitted
            .filter(|device| {
                !judgement.members.contains_key(device) && !judgement.marks.contains_key(device)
            })
            .collect()
    }

    /// Whether a record counts: it is held, and no rule voids it.
    pub fn counts(&self, record: RecordId) -> bool {
        self.places.get(&record).is_some_and(|place| self.judgement().counts[*place])
    }

    /// Whether an entry with this place and hash is accepted from `device`.
    ///
    /// Of a revoked device only the hash at a place that a frontier names can be checked here. The
    /// entries before it are fixed by the chain of hashes that leads to it.
    pub fn accepts(
        &self,
        device: DeviceId,
        lane: LaneId,
        incarnation: Incarnation,
        seq: u64,
        hash: EntryHash,
    ) -> Verdict {
        let judgement = self.judgement();
        if judgement.members.contains_key(&device) {
            return Verdict::Member;
        }
        let Some(marks) = judgement.marks.get(&device) else {
            return Verdict::NotAdmitted;
        };
        let Some(journal) = marks.get(&(lane, incarnation)) else {
            return Verdict::JournalNotNamed;
        };
        if journal.last().is_none_or(|(last, _)| seq > *last) {
            return Verdict::AfterRevocation;
        }
        let mut here = journal.iter().filter(|(at, _)| *at == seq).peekable();
        if here.peek().is_some() && !here.any(|(_, held)| *held == hash) {
            return Verdict::NotTheOneHeld;
        }
        Verdict::HeldBeforeRevocation
    }

    /// How far the journals of a revoked device are accepted: the furthest mark of each.
    pub fn accepted_frontier(&self, device: DeviceId) -> Vec<JournalMark> {
        let journals = self.judgement().marks.get(&device).into_iter().flatten();
        journals
            .filter_map(|((lane, incarnation), marks)| {
                let (seq, hash) = *marks.last()?;
                Some(JournalMark { lane: *lane, incarnation: *incarnation, seq, hash })
            })
            .collect()
    }

    /// The meshes whose entries are accepted from `device`: this one, and those that it brought.
    pub fn allowed_meshes(&self, device: DeviceId) -> Vec<MeshId> {
        let prior = self.judgement().prior_meshes.get(&device).into_iter().flatten();
        let prior = prior.copied().filter(|mesh| *mesh != self.mesh);
        std::iter::once(self.mesh).chain(prior).collect()
    }

    /// The records that no other record of the set names as its parent, ascending.
    pub fn heads(&self) -> Vec<RecordId> {
        self.heads.iter().copied().collect()
    }

    /// Equal on two devices exactly if they hold the same records.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"srcos roster digest 1\0");
        for id in self.places.keys() {
            hasher.update(&id.0);
        }
        *hasher.finalize().as_bytes()
    }

    /// How many records are held, waiting ones not counted.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: a roster has its founding record.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All records, parents first.
    pub fn records_in_order(&self) -> impl ExactSizeIterator<Item = &RecordBytes> {
        self.nodes.iter().map(|node| &node.bytes)
    }

    /// A record that is held, with its bytes.
    pub fn record(&self, id: RecordId) -> Option<(&Record, &RecordBytes)> {
        let node = &self.nodes[*self.places.get(&id)?];
        Some((&node.record, &node.bytes))
    }

    /// A record and all before it, parents first; nothing where it is not held.
    pub fn leading_to(&self, record: RecordId) -> Vec<&RecordBytes> {
        let Some(place) = self.places.get(&record).copied() else { return Vec::new() };
        let past = &self.nodes[place].past;
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(at, _)| *at == place || past.has(*at)).map(|(_, node)| &node.bytes).collect()
    }

    /// What a peer with these heads lacks, parents first. Heads that are not held here tell nothing,
    /// so then it may be sent what it has.
    pub fn missing_from(&self, peer_heads: &[RecordId]) -> Vec<&RecordBytes> {
        let mut held = Bits::default();
        for place in peer_heads.iter().filter_map(|head| self.places.get(head)) {
            held.set(*place);
            held.join(&self.nodes[*place].past);
        }
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(place, _)| !held.has(*place)).map(|(_, node)| &node.bytes).collect()
    }
}
