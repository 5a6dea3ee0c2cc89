resource "aws_dynamodb_table" "slack_installations" {
  name                        = "{table}"
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = true
  hash_key                    = "pk"
  range_key                   = "sk"

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  attribute {
    name = "due_queue"
    type = "S"
  }

  attribute {
    name = "due_key"
    type = "S"
  }

  global_secondary_index {
    name            = "due"
    hash_key        = "due_queue"
    range_key       = "due_key"
    projection_type = "KEYS_ONLY"
  }

  point_in_time_recovery {
    enabled = true
  }

  lifecycle {
    prevent_destroy = true
  }
}
