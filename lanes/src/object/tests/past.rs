//! What a change may name, and that its verdict does not depend on what else a device holds.

use super::super::*;
use super::hostile::sealed;
use super::*;

pub(crate) const C: [u8; 16] = [3; 16];

/// A change with its author.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) change: EncodedChange,
    pub(crate) actor: [u8; 16],
}

impl Made {
    pub(crate) fn incoming(&self) -> Incoming<'_> {
        Incoming { change: &self.change.bytes, hash: self.change.hash, actor: self.actor }
    }
}

/// The bytes of a change after its length, and the same with another such part.
fn body_of(change: &[u8]) -> &[u8] {
    let length = change[9..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    &change[9 + length..]
}

fn with_body(change: &Made, body: &[u8]) -> Made {
    let mut bytes = change.change.bytes[..9].to_vec();
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    let (bytes, hash) = sealed(bytes);
    made(bytes, hash, change.actor)
}

pub(crate) fn made(bytes: Vec<u8>, hash: ChangeHash, actor: [u8; 16]) -> Made {
    let body = body_of(&bytes);
    let named = body.get(1..).unwrap_or_default().chunks_exact(32);
    let named = named.take(usize::from(body.first().copied().unwrap_or(0)));
    let deps = named.map(|hash| ChangeHash(hash.try_into().unwrap()));
    let deps = deps.filter(|hash| *hash != skeleton().hash).collect();
    Made { change: EncodedChange { hash, bytes, deps }, actor }
}

/// The change without one of the changes that it follows.
fn without_dep(change: &Made, dep: ChangeHash) -> Made {
    let body = body_of(&change.change.bytes);
    let count = usize::from(body[0]);
    let mut new = vec![(count - 1) as u8];
    let hashes = body[1..].chunks(32).take(count).filter(|hash| *hash != dep.0);
    new.extend(hashes.flatten());
    new.extend(&body[1 + 32 * count..]);
    with_body(change, &new)
}

fn make(object: &mut Object, content: &Content, actor: [u8; 16]) -> Option<Made> {
    let change = object.set(content, actor, NOW).unwrap()?;
    Some(Made { change, actor })
}

/// The first of them that is refused, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    at: usize,
    pub(crate) error: DocumentError,
}

pub(crate) fn takes(object: &Object, changes: &[&Made]) -> Result<Object, Refused> {
    let changes: Vec<_> = changes.iter().map(|made| made.incoming()).collect();
    let taken = object.with_each(&changes, &BTreeMap::new());
    match taken.refused.into_iter().next() {
        Some((at, error)) => Err(Refused { at, error }),
        None => Ok(taken.object),
    }
}

/// A and B write the same place apart, B much besides; then B, who has both, writes it again, and
/// says to have had its own change only.
fn misleading(second: Value) -> (Object, Made, Made, Made) {
    let mut base = Object::new();
    set(&mut base, json!({"n": 0, "l": [1, 2]}), A);
    let (mut a, mut b) = (base.clone(), base.clone());
    let by_a = make(&mut a, &content(json!({"n": 1, "l": [1, 2, 3]})), A).unwrap();
    let long: Vec<u8> = (0..50).collect();
    let by_b = make(&mut b, &content(json!({"n": 0, "l": [1, 2], "o": long})), B).unwrap();
    b = takes(&b, &[&by_a]).unwrap();
    let honest = make(&mut b, &content(second), B).unwrap();
    let misleads = without_dep(&honest, by_a.change.hash);
    (base, by_a, by_b, misleads)
}

#[test]
fn what_its_author_did_not_have_cannot_be_overwritten_or_followed() {
    for second in [json!({"n": 2, "l": [1, 2, 3]}), json!({"n": 1, "l": [1, 2, 3, 4]})] {
        let (base, by_a, by_b, misleads) = misleading(second);
        // It is refused where what it names is there, in company or before it, and where it is not.
        let both = takes(&base, &[&by_a, &by_b]).unwrap();
        let without = takes(&base, &[&by_b]).unwrap();
        for object in [&both, &without] {
            takes(object, &[&misleads]).unwrap_err();
        }
        let refusal = takes(&base, &[&by_a, &by_b, &misleads]).unwrap_err();
        let not_its_past = "it names what its author did not have";
        assert!(
            matches!(refusal.error, DocumentError::Schema { reason, .. } if reason == not_its_past),
            "{refusal:?}"
        );
        assert_eq!(refusal.at, 2);
        let alone = takes(&both, &[&misleads]).unwrap_err();
        assert_eq!(alone.error, refusal.error);
    }
}

