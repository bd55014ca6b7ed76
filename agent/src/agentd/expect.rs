//! What a command's JSON output must say (`kiln_model::function::Expect`).

use kiln_model::function::Expect;
use serde_json::Value;

/// Whether `output` says what is expected.
///
/// # Errors
/// Says what was found instead.
pub fn check(expect: &Expect, output: &[u8]) -> Result<(), String> {
    let value: Value =
        serde_json::from_slice(output).map_err(|error| format!("its output is not JSON: {error}"))?;
    let mut reached = Vec::new();
    collect(&value, &segments(&expect.pointer)?, &mut reached);
    if let Some(other) = reached.iter().find(|value| ***value != expect.equals) {
        return Err(format!("{} is {}, and {} is wanted", expect.pointer, short(other), expect.equals));
    }
    let wanted = usize::try_from(expect.at_least).unwrap_or(usize::MAX);
    if reached.len() < wanted {
        let (found, pointer) = (reached.len(), &expect.pointer);
        return Err(format!("{pointer} reaches {found} values, and at least {wanted} are wanted"));
    }
    Ok(())
}

/// The segments of a JSON pointer (RFC 6901, section 4), unescaped.
fn segments(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let inner = pointer.strip_prefix('/').ok_or_else(|| format!("`{pointer}` is not a JSON pointer"))?;
    Ok(inner.split('/').map(|segment| segment.replace("~1", "/").replace("~0", "~")).collect())
}

fn collect<'a>(value: &'a Value, segments: &[String], reached: &mut Vec<&'a Value>) {
    let Some((segment, rest)) = segments.split_first() else {
        reached.push(value);
        return;
    };
    match value {
        Value::Object(map) if segment == "*" => map.values().for_each(|v| collect(v, rest, reached)),
        Value::Array(list) if segment == "*" => list.iter().for_each(|v| collect(v, rest, reached)),
        Value::Object(map) => map.get(segment).into_iter().for_each(|v| collect(v, rest, reached)),
        Value::Array(list) => {
            let at = segment.parse::<usize>().ok();
            at.and_then(|at| list.get(at)).into_iter().for_each(|v| collect(v, rest, reached));
        }
        _ => {}
    }
}

/// A value as people can read it in one line.
fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((at, _)) = text.char_indices().nth(80) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn expect(pointer: &str, equals: Value, at_least: u32) -> Expect {
        Expect { pointer: pointer.to_owned(), equals, at_least }
    }

    fn summary(states: &[&str]) -> Vec<u8> {
        let peers: serde_json::Map<String, Value> =
            states.iter().enumerate().map(|(n, s)| (format!("10.0.0.{n}"), json!({"state": s}))).collect();
        json!({"ipv4Unicast": {"peers": peers}}).to_string().into_bytes()
    }

    #[test]
    fn every_member_that_a_star_reaches_must_fit() {
        let wanted = expect("/ipv4Unicast/peers/*/state", json!("Established"), 2);
        assert_eq!(check(&wanted, &summary(&["Established", "Established"])), Ok(()));
        let one_less = check(&wanted, &summary(&["Established", "Active"])).expect_err("one is down");
        assert!(one_less.contains("\"Active\""), "{one_less}");
        let too_few = check(&wanted, &summary(&["Established"])).expect_err("one is missing");
        assert!(too_few.contains("reaches 1"), "{too_few}");
        assert!(check(&wanted, b"% BGP instance not found").is_err());
        assert!(check(&wanted, b"{}").is_err(), "nothing reached is not what is expected");
    }

    #[test]
    fn pointers_are_those_of_the_rfc() {
        let document = json!({"a/b": 1, "m~n": 2, "list": [10, 20], "": 3}).to_string().into_bytes();
        for (pointer, value) in [("/a~1b", 1), ("/m~0n", 2), ("/list/1", 20), ("/", 3)] {
            assert_eq!(check(&expect(pointer, json!(value), 1), &document), Ok(()), "{pointer}");
        }
        assert!(check(&expect("a", json!(1), 0), &document).is_err());
    }

    proptest! {
        #[test]
        fn any_output_and_any_pointer_give_an_answer(pointer in ".{0,40}", output in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = check(&expect(&pointer, json!(1), 1), &output);
        }
    }
}
