"""The schemas are schemas, every spec fits its own, and what is wrong does not: check.py IMAGES"""

import json
import pathlib
import sys
import tomllib

from jsonschema import Draft202012Validator

images = pathlib.Path(sys.argv[1])


def refuse(what):
    sys.exit(f"schema-peer: {what}")


def validator(name):
    schema = json.loads((images / "schema" / name).read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


image, function = validator("image.schema.json"), validator("function.schema.json")
specs = [(path, image) for path in images.glob("*/image.toml")]
specs += [(path, function) for path in images.glob("functions/*.toml")]
if len(specs) < 3:
    refuse(f"there are only {len(specs)} specs in {images}")
for path, schema in specs:
    text = path.read_text()
    spec = tomllib.loads(text)
    for error in schema.iter_errors(spec):
        refuse(f"{path}: {error.json_path}: {error.message}")
    if not text.startswith("#:schema ../schema/"):
        refuse(f"{path}: its first line does not name its schema for editors (`#:schema ../schema/…`)")
    if schema.is_valid({**spec, "progams": []}) or schema.is_valid({**spec, "format": "one"}):
        refuse(f"{path}: an unknown key or a wrong type fits the schema")
    if path.name == "image.toml" and schema.is_valid({**spec, "outputs": ["usb"]}):
        refuse(f"{path}: an output that there is not fits the schema")
    without = {key: value for key, value in spec.items() if key not in ("format", "extends")}
    if schema.is_valid(without) or not schema.is_valid({**without, "extends": "../x/image.toml"}):
        refuse(f"{path}: a missing key is one that a file without `extends` has to have")
print(f"{len(specs)} specs fit their schemas")
