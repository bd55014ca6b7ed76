"""python-tuf follows a repository that Kiln published: check.py FLEET_DIR

It verifies the whole chain, downloads every file, compares them with the manifests, and must refuse
each kind of file once one of its bytes has changed.
"""

import json
import sys
import tempfile
from pathlib import Path

from folder import updater
from tuf.api.exceptions import RepositoryError

IMAGES = [("edge-router/1/x86_64", 1), ("edge-router/2/x86_64", 2)]


def follow(repository: Path, root: bytes) -> dict[str, bytes]:
    """Every file of both images, verified by python-tuf."""
    files = {}
    with tempfile.TemporaryDirectory() as work:
        client = updater(repository, root, Path(work))
        client.refresh()

        def download(name: str) -> bytes:
            info = client.get_targetinfo(name)
            if info is None:
                raise SystemExit(f"python-tuf does not find {name}")
            files[name] = Path(client.download_target(info)).read_bytes()
            return files[name]

        for folder, version in IMAGES:
            manifest = json.loads(download(f"{folder}/manifest.json"))["signed"]
            assert manifest["version"] == str(version), manifest["version"]
            for part, stated in manifest["parts"].items():
                assert len(download(f"{folder}/{part}")) == stated["size"], part
        if client.get_targetinfo("edge-router/3/x86_64/manifest.json") is not None:
            raise SystemExit("python-tuf finds an image that was never published")
    return files


def must_refuse(repository: Path, root: bytes, path: Path) -> None:
    """One changed byte in `path` must stop python-tuf too: then it really reads this file."""
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    try:
        follow(repository, root)
    except (RepositoryError, ValueError):
        return
    finally:
        path.write_bytes(good)
    raise SystemExit(f"python-tuf accepts {path} with a changed byte")


def main() -> None:
    fleet = Path(sys.argv[1])
    repository = fleet / "repository"
    root = (fleet / "trust/root.json").read_bytes()
    files = follow(repository, root)
    print(f"python-tuf verified and downloaded {len(files)} files")
    changed = [repository / "metadata" / name for name in ("timestamp.json", "2.snapshot.json", "2.targets.json")]
    changed += sorted((repository / "targets/edge-router/2/x86_64").glob("*.vmlinuz"))
    changed += sorted((repository / "targets/edge-router/2/x86_64").glob("*.manifest.json"))
    assert len(changed) == 5, changed
    for path in changed:
        must_refuse(repository, root, path)
    print(f"python-tuf refused {len(changed)} changed files")


main()
