//! JSON Schema (2020-12) of `image.toml` and `functions/<name>.toml`, for editors; made from the types that
//! read them.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::spec::{FunctionSpec, ImageSpec};

/// The schemas by file name.
pub fn schemas() -> [(&'static str, Value); 2] {
    [("image.schema.json", of::<ImageSpec>()), ("function.schema.json", of::<FunctionSpec>())]
}

fn of<T: JsonSchema>() -> Value {
    let schema: Schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    if let Some(root) = schema.as_object_mut() {
        inherited(root);
    }
    schema
}

/// A file that extends another has what that one has: nothing is wanted of it, and a list can be changed
/// instead of replaced.
fn inherited(root: &mut Map<String, Value>) {
    if let Some(required) = root.remove("required") {
        root.insert("if".to_owned(), json!({ "not": { "required": ["extends"] } }));
        root.insert("then".to_owned(), json!({ "required": required }));
    }
    for (_, property) in root.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        if property["type"] == "array" {
            let edit = json!({
                "type": "object",
                "properties": { "add": { "type": "array" }, "remove": { "type": "array" } },
                "additionalProperties": false,
            });
            let description = property["description"].clone();
            *property = json!({ "description": description, "anyOf": [property.take(), edit] });
        }
    }
}
