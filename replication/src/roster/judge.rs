//! Which records count, and so who belongs: a pure function of the set (docs/adr/0003-roster.md).
//!
//! Nothing here depends on the order in which records arrived. Places in the slice are used to
//! find records, and wherever one of two must be preferred, what decides is written in the records.

use std::collections::{BTreeMap, BTreeSet};

use srcos_lanes::ids::{DeviceId, EntryHash, Incarnation, MeshId, WallMillis};
use srcos_lanes::lane::LaneId;

use super::bits::Bits;
use super::record::{Act, JournalMark, Record, RecordBytes, RecordId};
use super::{Member, Revoked};

/// A record whose whole past is held.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) id: RecordId,
    pub(super) record: Record,
    pub(super) bytes: RecordBytes,
    /// The places of all records before it.
    pub(super) past: Bits,
}

/// How senior an author was when it wrote: the least is the most senior.
///
/// First the steps of admission from the founder, then the age of the admission, counted in records
/// before it, then its hash. Nothing of the record itself is in it, so none of it can be chosen by
/// an author who wants to win.
type Seniority = (u32, usize, RecordId);

/// The marks of each journal of one revoked device.
type Marks = BTreeMap<(LaneId, Incarnation), BTreeSet<(u64, EntryHash)>>;

/// What the set says.
#[derive(Clone)]
pub(super) struct Judgement {
    pub(super) members: BTreeMap<DeviceId, Member>,
    pub(super) revoked: BTreeMap<DeviceId, Revoked>,
    pub(super) marks: BTreeMap<DeviceId, Marks>,
    pub(super) prior_meshes: BTreeMap<DeviceId, BTreeSet<MeshId>>,
    /// By place: whether the record counts.
    pub(super) counts: Vec<bool>,
    /// The revocations that hold.
    pub(super) revocations: BTreeSet<RecordId>,
}

#[cfg(test)]
thread_local! {
    /// How often this thread has judged.
    pub(super) static JUDGED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Judges `nodes`, which come parents first, the founding record at place 0.
pub(super) fn judge(nodes: &[Node]) -> Judgement {
    #[cfg(test)]
    JUDGED.set(JUDGED.get() + 1);
    let court = Court::new(nodes);
    let held = court.settle();
    court.verdict(&held)
}

struct Court<'a> {
    nodes: &'a [Node],
    /// By device: the places of what admits it.
    admissions: BTreeMap<DeviceId, Vec<usize>>,
    /// The places of all revocations.
    revocations: Vec<usize>,
}

/// Revocations taken as holding, by the device that they put out.
#[derive(Clone, Default)]
struct Held(BTreeMap<DeviceId, Vec<usize>>);

impl Held {
    fn of(&self, device: DeviceId) -> &[usize] {
        self.0.get(&device).map_or(&[], Vec::as_slice)
    }

    fn with(&self, device: DeviceId, place: usize) -> Self {
        let mut more = self.clone();
        more.0.entry(device).or_default().push(place);
        more
    }
}

