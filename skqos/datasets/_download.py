"""Download a zip archive and unpack some of its files; after an error, nothing is left."""

import hashlib
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath, PureWindowsPath

from skqos._warnings import warn_user

__all__ = ["download_zip", "unpack"]

_CHUNK = 1 << 16
_LARGEST_PAGE = 1 << 20
_LINK_ID = "downloadlink"
_CONNECTION_ERRORS = (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError)


def download_zip(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    n_retries: int = 3,
    delay: float = 1.0,
    timeout: float = 60.0,
) -> None:
    """Download a zip archive, following the link of a download page if `url` is one.

    Parameters
    ----------
    url : str
        Address of the archive, or of an HTML page with a link that has
        ``id="downloadlink"``.
    path : Path
        File to which the archive is written. After an error, its content is undefined.
    sha256 : str, default=None
        Expected checksum of the archive. If None, it is not checked.
    n_retries : int, default=3
        Number of retries after a failed connection.
    delay : float, default=1.0
        Seconds before the first retry; doubled for each further retry.
    timeout : float, default=60.0
        Seconds without a response after which a connection has failed.

    Raises
    ------
    OSError
        If the archive cannot be downloaded, is not a zip archive, or has a wrong checksum.
    http.client.HTTPException
        If the server violates the HTTP protocol.
    """
    address = _download(url, path, n_retries, delay, timeout)
    if not _looks_like_zip(path):
        link = _find_link(path)
        if link is None:
            raise OSError(
                f'{url} is neither a zip archive nor a page with a link with id="{_LINK_ID}".'
            )
        address = urllib.parse.urljoin(address, link)
        _download(address, path, n_retries, delay, timeout)
    if not zipfile.is_zipfile(path):
        raise OSError(f"{address} is not a complete zip archive.")
    if sha256 is not None:
        _check_sha256(address, path, sha256)


def _download(url: str, path: Path, n_retries: int, delay: float, timeout: float) -> str:
    """Write the body at `url` to `path`; return the address after redirections."""
    for attempt in range(n_retries + 1):
        try:
            return _download_once(url, path, timeout)
        except _CONNECTION_ERRORS as error:
            if attempt == n_retries or _is_final(error):
                raise OSError(f"{url}: {error}.") from error
            warn_user(f"Retry downloading {url} after: {error}")
            time.sleep(delay * 2**attempt)
    raise ValueError(f"n_retries must not be negative, got {n_retries}.")


def _is_final(error: Exception) -> bool:
    """Return whether retries are useless because the server rejects the request."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500


def _download_once(url: str, path: Path, timeout: float) -> str:
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    request = urllib.request.Request(quoted, headers={"User-Agent": "skqos"})
    with _open(request, timeout) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, _CHUNK)
        announced = response.headers.get("Content-Length")
        # http.client does not report a truncated body if it is read in chunks.
        if announced is not None and file.tell() != int(announced):
            raise ConnectionError(
                f"the connection broke after {file.tell():,} of {int(announced):,} bytes"
            )
        return response.url


def _open(request: urllib.request.Request, timeout: float) -> HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        # The error is also the response and keeps its connection open.
        error.close()
        raise


def _looks_like_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


class _LinkParser(HTMLParser):
    """Parser that keeps the address of the first element with the id of the download link."""

    link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        attributes = dict(attrs)
        if self.link is None and attributes.get("id") == _LINK_ID:
            self.link = attributes.get("href")


def _find_link(path: Path) -> str | None:
    with path.open("rb") as file:
        text = file.read(_LARGEST_PAGE).decode("utf-8", errors="replace")
    parser = _LinkParser()
    parser.feed(text)
    return parser.link


def _check_sha256(url: str, path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.strip().lower():
        raise OSError(f"{url} has the SHA-256 checksum {found}; expected {expected}.")


def unpack(
    zip_path: Path, folder: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Write the named files of a zip archive into a new folder.

    Parameters
    ----------
    zip_path : Path
        Zip archive.
    folder : Path
        Folder to create. The files are written directly into it, whatever their folder in the
        archive.
    required : sequence of str
        File names that must exist in one folder of the archive.
    optional : sequence of str, default=()
        Further file names to take from this folder if they exist.

    Raises
    ------
    OSError
        If the archive is damaged, a required file is missing, or a member has a path outside the
        target folder.
    """
    folder.mkdir()
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = _choose_members(archive, required)
            for name in (*required, *optional):
                if name in members:
                    _extract(archive, members[name], folder / name)
    # RuntimeError: encrypted. NotImplementedError, one of these: unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise OSError(f"The zip archive is damaged: {error}.") from error


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _choose_members(
    archive: zipfile.ZipFile, required: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    """Return the members, by file name, of the topmost folder with all required files."""
    folders: dict[PurePosixPath, dict[str, zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        _refuse_escape(info.filename, path)
        if not info.is_dir():
            folders.setdefault(path.parent, {})[path.name] = info
    complete = [path for path, names in folders.items() if set(required) <= set(names)]
    if not complete:
        present = {name for names in folders.values() for name in names}
        missing = [name for name in required if name not in present]
        raise OSError(
            f"The zip archive does not contain {', '.join(missing)}."
            if missing
            else f"The zip archive has no folder with all of {', '.join(required)}."
        )
    return folders[min(complete, key=_depth)]


def _depth(path: PurePosixPath) -> int:
    return len(path.parts)


def _refuse_escape(name: str, path: PurePosixPath) -> None:
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise OSError(
            f"The zip archive is rejected: the path of its member {name!r} is outside the folder."
        )
