//! The one form in which a value may be written, so that nobody can write the same value twice in
//! different bytes: what its writer would have written. See <https://postcard.jamesmunns.com/wire-format>.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Whether a value that was read from these bytes is written as these bytes.
pub fn is_canonical<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    matches!(postcard::serialize_with_flavor(value, Rest(bytes)), Ok([]))
}

/// What is still to be written. To compare byte by byte takes no memory, where writing it all would.
struct Rest<'b>(&'b [u8]);

impl<'b> Flavor for Rest<'b> {
    type Output = &'b [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<&'b [u8]> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bytes_that_its_writer_writes_are_canonical() {
        let value = (7_u32, "seven".to_owned(), vec![1_u64, 300]);
        let bytes = postcard::to_stdvec(&value).unwrap();
        assert!(is_canonical(&value, &bytes));
        assert!(!is_canonical(&value, &bytes[..bytes.len() - 1]));
        assert!(!is_canonical(&value, &[&bytes[..], &[0]].concat()));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(!is_canonical(&value, &other), "byte {at}");
        }
        // The number seven in two bytes.
        let longer = [&[0x87, 0], &bytes[1..]].concat();
        assert_eq!(postcard::from_bytes::<(u32, String, Vec<u64>)>(&longer).unwrap(), value);
        assert!(!is_canonical(&value, &longer));
    }
}
