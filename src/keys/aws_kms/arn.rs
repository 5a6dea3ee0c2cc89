//! The ARN of a key in AWS KMS.

use crate::keys::error::{KeySetupError, invalid};

/// `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`. Not secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KeyArn(String);

impl KeyArn {
    /// Parses the ARN of one key. An alias or an id alone could later name another key.
    pub(super) fn parse(text: &str) -> Result<Self, KeySetupError> {
        let parts: Vec<_> = text.split(':').collect();
        let [first, partition, service, region, account, resource] = parts[..] else {
            return Err(form(text));
        };
        let is_name = |text: &str| {
            let plain = |char: char| char.is_ascii_alphanumeric() || char == '-';
            !text.is_empty() && text.chars().all(plain)
        };
        let id = resource.strip_prefix("key/").unwrap_or_default();
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_key = [partition, region, id].into_iter().all(is_name) && is_account;
        if (first, service) != ("arn", "kms") || !is_key {
            return Err(form(text));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn region(&self) -> &str {
        self.0.split(':').nth(3).unwrap_or_default()
    }

    /// Returns what the replicas of a multi-Region key have in common. Of another key, returns the
    /// ARN.
    pub(super) fn stable(&self) -> String {
        if self.0.contains(":key/mrk-") {
            self.0.replacen(self.region(), "", 1)
        } else {
            self.0.clone()
        }
    }
}

fn form(text: &str) -> KeySetupError {
    let is_alias = text.contains("alias/");
    invalid(if is_alias {
        "an alias of a KMS key can be changed to another key, and data keys would then not open: \
         use the key's ARN, from `aws kms describe-key --key-id alias/NAME --query \
         KeyMetadata.Arn`"
    } else {
        "not the ARN of a KMS key; expected `arn:aws:kms:REGION:ACCOUNT:key/ID`, from `aws kms \
         describe-key --key-id ID --query KeyMetadata.Arn`"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str =
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn the_region_is_the_keys() {
        assert_eq!(KeyArn::parse(ARN).expect("an ARN").region(), "eu-central-1");
        let gov = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1";
        assert_eq!(
            KeyArn::parse(gov).expect("an ARN").region(),
            "us-gov-west-1"
        );
    }

    #[test]
    fn an_alias_or_an_id_is_refused_with_the_command_that_prints_the_arn() {
        let alias = "arn:aws:kms:eu-central-1:111122223333:alias/slack";
        for text in [
            alias,
            "alias/slack",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "",
        ] {
            let refused = KeyArn::parse(text)
                .expect_err("not a key's ARN")
                .to_string();
            assert!(refused.contains("aws kms describe-key"), "{refused}");
        }
        for text in [
            "arn:aws:kms:eu-central-1:1111:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a b",
            "arn:aws:kms:eu-central-1:111122223333:key/1:2",
            "arn:aws:kms:evil.example:111122223333:key/1",
        ] {
            assert!(KeyArn::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_multi_region_key_has_the_same_name_in_another_region() {
        let name = |text: &str| KeyArn::parse(text).expect("an ARN").stable();
        let there = |arn: &str| name(&arn.replace("eu-central-1", "us-east-1"));
        let mrk = ARN.replace("key/", "key/mrk-");
        assert_eq!(name(&mrk), there(&mrk));
        assert_eq!(name(ARN), ARN);
        assert_ne!(name(ARN), there(ARN));
        assert_ne!(
            name(&mrk),
            name(&mrk.replace("111122223333", "999922223333"))
        );
        assert_ne!(name(&mrk), name(&format!("{mrk}0")));
    }
}
