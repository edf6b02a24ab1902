//! Links between nodes: ordered streams of frames that are slow, fill up, stand still, and break.
//!
//! While a link lives it loses nothing and keeps the order. A lost frame is a broken link: what was
//! on its way is gone, also a frame that was half through, and each end learns of the break in its
//! own time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use srcos_replication::engine::ConnId;

/// A link's name, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId(pub u64);

/// How the links of a run behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkShape {
    /// Least time on the way, in milliseconds.
    pub latency_ms_min: u64,
    /// Most time on the way, in milliseconds, not counting the bytes ahead.
    pub latency_ms_max: u64,
    /// Bytes that pass in a millisecond.
    pub bytes_per_ms: u64,
    /// Bytes on the way in one direction before the link takes no more.
    pub in_flight_bytes_max: usize,
}

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The node.
    pub node: usize,
    /// The connection, as that node's engine knows it.
    pub conn: ConnId,
}

/// A link. Direction 0 goes from end 0 to end 1.
#[derive(Debug)]
pub struct Link {
    /// Its ends: the one that dialled comes first.
    pub ends: [End; 2],
    /// When it was made.
    pub since_ms: u64,
    /// An end that has not been told that the link is gone.
    pub up: [bool; 2],
    /// What an end sends still goes in.
    open: [bool; 2],
    queues: [VecDeque<Vec<u8>>; 2],
    bytes: [usize; 2],
    busy_until_ms: [u64; 2],
    /// Nothing arrives in a direction before this time.
    stuck_until_ms: [u64; 2],
    /// The engine at the end was told that the link takes no more.
    pub blocked: [bool; 2],
    /// It was broken, not closed.
    pub cut: bool,
}

/// What went in at all ends of all links.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Carried {
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// All links, and who can reach whom.
#[derive(Debug)]
pub struct Network {
    /// How its links behave.
    pub shape: LinkShape,
    links: BTreeMap<LinkId, Link>,
    ends: BTreeMap<(usize, ConnId), (LinkId, usize)>,
    /// Until when nothing passes from one node to another.
    severed_until_ms: BTreeMap<(usize, usize), u64>,
    /// Since when links have stood still without a break, and until when.
    still: BTreeMap<LinkId, (u64, u64)>,
    /// A node whose frames vanish on links that live: what no network may do, to test the alarm.
    pub mute: Option<usize>,
    /// What was sent so far.
    pub carried: Carried,
    next_link: u64,
    next_conn: u64,
}

impl Network {
    /// A network without links.
    pub fn new(shape: LinkShape) -> Self {
        Self {
            shape,
            links: BTreeMap::new(),
            ends: BTreeMap::new(),
            severed_until_ms: BTreeMap::new(),
            still: BTreeMap::new(),
            mute: None,
            carried: Carried::default(),
            next_link: 0,
            next_conn: 0,
        }
    }

    /// Whether something sent from one node reaches another at this time.
    pub fn passes(&self, from: usize, to: usize, now_ms: u64) -> bool {
        self.severed_until_ms.get(&(from, to)).is_none_or(|until| *until <= now_ms)
    }

    /// Whether two nodes reach each other.
    pub fn reaches(&self, a: usize, b: usize, now_ms: u64) -> bool {
        self.passes(a, b, now_ms) && self.passes(b, a, now_ms)
    }

    /// Lets nothing pass from one node to another until a time.
    pub fn sever(&mut self, from: usize, to: usize, until_ms: u64) {
        let until = self.severed_until_ms.entry((from, to)).or_default();
        *until = (*until).max(until_ms);
    }

    /// Mends the network between all nodes, and frees every link that stands still.
    pub fn heal(&mut self) {
        self.severed_until_ms.clear();
        self.still.clear();
        self.links.values_mut().for_each(|link| link.stuck_until_ms = [0; 2]);
    }

