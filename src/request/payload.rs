//! Reads the keys of Slack's JSON that this crate needs, in one pass over the text.
//!
//! * A known key that occurs twice is an error: serde's derived structs refuse it.
//! * A key with an unexpected type is [`Field::Wrong`]. It is an error only if that key is read, so
//!   a key that Slack adds to a payload later breaks nothing.
//! * Everything else is skipped, without allocation and without recursion.

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
    pub(super) container: Field<Container<'a>>,
    pub(super) context_enterprise_id: Field<Text<'a>>,
    pub(super) context_team_id: Field<Text<'a>>,
    pub(super) enterprise: Field<Enterprise<'a>>,
    pub(super) enterprise_id: Field<Text<'a>>,
    pub(super) event: Field<Event<'a>>,
    pub(super) event_id: Field<Text<'a>>,
    pub(super) event_time: Field<u64>,
    pub(super) is_app_unfurl: Field<Flag>,
    pub(super) is_enterprise_install: Field<Flag>,
    pub(super) is_ext_shared_channel: Field<Flag>,
    pub(super) message: Field<Message<'a>>,
    pub(super) original_message: Field<Message<'a>>,
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
    pub(super) is_bot: Field<Flag>,
    pub(super) is_enterprise_install: Field<Flag>,
    pub(super) team_id: Field<Text<'a>>,
    pub(super) user_id: Field<Text<'a>>,
}

/// `event.assistant_thread`.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct AssistantThread<'a> {
    pub(super) user_id: Field<Text<'a>>,
}

/// Where a clicked element is.
#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Container<'a> {
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Enterprise<'a> {
    pub(super) id: Field<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"), default)]
pub(super) struct Event<'a> {
    pub(super) assistant_thread: Field<AssistantThread<'a>>,
    pub(super) event: Field<NestedEvent<'a>>,
    pub(super) inviter: Field<Text<'a>>,
    pub(super) source_team: Field<Text<'a>>,
    pub(super) subtype: Field<Text<'a>>,
    #[serde(rename = "type")]
    pub(super) type_: Field<Text<'a>>,
    pub(super) user: Field<Text<'a>>,
    pub(super) user_id: Field<Text<'a>>,
    pub(super) user_team: Field<Text<'a>>,
}

/// `event.event`: the documented sample of `team_access_granted` nests an event in the event.
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
    pub(super) bot_id: Field<Text<'a>>,
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

/// Parses one JSON object.
pub(super) fn parse<'a, T: Shape<'a>>(json: &'a str) -> Result<T, Malformed> {
    match serde_json::from_str(json) {
        Ok(Field::Is(value)) => Ok(value),
        Ok(Field::Absent | Field::Wrong) => Err(Malformed::Json),
        // Parsing accepts every type of value, so the only data error is a repeated key. The error
        // quotes the text, so it is not passed on.
        Err(error) if error.is_data() => Err(Malformed::Repeated),
        Err(_) => Err(Malformed::Json),
    }
}

/// The value of a key.
#[derive(Default)]
pub(super) enum Field<T> {
    /// The key is missing, or its value is `null`.
    #[default]
    Absent,
    Is(T),
    /// The value has an unexpected type.
    Wrong,
}

impl<T> Field<T> {
    /// Returns the value, or `None` if it is absent.
    pub(super) fn read(&self, path: &'static str) -> Result<Option<&T>, Malformed> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(value) => Ok(Some(value)),
            Self::Wrong => Err(Malformed::Field(path)),
        }
    }

    /// Returns the value, or `None` if it is absent or has an unexpected type. Only for what does
    /// not name the tenant.
    pub(super) fn lenient(&self) -> Option<&T> {
        match self {
            Self::Absent | Self::Wrong => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<'a> Field<Text<'a>> {
    /// Returns the text. An empty text counts as absent, because Slack's forms send
    /// `enterprise_id=`.
    pub(super) fn text(&self, path: &'static str) -> Result<Option<&str>, Malformed> {
        Ok(self
            .read(path)?
            .map(|text| &*text.0)
            .filter(|text| !text.is_empty()))
    }

    /// Returns the text, or `None` if it is absent, empty or not a text. Only for what does not
    /// name the tenant.
    pub(super) fn lenient_text(&self) -> Option<&str> {
        self.lenient()
            .map(|text| &*text.0)
            .filter(|text| !text.is_empty())
    }

    pub(super) fn from_form(value: Option<Cow<'a, str>>) -> Self {
        value.map_or(Self::Absent, |value| Self::Is(Text(value)))
    }
}

impl Field<Flag> {
    /// Returns the flag. An absent flag is `false`.
    pub(super) fn flag(&self, path: &'static str) -> Result<bool, Malformed> {
        Ok(self.read(path)?.is_some_and(|flag| flag.0))
    }

    /// Returns the flag, or `None` if it is absent or not a flag.
    pub(super) fn lenient_flag(&self) -> Option<bool> {
        self.lenient().map(|flag| flag.0)
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

/// A type that a JSON value can be read as. A method that is not overridden returns
/// [`Field::Wrong`].
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

/// A JSON string.
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Shape<'de> for Text<'a> {
    fn text(text: Cow<'de, str>) -> Field<Self> {
        Field::Is(Self(text))
    }
}

/// `true`, `false`, or the same as text: forms and Socket Mode's slash commands send text. In
/// bolt-js#737, the string `"false"` was treated as true.
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

/// Reads objects with the derived struct, which also refuses repeated keys. It reads only objects:
/// a derived struct alone would also accept an array.
macro_rules! objects {
    ($($name:ident)*) => {
        $(impl<'de: 'a, 'a> Shape<'de> for $name<'a> {
            fn object<A: MapAccess<'de>>(object: A) -> Result<Field<Self>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(object)).map(Field::Is)
            }
        })*
    };
}

objects!(
    AssistantThread Authorization Container Enterprise Envelope Event Message NestedEvent Payload
    Team User View
);

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
