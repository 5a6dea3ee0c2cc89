//! Opens the backend that `--backend` names.

use std::sync::Arc;

use slack_installs::backend::{Backend, connect};

use crate::Failure;

/// Opens the backend at this URL.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn Backend>, Failure> {
    let opened = connect(url).await;
    opened.map_err(|error| format!("--backend: {}\n({REMEDY})", with_causes(&error)).into())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

const REMEDY: &str = "`scripts/storm SERVER` builds the example with the feature and starts a \
                      temporary server";
