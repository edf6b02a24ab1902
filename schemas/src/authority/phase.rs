//! Boot and session phases: how far the machine and the session have come, and who may run.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::SpecVersion;
use super::{list, text};
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static BOOT_PHASE: Contract = Contract {
    name: "boot-session-phase-state",
    urn: "urn:srcos:schema:boot-session-phase-state:v0.1",
    file: "BootSessionPhaseState.json",
    schema: include_str!("../../BootSessionPhaseState.json"),
    discriminator: Discriminator::TypeOrId(
        "BootSessionPhaseState",
        "urn:srcos:boot-session-phase:",
    ),
    profiled: true,
    rules: &[
        Rule {
            name: "boot-phase.required-is-later",
            says: "a component that waits for a phase waits for one that has not come",
            origin: Origin::Ours,
            check: required_phase_is_later,
        },
        Rule {
            name: "boot-phase.refusal-explained",
            says: "a blocked component says what a person can do",
            origin: Origin::Ours,
            check: refusals_are_explained,
        },
        Rule {
            name: "boot-phase.allowed-or-blocked",
            says: "no component is both allowed and blocked",
            origin: Origin::Ours,
            check: nobody_is_allowed_and_blocked,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn required_phase_is_later(state: &Value, findings: &mut Findings) {
    let phase = |value: &Value, name| text(value, name).and_then(BootPhase::named);
    let Some(now) = phase(state, "phase") else { return };
    for (index, blocked) in list(state, "blockedComponents") {
        let waits = matches!(text(blocked, "state"), Some("blocked" | "deferred"));
        if let Some(required) = phase(blocked, "requiredPhase").filter(|_| waits)
            && now.permits(required)
        {
            let message =
                "this phase has come already: allow the component, or say for what it waits";
            findings.add(format!("/blockedComponents/{index}/requiredPhase"), message);
        }
    }
}

fn refusals_are_explained(state: &Value, findings: &mut Findings) {
    for (index, blocked) in list(state, "blockedComponents") {
        if blocked.is_object() && text(blocked, "remediationHint").is_none_or(str::is_empty) {
            let message = "there is no remediationHint: say what a person can do";
            findings.add(format!("/blockedComponents/{index}"), message);
        }
    }
}

fn nobody_is_allowed_and_blocked(state: &Value, findings: &mut Findings) {
    let name =
        |item: &'_ Value| item.as_str().or_else(|| text(item, "componentRef")).map(str::to_owned);
    let allowed: BTreeSet<String> =
        list(state, "allowedComponents").filter_map(|(_, item)| name(item)).collect();
    for (index, item) in list(state, "blockedComponents") {
        if let Some(name) = name(item).filter(|name| allowed.contains(name)) {
            let message =
                format!("{name:?} is among the allowed ones too: remove it from one list");
            findings.add(format!("/blockedComponents/{index}"), message);
        }
    }
}

constant_text! {
    /// Says that a document is a boot and session phase state.
    PhaseKind = "BootSessionPhaseState"
}

/// A boot and session phase state, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootSessionPhase {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: PhaseKind,
    /// Version.
    #[serde(with = "super::any_version")]
    pub spec_version: SpecVersion,
    /// When it was so: an RFC 3339 time.
    pub observed_at: String,
    /// Names the boot of the machine.
    pub boot_id: String,
    /// Names the session of the user.
    pub session_id: String,
    /// How far machine and session have come.
    pub phase: BootPhase,
    /// What that means for components.
    pub phase_verdict: PhaseVerdict,
    /// Keyrings that are open.
    #[serde(default)]
    pub available_keyrings: Vec<String>,
    /// Portals that answer.
    #[serde(default)]
    pub available_portals: Vec<String>,
    /// Components that may run.
    pub allowed_components: Vec<AllowedComponent>,
    /// Components that may not run yet.
    pub blocked_components: Vec<BlockedComponent>,
    /// Names of what this rests on.
    #[serde(default)]
    pub evidence_refs: Vec<String>,
    /// The whole in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_visible_summary: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

impl Document for BootSessionPhase {
    const CONTRACT: &'static Contract = &BOOT_PHASE;
}

/// A component that may run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedComponent {
    /// Which one.
    pub component_ref: String,
    /// Whether in full.
    pub state: AllowedState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A component that may not run yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockedComponent {
    /// Which one.
    pub component_ref: String,
    /// The phase in which it may run.
    pub required_phase: BootPhase,
    /// What is done with it.
    pub state: BlockedState,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation_hint: Option<String>,
}

/// A phase of boot and session.
///
/// The first four follow on each other; a degraded session is an unlocked one with something
/// missing; a recovery session stands apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootPhase {
    /// Nothing of the user is open, and nobody can log in yet.
    SealedBoot,
    /// Somebody can log in.
    PreLogin,
    /// Somebody has, and the stores of the user are still locked.
    PostLoginLocked,
    /// They are open.
    UnlockedUserSession,
    /// They are open, and something is missing.
    DegradedSession,
    /// The machine is being mended.
    RecoverySession,
    /// Not known.
    Unknown,
}

/// What a phase means for components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseVerdict {
    /// They can run.
    Ready,
    /// Those that need more must wait.
    NotReady,
    /// They can, with less.
    Degraded,
    /// Only those that mend.
    RecoveryOnly,
    /// Not known.
    Unknown,
}

/// Whether a component may run in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowedState {
    /// In full.
    Allowed,
    /// With less.
    AllowedDegraded,
    /// Not known.
    Unknown,
}

