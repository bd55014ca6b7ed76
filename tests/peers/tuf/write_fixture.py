"""python-tuf writes the repository that our verifier reads: write_fixture.py DIR

The keys come from fixed seeds, so the same bytes come out each time. What is in it on purpose: a root
that is replaced (the timestamp key changes), a threshold of two, a key of another kind, fields and
files that we do not use, and metadata that expires.
"""

import sys
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

EXPIRES = datetime(2036, 1, 31, 12, 0, 0, tzinfo=timezone.utc)
PRETTY = JSONSerializer(compact=False)


def signer(number: int) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


def dump(document: Metadata, signers: list[CryptoSigner]) -> bytes:
    for one in signers:
        document.sign(one, append=True)
    return document.to_bytes(PRETTY)


def root(version: int, keys: dict[str, list], thresholds: dict[str, int]) -> Metadata:
    document = Root(version=version, expires=EXPIRES, consistent_snapshot=True)
    for role, public in keys.items():
        document.roles[role] = Role([], thresholds.get(role, 1))
        for key in public:
            document.add_key(key, role)
    return Metadata(document)


def meta(version: int, content: bytes) -> MetaFile:
    return MetaFile(version, len(content), {"sha256": sha256(content).hexdigest()})


def main() -> None:
    folder = Path(sys.argv[1])
    one, two, three, old, new, targets_a, targets_b = (signer(n) for n in range(1, 8))
    foreign = CryptoSigner(ec.derive_private_key(8, ec.SECP256R1())).public_key
    keys = {
        "root": [one.public_key, two.public_key],
        "targets": [targets_a.public_key, targets_b.public_key, foreign],
        "snapshot": [three.public_key],
        "timestamp": [old.public_key],
    }
    thresholds = {"root": 2, "targets": 2}
    first = dump(root(1, keys, thresholds), [one, two])
    keys["timestamp"] = [new.public_key]
    second = dump(root(2, keys, thresholds), [one, two])

    content = b"hello from python-tuf\n"
    file = TargetFile.from_data("greetings/\u00fcber/hello.txt", content, ["sha256", "sha512"])
    file.unrecognized_fields["custom"] = {"quote\"back\\slash": [1, True, None, "\u00e9\u4e16"]}
    listed = Targets(version=3, expires=EXPIRES, targets={file.path: file})
    listed.unrecognized_fields["x-note"] = "fields that we do not know are signed too"
    targets = dump(Metadata(listed), [targets_a, targets_b])
    snapshot = Snapshot(version=5, expires=EXPIRES, meta={"targets.json": meta(3, targets), "extra.json": MetaFile(9)})
    snapshot = dump(Metadata(snapshot), [three])
    timestamp = dump(Metadata(Timestamp(version=7, expires=EXPIRES, snapshot_meta=meta(5, snapshot))), [new])

    files = {
        "metadata/1.root.json": first,
        "metadata/2.root.json": second,
        "metadata/3.targets.json": targets,
        "metadata/5.snapshot.json": snapshot,
        "metadata/timestamp.json": timestamp,
        f"targets/greetings/\u00fcber/{sha256(content).hexdigest()}.hello.txt": content,
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


main()
