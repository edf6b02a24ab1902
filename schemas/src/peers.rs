//! Peers, pairing and the connections between devices.

use serde::{Deserialize, Serialize};

use crate::status::ErrorBody;
use crate::time::Timestamp;

/// `peers`: every device that the mesh knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeersDocument {
    /// This device, in hexadecimal.
    pub device: String,
    /// The mesh, in hexadecimal.
    pub mesh: String,
    /// The devices, this one among them.
    pub peers: Vec<PeerDocument>,
}

/// One device of the mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerDocument {
    /// The device, in hexadecimal.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Whether it is a member.
    pub membership: Membership,
    /// Whether it is the device that answers.
    pub this_device: bool,
    /// The link to it, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkDocument>,
    /// When it was last connected; null if never, or not known.
    pub last_seen_at: Option<Timestamp>,
    /// When it was admitted.
    pub admitted_at: Timestamp,
    /// The device that admitted it, in hexadecimal.
    pub admitted_by: String,
    /// Its revocation, once revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<RevocationDocument>,
    /// What keeps it from being connected, in words; absent while connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Whether a device belongs to the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// It does.
    Member,
    /// It did.
    Revoked,
}

/// A connection to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkDocument {
    /// `quic` or `tcp`.
    pub transport: String,
    /// The remote address, as a multiaddress.
    pub address: String,
    /// Since when.
    pub since: Timestamp,
    /// Latest round trip, in milliseconds; null before the first.
    pub rtt_ms: Option<f64>,
}

/// How a device lost its membership.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevocationDocument {
    /// When.
    pub at: Timestamp,
    /// The device that revoked it, in hexadecimal.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// `pair invite`: an open invitation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InviteDocument {
    /// Names the invitation on this device.
    pub id: String,
    /// The short code to type on the other device.
    pub code: String,
    /// The ticket: code, device and addresses, for pasting or scanning.
    pub ticket: String,
    /// When the invitation ends.
    pub expires_at: Timestamp,
}

/// How far an invitation has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InviteStatus {
    /// Nobody has used it.
    Waiting,
    /// A device joined with it.
    Joined {
        /// The device.
        joined: JoinedDevice,
    },
    /// Its time ended.
    Expired,
    /// It was taken back here.
    Cancelled,
    /// It was used with a wrong code, which ends it.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A device that joined, as `pair invite` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinedDevice {
    /// The device, in hexadecimal.
    pub device: String,
    /// Its name.
    pub name: String,
}

/// `pair join`: how far joining has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinDocument {
    /// Names the attempt on this device.
    pub id: String,
    /// How far it is.
    #[serde(flatten)]
    pub status: JoinStatus,
}

impl JoinDocument {
    /// Whether nothing more will come of it.
    pub fn is_over(&self) -> bool {
        matches!(self.status, JoinStatus::Joined { .. } | JoinStatus::Failed { .. })
    }
}

/// The states of joining a mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JoinStatus {
    /// Looking for the device that invites.
    Searching,
    /// Dialling it.
    Connecting {
        /// The address, as a multiaddress.
        address: String,
    },
    /// Proving knowledge of the code to each other.
    Authenticating,
    /// Receiving the roster.
    Receiving,
    /// Done.
    Joined {
        /// The mesh, in hexadecimal.
        mesh: String,
        /// The device that admitted this one.
        admitted_by: JoinedDevice,
    },
    /// It ended without success.
    Failed {
        /// Why, and what to do.
        error: ErrorBody,
    },
}

/// `network offline|online`: whether links are kept cut on purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkDocument {
    /// Whether all links are kept cut on purpose.
    pub offline: bool,
    /// Addresses on which peers can reach this device.
    pub listen: Vec<String>,
    /// Peers connected now.
    pub connected: usize,
}
