//! Stories about membership, deletion, time and policy.

use serde_json::json;
use srcos_lanes::lane::LaneId::{Normal, Secure};
use srcos_lanes::store::PutContent;

use super::Scenario;
use crate::invariants::Checked;
use crate::options::Topology;
use crate::scheduler::Stream;
use crate::workload::NEEDLE;
use crate::world::World;

const DAY_MS: i64 = 24 * 3_600_000;

pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "revoked-while-away",
        "a device writes while it is away, and is put out meanwhile: its writes are not taken",
        3,
        revoked_while_away,
    ),
    Scenario::new(
        "revoked-on-the-other-side",
        "what one side held of a device when it heard of its revocation, all take",
        3,
        revoked_on_the_other_side,
    ),
    Scenario::new(
        "witness-put-out-unheard",
        "what was taken in on the word of a witness stays, also when the witness is put out by who did not hear it",
        4,
        witness_put_out_unheard,
    ),
    Scenario::new(
        "admitted-by-who-was-put-out-unheard",
        "a device is taken in by one that is put out by who did not hear it: who believed it keeps what it wrote",
        3,
        admitted_by_who_was_put_out_unheard,
    )
    .shaped(|options| options.outsiders = 1),
    Scenario::new(
        "admission-lost",
        "who admitted a device loses the record of it; it and the next newcomer are strangers until it meets one it knows",
        2,
        admission_lost,
    )
    .shaped(|options| {
        options.outsiders = 2;
        options.topology = Topology::Islands;
    }),
    Scenario::new(
        "put-out-by-who-was-put-out",
        "who was put out by one that was put out unheard is a member, and speaks for the mesh when the third loses it",
        3,
        put_out_by_who_was_put_out,
    ),
    Scenario::new(
        "begun-anew-beside-one-put-out",
        "a lost mesh is begun anew while one that was put out still holds the old one: the new one says who is a member",
        3,
        begun_anew_beside_one_put_out,
    ),
    Scenario::new(
        "void-and-put-out",
        "a device with a past is put out by one, and its sponsor by another: what was held of it is held by all",
        3,
        void_and_put_out,
    )
    .shaped(|options| options.outsiders = 1),
    Scenario::new(
        "revoked-at-the-same-moment",
        "an entry and the revocation of its author cross on their way; in the end all hold it",
        3,
        revoked_at_the_same_moment,
    )
    .shaped(|options| {
        options.topology = Topology::Star;
        options.links.latency_ms_min = 10;
        options.links.latency_ms_max = 10;
    }),
    Scenario::new(
        "deleted-on-both-sides",
        "two devices delete an object apart; all name the same one",
        3,
        deleted_on_both_sides,
    ),
    Scenario::new(
        "deleted-while-away-for-a-year",
        "a device comes back after a year and cannot bring back what was deleted",
        3,
        deleted_while_away_for_a_year,
    ),
    Scenario::new(
        "clock-a-year-ahead",
        "a device whose clock is a year ahead takes part; nothing expires or is lost for it",
        3,
        clock_a_year_ahead,
    ),
    Scenario::new(
        "secrets-stay",
        "secure lanes and secret objects never leave, also when an open object becomes secret",
        2,
        secrets_stay,
    ),
    Scenario::new(
        "denied-in-mid-transfer",
        "a grant for the secure lane is taken back while its entries are on their way: no more of them go",
        3,
        denied_in_mid_transfer,
    )
    .shaped(|options| options.links.bytes_per_ms = 20),
    Scenario::new(
        "join-with-a-past",
        "a device joins with entries of its own, which all members take",
        2,
        join_with_a_past,
    )
    .shaped(|options| options.outsiders = 1),
    Scenario::new(
        "paired-again-with-a-past",
        "a member loses its store, works on in a mesh of its own, and is paired again",
        3,
        paired_again_with_a_past,
    ),
    Scenario::new(
        "created-again",
        "an id is deleted and created again, apart and at once; each life is shown once",
        3,
        created_again,
    ),
    Scenario::new(
        "ephemeral-expiry",
        "objects expire on time after sleep, and their chain stays whole",
        2,
        ephemeral_expiry,
    ),
    Scenario::new(
        "revoked-in-mid-transfer",
        "a device is put out while its entries are on their way: all others accept the same part",
        4,
        revoked_in_mid_transfer,
    )
    .shaped(|options| options.links.bytes_per_ms = 20),
];

