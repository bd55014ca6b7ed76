"""Both bills of materials and the provenance are valid, and say the same: check.py FOLDER"""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

folder = pathlib.Path(sys.argv[1])


def refuse(what):
    sys.exit(f"sbom-peer: {what}")


spdx = parse_file(str(folder / "sbom.spdx.json"))
for message in validate_full_spdx_document(spdx, "SPDX-2.3"):
    refuse(f"SPDX: {message.validation_message}")

text = (folder / "sbom.cdx.json").read_text()
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
if problem:
    refuse(f"CycloneDX: {problem}")
cyclonedx = json.loads(text)

refs = [c["bom-ref"] for c in cyclonedx["components"]] + [cyclonedx["metadata"]["component"]["bom-ref"]]
if len(refs) != len(set(refs)):
    refuse("CycloneDX: a bom-ref is there twice")
for edge in cyclonedx["dependencies"]:
    for ref in [edge["ref"], *edge["dependsOn"]]:
        if ref not in refs:
            refuse(f"CycloneDX: a dependency names {ref}, which is no component")

in_spdx = {ref.locator for package in spdx.packages for ref in package.external_references}
in_cyclonedx = {c["purl"] for c in cyclonedx["components"] if "purl" in c}
if not in_spdx or in_spdx != in_cyclonedx:
    refuse(f"the two do not name the same packages: {in_spdx ^ in_cyclonedx}")
for purl in in_spdx:
    parsed = PackageURL.from_string(purl)
    if parsed.type != "deb" or parsed.to_string() != purl:
        refuse(f"{purl} is written {parsed.to_string()}")
scopes = {c["scope"] for c in cyclonedx["components"] if "scope" in c}
if scopes != {"required", "excluded"}:
    refuse(f"packages of both scopes are wanted, and there are {scopes}")
print(f"both are valid and name the same {len(in_spdx)} packages")

# The readers of in-toto refuse a field that the standards do not know.
provenance = json.loads((folder / "provenance.slsa.json").read_text())
try:
    statement = json_format.ParseDict(provenance, statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()
    predicate = json_format.ParseDict(provenance["predicate"], provenance_pb2.Provenance())
except (json_format.ParseError, ValueError) as problem:
    refuse(f"SLSA provenance: {problem}")
if statement.predicate_type != "https://slsa.dev/provenance/v1":
    refuse(f"SLSA provenance: it is a {statement.predicate_type}")
definition = predicate.build_definition
if not (definition.build_type and predicate.run_details.builder.id):
    refuse("SLSA provenance: build type and builder are wanted")
materials = {m.digest["sha256"]: m for m in definition.resolved_dependencies}
packages = {m.uri for m in materials.values() if m.uri}
if packages != in_cyclonedx:
    refuse(f"SLSA provenance and CycloneDX name other packages: {packages ^ in_cyclonedx}")
if not {"kiln-agent", "trust/root.json"} <= {m.name for m in materials.values()}:
    refuse("SLSA provenance: the agent and the trust root are no materials")
