//! JSON and base64url, read so that no two readers can differ about them.
//!
//! RFC 7519 section 4 lets a parser keep the last of two equal members; two parsers that keep different ones are
//! a hole. Here a duplicate is refused at any depth, nesting is bounded, and base64url (RFC 7515 section 2) is
//! canonical: no padding, no white space, no stray trailing bits.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest accepted nesting of arrays and objects. Claims of real issuers reach four or five.
const MAX_DEPTH: u8 = 16;

/// Reads one JSON object.
///
/// # Errors
/// For anything but one object, for duplicate members at any depth, and for nesting deeper than 16. The text is
/// fit to be shown: it holds no value, only what was wrong.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut deserializer).map_err(|error| describe(&error))?;
    deserializer.end().map_err(|_| "is followed by something else")?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("is not a JSON object"),
    }
}

/// Decodes canonical base64url without padding.
pub(super) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Encodes base64url without padding.
pub(super) fn encode_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

const DUPLICATE: &str = "has a duplicate member";
const TOO_DEEP: &str = "is nested too deeply";

/// serde's messages may quote the input, and a token's content belongs in no log: only their kind is kept.
fn describe(error: &serde_json::Error) -> &'static str {
    let text = error.to_string();
    [DUPLICATE, TOO_DEEP].into_iter().find(|known| text.starts_with(known)).unwrap_or("is not well-formed JSON")
}

#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(TOO_DEEP));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
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

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            array.push(element);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(DUPLICATE));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::{decode_base64url, parse_object};

    #[test]
    fn duplicates_are_refused_at_any_depth_and_however_spelled() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"b":2}]}"#, r#"{"a":1,"\u0061":2}"#]
        {
            assert_eq!(parse_object(text.as_bytes()), Err("has a duplicate member"), "{text}");
        }
        assert!(parse_object(br#"{"a":{"b":1},"c":{"b":1}}"#).is_ok());
    }

    #[test]
    fn only_one_shallow_well_formed_object_is_read() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(40), "]".repeat(40));
        for (text, why) in [
            ("[]", "is not a JSON object"),
            ("null", "is not a JSON object"),
            ("", "is not well-formed JSON"),
            ("{}{}", "is followed by something else"),
            ("{'a':1}", "is not well-formed JSON"),
            (r#"{"a":NaN}"#, "is not well-formed JSON"),
            (r#"{"a":1e999}"#, "is not well-formed JSON"),
            (r#"{"a":"\ud800"}"#, "is not well-formed JSON"),
            ("\u{feff}{}", "is not well-formed JSON"),
            (deep.as_str(), "is nested too deeply"),
        ] {
            assert_eq!(parse_object(text.as_bytes()), Err(why), "{text}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err("is not well-formed JSON"));
        assert!(parse_object(b" {\n\"a\" : 1.5 }\t").is_ok());
    }

    #[test]
    fn base64url_is_canonical() {
        assert_eq!(decode_base64url("Zm9v"), Some(b"foo".to_vec()));
        assert_eq!(decode_base64url("Zg"), Some(b"f".to_vec()));
        for bad in ["Zg==", "Zh", "Zm9v ", "Zm9\n", "Zm+v", "Zm/v", "Z"] {
            assert_eq!(decode_base64url(bad), None, "{bad:?}");
        }
    }
}