fn revoked_while_away(world: &mut World) -> Checked {
    world.put(2, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.part(&[2]);
    world.pass(5_000)?;
    world.put_out(0, 2)?;
    world.put(2, Normal, "after", json!(1))?;
    world.pass(20_000)?;
    world.mend_network();
    world.pass(60_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(1, Normal, "before").is_some(), "what was accepted stays")?;
    world.claim(world.shows(1, Normal, "after").is_none(), "what came after is not taken")
}

fn revoked_on_the_other_side(world: &mut World) -> Checked {
    world.pass(5_000)?;
    world.part(&[0]);
    world.put_out(0, 2)?;
    world.put(2, Normal, "unsuspecting", json!(1))?;
    world.pass(5_000)?;
    world.claim(world.shows(1, Normal, "unsuspecting").is_some(), "the second has taken it")?;
    world.mend_network();
    world.pass(60_000)?;
    world.come_to_rest()?;
    let shown = world.shows(0, Normal, "unsuspecting");
    world.claim(shown == Some(json!(1)), "what was held in good faith stays")
}

fn witness_put_out_unheard(world: &mut World) -> Checked {
    world.pass(5_000)?;
    world.part(&[1, 2]);
    world.put_out(0, 2)?;
    world.put(2, Normal, "unsuspecting", json!(1))?;
    world.pass(5_000)?;
    world.claim(world.shows(1, Normal, "unsuspecting").is_some(), "the witness has taken it")?;
    world.mend_network();
    world.part(&[3]);
    world.pass(60_000)?;
    world.claim(world.shows(0, Normal, "unsuspecting").is_some(), "the witness is believed")?;
    world.put_out(3, 1)?;
    world.mend_network();
    world.pass(60_000)?;
    world.come_to_rest()?;
    let shown = world.shows(3, Normal, "unsuspecting");
    world.claim(shown == Some(json!(1)), "who believed the witness testifies in its place")
}

fn admitted_by_who_was_put_out_unheard(world: &mut World) -> Checked {
    let (newcomer, theirs) = (3, Some(json!({ "by": "the newcomer" })));
    world.pass(5_000)?;
    world.part(&[0]);
    world.take_in(1, newcomer)?;
    world.pass(5_000)?;
    world.put(newcomer, Normal, "theirs", json!({ "by": "the newcomer" }))?;
    world.pass(5_000)?;
    world
        .claim(world.shows(2, Normal, "theirs") == theirs, "who heard of it takes what it wrote")?;
    world.put_out(0, 1)?;
    world.mend_network();
    world.put(2, Normal, "honest", json!(1))?;
    world.pass(60_000)?;
    world.come_to_rest()?;
    for member in [0, 2] {
        world.claim(!world.takes_for_member(member, newcomer), "it has to be paired again")?;
        world.claim(world.shows(member, Normal, "honest").is_some(), "nothing else is held up")?;
    }
    world.claim(world.shows(2, Normal, "theirs") == theirs, "what was taken in stays there")?;
    world.claim(world.shows(0, Normal, "theirs").is_none(), "and goes to nobody else")
}

fn admission_lost(world: &mut World) -> Checked {
    world.pass(5_000)?;
    world.part(&[1]);
    world.take_backup(0);
    world.take_in(0, 3)?;
    world.put(3, Normal, "theirs", json!(1))?;
    world.restore(0, false);
    world.pass(60_000)?;
    world.bring_back(0)?;
    world.claim(!world.takes_for_member(0, 3), "nobody but itself has its admission")?;
    world.take_in(0, 2)?;
    world.mend_network();
    world.pass(60_000)?;
    world.claim(!world.takes_for_member(2, 3), "the newcomers are strangers to each other")?;
    world.come_to_rest()?;
    world.claim(world.shows(0, Normal, "theirs").is_some(), "it was in the mesh all the time")
}

fn put_out_by_who_was_put_out(world: &mut World) -> Checked {
    world.pass(5_000)?;
    world.part(&[1]);
    world.put_out(1, 0)?;
    world.put_out(2, 1)?;
    world.pass(5_000)?;
    world.wipe(2);
    world.pass(60_000)?;
    world.mend_network();
    world.come_to_rest()?;
    world.claim(world.happened("mesh lost") == 0, "it is not begun anew")?;
    world.claim(world.takes_for_member(2, 0), "the one revocation is void")?;
    world.claim(!world.takes_for_member(2, 1), "and the other holds")
}

fn begun_anew_beside_one_put_out(world: &mut World) -> Checked {
    world.put(0, Normal, "note", json!(1))?;
    world.pass(5_000)?;
    world.put_out(1, 0)?;
    world.wipe(1);
    world.wipe(2);
    world.pass(60_000)?;
    world.claim(world.happened("mesh lost") == 1, "it is begun anew")?;
    world.claim(world.takes_for_member(1, 2), "and takes in who lost its store")?;
    // Whoever was put out of the old one still takes it for a member there.
    world.put_out(1, 2)?;
    world.come_to_rest()?;
    world.claim(world.takes_for_member(0, 2), "the old roster is as it was")?;
    world.claim(!world.takes_for_member(1, 2), "the new one goes by its own")
}

fn void_and_put_out(world: &mut World) -> Checked {
    let newcomer = 3;
    // Written in the mesh of one that it brings along.
    world.put(newcomer, Normal, "past", json!(1))?;
    world.pass(5_000)?;
    world.part(&[0]);
    world.take_in(1, newcomer)?;
    world.pass(10_000)?;
    world.claim(world.shows(2, Normal, "past").is_some(), "it is taken in with its past")?;
    world.put_out(2, newcomer)?;
    world.put_out(0, 1)?;
    world.mend_network();
    world.pass(60_000)?;
    world.come_to_rest()?;
    for member in [0, 2] {
        world.claim(!world.takes_for_member(member, newcomer), "it is out")?;
        let shown = world.shows(member, Normal, "past");
        world.claim(shown == Some(json!(1)), "what was held of it stays, and goes to all")?;
    }
    Ok(())
}

fn revoked_at_the_same_moment(world: &mut World) -> Checked {
    world.pass(5_000)?;
    // It is with the one in the middle in 10 ms, and comes to the other 10 ms later. The word of the
    // revocation leaves before that, and comes to the middle after it.
    world.put(2, Normal, "crossing", json!(1))?;
    world.pass(5)?;
    world.put_out(1, 2)?;
    world.pass(120_000)?;
    world.claim(world.shows(0, Normal, "crossing").is_some(), "it came before the word")?;
    let shown = world.shows(1, Normal, "crossing");
    world.claim(shown == Some(json!(1)), "what was refused at first is taken in the end")?;
    world.come_to_rest()
}

fn deleted_on_both_sides(world: &mut World) -> Checked {
    world.put(0, Normal, "doomed", json!(1))?;
    world.pass(5_000)?;
    world.part(&[0]);
    world.delete(0, Normal, "doomed")?;
    world.pass(1_000)?;
    world.delete(1, Normal, "doomed")?;
    world.pass(5_000)?;
    world.mend_network();
    world.come_to_rest()
}

fn deleted_while_away_for_a_year(world: &mut World) -> Checked {
    world.put(0, Normal, "doomed", json!(1))?;
    world.put(0, Normal, "edited", json!({ "a": 1 }))?;
    world.pass(5_000)?;
    world.take_away(2)?;
    world.delete(1, Normal, "doomed")?;
    world.delete(1, Normal, "edited")?;
    world.pass(10_000)?;
    world.sleep_days(365);
    world.work(0, 5, 1)?;
    world.bring_back(2)?;
    world.put(2, Normal, "edited", json!({ "a": 1, "b": 2 }))?;
    world.pass(60_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(2, Normal, "doomed").is_none(), "it is deleted there too")?;
    world.claim(world.shows(0, Normal, "doomed").is_none(), "it is not brought back")
}

fn clock_a_year_ahead(world: &mut World) -> Checked {
    world.jump_clock(1, 365 * DAY_MS);
    world.put(1, Normal, "note", json!({ "by": "the one ahead" }))?;
    world.pass(5_000)?;
    world.put(0, Normal, "note", json!({ "by": "another, later" }))?;
    world.work(1, 10, 1)?;
    world.work(2, 10, 2)?;
    world.jump_clock(1, -365 * DAY_MS);
    world.work(1, 5, 3)?;
    world.come_to_rest()?;
    let shown = world.shows(2, Normal, "note");
    world.claim(shown == Some(json!({ "by": "another, later" })), "a later edit wins, not a clock")
}

fn secrets_stay(world: &mut World) -> Checked {
    let secret = json!({ "secret": format!("{NEEDLE}1") });
    world.put(0, Secure, "key", secret.clone())?;
    world.put(0, Normal, "open", json!({ "a": 1 }))?;
    world.part(&[0]);
    world.put(0, Normal, "open", json!({ "a": 2 }))?;
    let class = Some("secret".to_owned());
    world.put_as(0, Normal, "open", PutContent { class, body: secret, ..PutContent::default() })?;
    world.mend_network();
    world.pass(30_000)?;
    world.claim(world.shows(1, Secure, "key").is_none(), "the secure lane stays")?;
    world
        .claim(world.shows(1, Normal, "open") == Some(json!({ "a": 2 })), "the open part passes")?;
    world.come_to_rest()
}

fn denied_in_mid_transfer(world: &mut World) -> Checked {
    let opened = [(Secure, None), (Secure, Some("secret"))];
    world.grant(0, 1, &opened)?;
    world.grant(1, 0, &opened)?;
    world.pass(5_000)?;
    let secret = |n: usize| json!({ "secret": format!("{NEEDLE}{n}"), "text": "x".repeat(20_000) });
    for number in 0..20 {
        let class = Some("secret".to_owned());
        let put = PutContent { class, body: secret(number), ..PutContent::default() };
        world.put_as(0, Secure, &format!("key/{number:02}"), put)?;
    }
    world.pass(5_000)?;
    world.grant(0, 0, &[])?;
    world.put(0, Secure, "late", json!(1))?;
    world.put(0, Normal, "open", json!(1))?;
    world.pass(60_000)?;
    let held = (0..20).filter(|n| world.shows(1, Secure, &format!("key/{n:02}")).is_some()).count();
    world.claim((1..20).contains(&held), "some were on their way, and the rest stayed")?;
    world.claim(world.shows(1, Secure, "late").is_none(), "what is written later stays")?;
    world.claim(world.shows(1, Normal, "open").is_some(), "all else goes on")?;
    world.claim(
        world.shows(2, Secure, "key/00").is_none(),
        "nobody hands on what was granted him",
    )?;
    world.come_to_rest()
}

fn join_with_a_past(world: &mut World) -> Checked {
    let outsider = 2;
    world.put(outsider, Normal, "its-own", json!(1))?;
    world.work(outsider, 10, 1)?;
    world.work(0, 10, 2)?;
    world.pass(5_000)?;
    world.take_in(1, outsider)?;
    world.work(outsider, 5, 3)?;
    world.pass(30_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(0, Normal, "its-own").is_some(), "what it brought is taken")
}

fn paired_again_with_a_past(world: &mut World) -> Checked {
    world.put(2, Normal, "before", json!(1))?;
    world.pass(5_000)?;
    world.lose(2);
    world.pass(60_000)?;
    world.put(2, Normal, "alone", json!(2))?;
    world.pass(5_000)?;
    world.take_in(0, 2)?;
    world.pass(60_000)?;
    world.come_to_rest()?;
    world.claim(world.shows(2, Normal, "before") == Some(json!(1)), "the mesh gave it back")?;
    world.claim(world.shows(1, Normal, "alone") == Some(json!(2)), "what it did alone is taken")
}

fn created_again(world: &mut World) -> Checked {
    for round in 0..6 {
        world.put(0, Normal, "phoenix", json!({ "round": round }))?;
        world.pass(3_000)?;
        world.part(&[0]);
        world.delete(0, Normal, "phoenix")?;
        world.put(0, Normal, "phoenix", json!({ "again": round }))?;
        world.delete(1, Normal, "phoenix")?;
        world.put(2, Normal, "phoenix", json!({ "edited": round }))?;
        world.pass(3_000)?;
        world.mend_network();
        world.pass(10_000)?;
    }
    world.come_to_rest()
}

fn ephemeral_expiry(world: &mut World) -> Checked {
    use srcos_lanes::lane::LaneId::Ephemeral;
    let put = |ttl_ms| PutContent { body: json!(1), ttl_ms: Some(ttl_ms), ..PutContent::default() };
    world.put_as(0, Ephemeral, "short", put(10_000))?;
    world.put_as(0, Ephemeral, "long", put(20 * 3_600_000))?;
    world.pass(15_000)?;
    world.claim(world.shows(0, Ephemeral, "short").is_none(), "the short one is gone")?;
    world.claim(world.shows(0, Ephemeral, "long").is_some(), "the long one is there")?;
    world.sleep_days(2);
    world.pass(1_000)?;
    world.claim(world.shows(0, Ephemeral, "long").is_none(), "after sleep it is gone too")?;
    world.come_to_rest()
}

fn revoked_in_mid_transfer(world: &mut World) -> Checked {
    for number in 0..40 {
        let text = Stream::new(number, "page", 0).text(2_000);
        let body = json!({ "n": number, "text": text });
        world.put(3, Normal, &format!("page/{number}"), body)?;
    }
    world.pass(700)?;
    world.put_out(0, 3)?;
    world.pass(60_000)?;
    world.come_to_rest()
}
