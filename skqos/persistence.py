"""Saving fitted models to files that hold data and no code."""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

from sklearn.base import BaseEstimator

import skqos
from skqos._files import replace_file, write_all
from skqos.exceptions import warn_of_other_version

__all__ = ["load_model", "save_model"]

FORMAT = "skqos model"
FORMAT_VERSION = 2
# The comment at the end of the archive: a mark, the version of the format and a checksum of all
# that is ahead of it.
MARK = b"skqos model "
COMMENT = b"%s%04d sha256 "
DIGEST_SIZE = 64
COMMENT_SIZE = len(COMMENT % (MARK, 0)) + DIGEST_SIZE


def save_model(estimator: BaseEstimator, path: str | os.PathLike[str] | BinaryIO) -> None:
    """Save a model to a file that can be loaded without trusting it.

    The file holds parameters, ids, context tables, the target transform and the network as plain
    data: numbers, strings, lists, dicts and tensors on the CPU. ``torch.load(weights_only=True)``
    reads it. A pickle, in contrast, runs whatever code it names. A checksum tells every damage.

    The file is written beside its final place and then put there at once: an earlier file stays
    until the new one is complete, whatever happens.

    Parameters
    ----------
    estimator : estimator or Pipeline
        An estimator of this package, fitted or not, or a pipeline of its estimators and
        transformers.
    path : str, path-like or binary file
        The file to write. Its folder has to exist. A file that exists keeps its mode. An open file
        is written to from where it stands, and not closed.

    Raises
    ------
    TypeError
        If `estimator` is none, or holds something that is no data, such as callbacks, a
        ``RandomState``, or a step of another package; of a search, save its ``best_estimator_``.
        If `path` is neither a path nor a file that takes bytes.
    OSError
        If the file cannot be written; an earlier one is as it was.

    See Also
    --------
    load_model : Loads it.

    Notes
    -----
    Ids and categories have to be numbers, strings, booleans, bytes, dates, times, UUIDs, decimals
    or tuples of them. Tables keep their dtypes, those of pandas and pyarrow, too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skqos import R2SLRegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.persistence import load_model, save_model
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = R2SLRegressor(max_epochs=1, random_state=0).fit(data.X, data.y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(model, Path(folder, "model.skqos"))
    ...     loaded = load_model(Path(folder, "model.skqos"))
    >>> bool((loaded.predict(data.X) == model.predict(data.X)).all())
    True
    """
    import torch

    from skqos._plain import to_plain

    if not isinstance(estimator, BaseEstimator):
        raise TypeError(
            f"estimator must be an estimator of skqos or a Pipeline; got {estimator!r:.60}."
        )
    if hasattr(path, "write"):
        _check_takes_bytes(path)
    elif not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path or a file open for writing bytes; got {path!r:.60}.")
    file = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "skqos_version": skqos.__version__,
            "model": to_plain(estimator, type(estimator).__name__),
        },
        file,
    )
    _seal(file)
    if isinstance(path, str | os.PathLike):
        replace_file(Path(path), file.getbuffer())
    else:
        write_all(path, file.getbuffer())


def load_model(path: str | os.PathLike[str] | BinaryIO) -> Any:
    """Load what `save_model` saved, on any device; no code of the file is run.

    Parameters
    ----------
    path : str, path-like or binary file
        The file. An open file is read from where it stands to its end, and not closed.

    Returns
    -------
    estimator or Pipeline
        As it was saved; its network is on the CPU, as after `fit`.

    Raises
    ------
    ValueError
        If the file was not written by `save_model`, is damaged in any bit, or holds what makes up
        no model; if an open file gives text.
    OSError
        If it cannot be read.

    Warns
    -----
    InconsistentVersionWarning
        If another version of skqos saved it.

    Examples
    --------
    >>> from skqos.persistence import load_model
    >>> load_model("model.skqos").predict([[17, 203]])  # doctest: +SKIP
    array([0.41])
    """
    name, content = _read(path)
    try:
        model, version = _decode(content)
    # Whatever a forged file leads to, it is the file that is wrong.
    except Exception as error:
        raise ValueError(f"{name} is no model that this skqos saved: {_reason(error)}.") from error
    if version != skqos.__version__:
        warn_of_other_version(type(model).__name__, version)
    return model


def _reason(error: Exception) -> str:
    text = str(error)
    if not isinstance(error, ValueError):
        text = f"its parts are not what was stored ({type(error).__name__}: {text:.100})"
    return " ".join(text[:300].split()).removesuffix(".")


def _read(path: Any) -> tuple[str, bytes]:
    """Read a file; return how to name it, too."""
    if hasattr(path, "read"):
        content = path.read()
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ValueError(
                f"path must give bytes; got a file that gives {type(content).__name__}: open it "
                "with mode 'rb'."
            )
        return f"the file {getattr(path, 'name', type(path).__name__)}", bytes(content)
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be a path or a file open for reading bytes; got {path!r:.60}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file.")
    try:
        return str(path), Path(path).read_bytes()
    except MemoryError as error:
        raise ValueError(f"{path} is too large for the memory here.") from error


def _check_takes_bytes(file: Any) -> None:
    try:
        file.write(b"")
    except TypeError as error:
        raise TypeError(
            f"path must be a path or a file open for writing bytes, mode 'wb'; got {file!r:.60}."
        ) from error


def _seal(file: io.BytesIO) -> None:
    """End an archive with its checksum, as a comment, which readers of archives skip."""
    # Archives end with the length of their comment, here 0.
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", COMMENT_SIZE) + COMMENT % (MARK, FORMAT_VERSION))
    file.write(hashlib.sha256(file.getbuffer()).hexdigest().encode())


def _decode(content: bytes) -> tuple[BaseEstimator, str]:
    """Make the model that a file holds; return the version that saved it, too."""
    from skqos._archive import read_archive
    from skqos._plain import from_plain

    _check_seal(content)
    data = read_archive(content)
    if data["format"] != FORMAT or data["format_version"] != FORMAT_VERSION:
        raise ValueError("it has no such head")
    version = data["skqos_version"]
    if not isinstance(version, str) or len(version) > DIGEST_SIZE:
        raise ValueError("it does not say which version saved it")
    try:
        model = from_plain(data["model"])
    except Exception as error:
        if version == skqos.__version__:
            raise
        raise ValueError(
            f"skqos {version} saved it, this is {skqos.__version__}; {_reason(error)}"
        ) from error
    if not isinstance(model, BaseEstimator):
        raise ValueError(f"it holds a {type(model).__name__}")
    return model, version


def _check_seal(content: bytes) -> None:
    """Raise ValueError unless a file is as it was written, in this format."""
    comment = content[-COMMENT_SIZE:]
    if not comment.startswith(MARK):
        raise ValueError(
            "it does not end as a model file does. It is incomplete or damaged, of another "
            "program, or of the format before version 2, which had no checksum"
        )
    body = memoryview(content)[:-DIGEST_SIZE]
    if hashlib.sha256(body).hexdigest().encode() != comment[-DIGEST_SIZE:]:
        raise ValueError("it is damaged, for its checksum is wrong")
    format_version = int(comment[len(MARK) :][:4])
    if format_version != FORMAT_VERSION:
        raise ValueError(
            f"it is of format {format_version}, which another skqos wrote; this one reads format "
            f"{FORMAT_VERSION}"
        )
