//! What may go to whom: one decision point, asked at the moment of sending, answered with a rule.

use std::collections::BTreeSet;

use crate::bug::{self, Bug};
use crate::ids::DeviceId;
use crate::lane::{LaneId, Replication};

/// Data classes that stay on the device in every lane unless a grant names them.
pub const CONFINED_CLASSES: [&str; 2] = ["secret", "credential"];

/// A permission that opens what is closed by default.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Grant {
    /// The lane it opens.
    pub lane: LaneId,
    /// The confined class that it opens there; `None` opens the lane for unconfined classes.
    pub class: Option<String>,
    /// Who may receive.
    pub to: DeviceId,
}

/// The answer, with the rule that gave it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may be sent; the rule says why.
    Allow(Rule),
    /// It may not be sent; the rule says why.
    Deny(Rule),
}

impl Decision {
    /// Whether it may be sent.
    pub fn allows(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// The rule that decided.
    pub fn rule(self) -> Rule {
        match self {
            Self::Allow(rule) | Self::Deny(rule) => rule,
        }
    }
}

/// Every rule that can decide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// The lane replicates among members.
    LaneReplicates,
    /// A grant names this lane, class and device.
    Granted,
    /// The lane is local by its meaning.
    LaneIsLocal,
    /// The lane needs a grant, and there is none.
    LaneNeedsGrant,
    /// The data class needs a grant, and there is none.
    ClassNeedsGrant,
}

impl Rule {
    /// The stable code by which people and programs know the rule.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LaneReplicates => "lane_replicates_among_members",
            Self::Granted => "granted_explicitly",
            Self::LaneIsLocal => "lane_is_local_only",
            Self::LaneNeedsGrant => "lane_requires_explicit_grant",
            Self::ClassNeedsGrant => "class_requires_explicit_grant",
        }
    }
}

/// The policy in force: the defaults of the lanes, and grants.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicationPolicy {
    grants: BTreeSet<Grant>,
}

impl ReplicationPolicy {
    /// The defaults and these grants.
    pub fn with_grants(grants: impl IntoIterator<Item = Grant>) -> Self {
        Self { grants: grants.into_iter().collect() }
    }

    /// Whether this policy grants a device what the other does, so that both decide alike for it.
    pub fn treats_alike(&self, other: &Self, to: DeviceId) -> bool {
        let of = |policy: &Self| -> BTreeSet<Grant> {
            policy.grants.iter().filter(|grant| grant.to == to).cloned().collect()
        };
        of(self) == of(other)
    }

    /// Whether anything of a lane may be told to a device, its name and frontier included.
    pub fn lane(&self, lane: LaneId, to: DeviceId) -> Decision {
        match lane.definition().replication {
            Replication::Members => Decision::Allow(Rule::LaneReplicates),
            Replication::LocalOnly => Decision::Deny(Rule::LaneIsLocal),
            Replication::DeniedByDefault => {
                let names = |to_whom: DeviceId| to_whom == to || bug::active(Bug::GrantToAll);
                if self.grants.iter().any(|grant| grant.lane == lane && names(grant.to)) {
                    Decision::Allow(Rule::Granted)
                } else {
                    Decision::Deny(Rule::LaneNeedsGrant)
                }
            }
        }
    }

    /// Whether a body of a data class in a lane may be sent to a device.
    pub fn body(&self, lane: LaneId, class: &str, confined: bool, to: DeviceId) -> Decision {
        let by_lane = self.lane(lane, to);
        if !by_lane.allows() || !(confined || is_confined(class)) {
            return by_lane;
        }
        let granted = self.grants.iter().any(|grant| {
            grant.lane == lane && grant.to == to && grant.class.as_deref() == Some(class)
        });
        if granted { Decision::Allow(Rule::Granted) } else { Decision::Deny(Rule::ClassNeedsGrant) }
    }
}

/// Whether objects of a data class stay on the device in every lane, however it is written.
pub fn is_confined(class: &str) -> bool {
    CONFINED_CLASSES.iter().any(|confined| confined.eq_ignore_ascii_case(class.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([1; 32]);

    #[test]
    fn secrets_stay_in_every_lane_without_a_grant() {
        let policy = ReplicationPolicy::default();
        for lane in LaneId::ALL {
            for class in CONFINED_CLASSES {
                assert!(!policy.body(lane, class, true, PEER).allows(), "{class} in {lane}");
                assert!(!policy.body(lane, class, false, PEER).allows(), "{class} in {lane}");
            }
        }
    }

    #[test]
    fn confined_class_is_confined_however_it_is_written() {
        assert!(is_confined("Secret") && is_confined(" CREDENTIAL "));
        assert!(!is_confined("secretary") && !is_confined("internal"));
    }

    #[test]
    fn grant_opens_one_class_in_one_lane_for_one_device() {
        let grant = Grant { lane: LaneId::Normal, class: Some("secret".into()), to: PEER };
        let policy = ReplicationPolicy::with_grants([grant]);
        assert_eq!(
            policy.body(LaneId::Normal, "secret", true, PEER),
            Decision::Allow(Rule::Granted)
        );
        assert!(!policy.body(LaneId::Normal, "credential", true, PEER).allows());
        assert!(!policy.body(LaneId::Memory, "secret", true, PEER).allows());
        assert!(!policy.body(LaneId::Normal, "secret", true, DeviceId([2; 32])).allows());
    }

    #[test]
    fn local_lane_is_not_even_named_to_a_peer() {
        let policy = ReplicationPolicy::default();
        assert_eq!(policy.lane(LaneId::Repair, PEER), Decision::Deny(Rule::LaneIsLocal));
        assert_eq!(policy.lane(LaneId::Secure, PEER), Decision::Deny(Rule::LaneNeedsGrant));
        let granted =
            ReplicationPolicy::with_grants([Grant { lane: LaneId::Repair, class: None, to: PEER }]);
        assert!(!granted.lane(LaneId::Repair, PEER).allows());
    }
}
