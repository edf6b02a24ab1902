//! What the head of a store's file says that redb does not: why it cannot be opened.
//!
//! To a file that is empty, cut short or no store at all redb answers as to a failed disk or a crash.
//! Neither is true, and what to do about them differs, so such a file is looked at once more.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// How a redb file begins.
const MAGIC: [u8; 9] = [b'r', b'e', b'd', b'b', 0x1a, 0x0a, 0xa9, 0x0d, 0x0a];
/// Bytes of the head and both commit slots: no store is shorter.
const HEAD_BYTES: u64 = 320;
/// The bit that is set while the file is open for writing.
const OPEN: u8 = 2;

/// What is wrong with the file, if its head shows it.
pub(super) fn damage(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() {
        return Some("it is no file".to_owned());
    }
    let mut head = Vec::new();
    file.take(64).read_to_end(&mut head).ok()?;
    of_head(&head, meta.len())
}

fn of_head(head: &[u8], bytes: u64) -> Option<String> {
    if bytes == 0 {
        return Some("it is empty".to_owned());
    }
    if !head.starts_with(&MAGIC) {
        return Some("it does not begin as a store does".to_owned());
    }
    if bytes < HEAD_BYTES {
        return Some(format!("it ends after {bytes} bytes, within its head"));
    }
    // How far it should reach was written when it was closed; after a crash that may be torn.
    let closed = head.get(9).is_some_and(|flags| flags & OPEN == 0);
    let should = length(head).ok()?;
    let cut = closed && bytes < should;
    cut.then(|| format!("it ends after {bytes} bytes of {should}: it was cut short"))
}

/// How long a file with this head is: one page, then regions of pages, the last not always full.
fn length(head: &[u8]) -> io::Result<u64> {
    let mut numbers = head.get(12..).unwrap_or_default();
    let mut number = || {
        let mut bytes = [0; 4];
        numbers.read_exact(&mut bytes)?;
        Ok::<_, io::Error>(u64::from(u32::from_le_bytes(bytes)))
    };
    let (page, header, pages_max) = (number()?, number()?, number()?);
    let (full, trailing) = (number()?, number()?);
    let last = if trailing > 0 { header.saturating_add(trailing) } else { 0 };
    let pages = full.saturating_mul(header.saturating_add(pages_max)).saturating_add(last);
    Ok(pages.saturating_add(1).saturating_mul(page))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn head_of_a_store_says_how_long_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.redb");
        let table: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("t");
        for megabytes in [0_u64, 1, 5] {
            let db = redb::Database::create(&path).unwrap();
            let turn = db.begin_write().unwrap();
            for n in 0..megabytes {
                turn.open_table(table).unwrap().insert(n, &*vec![1; 1 << 20]).unwrap();
            }
            turn.commit().unwrap();
            drop(db);
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(length(&bytes[..64]).unwrap(), bytes.len() as u64);
            assert_eq!(damage(&path), None);
            for cut in [0, 1, 9, 319, 320, 4096, bytes.len() / 2, bytes.len() - 1] {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                assert!(damage(&path).is_some(), "cut to {cut}");
            }
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(damage(dir.path()).is_some());
    }

    proptest! {
        #[test]
        fn no_head_is_too_strange_to_be_looked_at(
            mut head in proptest::collection::vec(any::<u8>(), 0..64),
            bytes in any::<u64>(),
            magic in any::<bool>(),
        ) {
            if magic && head.len() >= MAGIC.len() {
                head[..MAGIC.len()].copy_from_slice(&MAGIC);
            }
            if !head.is_empty() {
                of_head(&head, bytes.max(head.len() as u64));
            }
        }
    }
}
