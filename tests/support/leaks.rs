//! Searches an output for a secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Returns every form in which a secret could appear in the output.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let debug = format!("{:?}", secret.as_bytes());
    let list = debug.trim_matches(['[', ']']).to_owned();
    let mut forms = vec![secret.to_owned(), hex.to_uppercase(), hex, url, list];
    // In a longer text, base64 can begin at any of three offsets, and its first and last characters
    // depend on the neighbouring bytes.
    for skip in 0..3 {
        let inner = &secret.as_bytes()[skip..];
        let whole = &inner[..inner.len() / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(whole));
        forms.push(URL_SAFE_NO_PAD.encode(whole));
    }
    forms.into_iter().map(String::into_bytes).collect()
}

/// Returns whether a secret can be found in any form.
pub(crate) fn leaks(seen: &[u8], secret: &str) -> bool {
    forms(secret)
        .iter()
        .any(|form| seen.windows(form.len()).any(|window| window == form))
}