impl<'a> Court<'a> {
    fn new(nodes: &'a [Node]) -> Self {
        let mut admissions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut revocations = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            if let Some(device) = node.record.admits() {
                admissions.entry(device).or_default().push(place);
            }
            if node.record.revokes().is_some() {
                revocations.push(place);
            }
        }
        Self { nodes, admissions, revocations }
    }

    fn before(&self, earlier: usize, later: usize) -> bool {
        self.nodes[later].past.has(earlier)
    }

    fn admissions_of(&self, device: DeviceId) -> &[usize] {
        self.admissions.get(&device).map_or(&[], Vec::as_slice)
    }

    /// Who is put out by the revocation at `place`.
    fn target(&self, place: usize) -> DeviceId {
        // Only places in `revocations` come here; another would put out its own author, no one else.
        self.nodes[place].record.revokes().unwrap_or(self.nodes[place].record.by)
    }

    /// Whether the revocation did not know of the record: then it can void it.
    fn reaches(&self, revocation: usize, record: usize) -> bool {
        revocation != record && !self.before(record, revocation)
    }

    /// By place: with what seniority its author wrote, or nothing where the record is void, when the
    /// revocations in `held` hold.
    ///
    /// A record counts if some admission in its past counts, and every revocation of its author
    /// either knew the record, or was known to that admission.
    fn standing(&self, held: &Held) -> Vec<Option<Seniority>> {
        let mut standing: Vec<Option<Seniority>> = Vec::with_capacity(self.nodes.len());
        for (place, node) in self.nodes.iter().enumerate() {
            if node.record.is_founding() {
                standing.push(Some((0, 0, node.id)));
                continue;
            }
            let author = node.record.by;
            let reaching: Vec<usize> =
                held.of(author).iter().copied().filter(|v| self.reaches(*v, place)).collect();
            let best = self
                .admissions_of(author)
                .iter()
                .filter(|a| self.before(**a, place))
                .filter(|a| reaching.iter().all(|v| self.before(*v, **a)))
                .filter_map(|a| self.given_by(*a, standing[*a]))
                .min();
            standing.push(best);
        }
        standing
    }

    /// The seniority that an admission gives, by that of its author.
    fn given_by(&self, admission: usize, author: Option<Seniority>) -> Option<Seniority> {
        let node = &self.nodes[admission];
        let depth = if node.record.is_founding() { 0 } else { author?.0 + 1 };
        Some((depth, node.past.count(), node.id))
    }

    /// Finds the revocations that hold.
    ///
    /// One that no undecided one could void holds. Where all could be voided, they accuse each other
    /// in circles: in each circle that no other circle accuses, the most senior author is believed.
    fn settle(&self) -> Held {
        let mut held = Held::default();
        let mut decided: Vec<usize> = Vec::new();
        let mut undecided = self.revocations.clone();
        let mut standing = self.standing(&held);
        // Once a circle was broken, what was accused there might unseat what was believed.
        let mut circles = false;
        loop {
            // A revocation is voided for good: those that hold never become fewer.
            undecided.retain(|place| standing[*place].is_some());
            if undecided.is_empty() {
                return held;
            }
            let accused = self.accusers(&undecided, &standing);
            let mut next: Vec<usize> =
                (0..undecided.len()).filter(|at| accused[*at].is_empty()).collect();
            if next.is_empty() {
                circles = true;
                next = vec![self.most_senior_of_a_first_circle(&undecided, accused, &standing)];
            } else if circles {
                // One at a time, and which one must not depend on the order of arrival.
                next.sort_by_key(|at| self.rank(undecided[*at], &standing));
                next.truncate(1);
            }
            for place in next.iter().map(|at| undecided[*at]) {
                let more = held.with(self.target(place), place);
                let then = self.standing(&more);
                if !circles || decided.iter().chain([&place]).all(|v| then[*v].is_some()) {
                    held = more;
                    decided.push(place);
                    standing = then;
                }
            }
            let mut at = 0;
            undecided.retain(|_| {
                at += 1;
                !next.contains(&(at - 1))
            });
        }
    }

    /// For each of `undecided`: which of them would take away some of the ground it stands on.
    fn accusers(&self, undecided: &[usize], standing: &[Option<Seniority>]) -> Vec<Bits> {
        let mut accused: Vec<Bits> = Vec::with_capacity(self.nodes.len());
        for (place, node) in self.nodes.iter().enumerate() {
            let mut by = Bits::default();
            if standing[place].is_some() && !node.record.is_founding() {
                let author = node.record.by;
                let reaching: Vec<(usize, usize)> = undecided
                    .iter()
                    .copied()
                    .enumerate()
                    .filter(|(_, v)| self.target(*v) == author && self.reaches(*v, place))
                    .collect();
                for admission in self.admissions_of(author) {
                    if !self.before(*admission, place) || standing[*admission].is_none() {
                        continue;
                    }
                    by.join(&accused[*admission]);
                    for (at, revocation) in &reaching {
                        if !self.before(*revocation, *admission) {
                            by.set(*at);
                        }
                    }
                }
            }
            accused.push(by);
        }
        let mut of = Vec::with_capacity(undecided.len());
        for (at, place) in undecided.iter().enumerate() {
            let mut by = std::mem::take(&mut accused[*place]);
            by.clear(at);
            of.push(by);
        }
        of
    }

    /// Every one of `undecided` is accused: the place in it of the most senior among those whose
    /// accusers are all accused by them in turn.
    fn most_senior_of_a_first_circle(
        &self,
        undecided: &[usize],
        accused: Vec<Bits>,
        standing: &[Option<Seniority>],
    ) -> usize {
        let mut reach = accused;
        for through in 0..reach.len() {
            let more = reach[through].clone();
            for by in &mut reach {
                if by.has(through) {
                    by.join(&more);
                }
            }
        }
        (0..reach.len())
            .filter(|at| reach[*at].iter().all(|by| reach[by].has(*at)))
            .min_by_key(|at| self.rank(undecided[*at], standing))
            // A finite graph has such a circle; were there none, any fixed choice would do.
            .unwrap_or(0)
    }

    fn rank(&self, place: usize, standing: &[Option<Seniority>]) -> (Option<Seniority>, RecordId) {
        (standing[place], self.nodes[place].id)
    }

    fn verdict(&self, held: &Held) -> Judgement {
        let standing = self.standing(held);
        let mut counts: Vec<bool> = standing.iter().map(Option::is_some).collect();
        // One that lost in a circle has no effect, even where its author is still a member.
        let holding: BTreeSet<usize> = held.0.values().flatten().copied().collect();
        for place in &self.revocations {
            counts[*place] = holding.contains(place);
        }
        let mut judgement = Judgement {
            members: BTreeMap::new(),
            revoked: BTreeMap::new(),
            marks: BTreeMap::new(),
            prior_meshes: BTreeMap::new(),
            counts,
            revocations: BTreeSet::new(),
        };
        for (device, admissions) in &self.admissions {
            let valid: Vec<usize> =
                admissions.iter().copied().filter(|a| judgement.counts[*a]).collect();
            let prior = valid.iter().filter_map(|a| match &self.nodes[*a].record.act {
                Act::Admit { prior_mesh, .. } => *prior_mesh,
                _ => None,
            });
            judgement.prior_meshes.entry(*device).or_default().extend(prior);
            let seat = valid
                .iter()
                .filter(|a| held.of(*device).iter().all(|v| self.before(*v, **a)))
                .filter_map(|a| Some((self.given_by(*a, standing[*a])?, *a)))
                .min();
            if let Some(((depth, ..), admission)) = seat {
                let node = &self.nodes[admission];
                let member = Member {
                    name: self.name_of(*device, &judgement.counts).unwrap_or_default(),
                    admitted_at: node.record.at,
                    by: node.record.by,
                    admission: node.id,
                    depth,
                };
                judgement.members.insert(*device, member);
            }
        }
        for (device, revocations) in &held.0 {
            judgement.revocations.extend(revocations.iter().map(|v| self.nodes[*v].id));
            self.mark(*device, revocations, &mut judgement);
            if judgement.members.contains_key(device) {
                continue;
            }
            // Up to the marks its entries are fixed, and some counting record's author took them in, whatever
            // became of the admission since: they name the mesh that it brought along then.
            let admissions = self.admissions.get(device).into_iter().flatten();
            let brought = admissions.filter_map(|a| match &self.nodes[*a].record.act {
                Act::Admit { prior_mesh, .. } => *prior_mesh,
                _ => None,
            });
            judgement.prior_meshes.entry(*device).or_default().extend(brought);
            let last = revocations.iter().map(|v| &self.nodes[*v]);
            let Some(node) = last.max_by_key(|node| (node.past.count(), node.id)) else {
                continue;
            };
            let Act::Revoke { reason, .. } = &node.record.act else {
                continue;
            };
            let revoked = Revoked {
                name: self.name_of(*device, &judgement.counts).unwrap_or_default(),
                by: node.record.by,
                at: node.record.at,
                reason: reason.clone(),
                revocation: node.id,
            };
            judgement.revoked.insert(*device, revoked);
        }
        judgement
    }

    /// The last name that a record gave the device: none that counts came after it.
    fn name_of(&self, device: DeviceId, counts: &[bool]) -> Option<String> {
        let naming: Vec<(usize, &String, WallMillis)> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(place, _)| counts[*place])
            .filter_map(|(place, node)| match &node.record.act {
                Act::Found { name, .. } if node.record.by == device => {
                    Some((place, name, node.record.at))
                }
                Act::Admit { device: of, name, .. } | Act::Rename { device: of, name }
                    if *of == device =>
                {
                    Some((place, name, node.record.at))
                }
                _ => None,
            })
            .collect();
        naming
            .iter()
            .filter(|(place, ..)| naming.iter().all(|(other, ..)| !self.before(*place, *other)))
            .max_by_key(|(place, _, at)| (*at, self.nodes[*place].id))
            .map(|(_, name, _)| (*name).clone())
    }

    /// Collects how far the journals of a revoked device are accepted.
    fn mark(&self, device: DeviceId, revocations: &[usize], judgement: &mut Judgement) {
        let ids: BTreeSet<RecordId> = revocations.iter().map(|v| self.nodes[*v].id).collect();
        let marks = judgement.marks.entry(device).or_default();
        let mut take = |frontier: &[JournalMark]| {
            for mark in frontier {
                let of = marks.entry((mark.lane, mark.incarnation)).or_default();
                of.insert((mark.seq, mark.hash));
            }
        };
        for (place, node) in self.nodes.iter().enumerate() {
            match &node.record.act {
                Act::Revoke { frontier, .. } if ids.contains(&node.id) => take(frontier),
                Act::Witness { revocation, frontier }
                    if judgement.counts[place] && ids.contains(revocation) =>
                {
                    take(frontier);
                }
                _ => {}
            }
        }
    }
}
