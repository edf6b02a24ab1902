//! A pairing ticket: everything that a device needs to join, in one line of text.
//!
//! The text is `srcos1`, then base32 in lower case of the postcard bytes and a checksum. Reading
//! forgives upper case (a QR code is smaller with it) and white space (mail breaks lines). The
//! checksum finds mistyped text; that the ticket is genuine, only pairing itself proves.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};
use srcos_lanes::canonical::is_canonical;
use srcos_lanes::ids::{DeviceId, MeshId, WallMillis};

/// What every ticket begins with; the digit is the version of the text form.
pub const TICKET_PREFIX: &str = "srcos1";

/// Most characters of a ticket, white space included: sixteen addresses and room for line breaks.
pub const TICKET_CHARS_MAX: usize = 8192;

/// Most addresses that a ticket or a pairing device names: more than a machine's interfaces have.
pub const ADDRESSES_MAX: usize = 16;

/// Most bytes of one address: a multiaddr with a long host name.
pub const ADDRESS_BYTES_MAX: usize = 200;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 5;

/// Text that is no ticket, or a ticket that may not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Text over the limit.
    #[error("ticket has {chars} characters, at most {TICKET_CHARS_MAX} are allowed")]
    TooLong {
        /// Its length.
        chars: usize,
    },
    /// Text that does not begin as tickets do.
    #[error("text is no ticket: tickets begin with {TICKET_PREFIX}; copy all of it again")]
    Prefix,
    /// A character that no ticket has.
    #[error("ticket is damaged near character {at}: copy all of it again")]
    Damaged {
        /// Where, counted from the prefix, white space left out.
        at: usize,
    },
    /// Text whose checksum does not fit.
    #[error("ticket is damaged or incomplete, its checksum does not fit: copy all of it again")]
    Checksum,
    /// A ticket of a version that this node does not know.
    #[error("ticket has version {found}, this node knows version {VERSION}: update the node")]
    Version {
        /// What the ticket says.
        found: u8,
    },
    /// Content in another form than tickets have.
    #[error("ticket has a valid checksum and no valid content: another program made it")]
    Malformed,
    /// Too many addresses, or one out of bounds.
    #[error(
        "ticket must have at most {ADDRESSES_MAX} addresses, each of 1 to {ADDRESS_BYTES_MAX} \
         printable ascii characters"
    )]
    Addresses,
}

/// An invitation that one device may use once. Its text is a secret until then.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    version: u8,
    /// The mesh to join.
    pub mesh: MeshId,
    /// The device that invites.
    pub inviter: DeviceId,
    /// What proves that one holds the ticket.
    pub secret: [u8; 32],
    /// When the inviter will no longer take it, by the inviter's clock.
    pub expires_at: WallMillis,
    /// Where the inviter may be reached.
    pub addresses: Vec<String>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("mesh", &self.mesh)
            .field("inviter", &self.inviter)
            .field("secret", &"..")
            .field("expires_at", &self.expires_at)
            .field("addresses", &self.addresses)
            .finish()
    }
}

/// Whether these addresses may be in a ticket or in a request to join.
pub fn addresses_are_sound(addresses: &[String]) -> bool {
    let sound = |address: &String| {
        !address.is_empty()
            && address.len() <= ADDRESS_BYTES_MAX
            && address.bytes().all(|byte| byte.is_ascii_graphic())
    };
    addresses.len() <= ADDRESSES_MAX && addresses.iter().all(sound)
}

impl Ticket {
    /// A ticket with these contents.
    pub fn new(
        mesh: MeshId,
        inviter: DeviceId,
        secret: [u8; 32],
        expires_at: WallMillis,
        addresses: Vec<String>,
    ) -> Result<Self, TicketError> {
        if !addresses_are_sound(&addresses) {
            return Err(TicketError::Addresses);
        }
        Ok(Self { version: VERSION, mesh, inviter, secret, expires_at, addresses })
    }