#[test]
fn what_lies_at_another_place_cannot_be_overwritten_whatever_comes_with_it() {
    let mut object = Object::new();
    set(&mut object, json!({"a": 1, "b": 1}), A);
    let before = object.clone();
    let at_b = make(&mut object, &content(json!({"a": 1, "b": 2})), B).unwrap();
    // The same operation, at /a: it overwrites what lies at /b.
    let bytes = &at_b.change.bytes;
    let at = bytes.windows(3).position(|bytes| bytes == b"\x02/b").unwrap() + 2;
    let mut body = body_of(bytes).to_vec();
    let from_the_end = bytes.len() - at;
    let at = body.len() - from_the_end;
    assert_eq!(body[at], b'b');
    body[at] = b'a';
    let at_a = with_body(&at_b, &body);
    let writes_b = {
        let mut object = before.clone();
        make(&mut object, &content(json!({"a": 1, "b": 3})), A).unwrap()
    };
    takes(&before, &[&at_a]).unwrap_err();
    let refusal = takes(&before, &[&writes_b, &at_a]).unwrap_err();
    assert_eq!(refusal.at, 1);
    takes(&before, &[&at_a, &writes_b]).unwrap_err();
}

#[test]
fn a_change_follows_its_authors_last_one() {
    let mut object = Object::new();
    set(&mut object, json!({"n": 0}), A);
    let mut fork = object.clone();
    let one = make(&mut object, &content(json!({"n": 1})), B).unwrap();
    let two = make(&mut fork, &content(json!({"n": 2})), B).unwrap();
    let error = takes(&object, &[&two]).unwrap_err().error;
    assert!(matches!(error, DocumentError::Order(_)), "{error}");
    let mut base = Object::new();
    set(&mut base, json!({"n": 0}), A);
    assert_eq!(takes(&base, &[&one, &two]).unwrap_err().at, 1);
}

#[test]
fn an_element_that_was_written_again_can_be_written_again() {
    let mut object = Object::new();
    let first = make(&mut object, &content(json!([1, 2, 3])), A).unwrap();
    let mut changes = vec![first];
    for n in 4..8 {
        // Two devices apart, then one that has seen both: conflicts in an element, and their end.
        let mut other = object.clone();
        let (a, b) = (json!([1, n, 3]), json!([1, n + 100, 3]));
        let by_a = make(&mut object, &content(a), A).unwrap();
        let by_b = make(&mut other, &content(b), B).unwrap();
        object = takes(&object, &[&by_b]).unwrap();
        let ends = make(&mut object, &content(json!([1, n + 50, 3])), C).unwrap();
        changes.extend([by_a, by_b, ends]);
    }
    let mut single = Object::new();
    for made in &changes {
        single = takes(&single, &[made]).unwrap();
    }
    let together: Vec<&Made> = changes.iter().collect();
    let whole = takes(&Object::new(), &together).unwrap();
    for taken in [&single, &whole] {
        assert_eq!((taken.heads(), body(taken)), (object.heads(), body(&object)));
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write { who: usize, body: usize, salt: u8 },
    Pull { who: usize, from: usize },
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_usize, 0..5_usize, 0..4_u8)
            .prop_map(|(who, body, salt)| Step::Write { who, body, salt }),
        1 => (0..3_usize, 0..3_usize).prop_map(|(who, from)| Step::Pull { who, from }),
    ];
    proptest::collection::vec(step, 4..24)
}

fn some_content(body: usize, salt: u8) -> Content {
    let body = match body {
        0 => json!({"a": salt, "l": [1, salt, 3], "t": "some text", "c": 1}),
        1 => {
            json!({"a": 0, "l": [salt, 1, 2, 3, salt], "t": format!("some {salt} text"), "c": salt})
        }
        2 => json!({"l": [{"x": salt}, 2], "t": "text", "c": 5, "o": {"p": {"q": salt}}}),
        3 => json!({"a": [salt], "t": "so me te xt", "c": 1, "o": salt}),
        _ => json!({"l": [1, [salt], 3], "c": i64::from(salt) - 2, "t": ""}),
    };
    let types = [("/t".to_owned(), LeafType::Text), ("/c".to_owned(), LeafType::Counter)];
    Content::typed("note", "private", BTreeMap::new(), body, types.into()).unwrap()
}

