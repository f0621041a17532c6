"""Saving fitted models to files that contain data and no code."""

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
# Comment at the end of the archive: a mark, the version of the format, and a checksum of all bytes
# before it.
MARK = b"skqos model "
COMMENT = b"%s%04d sha256 "
DIGEST_SIZE = 64
COMMENT_SIZE = len(COMMENT % (MARK, 0)) + DIGEST_SIZE


def save_model(estimator: BaseEstimator, path: str | os.PathLike[str] | BinaryIO) -> None:
    """Save a model to a file that can be loaded without trusting it.

    The file contains parameters, ids, context tables, the target transform and the network as plain
    data: numbers, strings, lists, dicts and tensors on the CPU. It can be read by
    ``torch.load(weights_only=True)``. In contrast, loading a pickle can run any code. A checksum
    detects damaged files.

    The file is written under another name in the same folder and then moved to `path` in one step,
    so that an existing file is replaced only by a complete one.

    Parameters
    ----------
    estimator : estimator or Pipeline
        Estimator of this package, fitted or not, or a Pipeline of its estimators and transformers.
    path : str, path-like or binary file
        File to write. Its folder must exist. An existing file keeps its mode. An open file is
        written from its current position and not closed.

    Raises
    ------
    TypeError
        If `estimator` is not an estimator of this package, or contains objects that are not data,
        such as callbacks, a ``RandomState``, or a step of another package. For a search, save its
        ``best_estimator_``. Also if `path` is neither a path nor a binary file.
    OSError
        If the file cannot be written. An existing file remains unchanged.

    See Also
    --------
    load_model : Load a model from a file.

    Notes
    -----
    Ids and categories must be numbers, strings, booleans, bytes, dates, times, UUIDs, decimals or
    tuples of them. Tables keep their dtypes, including those of pandas and pyarrow.

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
        raise TypeError(f"path must be a path or a binary file open for writing; got {path!r:.60}.")
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
    """Load a model that `save_model` saved, on any device; no code in the file is run.

    Parameters
    ----------
    path : str, path-like or binary file
        File to read. An open file is read from its current position to its end and not closed.

    Returns
    -------
    estimator or Pipeline
        The saved model. Its network is on the CPU, as after `fit`.

    Raises
    ------
    ValueError
        If the file was not written by `save_model`, is damaged, or does not contain a model, or if
        an open file is in text mode.
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
    # A forged file can cause any exception; all are reported as errors of the file.
    except Exception as error:
        raise ValueError(
            f"{name} is not a model saved by this version of skqos: {_reason(error)}."
        ) from error
    if version != skqos.__version__:
        warn_of_other_version(type(model).__name__, version)
    return model


def _reason(error: Exception) -> str:
    text = str(error)
    if not isinstance(error, ValueError):
        text = f"its parts are not what was stored ({type(error).__name__}: {text:.100})"
    return " ".join(text[:300].split()).removesuffix(".")


def _read(path: Any) -> tuple[str, bytes]:
    """Read a file; also return its name for errors."""
    if hasattr(path, "read"):
        content = path.read()
        if not isinstance(content, bytes | bytearray | memoryview):
            raise ValueError(
                f"path must be a binary file; got a file of {type(content).__name__}. Open it "
                "with mode 'rb'."
            )
        return f"the file {getattr(path, 'name', type(path).__name__)}", bytes(content)
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"path must be a path or a binary file open for reading; got {path!r:.60}."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file.")
    try:
        return str(path), Path(path).read_bytes()
    except MemoryError as error:
        raise ValueError(f"{path} is too large for the available memory.") from error


def _check_takes_bytes(file: Any) -> None:
    try:
        file.write(b"")
    except TypeError as error:
        raise TypeError(
            f"path must be a path or a binary file open for writing (mode 'wb'); got {file!r:.60}."
        ) from error


def _seal(file: io.BytesIO) -> None:
    """Append the checksum to an archive as a comment, which readers of archives skip."""
    # An archive ends with the length of its comment, here 0.
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", COMMENT_SIZE) + COMMENT % (MARK, FORMAT_VERSION))
    file.write(hashlib.sha256(file.getbuffer()).hexdigest().encode())


def _decode(content: bytes) -> tuple[BaseEstimator, str]:
    """Return the model in a file, and the version that saved it."""
    from skqos._archive import read_archive
    from skqos._plain import from_plain

    _check_seal(content)
    data = read_archive(content)
    if data["format"] != FORMAT or data["format_version"] != FORMAT_VERSION:
        raise ValueError("it has no valid head")
    version = data["skqos_version"]
    if not isinstance(version, str) or len(version) > DIGEST_SIZE:
        raise ValueError("it does not state the version that saved it")
    try:
        model = from_plain(data["model"])
    except Exception as error:
        if version == skqos.__version__:
            raise
        raise ValueError(
            f"it was saved by skqos {version}, this is {skqos.__version__}; {_reason(error)}"
        ) from error
    if not isinstance(model, BaseEstimator):
        raise ValueError(f"it contains a {type(model).__name__}")
    return model, version


def _check_seal(content: bytes) -> None:
    """Raise ValueError unless a file is undamaged and of this format."""
    comment = content[-COMMENT_SIZE:]
    if not comment.startswith(MARK):
        raise ValueError(
            "it has no end mark of a model file. It is incomplete or damaged, was written by "
            "another program, or has a format before version 2, which had no checksum"
        )
    body = memoryview(content)[:-DIGEST_SIZE]
    if hashlib.sha256(body).hexdigest().encode() != comment[-DIGEST_SIZE:]:
        raise ValueError("it is damaged: its checksum is wrong")
    format_version = int(comment[len(MARK) :][:4])
    if format_version != FORMAT_VERSION:
        raise ValueError(
            f"it has format {format_version} of another version of skqos; this version reads "
            f"format {FORMAT_VERSION}"
        )
