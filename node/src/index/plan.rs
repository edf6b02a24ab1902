//! What to do about a folder, given what its objects say and what is there.

use std::collections::BTreeMap;

use srcos_schemas::time::Timestamp;

use super::walk::Seen;

/// What an object says of its file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The size in bytes.
    pub size: Option<u64>,
    /// The time of the last change.
    pub mtime: Option<Timestamp>,
    /// The BLAKE3 hash of the content, in hexadecimal.
    pub blake3: Option<String>,
}

/// What was found out about a file by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// The size in bytes.
    pub size: u64,
    /// The time of the last change.
    pub mtime: Timestamp,
    /// The BLAKE3 hash of the content, in hexadecimal.
    pub blake3: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Ids of files to read and write.
    pub read: Vec<String>,
    /// Ids of objects whose file has gone.
    pub gone: Vec<String>,
    /// Files about which there is nothing to do.
    pub unchanged: usize,
}

/// Compares what is known with what was seen.
pub fn plan(known: &BTreeMap<String, Known>, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    for (id, file) in &seen.files {
        let same = known.get(id).is_some_and(|known| {
            known.size == Some(file.size)
                && known.mtime == Some(file.mtime)
                && known.blake3.is_some()
        });
        if same {
            plan.unchanged += 1;
        } else {
            plan.read.push(id.clone());
        }
    }
    let gone = |id: &&String| !seen.files.contains_key(*id) && seen.was_looked_at(id);
    plan.gone = known.keys().filter(gone).cloned().collect();
    plan
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::super::walk::SeenFile;
    use super::*;

    fn file(size: u64, mtime: u64) -> SeenFile {
        SeenFile { path: PathBuf::new(), size, mtime: Timestamp(mtime) }
    }

    fn known(size: u64, mtime: u64) -> Known {
        Known { size: Some(size), mtime: Some(Timestamp(mtime)), blake3: Some("h".into()) }
    }

    fn seen(files: BTreeMap<String, (u64, u64)>) -> Seen {
        let files = files.into_iter().map(|(id, (size, mtime))| (id, file(size, mtime))).collect();
        Seen { files, looked_at: vec![String::new()], ..Seen::default() }
    }

    #[test]
    fn a_body_that_lacks_something_is_written_again() {
        let present = seen(BTreeMap::from([("a".to_owned(), (1, 1))]));
        let lacking = Known { blake3: None, ..known(1, 1) };
        let plan = plan(&BTreeMap::from([("a".to_owned(), lacking)]), &present);
        assert_eq!(plan.read, ["a"]);
    }

    #[test]
    fn nothing_below_what_could_not_be_looked_at_counts_as_gone() {
        let objects = ["a", "d/x", "d/y/z", "dd"].map(|id| (id.to_owned(), known(1, 1)));
        let present = Seen { not_looked_at: vec!["d".to_owned()], ..seen(BTreeMap::new()) };
        assert_eq!(plan(&objects.into(), &present).gone, ["a", "dd"]);
    }

    #[test]
    fn only_what_was_looked_at_can_be_gone() {
        let objects = ["a", "d", "d/x", "dd"].map(|id| (id.to_owned(), known(1, 1)));
        let present = Seen { looked_at: vec!["d".to_owned()], ..seen(BTreeMap::new()) };
        assert_eq!(plan(&objects.into(), &present).gone, ["d", "d/x"]);
    }

    proptest! {
        #[test]
        fn following_a_plan_makes_objects_equal_to_files(
            before in btree_map("[a-c]{1,2}", (0u64..3, 0u64..3), 0..8),
            after in btree_map("[a-c]{1,2}", (0u64..3, 0u64..3), 0..8),
        ) {
            let mut objects: BTreeMap<String, Known> =
                before.iter().map(|(id, (s, m))| (id.clone(), known(*s, *m))).collect();
            let present = seen(after.clone());
            let first = plan(&objects, &present);
            prop_assert_eq!(first.read.len() + first.unchanged, after.len());
            for id in &first.read {
                prop_assert_ne!(before.get(id), after.get(id));
                let (size, mtime) = after[id];
                objects.insert(id.clone(), known(size, mtime));
            }
            for id in &first.gone {
                prop_assert!(objects.remove(id).is_some());
            }
            let wanted: BTreeMap<String, Known> =
                after.iter().map(|(id, (s, m))| (id.clone(), known(*s, *m))).collect();
            prop_assert_eq!(&objects, &wanted);
            let again = plan(&objects, &present);
            prop_assert!(again.read.is_empty() && again.gone.is_empty());
        }
    }
}