/// All changes of a history, each after those that it follows.
pub(crate) fn history(steps: &[Step], actors: [[u8; 16]; 3]) -> Vec<Made> {
    let mut devices: Vec<Object> = vec![Object::new(); 3];
    let mut all: Vec<Made> = Vec::new();
    for step in steps {
        match *step {
            Step::Write { who, body, salt } => {
                let content = some_content(body, salt);
                all.extend(make(&mut devices[who], &content, actors[who]));
            }
            Step::Pull { who, from } => {
                let theirs: Vec<&Made> =
                    all.iter().filter(|made| devices[from].has(made.change.hash)).collect();
                devices[who] = takes(&devices[who], &theirs).unwrap();
            }
        }
    }
    all
}

/// What is left when these come in this order, so many at once.
pub(crate) fn left(changes: &[&Made], at_once: usize) -> (Vec<ChangeHash>, View) {
    let mut object = Object::new();
    let mut stalled = BTreeMap::new();
    for some in changes.chunks(at_once) {
        let incoming: Vec<_> = some.iter().map(|made| made.incoming()).collect();
        let taken = object.with_each(&incoming, &stalled);
        for (at, _) in taken.refused {
            stalled.entry(some[at].actor).or_insert(some[at].change.hash);
        }
        object = taken.object;
    }
    let view = object.view().unwrap();
    (object.heads(), view)
}

/// Changes and one that misleads, which comes as early as it can or as late.
fn orders<'a>(changes: &'a [Made], misleads: &'a Made) -> Vec<Vec<&'a Made>> {
    let early = misleads
        .change
        .deps
        .iter()
        .map(|dep| changes.iter().position(|made| made.change.hash == *dep).map_or(0, |at| at + 1))
        .max()
        .unwrap_or(0);
    // A journal is applied in its order.
    let before = changes.iter().rposition(|made| made.actor == misleads.actor);
    let early = early.max(before.map_or(0, |at| at + 1));
    let mut by_author: Vec<&Made> = Vec::new();
    // As far as it goes, one author's after the other's.
    while by_author.len() < changes.len() {
        for actor in [C, B, A] {
            for made in changes.iter().filter(|made| made.actor == actor) {
                let has = |hash: &ChangeHash| by_author.iter().any(|m| m.change.hash == *hash);
                if !has(&made.change.hash) && made.change.deps.iter().all(has) {
                    by_author.push(made);
                }
            }
        }
    }
    let insert = |mut all: Vec<&'a Made>, at: usize| {
        all.insert(at, misleads);
        all
    };
    let all: Vec<&Made> = changes.iter().collect();
    let late = by_author.len();
    vec![insert(all.clone(), early), insert(all, changes.len()), insert(by_author, late)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_same_follows_from_the_same_changes_in_any_order_and_company(
        steps in steps(),
        which in any::<prop::sample::Index>(),
        how in 0..4_usize,
        at in any::<prop::sample::Index>(),
        bits in 1..=255_u8,
    ) {
        let mut changes = history(&steps, [A, B, C]);
        prop_assume!(!changes.is_empty());
        // To leave out one of several that it follows, or to change its bytes.
        let merges: Vec<usize> =
            (0..changes.len()).filter(|at| changes[*at].change.deps.len() > 1).collect();
        let which = match how < 2 && !merges.is_empty() {
            true => merges[which.index(merges.len())],
            false => which.index(changes.len()),
        };
        let honest = changes.remove(which);
        let body = body_of(&honest.change.bytes);
        let misleads = if how < 2 && honest.change.deps.len() > 1 {
            without_dep(&honest, honest.change.deps[at.index(honest.change.deps.len())])
        } else {
            // Names of actors and numbers lie near the end, and at its very end what it overwrites.
            let mut body = body.to_vec();
            let last = body.len() - if how == 3 { 1 } else { body.len() / 2 } - 1;
            let at = last.min(last.saturating_sub(8) + at.index(body.len()));
            body[at] = if how == 2 { body[at] ^ bits } else { body[at].wrapping_add(bits % 3) };
            with_body(&honest, &body)
        };
        // What followed the honest one is not there.
        let mut gone = vec![honest.change.hash];
        changes.retain(|made| {
            let follows = made.change.deps.iter().any(|dep| gone.contains(dep));
            if follows {
                gone.push(made.change.hash);
            }
            !follows
        });
        let orders = orders(&changes, &misleads);
        let expected = left(&orders[0], 1);
        for order in &orders {
            for at_once in [1, 2, usize::MAX] {
                prop_assert_eq!(&left(order, at_once), &expected);
            }
        }
    }
}
