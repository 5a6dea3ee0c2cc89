//! Opens a backend by its URL.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

use super::{Backend, BoxError};

/// A backend that [`connect`](super::connect) opens.
#[async_trait]
pub(super) trait ByUrl: Backend + Sized {
    /// An example of each form of URL, for an error text. Empty if the scheme is already a complete
    /// URL.
    const EXAMPLES: &str;

    /// Opens the backend at this URL, whose scheme is one of this backend's.
    async fn by_url(url: &str) -> Result<Self, ConnectError>;

    /// Opens the backend for reading. Creates and migrates nothing.
    async fn by_url_to_read(url: &str) -> Result<Self, ConnectError> {
        Self::by_url(url).await
    }

    /// Creates or migrates the tables, and does nothing else.
    async fn migrate_by_url(url: &str) -> Result<(), ConnectError> {
        Self::by_url(url).await.map(drop)
    }

    /// Returns the parts of the schema that the database lacks.
    async fn missing_by_url(_url: &str) -> Result<Vec<String>, ConnectError> {
        Ok(Vec::new())
    }
}

/// The forms of one backend's URLs.
pub(crate) struct Form {
    /// The backend's module, its feature, and the kind of its cursors.
    pub(crate) name: &'static str,
    pub(super) schemes: &'static [&'static str],
    /// `None` if the feature is off.
    pub(super) calls: Option<Calls>,
}

/// What can be done with a URL of one backend.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    pub(super) open: for<'a> fn(&'a str) -> Opening<'a>,
    pub(super) read: for<'a> fn(&'a str) -> Opening<'a>,
    pub(super) migrate: for<'a> fn(&'a str) -> Pinned<'a, ()>,
    pub(super) missing: for<'a> fn(&'a str) -> Pinned<'a, Vec<String>>,
}

pub(super) type Opening<'a> = Pinned<'a, Arc<dyn Backend>>;
pub(super) type Pinned<'a, T> = Pin<Box<dyn Future<Output = Result<T, ConnectError>> + Send + 'a>>;

/// Defines [`connect`](super::connect) and its list of [`Form`]s. Each line is one backend: its
/// module, the condition that it is compiled under, its type, and the schemes of its URLs. The
/// module's `url.md` documents the URLs.
macro_rules! backends {
    ($($name:ident ($cfg:meta) $backend:ident: $($scheme:literal)+;)+) => {
        pub(crate) const FORMS: &[connect::Form] = &[$(connect::Form {
            name: stringify!($name),
            schemes: &[$($scheme),+],
            #[cfg($cfg)]
            calls: Some(connect::calls::<$backend>()),
            #[cfg(not($cfg))]
            calls: None,
        }),+];

        /// Opens the backend at this URL:
        ///
        $(#[doc = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"), "/src/backend/", stringify!($name), "/url.md"
        ))])+
        ///
        /// All other settings have their defaults. To change one, open the backend by its own
        /// constructor (for example `PostgresBackend::connect_with`).
        ///
        /// ```
        /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        /// let backend = slack_installs::backend::connect("memory:").await?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// # })?;
        /// # Ok::<(), Box<dyn std::error::Error>>(())
        /// ```
        ///
        /// # Errors
        ///
        /// [`ConnectError`]. Its text has the remedy, and never the URL, which may hold a password.
        pub async fn connect(url: &str) -> Result<Arc<dyn Backend>, ConnectError> {
            (connect::by_form(FORMS, url)?.open)(url).await
        }

        /// Opens the backend at this URL for reading only: every commit is refused. Creates no
        /// file and no table, and migrates nothing. `connect` has the forms of the URL.
        ///
        /// # Errors
        ///
        /// [`ConnectError`], as [`connect`]. A database that does not exist, or has old tables, is
        /// [`ConnectErrorKind::NotMigrated`].
        pub async fn connect_read_only(url: &str) -> Result<Arc<dyn Backend>, ConnectError> {
            let backend = (connect::by_form(FORMS, url)?.read)(url).await?;
            Ok(Arc::new(ReadOnly::new(backend)))
        }

        /// Creates or migrates the tables of the database at this URL, and does nothing else.
        /// Parts of the schema that were dropped are created again. A table is then empty.
        /// `connect` has the forms of the URL. With a backend that has no tables, only checks the
        /// database.
        ///
        /// # Errors
        ///
        /// [`ConnectError`], as [`connect`].
        pub async fn migrate(url: &str) -> Result<(), ConnectError> {
            (connect::by_form(FORMS, url)?.migrate)(url).await
        }

        /// Returns the parts of the schema that the database at this URL lacks, such as
        /// `view slack_installations`, because they were dropped. [`migrate`] creates them again.
        /// Changes nothing. A backend that has no tables lacks nothing.
        ///
        /// # Errors
        ///
        /// [`ConnectError`], as [`connect_read_only`].
        pub async fn missing(url: &str) -> Result<Vec<String>, ConnectError> {
            (connect::by_form(FORMS, url)?.missing)(url).await
        }
    };
}

