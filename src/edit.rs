//! Changes good inputs, for fuzz targets.

/// Changes the bytes as the edits say: pairs of a position and a bit mask. An odd byte at the end
/// is the length to cut off.
pub(crate) fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    let (pairs, rest) = edits.as_chunks::<2>();
    for [at, mask] in pairs {
        let length = bytes.len();
        if length > 0 {
            bytes[usize::from(*at) % length] ^= mask;
        }
    }
    if let [cut] = rest {
        bytes.truncate(bytes.len().saturating_sub(usize::from(*cut)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_change_and_cut_the_bytes() {
        let edited = |edits: &[u8]| {
            let mut bytes = vec![0, 0, 0];
            edit(&mut bytes, edits);
            bytes
        };
        assert_eq!(edited(&[]), [0, 0, 0]);
        assert_eq!(edited(&[1, 7, 4, 1]), [0, 6, 0]);
        assert_eq!(edited(&[0, 1, 2]), [1]);
        assert_eq!(edited(&[9]), [0; 0]);
    }
}
