//! [`Member`]: one member of a JSON object from Slack, whatever its type.
//!
//! Slack calls most members of its responses optional. Such a member may be absent, `null`, empty,
//! or of a type that is not documented. None of these may fail a response that contains tokens.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// A member of an object. An object is read as `T`.
#[derive(Default)]
pub(super) enum Member<T = IgnoredAny> {
    /// The member is absent, or `null`.
    #[default]
    Absent,
    Flag(bool),
    List(Vec<Self>),
    Number(u64),
    Object(T),
    /// A number that is negative or has a fraction.
    Odd,
    Text(Zeroizing<String>),
}

/// What a member says where `true` or `false` is expected.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Flag {
    No,
    Unknown,
    Yes,
}

impl<T> Member<T> {
    /// Returns whether the member is absent, `null` or empty.
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::List(list) => list.is_empty(),
            Self::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    /// Returns the text; an empty one if the member is something else.
    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// Returns the text; `None` if the member is absent, empty or something else.
    ///
    /// If it is a secret, the caller makes a type of it that wipes it.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(mut text) if !text.is_empty() => Some(std::mem::take(&mut *text)),
            _ => None,
        }
    }

    /// Returns the number, which may also be written as text.
    pub(super) fn number(self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Returns the flag. Slack's forms write it as text.
    pub(super) fn flag(&self) -> Flag {
        match self {
            Self::Flag(true) => Flag::Yes,
            Self::Flag(false) => Flag::No,
            Self::Text(text) if **text == "true" => Flag::Yes,
            Self::Text(text) if **text == "false" => Flag::No,
            absent if absent.is_absent() => Flag::No,
            _ => Flag::Unknown,
        }
    }

    /// Returns the list; an empty one if the member is something else.
    pub(super) fn list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            _ => Vec::new(),
        }
    }
}

impl<T: Default> Member<T> {
    /// Returns the object; an empty one if the member is something else.
    pub(super) fn object(self) -> T {
        match self {
            Self::Object(object) => object,
            _ => T::default(),
        }
    }
}

impl Flag {
    /// Returns whether the flag is certainly set: for a flag that grants something.
    pub(super) fn is_set(self) -> bool {
        self == Self::Yes
    }

    /// Returns whether the flag may be set: for a flag that denies something.
    pub(super) fn may_be_set(self) -> bool {
        self != Self::No
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Accepts a value of any type.
struct Any<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
    type Value = Member<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Member::Flag(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).map_or(Member::Odd, Member::Number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Member::Number(number))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Member::Odd)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Member::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Member::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = seq.next_element()? {
            list.push(member);
        }
        Ok(Member::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Member::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Member {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn a_value_of_any_type_is_read_and_only_its_own_type_counts() {
        for json in [
            "null",
            "true",
            "7",
            "-7",
            "1.5",
            "\"\"",
            "\"x\"",
            "[]",
            "[null, [7]]",
            "{}",
            "{\"a\": {\"b\": []}}",
        ] {
            let text = read(json).text();
            assert_eq!(text.as_deref(), (json == "\"x\"").then_some("x"), "{json}");
            assert_eq!(read(json).number(), (json == "7").then_some(7), "{json}");
            assert_eq!(read(json).flag().is_set(), json == "true", "{json}");
            let length = if json == "[null, [7]]" { 2 } else { 0 };
            assert_eq!(read(json).list().len(), length, "{json}");
        }
        assert_eq!(read("\"43200\"").number(), Some(43_200));
    }

    #[test]
    fn a_flag_of_an_unknown_form_grants_nothing_and_may_deny() {
        for (json, grants, denies) in [
            ("true", true, true),
            ("\"true\"", true, true),
            ("false", false, false),
            ("\"false\"", false, false),
            ("null", false, false),
            ("\"\"", false, false),
            ("\"yes\"", false, true),
            ("1", false, true),
            ("{}", false, true),
        ] {
            let flag = read(json).flag();
            assert_eq!(
                (flag.is_set(), flag.may_be_set()),
                (grants, denies),
                "{json}"
            );
        }
    }
}
