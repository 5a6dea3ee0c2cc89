//! The parts of a key URL: `SCHEME:PLACE?OPTION=VALUE&…`.

use url::form_urlencoded;
use zeroize::Zeroizing;

use super::error::{KeySetupError, invalid};

/// A key URL without its scheme. Nothing of it is shown, because a wrong one may be a secret.
pub(super) struct KeyUrl {
    scheme: &'static str,
    pub(super) place: Zeroizing<String>,
    options: Vec<(String, Zeroizing<String>)>,
}

impl KeyUrl {
    pub(super) fn parse(scheme: &'static str, rest: &str) -> Self {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let options = form_urlencoded::parse(query.as_bytes());
        let options = options.map(|(name, value)| (name.into_owned(), value.into_owned().into()));
        Self {
            scheme,
            place: decoded(place),
            options: options.collect(),
        }
    }

    /// Takes an option. If it is given twice, it is refused.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Zeroizing<String>>, KeySetupError> {
        let mut values = self.take_all(name);
        let value = values.pop();
        if values.is_empty() {
            return Ok(value);
        }
        let scheme = self.scheme;
        Err(invalid(format!(
            "the key URL of `{scheme}:` has the option `{name}` twice"
        )))
    }

    /// Takes all values of an option, in their order.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<Zeroizing<String>> {
        let options = std::mem::take(&mut self.options);
        let (taken, left) = options.into_iter().partition(|(other, _)| other == name);
        self.options = left;
        let taken: Vec<(String, _)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes an option that is `true` or `false`. The default is `false`.
    #[cfg(feature = "vault")]
    pub(super) fn take_flag(&mut self, name: &str) -> Result<bool, KeySetupError> {
        match self.take(name)?.as_ref().map(|value| value.as_str()) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(format!(
                "the option `{name}` of a key URL of `{}:` must be `true` or `false`",
                self.scheme
            ))),
        }
    }

    /// Refuses options that nobody took, because an option with a typing error would have no
    /// effect.
    pub(super) fn finish(&self, known: &[&str]) -> Result<(), KeySetupError> {
        if self.options.is_empty() {
            return Ok(());
        }
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let scheme = self.scheme;
        Err(invalid(if known.is_empty() {
            format!("a key URL of `{scheme}:` has no options: remove what follows the `?`")
        } else {
            let known = known.join(", ");
            format!("the key URL of `{scheme}:` has an unknown option; its options are {known}")
        }))
    }
}

/// Decodes `%20` and similar. Leaves `+` unchanged, because it is not a space in a path.
fn decoded(text: &str) -> Zeroizing<String> {
    let text = Zeroizing::new(text.replace('+', "%2B"));
    // `=` and `&` would separate the text into pairs.
    let text = Zeroizing::new(text.replace('=', "%3D").replace('&', "%26"));
    let pair = form_urlencoded::parse(text.as_bytes()).next();
    pair.map(|(name, _)| name.into_owned().into())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_place_and_options() {
        let mut url = KeyUrl::parse("key-command", "/a%20b+c=&d?arg=x%26y&arg=a+b&timeout=3");
        assert_eq!(*url.place, "/a b+c=&d");
        let arguments: Vec<_> = url
            .take_all("arg")
            .iter()
            .map(|it| it.to_string())
            .collect();
        assert_eq!(arguments, ["x&y", "a b"]);
        assert!(url.finish(&["timeout"]).is_err());
        assert_eq!(
            url.take("timeout")
                .expect("once")
                .as_deref()
                .map(String::as_str),
            Some("3")
        );
        url.finish(&[]).expect("all options are taken");
    }

    #[test]
    fn an_option_that_is_given_twice_is_refused() {
        let mut url = KeyUrl::parse("aws-kms", "arn?environment=canary1&environment=canary2");
        let refused = url
            .take("environment")
            .expect_err("it is not clear which one counts");
        assert!(!refused.to_string().contains("canary"), "{refused}");
    }

    #[test]
    fn an_unknown_option_is_refused_and_not_shown() {
        let url = KeyUrl::parse("vault", "https://h?canary=canary");
        let refused = url
            .finish(&["namespace"])
            .expect_err("the option is unknown");
        let text = refused.to_string();
        assert!(
            text.contains("`namespace`") && !text.contains("canary"),
            "{text}"
        );
    }
}
