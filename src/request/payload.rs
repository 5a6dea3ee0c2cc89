//! The keys that this crate reads of Slack's JSON, in one pass over the text.
//!
//! * A key that is read and occurs twice is an error: serde's derived structs refuse it.
//! * A key of an unexpected shape is [`Field::Wrong`], and matters only to who asks for it, so
//!   that a key Slack adds to some payload tomorrow breaks nothing.
//! * Everything else is skipped without being built, and without recursion.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::Malformed;

/// A whole payload: an Events API body, an interactive payload or a slash command.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Payload<'a> {
    pub(super) api_app_id: Field<Text<'a>>,
    pub(super) authorizations: Field<First<Authorization<'a>>>,
    pub(super) challenge: Field<Text<'a>>,
    pub(super) context_enterprise_id: Field<Text<'a>>,
    pub(super) context_team_id: Field<Text<'a>>,
    pub(super) enterprise: Field<Enterprise<'a>>,
    pub(super) enterprise_id: Field<Text<'a>>,
    pub(super) event: Field<Event<'a>>,
    pub(super) event_id: Field<Text<'a>>,
    pub(super) event_time: Field<u64>,
    pub(super) is_enterprise_install: Field<Flag>,
    pub(super) is_ext_shared_channel: Field<Flag>,
    pub(super) message: Field<Message<'a>>,
    pub(super) team: Field<Team<'a>>,
    pub(super) team_id: Field<Text<'a>>,
    pub(super) trigger_id: Field<Text<'a>>,
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
    pub(super) user: Field<User<'a>>,
    pub(super) user_id: Field<Text<'a>>,
    pub(super) view: Field<View<'a>>,
}

/// One element of `authorizations`.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Authorization<'a> {
    pub(super) enterprise_id: Field<Text<'a>>,
    pub(super) is_enterprise_install: Field<Flag>,
    pub(super) team_id: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Enterprise<'a> {
    pub(super) id: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Event<'a> {
    pub(super) event: Field<NestedEvent<'a>>,
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
    pub(super) user: Field<TextOrObject<'a>>,
}

/// `event.event`, an oddity of the documented `team_access_granted`.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct NestedEvent<'a> {
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Message<'a> {
    pub(super) app_id: Field<Text<'a>>,
    pub(super) team: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Team<'a> {
    pub(super) enterprise_id: Field<Text<'a>>,
    pub(super) id: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct User<'a> {
    pub(super) id: Field<Text<'a>>,
    pub(super) team_id: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct View<'a> {
    pub(super) app_installed_team_id: Field<Text<'a>>,
}

/// A frame of a Socket Mode connection.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Envelope<'a> {
    pub(super) envelope_id: Field<Text<'a>>,
    pub(super) payload: Field<Payload<'a>>,
    pub(super) retry_attempt: Field<u64>,
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
}

/// Reads one JSON object.
pub(super) fn parse<'a, T: Shape<'a>>(json: &'a str) -> Result<T, Malformed> {
    match serde_json::from_str(json) {
        Ok(Field::Is(value)) => Ok(value),
        Ok(Field::Absent | Field::Wrong) => Err(Malformed::Json),
        // No shape is refused while parsing, so the only complaint about data is a repeated key.
        // The error itself quotes the text and ends here.
        Err(error) if error.is_data() => Err(Malformed::Repeated),
        Err(_) => Err(Malformed::Json),
    }
}

/// What stands under a key.
#[derive(Default)]
pub(super) enum Field<T> {
    /// Nothing, or `null`.
    #[default]
    Absent,
    Is(T),
    /// Another shape than the one expected.
    Wrong,
}

impl<T> Field<T> {
    /// What stands there, if anything does.
    pub(super) fn read(&self, path: &'static str) -> Result<Option<&T>, Malformed> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(value) => Ok(Some(value)),
            Self::Wrong => Err(Malformed::Field(path)),
        }
    }
}

impl<'a> Field<Text<'a>> {
    /// The text that stands there. An empty one is none: Slack's forms send `enterprise_id=`.
    pub(super) fn text(&self, path: &'static str) -> Result<Option<&str>, Malformed> {
        Ok(self
            .read(path)?
            .map(|text| &*text.0)
            .filter(|text| !text.is_empty()))
    }

