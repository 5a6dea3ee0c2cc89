//! The definition of the table: as a request, as a CloudFormation template and as a Terraform
//! resource.

use aws_sdk_dynamodb::operation::create_table::CreateTableInput;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};

use super::item::{DUE_KEY, DUE_QUEUE, PK, SK};

/// Returns the request that creates the table.
pub(super) fn input(table: &str) -> CreateTableInput {
    let complete = "all required fields are set";
    let index = GlobalSecondaryIndex::builder()
        .index_name(DUE_INDEX)
        .key_schema(key(DUE_QUEUE, KeyType::Hash))
        .key_schema(key(DUE_KEY, KeyType::Range))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        );
    CreateTableInput::builder()
        .table_name(table)
        .attribute_definitions(attribute(PK, ScalarAttributeType::S))
        .attribute_definitions(attribute(SK, ScalarAttributeType::S))
        .attribute_definitions(attribute(DUE_QUEUE, ScalarAttributeType::S))
        .attribute_definitions(attribute(DUE_KEY, ScalarAttributeType::S))
        .key_schema(key(PK, KeyType::Hash))
        .key_schema(key(SK, KeyType::Range))
        .global_secondary_indexes(index.build().expect(complete))
        .billing_mode(BillingMode::PayPerRequest)
        .deletion_protection_enabled(true)
        .build()
        .expect(complete)
}

pub(super) fn cloud_formation(table: &str) -> String {
    include_str!("cloud_formation.yaml").replace("{table}", table)
}

pub(super) fn terraform(table: &str) -> String {
    include_str!("terraform.tf").replace("{table}", table)
}

fn attribute(name: &str, kind: ScalarAttributeType) -> AttributeDefinition {
    let attribute = AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(kind);
    attribute.build().expect("the name and the type are set")
}

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    let key = KeySchemaElement::builder()
        .attribute_name(name)
        .key_type(kind);
    key.build().expect("the name and the type are set")
}

/// The index of all rows that have a due time.
pub(super) const DUE_INDEX: &str = "due";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_describe_the_table_that_is_made() {
        let (input, yaml, hcl) = (input("rows"), cloud_formation("rows"), terraform("rows"));
        let yaml_has = |line: String| assert!(yaml.contains(&line), "{line} in {yaml}");
        // Terraform's own format aligns the values in columns.
        let hcl: String = hcl.split_whitespace().collect::<Vec<_>>().join(" ");
        let hcl_has = |line: String| assert!(hcl.contains(&line), "{line} in {hcl}");

        yaml_has(r#"TableName: "rows""#.into());
        hcl_has(r#"name = "rows""#.into());
        for defined in input.attribute_definitions() {
            let (name, kind) = (defined.attribute_name(), defined.attribute_type().as_str());
            yaml_has(format!(
                "{{ AttributeName: {name}, AttributeType: {kind} }}"
            ));
            hcl_has(format!(
                r#"attribute {{ name = "{name}" type = "{kind}" }}"#
            ));
        }
        let [index] = input.global_secondary_indexes() else {
            panic!("one index")
        };
        for keys in [input.key_schema(), index.key_schema()] {
            let lines = keys.iter().map(|key| {
                format!(
                    "{{ AttributeName: {}, KeyType: {} }}",
                    key.attribute_name(),
                    key.key_type()
                )
            });
            let at: Vec<_> = lines
                .map(|line| yaml.find(&line).expect("the template has each key"))
                .collect();
            assert!(at.is_sorted(), "the partition key comes first");
        }
        let [hash, range] = input.key_schema() else {
            panic!("two keys")
        };
        let (hash, range) = (hash.attribute_name(), range.attribute_name());
        hcl_has(format!(
            r#"hash_key = "{hash}" range_key = "{range}" attribute"#
        ));
        let [hash, range] = index.key_schema() else {
            panic!("two keys")
        };
        let (hash, range) = (hash.attribute_name(), range.attribute_name());
        let (name, projection) = (index.index_name(), index.projection());
        let projection = projection
            .and_then(|it| it.projection_type())
            .expect("the projection is set");
        yaml_has(format!("IndexName: {name}"));
        yaml_has(format!("Projection: {{ ProjectionType: {projection} }}"));
        let projected = format!(r#"projection_type = "{projection}""#);
        hcl_has(format!(
            r#"{{ name = "{name}" hash_key = "{hash}" range_key = "{range}" {projected} }}"#
        ));
        let billing = input.billing_mode().expect("the billing mode is set");
        yaml_has(format!("BillingMode: {billing}"));
        hcl_has(format!(r#"billing_mode = "{billing}""#));
        let protected = input
            .deletion_protection_enabled()
            .expect("deletion protection is set");
        yaml_has(format!("DeletionProtectionEnabled: {protected}"));
        hcl_has(format!("deletion_protection_enabled = {protected}"));
    }
}
