//! Decodes form bodies strictly.
//!
//! Slack's signature does not cover the `Content-Type` header, so an attacker who replays a request
//! can also change its type. A lenient decoder would find `&command=…&team_id=…` in the text of a
//! signed chat message. This decoder refuses bytes that every JSON object contains and no form
//! needs. So no body can be read both ways.

use std::borrow::Cow;

use super::error::Malformed;

/// The fields of a form, in order. Each name occurs once.
#[derive(Debug)]
pub(super) struct Form<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Form<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        if !body.iter().copied().all(is_allowed_unescaped) {
            return Err(Malformed::Form);
        }
        let body = str::from_utf8(body).map_err(|_| Malformed::Form)?;
        let mut fields: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(TYPICAL_FIELDS);
        for field in body.split('&') {
            let (name, value) = field.split_once('=').ok_or(Malformed::Form)?;
            let name = decode(name)?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(Malformed::Repeated);
            }
            if fields.len() == MAX_FIELDS {
                return Err(Malformed::Form);
            }
            fields.push((name, decode(value)?));
        }
        Ok(Self(fields))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    pub(super) fn into_fields(self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        self.0
    }

    /// Returns whether this is Slack's certificate probe and nothing else. A command with
    /// `ssl_check=1` appended is a command.
    pub(super) fn is_ssl_check(&self) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name == "ssl_check" && value == "1")
            && self
                .0
                .iter()
                .all(|(name, _)| name == "ssl_check" || name == "token")
    }

    /// Removes this field and returns its value.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

/// Accepts visible ASCII, without the characters that RFC 3986 forbids everywhere in a URL.
fn is_allowed_unescaped(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte)
}

fn decode(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !text.bytes().any(|byte| byte == b'+' || byte == b'%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next())? << 4 | hex(bytes.next())?,
            b'+' => b' ',
            _ => byte,
        });
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| Malformed::Form)
}

fn hex(digit: Option<u8>) -> Result<u8, Malformed> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        _ => Err(Malformed::Form),
    }
}

/// How many fields a form may have. Slack's slash command has 16. The check for repeated names
/// compares every pair of fields, so the number needs a limit.
const MAX_FIELDS: usize = 64;

const TYPICAL_FIELDS: usize = 16;
