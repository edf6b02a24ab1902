//! Writing records: each is signed and given back, for the caller to store and then insert.

use srcos_lanes::ids::{DeviceId, MeshId, WallMillis};
use srcos_lanes::signature::Signer;

use super::judge::Node;
use super::record::{Act, JournalMark, PARENTS_MAX, Record, RecordBytes, RecordId, tidy_frontier};
use super::{Roster, RosterError};

impl Roster {
    /// A record that takes `device` in. `prior_mesh` is the mesh of one that it brings along, which
    /// the caller has checked with [`read_founding`](super::read_founding). A member is taken in again
    /// when it brings another mesh: it lost its store, and what it wrote since belongs to that mesh.
    pub fn admit(
        &self,
        device: DeviceId,
        name: &str,
        prior_mesh: Option<MeshId>,
        at: WallMillis,
        signer: &dyn Signer,
    ) -> Result<RecordBytes, RosterError> {
        if !self.needs_admission(device, prior_mesh) {
            return Err(RosterError::AlreadyMember { device });
        }
        let act = Act::Admit { device, name: name.to_owned(), prior_mesh };
        self.write(act, at, signer, |node| {
            self.knows(node, |of| of.record.revokes() == Some(device))
        })
    }

    /// Whether a device that brings this mesh must be taken in: it is no member, or a member whose
    /// entries of that mesh nobody would accept.
    pub fn needs_admission(&self, device: DeviceId, prior_mesh: Option<MeshId>) -> bool {
        let allowed = || self.allowed_meshes(device);
        !self.is_member(device) || prior_mesh.is_some_and(|mesh| !allowed().contains(&mesh))
    }

    /// A record that puts `device` out; `frontier` is how far its journals are held here. With the
    /// signer's own device: leaves the mesh.
    pub fn revoke(
        &self,
        device: DeviceId,
        reason: &str,
        frontier: Vec<JournalMark>,
        at: WallMillis,
        signer: &dyn Signer,
    ) -> Result<RecordBytes, RosterError> {
        if !self.is_member(device) {
            return Err(RosterError::NotMember { device });
        }
        if self.members().len() == 1 {
            return Err(RosterError::LastMember { device });
        }
        let frontier = tidy_frontier(frontier);
        let act = Act::Revoke { device, reason: reason.to_owned(), frontier };
        self.write(act, at, signer, |node| node.record.by != device)
    }

    /// A record that says how far a revoked device's journals were held here when the revocation
    /// arrived, so that nothing which was accepted before is lost.
    pub fn witness(
        &self,
        revocation: RecordId,
        frontier: Vec<JournalMark>,
        at: WallMillis,
        signer: &dyn Signer,
    ) -> Result<RecordBytes, RosterError> {
        if !self.judgement().revocations.contains(&revocation) {
            return Err(RosterError::NoRevocation { revocation });
        }
        let frontier = tidy_frontier(frontier);
        let act = Act::Witness { revocation, frontier };
        self.write(act, at, signer, |node| self.knows(node, |of| of.id == revocation))
    }

    /// A record that names `device` anew.
    pub fn rename(
        &self,
        device: DeviceId,
        name: &str,
        at: WallMillis,
        signer: &dyn Signer,
    ) -> Result<RecordBytes, RosterError> {
        if !self.is_member(device) {
            return Err(RosterError::NotMember { device });
        }
        let act = Act::Rename { device, name: name.to_owned() };
        self.write(act, at, signer, |_| false)
    }

    /// Signs `act` on top of all heads. Of too many heads, those are kept that are `wanted`, then
    /// those that hold the signer's own admission, then those that know most.
    fn write(
        &self,
        act: Act,
        at: WallMillis,
        signer: &dyn Signer,
        wanted: impl Fn(&Node) -> bool,
    ) -> Result<RecordBytes, RosterError> {
        let by = signer.device();
        let Some(member) = self.members().get(&by) else {
            return Err(RosterError::NotAuthorised { device: by });
        };
        let mut parents = self.heads();
        if parents.len() > PARENTS_MAX {
            parents.sort_by_cached_key(|id| {
                let node = &self.nodes[self.places[id]];
                let grounds = self.knows(node, |of| of.id == member.admission);
                (!wanted(node), !grounds, std::cmp::Reverse(node.past.count()), *id)
            });
            parents.truncate(PARENTS_MAX);
            parents.sort();
        }
        let record = Record::new(Some(self.mesh), parents, by, at, act);
        let (_, bytes) = record.seal(signer)?;
        self.room_for(bytes.0.len())?;
        Ok(bytes)
    }

    /// Whether a record, or one in its past, is such.
    fn knows(&self, node: &Node, such: impl Fn(&Node) -> bool) -> bool {
        such(node) || node.past.iter().any(|place| such(&self.nodes[place]))
    }
}
