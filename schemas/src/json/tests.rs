//! What the strict reader takes and refuses.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Value, JsonError> {
    parse(text.as_bytes(), Limits::BODY)
}

fn check(text: &str, error: &str) {
    assert_eq!(read(text).unwrap_err().to_string(), error, "{text}");
}

#[test]
fn duplicate_keys_are_refused_with_key_and_place() {
    check(r#"{"a":1,"a":2}"#, "duplicate key \"a\" at line 1 column 8");
    check("{\n  \"é\": {\"b\": 1,\n  \"b\": 2}}", "duplicate key \"b\" at line 3 column 3");
    check(r#"{"a":1,"\u0061":2}"#, "duplicate key \"a\" at line 1 column 8");
    assert!(read(r#"[{"a":1},{"a":2}]"#).is_ok());
}

#[test]
fn integers_are_exact_up_to_64_bits_and_refused_beyond() {
    assert_eq!(read("18446744073709551615").unwrap(), json!(u64::MAX));
    assert_eq!(read("-9223372036854775808").unwrap(), json!(i64::MIN));
    let hint = "does not fit 64 bits; write it as a string, or as a float with a point";
    check(
        "18446744073709551616",
        &format!("integer 18446744073709551616 {hint} at line 1 column 1"),
    );
    check(
        "[1, -9223372036854775809]",
        &format!("integer -9223372036854775809 {hint} at line 1 column 5"),
    );
    assert_eq!(read("18446744073709551616.0").unwrap(), json!(18446744073709551616.0));
    check("1e400", "number 1e400 is beyond the range of a 64-bit float at line 1 column 1");
}

#[test]
fn number_kinds_are_kept() {
    assert_eq!(canonical(&read("[1,1.0,1e2,-0,0.1]").unwrap()), "[1,1.0,100.0,-0.0,0.1]");
    assert_ne!(read("1").unwrap(), read("1.0").unwrap());
    for text in ["01", "-", "1.", ".5", "1e", "+1", "0x1", "1.e3", "NaN", "Infinity", "-Infinity"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn depth_is_limited_exactly() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&nested(DEPTH_MAX)).is_ok());
    check(
        &nested(DEPTH_MAX + 1),
        "nested deeper than the limit of 128 levels at line 1 column 129",
    );
    let objects = format!("{}1{}", r#"{"a":"#.repeat(DEPTH_MAX), "}".repeat(DEPTH_MAX));
    assert!(read(&objects).is_ok());
    // Depth is of nesting, not of the number of containers.
    assert!(read(&format!("[{}1]", "[],{},".repeat(1000))).is_ok());
}

#[test]
fn size_is_limited_and_the_error_names_limit_and_size() {
    let limits = Limits { bytes_max: 4, depth_max: 1 };
    assert!(parse(b"1234", limits).is_ok());
    assert_eq!(
        parse(b"12345", limits).unwrap_err().kind.to_string(),
        "JSON text of 5 bytes is over the limit of 4 bytes"
    );
}

#[test]
fn text_that_is_not_utf8_is_refused_where_it_stops_being_so() {
    let error = parse(b"[\"ab\xff\"]", Limits::BODY).unwrap_err();
    assert_eq!(error.to_string(), "not UTF-8 text at line 1 column 5");
    // A surrogate written as three bytes is no UTF-8 either.
    assert!(parse(b"\"\xed\xa0\x80\"", Limits::BODY).is_err());
}

#[test]
fn surrogates_must_come_in_pairs() {
    assert_eq!(read(r#""\ud83d\ude00""#).unwrap(), json!("\u{1f600}"));
    for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\ud83dx""#] {
        assert_eq!(read(text).unwrap_err().kind, JsonErrorKind::LoneSurrogate, "{text}");
    }
}

#[test]
fn what_follows_the_value_is_refused() {
    check("{} x", "unexpected 'x' after the end of the value at line 1 column 4");
    check("1 2", "unexpected '2' after the end of the value at line 1 column 3");
    assert!(read(" \t\r\n1\n").is_ok());
}

#[test]
fn malformed_text_is_named_with_its_place() {
    check("", "the text ends in the middle of a value at line 1 column 1");
    check("[1,", "the text ends in the middle of a value at line 1 column 4");
    check("tru", "the text ends in the middle of a value at line 1 column 4");
    check("trux", "expected a value, found 't' at line 1 column 1");
    check("[1,]", "expected a value, found ']' at line 1 column 4");
    check("{a:1}", "expected a key in double quotes, found 'a' at line 1 column 2");
    check("{\"a\" 1}", "expected ':' after a key, found '1' at line 1 column 6");
    check("{\"a\":1,}", "expected a key in double quotes, found '}' at line 1 column 8");
    check("\"a\nb\"", "unescaped control character in a string at line 1 column 3");
    check(r#""\x""#, "invalid escape in a string at line 1 column 2");
    check("\u{feff}1", "expected a value, found '\\u{feff}' at line 1 column 1");
}

#[test]
fn canonical_text_has_sorted_keys_whatever_order_they_were_written_in() {
    // Fails when serde_json is built with `preserve_order`, or with `arbitrary_precision`.
    assert_eq!(canonical(&read(r#"{"b":1,"a":{"d":2,"c":1e2}}"#).unwrap()), {
        r#"{"a":{"c":100.0,"d":2},"b":1}"#
    });
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| Number::from_f64(n).map(Value::Number)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::Array),
            btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn who_only_judges_takes_an_integer_of_any_size_and_says_where_it_stands() {
    let text = format!("[{}, -{}, 18446744073709551615, -0]", u128::MAX, u128::MAX);
    let (value, wide) = parse_to_judge(text.as_bytes(), Limits::BODY).unwrap();
    assert_eq!(value, serde_json::json!([u64::MAX, i64::MIN, u64::MAX, 0]));
    let columns: Vec<_> = wide.listed().iter().map(|error| error.column).collect();
    assert_eq!(columns, [2, 43]);
    assert_eq!(read(&text).unwrap_err(), wide.listed()[0]);
    let many = format!("[{}0]", format!("{},", u128::MAX).repeat(WIDE_LISTED_MAX + 1));
    let (_, wide) = parse_to_judge(many.as_bytes(), Limits::BODY).unwrap();
    assert_eq!(wide.listed().len(), WIDE_LISTED_MAX);
}

proptest! {
    #[test]
    fn canonical_text_reads_back_as_the_same_value(value in any_value()) {
        let text = canonical(&value);
        let read_back = read(&text).unwrap();
        prop_assert_eq!(&read_back, &value);
        prop_assert_eq!(canonical(&read_back), text);
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(read(&pretty).unwrap(), value);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes, Limits::BODY);
    }

    #[test]
    fn what_is_read_is_what_a_second_reader_reads(text in r#"[\[\]{}:,"\\0-9eE.+truefalsn u]{0,24}"#) {
        // Where both accept, they agree; where only the lenient one does, the text has a fault
        // that this reader exists to refuse.
        match (read(&text), serde_json::from_str::<Value>(&text)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Ok(_), Err(error)) => prop_assert!(false, "read what is refused elsewhere: {error}"),
            (Err(error), Ok(_)) => prop_assert!(matches!(
                error.kind,
                JsonErrorKind::DuplicateKey { .. } | JsonErrorKind::IntegerTooLarge { .. }
            ), "{error}"),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn a_key_written_twice_is_always_found(map in btree_map("[a-z]{1,3}", any::<u8>(), 1..20), pick in any::<prop::sample::Index>()) {
        let again = map.keys().nth(pick.index(map.len())).unwrap().clone();
        let mut text: Vec<String> = map.iter().map(|(k, v)| format!("{k:?}:{v}")).collect();
        text.push(format!("{again:?}:0"));
        let error = read(&format!("{{{}}}", text.join(","))).unwrap_err();
        prop_assert_eq!(error.kind, JsonErrorKind::DuplicateKey { key: again });
    }
}
