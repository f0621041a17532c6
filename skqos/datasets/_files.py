"""Opening the files of a data set in a folder or a zip archive, plain or compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

Folder = Path | zipfile.Path
File = Path | zipfile.Path

# The byte-order mark of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class DamagedFileError(ValueError):
    """A compressed file cannot be read to its end."""


@contextmanager
def open_folder(path: Path, names: Collection[str]) -> Iterator[Folder]:
    """Open a folder, or the folder of a zip archive that contains files with the given names.

    Raises
    ------
    FileNotFoundError
        If the folder or archive does not exist, or the archive contains none of the files.
    ValueError
        If the archive is damaged, or contains such files in several folders.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise FileNotFoundError(f"path: the folder {path} does not exist.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"path: {path} is neither a folder nor a zip archive ({error})."
        ) from error
    with archive:
        yield _folder_of(archive, path, names)


def _folder_of(archive: zipfile.ZipFile, path: Path, names: Collection[str]) -> zipfile.Path:
    members = [PurePosixPath(name) for name in archive.namelist()]
    # Extra folder in archives that were created on macOS.
    members = [member for member in members if "__MACOSX" not in member.parts]
    folders = {member.parent for member in members if member.name.removesuffix(".gz") in names}
    if len(folders) > 1:
        raise ValueError(
            f"{path} contains data in several folders: {sorted(map(str, folders))}. Unpack it, and "
            "pass one of them as path."
        )
    if not folders or folders == {PurePosixPath()}:
        return zipfile.Path(archive)
    return zipfile.Path(archive, f"{folders.pop()}/")


def find(folder: Folder, name: str) -> File | None:
    """Return a file of a folder, plain or compressed, or None."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((file for file in candidates if file.is_file()), None)


@contextmanager
def open_bytes(file: File) -> Iterator[IO[bytes]]:
    """Open for reading, with decompression.

    Raises
    ------
    DamagedFileError
        If the file is compressed and damaged, or cannot be read from its archive.
    """
    try:
        with file.open("rb") as raw:
            if file.name.endswith(".gz"):
                with gzip.open(raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFileError(f"{file.name}: not a complete gzip file ({error}).") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DamagedFileError(
            f"{file.name}: not readable from its zip archive ({error})."
        ) from error


def encoding_of(stream: IO[bytes]) -> str:
    """Return the encoding of a text by its byte-order mark, latin-1 without one, and rewind."""
    start = stream.read(4)
    stream.seek(0)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "latin-1")


def read_text(file: File) -> str:
    """Decode a whole file; line ends are kept."""
    with open_bytes(file) as stream:
        encoding = encoding_of(stream)
        content = stream.read()
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        # A mark before a text with another encoding.
        return content.removeprefix(codecs.BOM_UTF8).decode("latin-1")


def read_lines(file: File) -> Iterator[str]:
    """Decode line by line, with any line ends; invalid characters are replaced."""
    with open_bytes(file) as stream:
        encoding = encoding_of(stream)
        yield from io.TextIOWrapper(stream, encoding=encoding, errors="replace")
