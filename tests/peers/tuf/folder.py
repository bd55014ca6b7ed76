"""Lets python-tuf's client read a repository that is a folder, as if a server had it."""

from pathlib import Path
from urllib.parse import unquote, urlparse

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

BASE = "folder:///"


class FolderFetcher(FetcherInterface):
    """Answers 404 for a file that is not there, as the client expects of the last root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str):
        path = self.folder / unquote(urlparse(url).path).lstrip("/")
        try:
            yield path.read_bytes()
        except FileNotFoundError:
            raise DownloadHTTPError(f"{path} is not there", 404) from None


def updater(repository: Path, root: bytes, work: Path) -> Updater:
    """A client that trusts `root`, remembers nothing and reads `repository`."""
    for name in ("metadata", "targets"):
        (work / name).mkdir(parents=True, exist_ok=True)
    return Updater(
        metadata_dir=str(work / "metadata"),
        metadata_base_url=BASE + "metadata/",
        target_dir=str(work / "targets"),
        target_base_url=BASE + "targets/",
        fetcher=FolderFetcher(repository),
        bootstrap=root,
    )
