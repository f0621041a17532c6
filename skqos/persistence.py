"""Saving fitted models to files that hold data and no code."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import secrets
import zipfile
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

__all__ = ["load_model", "save_model"]

FORMAT = "skqos model"
FORMAT_VERSION = 1


def save_model(estimator: BaseEstimator, path: str | os.PathLike[str]) -> None:
    """Save a model to a file that can be loaded without trusting it.

    The file holds parameters, ids, context tables, the target transform and the network as plain
    data: numbers, strings, lists, dicts and tensors on the CPU. ``torch.load(weights_only=True)``
    reads it. A pickle, in contrast, runs whatever code it names.

    The file is written beside its final place and then put there at once: an earlier file stays
    until the new one is complete, whatever happens.

    Parameters
    ----------
    estimator : estimator or Pipeline
        An estimator of this package, fitted or not, or a pipeline of its estimators and
        transformers.
    path : str or path-like
        The file to write. Its folder has to exist.

    Raises
    ------
    TypeError
        If `estimator` is none, or holds something that is no data, such as callbacks, a
        ``RandomState``, or a step of another package.
    OSError
        If the file cannot be written; an earlier one is as it was.

    See Also
    --------
    load_model : Loads it.

    Notes
    -----
    Ids and categories have to be numbers, strings or booleans, or tuples of them.

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

    import skqos
    from skqos._plain import to_plain

    if not isinstance(estimator, BaseEstimator):
        raise TypeError(
            f"estimator must be an estimator of skqos or a Pipeline; got {estimator!r:.60}."
        )
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
    replace_file(Path(path), file.getbuffer())


def load_model(path: str | os.PathLike[str]) -> Any:
    """Load what `save_model` saved, on any device; no code of the file is run.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    estimator or Pipeline
        As it was saved; its network is on the CPU, as after `fit`.

    Raises
    ------
    ValueError
        If the file was not written by `save_model`, or is damaged.
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
    import torch

    from skqos._plain import from_plain

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file.")
    try:
        # What torch wrote since 2020 is a zip archive; what it wrote before is a pickle.
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no complete file of torch")
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it has no such head")
        if content["format_version"] > FORMAT_VERSION:
            raise ValueError(f"a newer skqos, {content['skqos_version']}, wrote it")
        model = from_plain(content["model"])
        if not isinstance(model, BaseEstimator):
            raise ValueError(f"it holds {model!r:.60}")
    except (ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no model that this skqos saved: {error}.") from error
    return model


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file at once: readers see the earlier one until the new one is complete.

    Parameters
    ----------
    path : Path
        The file; a link is followed.
    content : bytes-like
        All that it is to hold.

    Raises
    ------
    OSError
        If it cannot be written; an earlier file is as it was, and nothing else is left.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file; give the name of a file to write.")
    # Beside the target, hence on the same file system, where replacing is one step.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        state = "is as it was" if target.exists() else "was not written"
        raise OSError(f"{path} {state}: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
