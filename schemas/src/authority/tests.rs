//! What holds of the family as a whole.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::contract::CapabilityContract;
use super::grant::CapabilityGrantState;
use super::network::NetworkTruth;
use super::phase::BootSessionPhase;
use super::registry::RuntimeRegistry;
use super::storm::DiagnosticStorm;
use super::*;
use crate::contracts::{Document, Options, Profile, Valid, validate};

fn reads_back<T: Document + Serialize + DeserializeOwned>(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap();
    let document = Valid::<T>::read(value.clone()).unwrap();
    assert_eq!(document.to_value(), value);
    Valid::new(document.into_inner()).unwrap();
}

#[test]
fn documents_read_into_their_types_and_back_unchanged() {
    reads_back::<CapabilityContract>(include_str!(
        "../../../examples/capability-authority/page-renderer.contract.json"
    ));
    reads_back::<CapabilityGrantState>(include_str!(
        "../../../examples/capability-authority/page-renderer.grants.json"
    ));
    reads_back::<DiagnosticStorm>(include_str!(
        "../../../examples/capability-authority/pasteboard-denials.storm.json"
    ));
    reads_back::<NetworkTruth>(include_str!(
        "../../../examples/capability-authority/mesh-only.network.json"
    ));
    reads_back::<RuntimeRegistry>(include_str!(
        "../../../examples/capability-authority/registry.published.json"
    ));
    reads_back::<BootSessionPhase>(include_str!(
        "../../../examples/capability-authority/locked.phase.json"
    ));
}

#[test]
fn the_four_ways_of_being_cut_off_have_four_names() {
    let fault = |text: &str| {
        let value = serde_json::from_str(text).unwrap();
        Valid::<NetworkTruth>::read(value).unwrap().fault()
    };
    let folder = |name: &str| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/capability-authority");
        std::fs::read_to_string(format!("{root}/{name}.network.json")).unwrap()
    };
    for (name, word) in [
        ("all-well", None),
        ("radio-on-no-route", Some("no-route")),
        ("no-dns", Some("no-dns")),
        ("no-internet", Some("no-internet")),
        ("mesh-only", Some("mesh-only")),
    ] {
        assert_eq!(fault(&folder(name)), word, "{name}");
    }
}

#[test]
fn a_profile_that_is_asked_for_is_the_one_that_must_hold() {
    let text = include_str!("../../../examples/capability-authority/page-renderer.contract.json");
    let whole: Value = serde_json::from_str(text).unwrap();
    let check = |change: &dyn Fn(&mut Value), held: &[Profile]| {
        let mut document = whole.clone();
        change(&mut document);
        let options =
            Options { contract: Some(&contract::CAPABILITY_CONTRACT), ..Options::default() };
        let verdict = validate(&document, &options);
        assert_eq!(verdict.profiles, held);
        assert_eq!(verdict.is_valid(), !held.is_empty());
        for profile in Profile::ALL {
            let asked = Options { profile: Some(profile), ..options };
            assert_eq!(validate(&document, &asked).is_valid(), held.contains(&profile));
        }
    };
    check(&|_| {}, &Profile::ALL);
    check(&|document| drop(document.as_object_mut().unwrap().remove("type")), &[Profile::Proposal]);
    check(
        &|document| drop(document.as_object_mut().unwrap().remove("requiredBrokers")),
        &[Profile::Published],
    );
    check(
        &|document| document["declaredCapabilities"] = json!(["pasteboard"]),
        &[Profile::Proposal],
    );
    check(&|document| document["type"] = json!("Capability"), &[]);
    check(&|document| document["note"] = json!(1), &[]);
}