pub(super) use backends;

pub(super) fn by_form(forms: &[Form], url: &str) -> Result<Calls, ConnectError> {
    let scheme = url.split(':').next().unwrap_or_default();
    let Some(form) = forms.iter().find(|form| form.schemes.contains(&scheme)) else {
        let schemes = forms.iter().flat_map(|form| form.schemes);
        let schemes: Vec<_> = schemes.map(|scheme| format!("`{scheme}:`")).collect();
        let expected = schemes.join(", ");
        return Err(invalid(format!(
            "not a database URL: expected one that begins with one of {expected}"
        )));
    };
    form.calls.ok_or_else(|| {
        let text = format!(
            "a database URL of `{scheme}:` needs the feature `{}`: add it to the features of \
             slack-installs in Cargo.toml",
            form.name
        );
        ConnectError::new(ConnectErrorKind::FeatureMissing, text)
    })
}

pub(super) const fn calls<B: ByUrl>() -> Calls {
    Calls {
        open: |url| {
            Box::pin(async move {
                check_place::<B>(url)?;
                Ok(Arc::new(B::by_url(url).await?) as Arc<dyn Backend>)
            })
        },
        read: |url| {
            Box::pin(async move {
                check_place::<B>(url)?;
                Ok(Arc::new(B::by_url_to_read(url).await?) as Arc<dyn Backend>)
            })
        },
        migrate: |url| {
            Box::pin(async move {
                check_place::<B>(url)?;
                B::migrate_by_url(url).await
            })
        },
        missing: |url| {
            Box::pin(async move {
                check_place::<B>(url)?;
                B::missing_by_url(url).await
            })
        },
    }
}

fn check_place<B: ByUrl>(url: &str) -> Result<(), ConnectError> {
    let (scheme, place) = url.split_once(':').unwrap_or((url, ""));
    if !B::EXAMPLES.is_empty() && place.trim_matches('/').is_empty() {
        return Err(invalid(format!(
            "the database URL ends after `{scheme}:`; expected {}",
            B::EXAMPLES
        )));
    }
    Ok(())
}

/// Removes one of our own parameters from a URL, because the driver must not see it. Returns the
/// rest of the URL and the value. If the parameter is given twice, the last value is used.
#[allow(dead_code, reason = "not every backend has its own parameters")]
pub(super) fn take_parameter(url: &str, name: &str) -> (String, Option<String>) {
    let (start, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let Some((place, query)) = start.split_once('?') else {
        return (url.to_owned(), None);
    };
    let mut value = None;
    let mut others = Vec::new();
    for pair in query.split('&') {
        match url::form_urlencoded::parse(pair.as_bytes()).next() {
            Some((key, found)) if key == name => value = Some(found.into_owned()),
            _ => others.push(pair),
        }
    }
    let mark = if others.is_empty() { "" } else { "?" };
    let others = others.join("&");
    (format!("{place}{mark}{others}{fragment}"), value)
}

/// Why a backend cannot be opened.
///
/// The text names the database, the cause and the remedy. It never has the URL, which may hold a
/// password. The source, if any, is the driver's error.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct ConnectError {
    kind: ConnectErrorKind,
    text: Cow<'static, str>,
    source: Option<BoxError>,
}

