//! Vectors and laws of the canonical texts.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json::{Limits, parse};

fn value(text: &str) -> Value {
    parse(text.as_bytes(), Limits::BODY).unwrap()
}

/// The estate's columns of the file come from Python's `json` and `hashlib`.
#[test]
fn every_vector_of_the_published_file_holds() {
    let vectors = value(include_str!("../../vectors/canonical.json"));
    for vector in vectors.as_array().unwrap() {
        let said = |name: &str| vector[name].as_str().unwrap();
        let read = value(said("text"));
        assert_eq!(estate(&read), said("estate"));
        assert_eq!(estate_spaced(&read), said("estate_spaced"));
        assert_eq!(digest(&read), said("digest"));
        assert_eq!(derived_id_spaced("", &read, 64), said("spaced_sha256"));
        assert_eq!(derived_id("x-", &read, 20), format!("x-{}", &said("digest")[7..27]));
        match vector["rfc8785"].as_str() {
            Some(text) => assert_eq!(rfc8785(&read).unwrap(), text),
            None => assert!(rfc8785(&read).is_err()),
        }
    }
}

#[test]
fn numbers_are_written_as_the_rfc_lists_them() {
    // Appendix B of RFC 8785: the bits of a float, and its text.
    for (bits, text) in [
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        let float = Number::from_f64(f64::from_bits(bits)).unwrap();
        assert_eq!(rfc8785_number(&float).unwrap(), text, "{bits:x}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_estates_text_reads_back_as_the_same_value(value in any_value()) {
        for text in [estate(&value), estate_spaced(&value)] {
            prop_assert!(text.is_ascii());
            prop_assert_eq!(&parse(text.as_bytes(), Limits::BODY).unwrap(), &value);
        }
    }

    #[test]
    fn the_standard_text_is_a_fixed_point(value in any_value()) {
        if let Ok(text) = rfc8785(&value) {
            let read: Value = serde_json::from_str(&text).unwrap();
            // Floats that are whole come back as integers, beyond 2^53 too: those have no text.
            if let Ok(again) = rfc8785(&read) {
                prop_assert_eq!(again, text);
            }
        }
    }

    #[test]
    fn floats_read_back_exactly(float in any::<f64>()) {
        if let Some(number) = Number::from_f64(float) {
            prop_assert_eq!(estate_number(&number).parse::<f64>().unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(rfc8785_number(&number).unwrap().parse::<f64>().unwrap(), float);
        }
    }
}

#[test]
fn one_and_one_point_zero_differ_for_the_estate_only() {
    assert_ne!(digest(&json!([1])), digest(&json!([1.0])));
    assert_eq!(rfc8785(&json!([1])), rfc8785(&json!([1.0])));
}
