//! JSON Schema (2020-12) of `image.toml` and `functions/<name>.toml`, for editors; made from the types that
//! read them.

use kiln_outputs::Output;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use crate::spec::{FunctionSpec, ImageSpec};

/// The schemas by file name.
pub fn schemas() -> [(&'static str, Value); 2] {
    let mut image = of::<ImageSpec>();
    image["properties"]["outputs"]["items"]["enum"] = json!(Output::ALL.map(Output::as_str));
    [("image.schema.json", inherited(image)), ("function.schema.json", inherited(of::<FunctionSpec>()))]
}

fn of<T: JsonSchema>() -> Value {
    let schema: Schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.to_value()
}

/// A file that extends another has what that one has: nothing is wanted of it, and a list can be changed
/// instead of replaced.
fn inherited(mut schema: Value) -> Value {
    let Some(root) = schema.as_object_mut() else { return schema };
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
    schema
}
