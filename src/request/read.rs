//! Reads the contents of an authentic body, in one pass.

use std::borrow::Cow;
use std::time::SystemTime;

use http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::actor::{self, Actor};
use super::error::{Malformed, VerifyError};
use super::form::Form;
use super::kind::Kind;
use super::payload::{self, Envelope, Field, Payload};
use super::tenant;
use crate::clock::from_epoch;
use crate::tenant::{AppId, MAX_ID_LEN, Tenant, UserId};

/// The contents of a request that this crate reads.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) actor: Option<Actor>,
    pub(super) app_id: Option<AppId>,
    pub(super) authorizing_user: Option<UserId>,
    pub(super) event_id: Option<Box<str>>,
    pub(super) event_time: Option<SystemTime>,
    pub(super) kind: Kind,
    pub(super) source: Source,
    pub(super) tenant: Option<Tenant>,
    pub(super) trigger_id: Option<Box<str>>,
}

/// Where the payload is in the body.
#[derive(Clone)]
pub(super) enum Source {
    /// The body is a Socket Mode frame: an envelope that contains the payload.
    Envelope,
    /// The body is a form, and its fields are the payload.
    Form,
    /// The body is the payload.
    Json,
    /// The body is a form, and this is its decoded `payload` field.
    Payload(Box<str>),
}

impl Contents {
    /// Reads a payload of this kind. Only a field that names the tenant can refuse the request:
    /// Slack counts refused events, and stops delivery to an app that refuses too many.
    fn new(kind: Kind, payload: &Payload<'_>, source: Source) -> Result<Self, Malformed> {
        let app_id = payload.api_app_id.lenient_text();
        let event_id = payload.event_id.lenient_text();
        let trigger_id = payload.trigger_id.lenient_text();
        let tenant = tenant::tenant(&kind, payload)?;
        Ok(Self {
            actor: actor::actor(&kind, payload, tenant.as_ref()),
            app_id: app_id.and_then(|id| AppId::new(id).ok()),
            authorizing_user: actor::authorizing_user(&kind, payload),
            event_id: event_id.filter(|id| is_key(id)).map(Box::from),
            event_time: payload.event_time.lenient().copied().map(from_epoch),
            tenant,
            trigger_id: trigger_id.filter(|id| is_key(id)).map(Box::from),
            kind,
            source,
        })
    }
}

/// Returns whether this id can be a key in a table of handled requests.
fn is_key(id: &str) -> bool {
    id.len() <= MAX_KEY_LEN && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The length of the longest accepted event id or trigger id, in bytes. Slack's have about 15 and
/// 60.
const MAX_KEY_LEN: usize = 4 * MAX_ID_LEN;

/// The encoding of a body.
#[derive(Clone, Copy)]
pub(super) enum MediaType {
    Form,
    Json,
}

impl MediaType {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, VerifyError> {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(VerifyError::UnsupportedMediaType);
        };
        let value = value
            .to_str()
            .map_err(|_| VerifyError::UnsupportedMediaType)?;
        let essence = value.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(Self::Json);
        }
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Ok(Self::Form)
        } else {
            Err(VerifyError::UnsupportedMediaType)
        }
    }
}

/// Reads the body of an HTTP request.
pub(super) fn http(media_type: MediaType, body: &[u8]) -> Result<Contents, Malformed> {
    match media_type {
        MediaType::Form => form(body),
        MediaType::Json => events_api(&payload::parse(utf8(body)?)?, Source::Json),
    }
}

/// The request in a frame of a Socket Mode connection.
pub(super) struct Delivery {
    pub(super) contents: Contents,
    pub(super) envelope_id: Box<str>,
    pub(super) retry_num: Option<u32>,
}

