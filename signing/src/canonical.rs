//! Canonical JSON, as OLPC defines it and TUF signs it (TUF 1.0.34, section 4.1).
//!
//! One value has one byte string: keys in order of their code points, no white space, integers only,
//! and in strings only `"` and `\` escaped. Control characters are not escaped, so the result is what
//! is signed and not always what a JSON parser reads back.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value without a canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: the number {number} is no integer of 64 bits; signed documents hold integers only")]
pub struct NotCanonical {
    /// Where in the value, such as `config.vars.weight`.
    pub path: String,
    /// The number.
    pub number: String,
}

/// The canonical form of `value`.
///
/// # Errors
/// A number with a fraction, an exponent or too many digits.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>, NotCanonical> {
    let mut out = Vec::new();
    write_value(value, &mut out).map_err(|(path, number)| NotCanonical {
        path: if path.is_empty() { "(top)".to_owned() } else { path.join(".") },
        number,
    })?;
    Ok(out)
}

/// Parses JSON more strictly than usual: an object that names a key twice is refused, because two
/// readers could take it for two different documents.
///
/// # Errors
/// What is wrong, with line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The path is built from the inside out on the way back from a failure only.
fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), (Vec<String>, String)> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            if !(number.is_i64() || number.is_u64()) {
                return Err((Vec::new(), number.to_string()));
            }
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out).map_err(|e| within(&index.to_string(), e))?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            out.push(b'{');
            for (index, (key, item)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write_value(item, out).map_err(|e| within(key, e))?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn within(key: &str, (mut path, number): (Vec<String>, String)) -> (Vec<String>, String) {
    path.insert(0, key.to_owned());
    (path, number)
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a [`Value`] and refuses repeated keys at every depth.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is there twice")));
            }
            members.insert(key, access.next_value_seed(Strict)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        String::from_utf8(to_bytes(value).expect("it has a canonical form")).expect("text")
    }

    #[test]
    fn keys_are_in_order_of_code_points_and_nothing_is_added() {
        let value = json!({"b": [1, -2, true, null], "a": {"ü": 0, "z": {}}, "B": "x"});
        assert_eq!(canonical(&value), r#"{"B":"x","a":{"z":{},"ü":0},"b":[1,-2,true,null]}"#);
    }

    #[test]
    fn only_quote_and_backslash_are_escaped() {
        assert_eq!(canonical(&json!("a\"b\\c\nd\u{7f}/é")), "\"a\\\"b\\\\c\nd\u{7f}/é\"");
    }

    #[test]
    fn numbers_that_two_writers_could_spell_differently_are_refused_with_their_place() {
        for text in ["1.5", "1e3", "-0", "1.0", "18446744073709551616"] {
            let value = parse(format!(r#"{{"vars": {{"weight": [0, {text}]}}}}"#).as_bytes()).expect("JSON");
            let error = to_bytes(&value).expect_err(text);
            assert_eq!(error.path, "vars.weight.1", "{text}");
        }
        assert_eq!(canonical(&json!([u64::MAX, i64::MIN])), "[18446744073709551615,-9223372036854775808]");
    }

    #[test]
    fn an_object_that_says_a_thing_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"\u0061":2}}]"#] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert!(error.to_string().contains("the key `a` is there twice"), "{error}");
        }
        assert!(parse(b"{} {}").is_err(), "one document, and nothing after it");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The form does not depend on how the document was laid out, and tells every two values apart.
        #[test]
        fn one_value_has_one_form(a in any_value(), b in any_value()) {
            let pretty = serde_json::to_vec_pretty(&a).expect("JSON");
            let again = parse(&pretty).expect("JSON");
            prop_assert_eq!(&again, &a);
            prop_assert_eq!(to_bytes(&again), to_bytes(&a));
            prop_assert_eq!(to_bytes(&a) == to_bytes(&b), a == b);
        }
    }
}
