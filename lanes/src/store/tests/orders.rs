//! The same entries, in any order: the same objects, whatever members sign.

use proptest::prelude::*;

use super::misled::{journal, signed_after};
use super::*;
use crate::journal::After;
use crate::object::EncodedChange;
use crate::object::tests::crafted::with_crafted;
use crate::object::tests::past::Made;

/// What a device tells of an object, but for the reason of a quarantine, which is its own.
type Told =
    (String, String, Vec<crate::ids::ChangeHash>, String, WallMillis, DeviceId, u32, [bool; 2]);

/// Hands over the journals of some authors, as many entries of each at once and in the order that
/// the turns say, and tells what the object is then.
fn told(
    journals: &[(Author, Vec<Vec<u8>>)],
    turns: &[(usize, usize)],
    work_target: usize,
) -> Option<Told> {
    let mut device = Device::new(9);
    device.store().work_target = work_target;
    let mut next = vec![0_usize; journals.len()];
    let all = (0..journals.len()).map(|which| (which, usize::MAX));
    for (which, count) in turns.iter().copied().chain(all) {
        let which = which % journals.len();
        let (author, entries) = &journals[which];
        let from = next[which];
        let to = from.saturating_add(count).min(entries.len());
        if from < to {
            let entries = entries[from..to].iter().map(Vec::as_slice).collect();
            let run = Run { lane: LaneId::Normal, author: *author, entries };
            device.store().receive(&run, &[MESH], WallMillis(9)).unwrap();
            // Now and then something is left for later.
            while device.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap().more
                && count % 2 == 0
            {}
            next[which] = to;
        }
        if count % 3 != 0 {
            device.store().commit().unwrap();
        }
    }
    while device.store().advance(LaneId::Normal, WallMillis(9), usize::MAX).unwrap().more {}
    device.store().commit().unwrap();
    for (author, entries) in journals {
        let row = device.store().journal(LaneId::Normal, author);
        assert_eq!(row.map_or(0, |row| row.applied), entries.len() as u64, "none waits");
    }
    let Visibility::Shown(object) = device.see(LaneId::Normal, "x") else { return None };
    let row = object.row;
    let quarantined = matches!(row.state, RowState::Quarantined(_));
    let heads = row.heads.iter().map(|head| head.hash).collect();
    let (at, by) = (row.updated_at, object.author);
    let states = [quarantined, row.confined];
    Some((row.body, row.class, heads, row.kind, at, by, row.changes, states))
}

fn keys() -> [SigningKey; 4] {
    [1, 2, 3, 4].map(|n| SigningKey::from_bytes(&[n; 32]))
}

fn authors() -> [Author; 4] {
    keys()
        .map(|key| Author { device: key.device(), incarnation: crate::ids::Incarnation::first(7) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_the_same_entries_gives_the_same_object(
        changes in with_crafted(authors().map(|author| author.actor())),
        copied in prop::option::of(any::<prop::sample::Index>()),
        turns in prop::collection::vec(prop::collection::vec((0..4_usize, 1..5_usize), 0..12), 2),
    ) {
        let mut by_author: Vec<Vec<EncodedChange>> = vec![Vec::new(); 4];
        for Made { change, actor } in &changes {
            let which = authors().iter().position(|author| author.actor() == *actor).unwrap();
            by_author[which].push(change.clone());
        }
        // The fourth puts its name to what another wrote, before its own.
        if let (Some(copied), false) = (copied, changes.is_empty()) {
            let copied = changes[copied.index(changes.len())].change.clone();
            by_author[3].insert(0, copied);
        }
        let journals: Vec<(Author, Vec<Vec<u8>>)> = keys()
            .iter()
            .zip(authors())
            .zip(&by_author)
            .map(|((key, author), changes)| (author, journal(key, author, "x", changes, Vec::new())))
            .collect();
        let expected = told(&journals, &[], WORK_BYTES_TARGET);
        // All at once: each journal waits for an entry that comes last.
        let gate = SigningKey::from_bytes(&[5; 32]);
        let by_gate = Author { device: gate.device(), ..authors()[0] };
        let content = crate::object::Content::of(json!("open")).unwrap();
        let open = crate::object::Object::create(&content, by_gate.actor(), WallMillis(1));
        let after = vec![After { author: by_gate, seq: 1 }];
        let behind = |((key, author), changes): ((&SigningKey, Author), &Vec<EncodedChange>)| {
            let items: Vec<_> = changes.iter().map(|change| vec![("x", 1, change)]).collect();
            let lane = LaneId::Normal;
            (author, signed_after(key, author, lane, Vec::new(), &items, after.clone()))
        };
        let keys = keys();
        let mut gated: Vec<_> = keys.iter().zip(authors()).zip(&by_author).map(behind).collect();
        gated.push((by_gate, journal(&gate, by_gate, "gate", &[open], Vec::new())));
        prop_assert_eq!(&told(&gated, &[], WORK_BYTES_TARGET), &expected);
        for (turns, work_target) in turns.iter().zip([WORK_BYTES_TARGET, 1]) {
            prop_assert_eq!(&told(&journals, turns, work_target), &expected);
        }
    }
}