    /// Makes a link.
    pub fn connect(&mut self, dialler: usize, listener: usize, now_ms: u64) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let mut end = |node, side| {
            let conn = ConnId(self.next_conn);
            self.next_conn += 1;
            self.ends.insert((node, conn), (id, side));
            End { node, conn }
        };
        let ends = [end(dialler, 0), end(listener, 1)];
        let link = Link {
            ends,
            since_ms: now_ms,
            up: [true; 2],
            open: [true; 2],
            queues: Default::default(),
            bytes: [0; 2],
            busy_until_ms: [0; 2],
            stuck_until_ms: [0; 2],
            blocked: [false; 2],
            cut: false,
        };
        self.links.insert(id, link);
        id
    }

    /// A link.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// A link, to change.
    pub fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// The link of a node's connection, and which of its ends that is.
    pub fn find(&self, node: usize, conn: ConnId) -> Option<(LinkId, usize)> {
        self.ends.get(&(node, conn)).copied()
    }

    /// Links that are not broken and whose ends both think so.
    pub fn healthy(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        let links = self.links.iter();
        links.filter(|(_, link)| !link.cut && link.up == [true; 2]).map(|(id, link)| (*id, link))
    }

    /// Links of which a node has not learnt that they are gone.
    pub fn links_of(&self, node: usize) -> Vec<(LinkId, usize)> {
        let links = self.links.iter();
        links
            .flat_map(|(id, link)| [(*id, 0, link), (*id, 1, link)])
            .filter(|(_, side, link)| link.ends[*side].node == node && link.up[*side])
            .map(|(id, side, _)| (id, side))
            .collect()
    }

    /// Whether a node has a link to another of which it has not learnt that it is gone.
    pub fn is_linked(&self, node: usize, peer: usize) -> bool {
        self.links.values().any(|link| {
            (0..2).any(|side| {
                link.up[side] && link.ends[side].node == node && link.ends[1 - side].node == peer
            })
        })
    }

    /// Since when two nodes have had the oldest of the links that both know and nothing broke.
    pub fn linked_since(&self, node: usize, peer: usize) -> Option<u64> {
        let joins = |link: &Link| {
            let nodes = link.ends.map(|end| end.node);
            nodes == [node, peer] || nodes == [peer, node]
        };
        let links = self.healthy().filter(|(_, link)| joins(link));
        links.map(|(_, link)| link.since_ms).min()
    }

    /// Notes that nothing passes on a link until a time. Returns since when that has been so without a
    /// break.
    pub fn stand_still(&mut self, id: LinkId, now_ms: u64, until_ms: u64) -> u64 {
        let (since, until) = self.still.entry(id).or_insert((now_ms, until_ms));
        if *until < now_ms {
            *since = now_ms;
        }
        *until = (*until).max(until_ms);
        *since
    }

    /// Lets a direction of a link stand still until a time.
    pub fn stick(&mut self, id: LinkId, from: usize, until_ms: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.stuck_until_ms[from] = link.stuck_until_ms[from].max(until_ms);
        }
    }

    /// Until when nothing arrives in a direction, if it stands still.
    pub fn stuck(&self, id: LinkId, from: usize, now_ms: u64) -> Option<u64> {
        let link = self.links.get(&id)?;
        let pair = (link.ends[from].node, link.ends[1 - from].node);
        let severed = self.severed_until_ms.get(&pair).copied().unwrap_or(0);
        Some(severed.max(link.stuck_until_ms[from])).filter(|until| *until > now_ms)
    }

    /// Takes a frame from an end. Returns when it arrives; `None` when it will not.
    pub fn send(
        &mut self,
        id: LinkId,
        from: usize,
        frame: Vec<u8>,
        now_ms: u64,
        latency_ms: u64,
    ) -> Option<u64> {
        let link = self.links.get_mut(&id)?;
        if link.cut || !link.open[from] || self.mute == Some(link.ends[from].node) {
            return None;
        }
        self.carried.frames += 1;
        self.carried.bytes += frame.len() as u64;
        let pass_ms = frame.len() as u64 / self.shape.bytes_per_ms;
        let start = link.busy_until_ms[from].max(now_ms + latency_ms);
        link.busy_until_ms[from] = start + pass_ms;
        link.bytes[from] += frame.len();
        link.queues[from].push_back(frame);
        Some(link.busy_until_ms[from])
    }

    /// Whether an end may send no more for now.
    pub fn is_full(&self, id: LinkId, from: usize) -> bool {
        let full = |link: &Link| !link.cut && link.bytes[from] > self.shape.in_flight_bytes_max;
        self.links.get(&id).is_some_and(full)
    }

    /// Whether enough has arrived that an end may send again.
    pub fn has_room(&self, id: LinkId, from: usize) -> bool {
        let room = |link: &Link| link.cut || link.bytes[from] * 2 <= self.shape.in_flight_bytes_max;
        self.links.get(&id).is_none_or(room)
    }

    /// The next frame in a direction, now that its time has come.
    pub fn arrive(&mut self, id: LinkId, from: usize) -> Option<Vec<u8>> {
        let link = self.links.get_mut(&id)?;
        let frame = link.queues[from].pop_front()?;
        link.bytes[from] -= frame.len();
        Some(frame)
    }

    /// Breaks a link: what is on its way is gone.
    pub fn cut(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return false };
        link.cut = true;
        link.queues = Default::default();
        link.bytes = [0; 2];
        true
    }

    /// An end closes the link: what it sent still arrives, after which the other end is told; what
    /// was on its way to it is gone. Returns when the other end is told.
    pub fn close(&mut self, id: LinkId, by: usize, now_ms: u64) -> Option<u64> {
        let link = self.links.get_mut(&id)?;
        link.up[by] = false;
        link.open = [false; 2];
        link.queues[1 - by].clear();
        link.bytes[1 - by] = 0;
        Some(link.busy_until_ms[by].max(now_ms) + self.shape.latency_ms_min)
    }

    /// An end has learnt that the link is gone. Returns true the first time.
    pub fn learn(&mut self, id: LinkId, side: usize) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let first = std::mem::replace(&mut link.up[side], false);
        if link.up == [false; 2] {
            for end in link.ends {
                self.ends.remove(&(end.node, end.conn));
            }
            self.links.remove(&id);
            self.still.remove(&id);
        }
        first
    }

    /// Frames on their way, by link and direction.
    pub fn queued(&self) -> Vec<(LinkId, usize, usize)> {
        let links = self.links.iter();
        links
            .flat_map(|(id, link)| (0..2).map(|from| (*id, from, link.queues[from].len())))
            .filter(|(_, _, frames)| *frames > 0)
            .collect()
    }

    /// Ends that have not learnt that their link is gone.
    pub fn unaware(&self) -> Vec<(LinkId, usize)> {
        let gone = |link: &Link| link.cut || link.up != [true; 2];
        let links = self.links.iter().filter(|(_, link)| gone(link));
        links
            .flat_map(|(id, link)| (0..2).filter(|side| link.up[*side]).map(|side| (*id, side)))
            .collect()
    }

    /// The links between two sides.
    pub fn between(&self, side: &BTreeSet<usize>) -> Vec<(LinkId, usize)> {
        let crossing = |link: &Link| {
            let inside = link.ends.map(|end| side.contains(&end.node));
            (inside[0] != inside[1]).then(|| usize::from(inside[1]))
        };
        self.healthy().filter_map(|(id, link)| Some((id, crossing(link)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(LinkShape {
            latency_ms_min: 1,
            latency_ms_max: 50,
            bytes_per_ms: 10,
            in_flight_bytes_max: 100,
        })
    }

    #[test]
    fn frames_keep_their_order_whatever_their_latency() {
        let mut network = network();
        let link = network.connect(0, 1, 0);
        let first = network.send(link, 0, vec![1; 50], 0, 40).unwrap();
        let second = network.send(link, 0, vec![2; 10], 1, 1).unwrap();
        assert!(first < second, "{first} {second}");
        assert_eq!(network.arrive(link, 0).unwrap()[0], 1);
        assert_eq!(network.arrive(link, 0).unwrap()[0], 2);
    }

    #[test]
    fn cut_loses_what_is_on_its_way_and_close_does_not() {
        let mut network = network();
        let link = network.connect(0, 1, 0);
        network.send(link, 0, vec![1], 0, 1).unwrap();
        network.send(link, 1, vec![2], 0, 1).unwrap();
        network.close(link, 0, 0).unwrap();
        assert_eq!(network.arrive(link, 0), Some(vec![1]));
        assert_eq!(network.arrive(link, 1), None);
        let other = network.connect(0, 1, 0);
        network.send(other, 0, vec![1], 0, 1).unwrap();
        assert!(network.cut(other) && !network.cut(other));
        assert_eq!(network.arrive(other, 0), None);
        assert_eq!(network.send(other, 0, vec![1], 0, 1), None);
        assert!(network.learn(other, 0) && network.learn(other, 1) && !network.learn(other, 1));
    }

    #[test]
    fn one_way_cut_stops_one_direction_until_its_time() {
        let mut network = network();
        let link = network.connect(0, 1, 0);
        network.sever(0, 1, 500);
        assert!(!network.passes(0, 1, 499) && network.passes(1, 0, 0) && network.passes(0, 1, 500));
        assert_eq!((network.stuck(link, 0, 10), network.stuck(link, 1, 10)), (Some(500), None));
        network.stick(link, 1, 900);
        network.heal();
        assert_eq!((network.stuck(link, 0, 10), network.stuck(link, 1, 10)), (None, None));
    }

    #[test]
    fn link_that_stands_still_again_before_it_moves_has_stood_still_since_the_first_time() {
        let mut network = network();
        let link = network.connect(0, 1, 0);
        assert_eq!(network.stand_still(link, 100, 500), 100);
        assert_eq!(network.stand_still(link, 400, 900), 100);
        assert_eq!(network.stand_still(link, 900, 1_000), 100);
        assert_eq!(network.stand_still(link, 1_001, 2_000), 1_001);
    }

    #[test]
    fn links_between_two_sides_are_found_with_the_end_that_is_inside() {
        let mut network = network();
        let (first, _) = (network.connect(0, 1, 0), network.connect(2, 3, 0));
        let side = BTreeSet::from([1, 2, 3]);
        assert_eq!(network.between(&side), [(first, 1)]);
    }
}
