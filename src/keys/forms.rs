//! The schemes of key URLs.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use super::error::{KeySetupError, KeySetupErrorKind, invalid};
use super::master::MasterKeys;
use super::source::{Command, Source};
use super::url::KeyUrl;
use crate::seal::KeyProvider;

type Provider = Arc<dyn KeyProvider>;
type Opening = Pin<Box<dyn Future<Output = Result<Provider, KeySetupError>> + Send>>;

/// The form of one provider's URLs.
struct Form {
    scheme: &'static str,
    /// A URL of this form, for error texts.
    example: &'static str,
    /// The feature that has this provider, if one does.
    feature: &'static str,
    /// `None` if the feature is off.
    open: Option<fn(KeyUrl) -> Opening>,
}

const FORMS: &[Form] = &[
    Form {
        scheme: "key-file",
        example: "key-file:/run/secrets/master-key",
        feature: "",
        open: Some(|url| Box::pin(local(file(&url)))),
    },
    Form {
        scheme: "key-fd",
        example: "key-fd:3",
        feature: "",
        open: Some(|url| Box::pin(local(descriptor(&url)))),
    },
    Form {
        scheme: "key-command",
        example: "key-command:/usr/bin/pass?arg=show&arg=slack",
        feature: "",
        open: Some(|url| Box::pin(local(command(url)))),
    },
    Form {
        scheme: "key-env",
        example: "key-env:SLACK_MASTER_KEY",
        feature: "",
        open: Some(|url| Box::pin(local(environment(&url)))),
    },
    Form {
        scheme: "aws-kms",
        example: "aws-kms:arn:aws:kms:REGION:ACCOUNT:key/ID",
        feature: "aws-kms",
        #[cfg(feature = "aws-kms")]
        open: Some(|url| Box::pin(super::aws_kms::by_url(url))),
        #[cfg(not(feature = "aws-kms"))]
        open: None,
    },
    Form {
        scheme: "aws-secret",
        example: "aws-secret:NAME",
        feature: "aws-secret",
        #[cfg(feature = "aws-secret")]
        open: Some(|url| Box::pin(secret(url))),
        #[cfg(not(feature = "aws-secret"))]
        open: None,
    },
    Form {
        scheme: "vault",
        example: "vault:https://HOST:8200/transit/keys/NAME",
        feature: "vault",
        #[cfg(feature = "vault")]
        open: Some(|url| Box::pin(async { super::vault::by_url(url) })),
        #[cfg(not(feature = "vault"))]
        open: None,
    },
];

/// Opens one provider.
pub(super) async fn open(url: &str) -> Result<Provider, KeySetupError> {
    by_form(FORMS, url).await
}

async fn by_form(forms: &[Form], url: &str) -> Result<Provider, KeySetupError> {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let form = forms.iter().find(|form| form.scheme == scheme);
    let form = form.ok_or_else(|| unknown(forms, scheme))?;
    let Some(open) = form.open else {
        let text = format!(
            "a key URL of `{}:` needs the feature `{}`: add it to the features of slack-installs \
             in Cargo.toml",
            form.scheme, form.feature
        );
        return Err(KeySetupError::new(KeySetupErrorKind::FeatureMissing, text));
    };
    let url = KeyUrl::parse(form.scheme, rest);
    if url.place.is_empty() {
        return Err(invalid(format!(
            "the key URL ends after `{}:`; expected for example `{}`",
            form.scheme, form.example
        )));
    }
    open(url).await
}

/// Returns the error for an unknown scheme. It is not shown, because it may be a key.
fn unknown(forms: &[Form], scheme: &str) -> KeySetupError {
    let schemes = forms.iter().map(|form| form.scheme);
    let near = schemes
        .clone()
        .map(|known| (distance(scheme, known), known));
    let near = near.min().filter(|(distance, _)| *distance <= NEAR);
    invalid(near.map_or_else(
        || {
            let schemes: Vec<_> = schemes.map(|scheme| format!("`{scheme}:`")).collect();
            let schemes = schemes.join(", ");
            format!(
                "not a key URL: expected one that begins with one of {schemes}; if it is a master \
                 key itself, set SLACK_INSTALLS_MASTER_KEY instead"
            )
        },
        |(_, near)| format!("not a key URL: did you mean `{near}:`?"),
    ))
}

/// Returns how many characters must be added, removed or replaced.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 2 * LONGEST {
        return one.len();
    }
    let other: Vec<char> = other.chars().collect();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, char) in one.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, expected) in other.iter().enumerate() {
            let replaced = above[column] + usize::from(char != *expected);
            let added = above[column + 1].min(current[column]) + 1;
            current.push(replaced.min(added));
        }
        above = current;
    }
    above[other.len()]
}

/// The distance up to which a scheme is proposed.
const NEAR: usize = 3;

/// Longer than each scheme.
const LONGEST: usize = 16;

async fn local(source: Result<Source, KeySetupError>) -> Result<Provider, KeySetupError> {
    Ok(Arc::new(MasterKeys::open(source?).await?))
}

fn file(url: &KeyUrl) -> Result<Source, KeySetupError> {
    url.finish(&[])?;
    Ok(Source::File(PathBuf::from(&*url.place)))
}

fn descriptor(url: &KeyUrl) -> Result<Source, KeySetupError> {
    url.finish(&[])?;
    let number = url.place.parse::<u16>().map_err(|_| {
        invalid("the key URL of `key-fd:` must be a number; expected for example `key-fd:3`")
    })?;
    Ok(Source::Descriptor(number))
}

fn command(mut url: KeyUrl) -> Result<Source, KeySetupError> {
    let arguments = url.take_all("arg");
    let seconds = url.take("timeout")?;
    url.finish(&["arg", "timeout"])?;
    let seconds = seconds.map(|seconds| {
        let seconds = seconds.parse().ok().filter(|it| (1..=300).contains(it));
        seconds.ok_or_else(|| invalid("the option `timeout` must be 1 to 300 seconds"))
    });
    let arguments = arguments.iter().map(|it| it.as_str().into()).collect();
    let program = PathBuf::from(&*url.place);
    Ok(Source::Command(Command::new(
        program,
        arguments,
        seconds.transpose()?,
    )))
}

fn environment(url: &KeyUrl) -> Result<Source, KeySetupError> {
    url.finish(&[])?;
    if url.place.contains(['=', '\0']) {
        return Err(invalid(
            "the key URL of `key-env:` must be the name of a variable",
        ));
    }
    Ok(Source::Environment(url.place.to_string()))
}

#[cfg(feature = "aws-secret")]
async fn secret(mut url: KeyUrl) -> Result<Provider, KeySetupError> {
    let (region, endpoint) = (url.take("region")?, url.take("endpoint")?);
    url.finish(&["region", "endpoint"])?;
    let region = region.as_ref().map(|it| it.as_str());
    let endpoint = endpoint.as_ref().map(|it| it.as_str());
    let secret = super::source::AwsSecret::new(&url.place, region, endpoint).await;
    local(Ok(Source::AwsSecret(secret))).await
}

#[cfg(test)]
mod tests;