/// What is done with a component that may not run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockedState {
    /// It is refused.
    Blocked,
    /// It waits.
    Deferred,
    /// It is set apart.
    Quarantined,
    /// Not known.
    Unknown,
}

impl BootPhase {
    /// The phase of a name, as documents write it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sealed-boot" => Self::SealedBoot,
            "pre-login" => Self::PreLogin,
            "post-login-locked" => Self::PostLoginLocked,
            "unlocked-user-session" => Self::UnlockedUserSession,
            "degraded-session" => Self::DegradedSession,
            "recovery-session" => Self::RecoverySession,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }

    /// Its name, as documents write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SealedBoot => "sealed-boot",
            Self::PreLogin => "pre-login",
            Self::PostLoginLocked => "post-login-locked",
            Self::UnlockedUserSession => "unlocked-user-session",
            Self::DegradedSession => "degraded-session",
            Self::RecoverySession => "recovery-session",
            Self::Unknown => "unknown",
        }
    }

    /// Whether, in this phase, something may run that needs at least another one.
    ///
    /// A degraded session permits what an unlocked one does not need to be whole for: all earlier
    /// phases, and itself. A recovery session permits what asks for it, and what needs nothing of a
    /// user. Of what is not known, nothing follows: it permits nothing, and is permitted nowhere.
    pub fn permits(self, minimum: Self) -> bool {
        match (self, minimum) {
            (Self::Unknown, _) | (_, Self::Unknown) => false,
            (now, needed) if now == needed => true,
            (Self::RecoverySession, needed) => needed == Self::SealedBoot,
            (_, Self::RecoverySession) => false,
            (Self::DegradedSession, needed) => needed != Self::UnlockedUserSession,
            (Self::UnlockedUserSession, _) => true,
            (now, needed) => (now as u8) > (needed as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [BootPhase; 7] = [
        BootPhase::SealedBoot,
        BootPhase::PreLogin,
        BootPhase::PostLoginLocked,
        BootPhase::UnlockedUserSession,
        BootPhase::DegradedSession,
        BootPhase::RecoverySession,
        BootPhase::Unknown,
    ];

    #[test]
    fn names_read_back() {
        for phase in ALL {
            assert_eq!(BootPhase::named(phase.name()), Some(phase));
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
        assert_eq!(BootPhase::named("lunch"), None);
    }

    #[test]
    fn a_phase_permits_what_came_before_it() {
        use BootPhase as P;
        let permitted = |now: P| ALL.into_iter().filter(|needed| now.permits(*needed)).count();
        // Of the seven, in order: what each phase permits.
        assert_eq!(ALL.map(permitted), [1, 2, 3, 5, 4, 2, 0]);
        assert!(!P::PostLoginLocked.permits(P::UnlockedUserSession));
        assert!(P::UnlockedUserSession.permits(P::DegradedSession));
        assert!(!P::DegradedSession.permits(P::UnlockedUserSession));
        assert!(!P::UnlockedUserSession.permits(P::RecoverySession));
    }
}