/// Reads a frame of a Socket Mode connection. Returns `None` if the frame carries no request.
pub(super) fn socket(frame: &[u8]) -> Result<Option<Delivery>, Malformed> {
    let envelope: Envelope<'_> = payload::parse(utf8(frame)?)?;
    let type_ = envelope
        .type_
        .text("type")?
        .ok_or(Malformed::Field("type"))?;
    let envelope_id = match envelope.envelope_id.text("envelope_id")? {
        None if matches!(type_, "events_api" | "interactive" | "slash_commands") => {
            return Err(Malformed::Field("envelope_id"));
        }
        None => return Ok(None),
        Some(id) if !is_key(id) => return Err(Malformed::Field("envelope_id")),
        Some(id) => id.into(),
    };
    let retry_num = envelope.retry_attempt.lenient();
    let retry_num = retry_num.and_then(|number| u32::try_from(*number).ok());
    let payload = envelope
        .payload
        .read("payload")?
        .ok_or(Malformed::Field("payload"))?;
    let contents = match type_ {
        "events_api" => events_api(payload, Source::Envelope),
        "interactive" => interactive(payload, Source::Envelope),
        "slash_commands" => Contents::new(Kind::SlashCommand, payload, Source::Envelope),
        _ => Contents::new(Kind::Unknown, payload, Source::Envelope),
    };
    Ok(Some(Delivery {
        contents: contents?,
        envelope_id,
        retry_num,
    }))
}

fn form(body: &[u8]) -> Result<Contents, Malformed> {
    let mut form = Form::parse(body)?;
    match (form.has("command"), form.take("payload")) {
        (true, Some(_)) => Err(Malformed::Form),
        (true, None) => Contents::new(Kind::SlashCommand, &command(form), Source::Form),
        (false, Some(text)) => {
            let mut contents = interactive(&payload::parse(&text)?, Source::Form)?;
            contents.source = Source::Payload(text.into());
            Ok(contents)
        }
        (false, None) => {
            let kind = if form.is_ssl_check() {
                Kind::SslCheck
            } else {
                Kind::Unknown
            };
            Contents::new(kind, &Payload::default(), Source::Form)
        }
    }
}

fn command(mut form: Form<'_>) -> Payload<'_> {
    let flag = form.take("is_enterprise_install");
    let mut text = |name| Field::from_form(form.take(name));
    Payload {
        api_app_id: text("api_app_id"),
        enterprise_id: text("enterprise_id"),
        is_enterprise_install: Field::flag_from_form(flag.as_deref()),
        team_id: text("team_id"),
        trigger_id: text("trigger_id"),
        user_id: text("user_id"),
        ..Payload::default()
    }
}

fn events_api(payload: &Payload<'_>, source: Source) -> Result<Contents, Malformed> {
    let kind = match payload.type_.lenient_text() {
        Some("app_rate_limited") => Kind::AppRateLimited,
        Some("event_callback") => event_type(payload)
            .and_then(Kind::event)
            .unwrap_or(Kind::Unknown),
        Some("url_verification") => match payload.challenge.text("challenge")? {
            None => return Err(Malformed::Field("challenge")),
            Some(challenge) => Kind::UrlVerification {
                challenge: challenge.into(),
            },
        },
        _ => Kind::Unknown,
    };
    Contents::new(kind, payload, source)
}

fn event_type<'a>(payload: &'a Payload<'_>) -> Option<&'a str> {
    let event = payload.event.lenient()?;
    let nested = || event.event.lenient()?.type_.lenient_text();
    event.type_.lenient_text().or_else(nested)
}

fn interactive(payload: &Payload<'_>, source: Source) -> Result<Contents, Malformed> {
    let kind = payload.type_.lenient_text();
    let kind = kind.map_or(Kind::Unknown, Kind::interactive);
    Contents::new(kind, payload, source)
}

/// Deserializes the payload into a type of your app.
pub(super) fn payload<T: DeserializeOwned>(
    source: &Source,
    body: &[u8],
) -> Result<T, serde_json::Error> {
    match source {
        Source::Envelope => serde_json::from_slice(body).map(|Enveloped { payload }| payload),
        Source::Form => T::deserialize(serde_json::Value::Object(
            fields(body)
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect(),
        )),
        Source::Json => serde_json::from_slice(body),
        Source::Payload(text) => serde_json::from_str(text),
    }
}

/// Returns the fields of a body that was already parsed as a form.
fn fields(body: &[u8]) -> Vec<(String, String)> {
    let fields = Form::parse(body).expect("the body was parsed when it was verified");
    let owned = |(name, value): (_, _)| (Cow::into_owned(name), Cow::into_owned(value));
    fields.into_fields().into_iter().map(owned).collect()
}

#[derive(serde::Deserialize)]
struct Enveloped<T> {
    payload: T,
}

fn utf8(body: &[u8]) -> Result<&str, Malformed> {
    str::from_utf8(body).map_err(|_| Malformed::Json)
}
