//! Network truth states: the network layer by layer, instead of one word for all of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::contract::SpecVersion;
use super::text;
use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule, constant_text};

/// The contract.
pub static NETWORK_TRUTH: Contract = Contract {
    name: "network-truth-state",
    urn: "urn:srcos:schema:network-truth-state:v0.1",
    file: "NetworkTruthState.json",
    schema: include_str!("../../NetworkTruthState.json"),
    discriminator: Discriminator::TypeOrId("NetworkTruthState", "urn:srcos:network-truth:"),
    profiled: true,
    rules: &[Rule {
        name: "network-truth.layers-agree",
        says: "no layer works on top of one that does not",
        origin: Origin::Ours,
        check: layers_agree,
    }],
    compiled: Contract::not_compiled(),
};

fn layers_agree(state: &Value, findings: &mut Findings) {
    let of = |layer| text(state, layer).unwrap_or("unknown");
    if of("radioState") == "off" && of("associationState") == "associated" {
        findings
            .add("/associationState", "it cannot be associated while the radio is off: look again");
    }
    if of("internetReachability") == "reachable" && of("routeState") == "no-route" {
        findings
            .add("/internetReachability", "the internet cannot answer without a route: look again");
    }
    if of("captivePortalState") == "authenticated" && of("routeState") == "no-route" {
        findings
            .add("/captivePortalState", "nobody can log in anywhere without a route: look again");
    }
}

constant_text! {
    /// Says that a document is a network truth state.
    NetworkTruthKind = "NetworkTruthState"
}

/// A network truth state, as it is written and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkTruth {
    /// Names it: a URN.
    pub id: String,
    /// Kind of document.
    #[serde(rename = "type")]
    pub kind: NetworkTruthKind,
    /// Version.
    #[serde(with = "super::any_version")]
    pub spec_version: SpecVersion,
    /// When it was so: an RFC 3339 time.
    pub observed_at: String,
    /// Names the state of the network.
    pub network_epoch: String,
    /// Which interface it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_ref: Option<String>,
    /// Whether the interface knows which device it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_identity_state: Option<DeviceIdentity>,
    /// Whether the radio is on.
    pub radio_state: RadioState,
    /// Whether it is joined to an access point.
    pub association_state: AssociationState,
    /// Whether the access point let it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_state: Option<AuthenticationState>,
    /// Whether it was given an address.
    pub dhcp_state: DhcpState,
    /// Whether names can be resolved.
    pub dns_state: DnsState,
    /// Whether there is a way out.
    pub route_state: RouteState,
    /// Whether something wants a login first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captive_portal_state: Option<CaptivePortal>,
    /// Whether the internet answers.
    pub internet_reachability: Reachability,
    /// Whether the devices of the mesh answer.
    pub local_mesh_reachability: MeshReachability,
    /// Whether traffic goes through a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpn_or_privacy_overlay_state: Option<OverlayState>,
    /// Whether there is a path to trusted peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_peer_path_state: Option<PeerPath>,
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

impl Document for NetworkTruth {
    const CONTRACT: &'static Contract = &NETWORK_TRUTH;
}

impl NetworkTruth {
    /// The lowest layer that is known to be broken, in a word; nothing where none is.
    ///
    /// A radio without a route, names that do not resolve, an internet that does not answer and a mesh
    /// that alone does are four different things, and here four different words.
    pub fn fault(&self) -> Option<&'static str> {
        let mesh = self.local_mesh_reachability == MeshReachability::Reachable;
        let fault = if self.radio_state == RadioState::Off {
            "radio-off"
        } else if self.association_state == AssociationState::NotAssociated
            && self.radio_state == RadioState::On
        {
            "not-associated"
        } else if matches!(self.dhcp_state, DhcpState::Failed) {
            "no-address"
        } else if matches!(self.route_state, RouteState::NoRoute | RouteState::RouteFailed) {
            "no-route"
        } else if matches!(
            self.captive_portal_state,
            Some(CaptivePortal::Detected | CaptivePortal::CredentialMissing)
        ) {
            "captive-portal"
        } else if self.dns_state == DnsState::Failed || self.dns_state == DnsState::NotConfigured {
            "no-dns"
        } else if self.internet_reachability == Reachability::Unreachable {
            if mesh { "mesh-only" } else { "no-internet" }
        } else {
            return None;
        };
        Some(fault)
    }
}

/// Whether the interface knows which device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceIdentity {
    /// It does.
    Present,
    /// It does not.
    Missing,
    /// It knows of an empty one.
    Nil,
    /// There are several.
    Ambiguous,
    /// Not known.
    Unknown,
}

/// Whether the radio is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RadioState {
    /// It is off.
    Off,
    /// It is on.
    On,
    /// It is starting again.
    Resetting,
    /// There is none.
    Unavailable,
    /// Not known.
    Unknown,
}

/// Whether it is joined to an access point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssociationState {
    /// It is not.
    NotAssociated,
    /// It is being joined.
    Associating,
    /// It is.
    Associated,
    /// It comes and goes.
    Unstable,
    /// Not known.
    Unknown,
}

/// Whether the access point let it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationState {
    /// It was not asked.
    NotAuthenticated,
    /// It is being asked.
    Authenticating,
    /// It did.
    Authenticated,
    /// It did not.
    Failed,
    /// Not known.
    Unknown,
}

/// Whether it was given an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpState {
    /// None was asked for.
    NotStarted,
    /// One is asked for.
    Acquiring,
    /// It was.
    Leased,
    /// It was not.
    Failed,
    /// That could not be looked at.
    ObserverFailed,
    /// Not known.
    Unknown,
}

/// Whether names can be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsState {
    /// Nothing is set for it.
    NotConfigured,
    /// They can.
    Configured,
    /// Some can.
    Degraded,
    /// They cannot.
    Failed,
    /// That could not be looked at.
    ObserverFailed,
    /// Not known.
    Unknown,
}

/// Whether there is a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// There is none.
    NoRoute,
    /// There is one.
    RoutePresent,
    /// There are several that contradict each other.
    RouteConflict,
    /// There is one, and it fails.
    RouteFailed,
    /// Not known.
    Unknown,
}

/// Whether something wants a login first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptivePortal {
    /// Nothing does.
    NotDetected,
    /// Something does.
    Detected,
    /// Something does, and there is nothing to log in with.
    CredentialMissing,
    /// Something did, and has it.
    Authenticated,
    /// Not known.
    Unknown,
}

/// Whether the internet answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reachability {
    /// It does.
    Reachable,
    /// It does not.
    Unreachable,
    /// At times.
    Degraded,
    /// Not known.
    Unknown,
}

/// Whether the devices of the mesh answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshReachability {
    /// They do.
    Reachable,
    /// They do not.
    Unreachable,
    /// Some do.
    Degraded,
    /// There are none.
    NotConfigured,
    /// Not known.
    Unknown,
}

/// Whether traffic goes through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlayState {
    /// It does not.
    Off,
    /// It does.
    On,
    /// In part.
    Degraded,
    /// Policy forbids it.
    PolicyBlocked,
    /// Not known.
    Unknown,
}

/// Whether there is a path to trusted peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerPath {
    /// There is.
    Available,
    /// There is none.
    Unavailable,
    /// There is a poor one.
    Degraded,
    /// That was not looked at.
    NotEvaluated,
    /// Not known.
    Unknown,
}
