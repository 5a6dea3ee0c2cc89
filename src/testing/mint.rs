//! Generates ids and secrets in Slack's formats.

use ring::hmac;

use crate::random;

/// Generates ids and secrets, and keeps a list of the secrets. The same seed gives the same values.
pub(super) struct Mint {
    key: hmac::Key,
    drawn: u64,
    secrets: Vec<String>,
}

impl Mint {
    pub(super) fn new(seed: Option<u64>) -> Self {
        let key = match seed {
            Some(seed) => hmac::Key::new(hmac::HMAC_SHA256, &seed.to_be_bytes()),
            None => hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
        };
        Self {
            key,
            drawn: 0,
            secrets: Vec::new(),
        }
    }

    /// Returns an id such as `T0K3J9Q2LXA`: the prefix and nine more characters.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.text(CAPITALS, 9))
    }

    pub(super) fn client_id(&mut self) -> String {
        format!("1{}.2{}", self.text(DIGITS, 11), self.text(DIGITS, 12))
    }

    pub(super) fn bot_token(&mut self) -> String {
        let (team, bot) = (self.text(DIGITS, 12), self.text(DIGITS, 13));
        let token = format!("xoxb-{team}-{bot}-{}", self.text(LETTERS, 24));
        self.remember(token)
    }

    pub(super) fn user_token(&mut self) -> String {
        let (team, user) = (self.text(DIGITS, 12), self.text(DIGITS, 13));
        let token = format!("xoxp-{team}-{user}-{}", self.text(HEX, 32));
        self.remember(token)
    }

    /// Returns the access token of a pair.
    pub(super) fn rotating_token(&mut self, is_user: bool) -> String {
        let kind = if is_user { "xoxp" } else { "xoxb" };
        let token = format!("xoxe.{kind}-1-{}", self.text(LETTERS, 120));
        self.remember(token)
    }

    pub(super) fn refresh_token(&mut self) -> String {
        let token = format!("xoxe-1-{}", self.text(LETTERS, 120));
        self.remember(token)
    }

    pub(super) fn code(&mut self) -> String {
        let code = format!("{}.{}", self.client_id(), self.text(HEX, 64));
        self.remember(code)
    }

    /// Returns a client secret or a signing secret: 32 hexadecimal digits.
    pub(super) fn app_secret(&mut self) -> String {
        let secret = self.text(HEX, 32);
        self.remember(secret)
    }

    /// Returns a secret for the end of a URL, such as a `response_url`.
    pub(super) fn ticket(&mut self) -> String {
        let ticket = self.text(LETTERS, 24);
        self.remember(ticket)
    }

    pub(super) fn text(&mut self, alphabet: &[u8], len: usize) -> String {
        let mut text = String::with_capacity(len);
        while text.len() < len {
            self.drawn += 1;
            let block = hmac::sign(&self.key, &self.drawn.to_be_bytes());
            let letters = block.as_ref().iter().map(|byte| usize::from(*byte));
            let letters = letters.map(|byte| char::from(alphabet[byte % alphabet.len()]));
            text.extend(letters.take(len - text.len()));
        }
        text
    }

    /// Returns every secret that was generated so far.
    pub(super) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    fn remember(&mut self, secret: String) -> String {
        self.secrets.push(secret.clone());
        secret
    }
}

pub(super) const CAPITALS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
pub(super) const DIGITS: &[u8] = b"0123456789";
pub(super) const HEX: &[u8] = b"0123456789abcdef";
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
