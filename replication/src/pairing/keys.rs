//! The key agreement: SPAKE2, bound to both devices, then keys for each purpose and direction.

use rand_core::{CryptoRng, RngCore};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use srcos_lanes::ids::DeviceId;
use subtle::ConstantTimeEq;

/// Which end of the pairing one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Inviter,
    Joiner,
}

/// The two devices as the transport has proved them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Devices {
    pub(super) inviter: DeviceId,
    pub(super) joiner: DeviceId,
}

impl Devices {
    /// The name under which the key agreement knows a device: another protocol has other names.
    fn identity(self, role: Role) -> Identity {
        let (label, device): (&[u8], _) = match role {
            Role::Inviter => (b"srcos pairing 1 inviter\0", self.inviter),
            Role::Joiner => (b"srcos pairing 1 joiner\0", self.joiner),
        };
        Identity::new(&[label, &device.0].concat())
    }
}

/// What both sides must know, with which kind of secret it is.
pub(super) fn password(kind: &str, secret: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("srcos-node 2026 pairing password");
    hasher.update(kind.as_bytes());
    hasher.update(b"\0");
    hasher.update(secret);
    *hasher.finalize().as_bytes()
}

/// One side of a key agreement that has been started.
pub(super) struct Agreement(Spake2<Ed25519Group>);

impl Agreement {
    /// Starts: gives the share to send. `seed` is random and never used twice.
    pub(super) fn start(
        role: Role,
        devices: Devices,
        password: &[u8; 32],
        seed: [u8; 32],
    ) -> (Self, Vec<u8>) {
        let password = Password::new(password);
        let (joiner, inviter) = (devices.identity(Role::Joiner), devices.identity(Role::Inviter));
        let random = Random::new(seed);
        let (state, share) = match role {
            Role::Joiner => Spake2::start_a_with_rng(&password, &joiner, &inviter, random),
            Role::Inviter => Spake2::start_b_with_rng(&password, &joiner, &inviter, random),
        };
        (Self(state), share)
    }

    /// The keys, if the share is one. That the other side has the same is proved by confirming.
    pub(super) fn finish(self, share: &[u8], transcript: &Transcript) -> Option<Keys> {
        let key = self.0.finish(share).ok()?;
        let mut hasher = blake3::Hasher::new_derive_key("srcos-node 2026 pairing session");
        hasher.update(&key);
        hasher.update(transcript.0.finalize().as_bytes());
        let mut keys = Keys([[0; 32]; 4]);
        let mut reader = hasher.finalize_xof();
        for key in &mut keys.0 {
            reader.fill(key);
        }
        Some(keys)
    }
}

/// The hash of what was said in the open.
pub(super) struct Transcript(blake3::Hasher);

impl Transcript {
    pub(super) fn new(devices: Devices) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("srcos-node 2026 pairing transcript");
        hasher.update(&devices.inviter.0);
        hasher.update(&devices.joiner.0);
        Self(hasher)
    }

    pub(super) fn add(&mut self, frame: &[u8]) {
        self.0.update(&(frame.len() as u64).to_be_bytes());
        self.0.update(frame);
    }
}

/// The keys of one exchange: two to confirm with, two to authenticate frames with.
pub(super) struct Keys([[u8; 32]; 4]);

impl Keys {
    /// What proves that the side `by` has the keys.
    pub(super) fn confirmation(&self, by: Role) -> [u8; 32] {
        let (key, label): (_, &[u8]) = match by {
            Role::Inviter => (&self.0[0], b"inviter confirms"),
            Role::Joiner => (&self.0[1], b"joiner confirms"),
        };
        *blake3::keyed_hash(key, label).as_bytes()
    }

    /// Whether `mac` is the confirmation of the side `by`, in time that does not tell where not.
    pub(super) fn confirms(&self, by: Role, mac: &[u8; 32]) -> bool {
        self.confirmation(by).ct_eq(mac).into()
    }

    /// The channel of the side `me`, once both have confirmed.
    pub(super) fn channel(&self, me: Role) -> Channel {
        let (inviter, joiner) = (self.0[2], self.0[3]);
        let (send, receive) = match me {
            Role::Inviter => (inviter, joiner),
            Role::Joiner => (joiner, inviter),
        };
        Channel { send, receive, sent: 0, received: 0 }
    }
}

/// Authenticates frames in both directions. Each is numbered, so none can be repeated, left out or
/// sent back.
pub(super) struct Channel {
    send: [u8; 32],
    receive: [u8; 32],
    sent: u64,
    received: u64,
}

impl Channel {
    /// The code that goes with the next frame out.
    pub(super) fn seal(&mut self, body: &[u8]) -> [u8; 32] {
        self.sent += 1;
        code(&self.send, self.sent, body)
    }

    /// Whether this is the next frame in.
    pub(super) fn accept(&mut self, body: &[u8], mac: &[u8; 32]) -> bool {
        self.received += 1;
        code(&self.receive, self.received, body).ct_eq(mac).into()
    }
}

fn code(key: &[u8; 32], number: u64, body: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&number.to_be_bytes());
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// Random bytes from a seed that the caller drew: BLAKE3 in its extendable form.
pub(super) struct Random(blake3::OutputReader);

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("srcos-node 2026 pairing randomness");
        hasher.update(&seed);
        Self(hasher.finalize_xof())
    }

    /// The next bytes.
    pub(super) fn draw<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.draw())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.draw())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for Random {}