    /// The text to hand over, also what a QR code of the ticket holds.
    pub fn to_text(&self) -> String {
        // Nothing in a ticket can fail to encode into memory.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{TICKET_PREFIX}{}", base32().encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong { chars: text.chars().count() });
        }
        let text: String = text.split_ascii_whitespace().collect::<String>().to_ascii_lowercase();
        let encoded = text.strip_prefix(TICKET_PREFIX).ok_or(TicketError::Prefix)?;
        let bytes = base32()
            .decode(encoded.as_bytes())
            .map_err(|error| TicketError::Damaged { at: error.position + 1 })?;
        let (body, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Checksum)?;
        if checksum(body) != *sum {
            return Err(TicketError::Checksum);
        }
        match body.first() {
            Some(&VERSION) => {}
            Some(&found) => return Err(TicketError::Version { found }),
            None => return Err(TicketError::Malformed),
        }
        let ticket: Self = postcard::from_bytes(body).map_err(|_| TicketError::Malformed)?;
        if !addresses_are_sound(&ticket.addresses) {
            return Err(TicketError::Addresses);
        }
        // One ticket has one text.
        if is_canonical(&ticket, body) { Ok(ticket) } else { Err(TicketError::Malformed) }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("srcos-node 2026 pairing ticket checksum", bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    sum
}

/// RFC 4648 base32 in lower case without padding.
fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    // The alphabet has 32 different characters, which is all that can go wrong here.
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(addresses: Vec<String>) -> Ticket {
        let expires_at = WallMillis(1_700_000_000_000);
        Ticket::new(MeshId([1; 32]), DeviceId([2; 32]), [3; 32], expires_at, addresses).unwrap()
    }

    fn one() -> Ticket {
        ticket(vec!["/ip4/192.168.1.2/udp/4001/quic-v1".into()])
    }

    /// A ticket's text around any content, with the right checksum.
    fn sealed(body: &[u8]) -> String {
        let bytes = [body, &checksum(body)].concat();
        format!("{TICKET_PREFIX}{}", base32().encode(&bytes))
    }

    #[test]
    fn ticket_reads_back_in_upper_case_and_broken_over_lines() {
        let text = one().to_text();
        assert!(text.starts_with("srcos1"));
        assert_eq!(text.parse::<Ticket>().unwrap(), one());
        assert_eq!(text.to_uppercase().parse::<Ticket>().unwrap(), one());
        let broken = format!("  {}\r\n\t{}\n", &text[..40], &text[40..]);
        assert_eq!(broken.parse::<Ticket>().unwrap(), one());
        let full = ticket(vec!["x".repeat(ADDRESS_BYTES_MAX); ADDRESSES_MAX]);
        assert_eq!(full.to_text().parse::<Ticket>().unwrap(), full);
    }

    #[test]
    fn one_changed_or_missing_character_is_found() {
        let text = one().to_text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed.parse::<Ticket>().is_err(), "at {at}");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn hostile_tickets_are_refused_with_what_is_wrong() {
        let refused = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(refused(""), TicketError::Prefix);
        assert_eq!(refused("srcos1"), TicketError::Checksum);
        assert_eq!(refused("srcos2aaaaaaaa"), TicketError::Prefix);
        assert_eq!(refused("srcos1aa!a"), TicketError::Damaged { at: 3 });
        let long = "a".repeat(TICKET_CHARS_MAX + 1);
        assert_eq!(refused(&long), TicketError::TooLong { chars: TICKET_CHARS_MAX + 1 });
        assert_eq!(refused(&sealed(&[])), TicketError::Malformed);
        assert_eq!(refused(&sealed(&[2, 0, 0])), TicketError::Version { found: 2 });
        assert_eq!(refused(&sealed(&[1, 0, 0])), TicketError::Malformed);
        let body = postcard::to_stdvec(&one()).unwrap();
        assert_eq!(refused(&sealed(&[&body[..], &[0]].concat())), TicketError::Malformed);
        // As many addresses as a length can claim, none of them there.
        let mut huge = body[..body.len() - 35].to_vec();
        huge.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(refused(&sealed(&huge)), TicketError::Malformed);
        for addresses in [vec![String::new()], vec!["a b".into()], vec!["é".into()]] {
            let bad = Ticket { addresses, ..one() };
            assert_eq!(refused(&bad.to_text()), TicketError::Addresses);
        }
        let many = Ticket { addresses: vec!["x".into(); ADDRESSES_MAX + 1], ..one() };
        assert_eq!(refused(&many.to_text()), TicketError::Addresses);
    }

    #[test]
    fn secret_is_not_printed_for_debugging() {
        assert!(!format!("{:?}", one()).contains("3, 3"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(srcos1)?.{0,200}") {
            let _ = text.parse::<Ticket>();
        }

        #[test]
        fn any_content_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(ticket) = sealed(&[&[1], &body[..]].concat()).parse::<Ticket>() {
                prop_assert_eq!(ticket.to_text().parse::<Ticket>().unwrap(), ticket);
            }
        }
    }
}