/// The cause of a [`ConnectError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The database refused the credentials, or they lack a permission.
    Denied,
    /// This build cannot open the database, because a feature of this crate is off.
    FeatureMissing,
    /// The database holds another program's data.
    Foreign,
    /// A part of the schema was dropped, without which no row can be read or changed.
    Incomplete,
    /// The URL, the path or an option cannot be used.
    Invalid,
    /// The database has a setting, or a version, with which rows would be lost.
    Misconfigured,
    /// A newer version of this crate wrote the data.
    Newer,
    /// The tables are missing or old, and this call does not create or migrate them.
    NotMigrated,
    /// The database accepts no writes: it is a standby, a replica, or a write-protected file.
    ReadOnly,
    /// The connection would not be encrypted, or rustls has no crypto provider.
    Tls,
    /// The database cannot be reached, does not serve all its data, or failed. A later attempt may
    /// succeed.
    Unavailable,
}

impl ConnectError {
    /// Returns the cause of the error.
    #[must_use]
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    pub(super) fn new(kind: ConnectErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            text: text.into(),
            source: None,
        }
    }

    #[allow(dead_code, reason = "only drivers have causes")]
    pub(super) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Returns an error for a URL, a path or an option that cannot be used.
pub(super) fn invalid(text: impl Into<Cow<'static, str>>) -> ConnectError {
    ConnectError::new(ConnectErrorKind::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::connect;

    #[tokio::test]
    async fn memory_is_a_complete_url() {
        for url in ["memory:", "memory"] {
            connect(url).await.expect("the URL is complete");
        }
    }

    #[tokio::test]
    async fn a_url_of_another_scheme_is_refused_with_the_schemes_and_not_shown() {
        for url in ["", "mysql://canary", "/canary", ":canary", "Memory:"] {
            let refused = connect(url).await.expect_err("no backend has this scheme");
            assert_eq!(refused.kind(), ConnectErrorKind::Invalid);
            let text = refused.to_string();
            assert!(
                text.contains("`sqlite:`") && text.contains("`cluster:`"),
                "{text}"
            );
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_url_without_a_place_is_refused_with_an_example() {
        for url in ["sqlite", "sqlite:", "sqlite://"] {
            let refused = connect(url).await.expect_err("the URL has no path");
            assert_eq!(refused.kind(), ConnectErrorKind::Invalid);
            let text = refused.to_string();
            assert!(text.contains("`sqlite:installations.sqlite3`"), "{text}");
        }
    }

    #[test]
    fn a_backend_that_is_not_compiled_names_its_feature() {
        let forms = [Form {
            name: "redis",
            schemes: &["redis", "cluster"],
            calls: None,
        }];
        let refused = by_form(&forms, "cluster:redis://h").map(drop);
        let refused = refused.expect_err("the backend is not compiled");
        assert_eq!(refused.kind(), ConnectErrorKind::FeatureMissing);
        assert!(
            refused.to_string().contains("the feature `redis`"),
            "{refused}"
        );
    }

    #[test]
    fn our_parameters_are_taken_out_of_a_url_and_nothing_else_changes() {
        for (url, rest, value) in [
            ("redis://h:1/0", "redis://h:1/0", None),
            ("redis://h?prefix=a", "redis://h", Some("a")),
            (
                "postgres://u:%23@h/d?x=%20&prefix=a%2Cb&y",
                "postgres://u:%23@h/d?x=%20&y",
                Some("a,b"),
            ),
            (
                "rediss://h?prefix=a&prefix=b#insecure",
                "rediss://h#insecure",
                Some("b"),
            ),
            (
                "redis://h?prefixes=a#?prefix=b",
                "redis://h?prefixes=a#?prefix=b",
                None,
            ),
        ] {
            let (left, found) = take_parameter(url, "prefix");
            assert_eq!((left.as_str(), found.as_deref()), (rest, value), "{url}");
        }
    }
}