    pub(super) fn from_form(value: Option<Cow<'a, str>>) -> Self {
        value.map_or(Self::Absent, |value| Self::Is(Text(value)))
    }
}

impl Field<Flag> {
    /// The flag. Absent is false.
    pub(super) fn flag(&self, path: &'static str) -> Result<bool, Malformed> {
        Ok(self.read(path)?.is_some_and(|flag| flag.0))
    }

    pub(super) fn flag_from_form(value: Option<&str>) -> Self {
        match value.map(Flag::from_text) {
            None => Self::Absent,
            Some(None) => Self::Wrong,
            Some(Some(flag)) => Self::Is(flag),
        }
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

/// What a JSON value can be taken for. Whatever is not overridden is the wrong shape.
pub(super) trait Shape<'de>: Sized {
    fn array<A: SeqAccess<'de>>(array: A) -> Result<Field<Self>, A::Error> {
        skip_array(array)?;
        Ok(Field::Wrong)
    }

    fn boolean(_: bool) -> Field<Self> {
        Field::Wrong
    }

    fn number(_: u64) -> Field<Self> {
        Field::Wrong
    }

    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Field<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }

    fn text(_: Cow<'de, str>) -> Field<Self> {
        Field::Wrong
    }
}

/// A text.
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Shape<'de> for Text<'a> {
    fn text(text: Cow<'de, str>) -> Field<Self> {
        Field::Is(Self(text))
    }
}

/// A text, or an object whose contents do not matter.
pub(super) enum TextOrObject<'a> {
    Object,
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Shape<'de> for TextOrObject<'a> {
    fn object<A: MapAccess<'de>>(mut object: A) -> Result<Field<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Is(Self::Object))
    }

    fn text(text: Cow<'de, str>) -> Field<Self> {
        Field::Is(Self::Text(text))
    }
}

/// `true`, `false`, or the same as a text, as forms and Socket Mode's slash commands have it
/// (bolt-js#737: a string `"false"` taken for true).
pub(super) struct Flag(bool);

impl Flag {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "false" => Some(Self(false)),
            "true" => Some(Self(true)),
            _ => None,
        }
    }
}

impl<'de> Shape<'de> for Flag {
    fn boolean(flag: bool) -> Field<Self> {
        Field::Is(Self(flag))
    }

    fn text(text: Cow<'de, str>) -> Field<Self> {
        Self::from_text(&text).map_or(Field::Wrong, Field::Is)
    }
}

impl<'de> Shape<'de> for u64 {
    fn number(number: u64) -> Field<Self> {
        Field::Is(number)
    }
}

/// The first element of an array; an empty array is absent.
pub(super) struct First<T>(pub(super) T);

impl<'de, T: Shape<'de>> Shape<'de> for First<T> {
    fn array<A: SeqAccess<'de>>(mut array: A) -> Result<Field<Self>, A::Error> {
        let Some(first) = array.next_element::<Field<T>>()? else {
            return Ok(Field::Absent);
        };
        skip_array(array)?;
        Ok(match first {
            Field::Is(first) => Field::Is(Self(first)),
            Field::Absent | Field::Wrong => Field::Wrong,
        })
    }
}

/// Objects are read by the derived struct, which also refuses repeated keys. Only from an object:
/// a derived struct alone would take an array for one.
macro_rules! objects {
    ($($name:ident)*) => {
        $(impl<'de: 'a, 'a> Shape<'de> for $name<'a> {
            fn object<A: MapAccess<'de>>(object: A) -> Result<Field<Self>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(object)).map(Field::Is)
            }
        })*
    };
}

objects!(Authorization Enterprise Envelope Event Message NestedEvent Payload Team User View);

struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: Shape<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(T::boolean(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Borrowed(value)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::object(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        T::array(array)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(T::text(Cow::Owned(value.to_owned())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(T::number(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }
}

fn skip_array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<(), A::Error> {
    while array.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}
