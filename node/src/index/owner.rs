//! Whose an object is: the folder's that is indexed, or somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use srcos_lanes::lane::LaneId;
use srcos_schemas::objects::{ObjectDocument, PAGE_LIMIT_MAX};

use crate::api::{ApiError, Detail, ErrorKind, ListQuery};
use crate::client::Client;

/// Label that names whose object it is.
pub const ROOT_LABEL: &str = "index_root";

/// Most ids that are asked for one by one. For more, what lies between the first and the last of them
/// is listed: a first pass over a large folder would else take a request for each file.
const ASKED_ONE_BY_ONE_MAX: usize = 32;

/// The same for one folder of one device under one prefix, always; different for every other.
pub fn root_label(device: &str, root: &Path, prefix: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"srcos index root 1\0");
    hasher.update(device.as_bytes());
    hasher.update(b"\0");
    hasher.update(root.as_os_str().as_encoded_bytes());
    // No path has a zero byte, so no prefix makes one folder look like another.
    if !prefix.is_empty() {
        hasher.update(b"\0");
        hasher.update(prefix.as_bytes());
    }
    data_encoding::HEXLOWER.encode(&hasher.finalize().as_bytes()[..8])
}

/// Which of these ids, given in order, are objects that do not bear the label.
pub(super) async fn taken(
    client: &Client,
    lane: LaneId,
    ids: &[&str],
    label: &str,
) -> Result<BTreeSet<String>, ApiError> {
    let mut taken = BTreeSet::new();
    let mut look = |object: &ObjectDocument| {
        if object.labels.get(ROOT_LABEL).is_none_or(|found| found != label) {
            taken.insert(object.id.clone());
        }
    };
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(taken) };
    let listed = ids.len() > ASKED_ONE_BY_ONE_MAX;
    for id in if listed { std::slice::from_ref(first) } else { ids } {
        match client.get_object(lane, id, Detail::default()).await {
            Ok(object) => look(&object),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    if !listed {
        return Ok(taken);
    }
    let mut query = ListQuery {
        prefix: None,
        kind: None,
        labels: BTreeMap::new(),
        limit: PAGE_LIMIT_MAX,
        // What comes after this id; the object of the id itself was looked at.
        after: Some((*first).to_owned()),
    };
    loop {
        let page = client.list(lane, &query).await?;
        let between = page.objects.iter().take_while(|object| object.id.as_str() <= *last);
        between.filter(|object| ids.binary_search(&&*object.id).is_ok()).for_each(&mut look);
        let beyond = page.objects.last().is_none_or(|object| object.id.as_str() > *last);
        query.after = page.next;
        if beyond || query.after.is_none() {
            return Ok(taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_folder_and_prefix_has_a_label_of_its_own() {
        let root = Path::new("/r");
        let labels = [
            root_label("a", root, ""),
            root_label("b", root, ""),
            root_label("a", Path::new("/r/d"), ""),
            root_label("a", root, "d/"),
            root_label("a", root, "e/"),
        ];
        assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len());
        assert_eq!(root_label("a", root, "d/"), labels[3]);
    }
}
