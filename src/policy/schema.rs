//! The JSON Schema of a policy file, for editors.

/// The schema as a JSON document.
#[must_use]
pub fn policy_schema() -> serde_json::Value {
    todo!()
}
