//! Ed25519 signatures: made by a [`Signer`] that the caller owns, checked here.

use std::cell::RefCell;

use ed25519_dalek::{Signature as DalekSignature, SigningKey, VerifyingKey};

use crate::ids::DeviceId;

/// An ed25519 signature (RFC 8032), 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({}..)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

/// Signs in the name of one device. Keys live with whoever implements it.
pub trait Signer {
    /// The device whose key signs.
    fn device(&self) -> DeviceId;

    /// The signature over `message`.
    fn sign(&self, message: &[u8]) -> Signature;
}

impl Signer for SigningKey {
    fn device(&self) -> DeviceId {
        DeviceId(self.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(ed25519_dalek::Signer::sign(self, message).to_bytes())
    }
}

/// Whether `signature` over `message` was made with the key of `device`.
///
/// Strict: refuses weak keys and signatures that are malleable. A device id that is no valid key
/// verifies nothing.
pub fn verify(device: DeviceId, message: &[u8], signature: &Signature) -> bool {
    let Some(key) = decoded(device) else {
        return false;
    };
    key.verify_strict(message, &DalekSignature::from_bytes(&signature.0)).is_ok()
}

/// How many keys a thread keeps that it decoded lately: decoding takes a tenth of a check, and few devices
/// write most entries.
const KEYS_KEPT: usize = 16;

/// The key that a device's id is, if it is one.
fn decoded(device: DeviceId) -> Option<VerifyingKey> {
    thread_local! {
        static KEYS: RefCell<Vec<VerifyingKey>> = const { RefCell::new(Vec::new()) };
    }
    KEYS.with_borrow_mut(|keys| {
        let key = match keys.iter().position(|key| *key.as_bytes() == device.0) {
            Some(at) => keys.remove(at),
            None => VerifyingKey::from_bytes(&device.0).ok()?,
        };
        keys.truncate(KEYS_KEPT - 1);
        keys.insert(0, key);
        Some(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_holds_for_its_key_and_message_only() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let signature = Signer::sign(&key, b"message");
        assert!(verify(key.device(), b"message", &signature));
        assert!(!verify(key.device(), b"massage", &signature));
        assert!(!verify(SigningKey::from_bytes(&[2; 32]).device(), b"message", &signature));
        assert!(!verify(DeviceId([0; 32]), b"message", &signature));
    }

    #[test]
    fn keys_that_are_kept_and_keys_that_are_not_verify_the_same() {
        let keys: Vec<_> =
            (1..=2 * KEYS_KEPT as u8).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
        for (n, key) in keys.iter().chain(keys.iter().rev()).enumerate() {
            let other = &keys[n % KEYS_KEPT];
            let signature = Signer::sign(key, b"message");
            assert!(verify(key.device(), b"message", &signature));
            let same = other.device() == key.device();
            assert_eq!(verify(other.device(), b"message", &signature), same);
        }
    }
}
