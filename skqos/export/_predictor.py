"""Predictions from an exported file with onnxruntime, numpy and pandas."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skqos._ids import ID_COLUMNS, find_ids, id_kind, make_index
from skqos._times import read_times, warn_of_early
from skqos.export._contents import KEY, OUTPUT, Contents
from skqos.inputs import (
    as_columns,
    check_names,
    named_columns,
    read_id_column,
    stack_rows,
    unmasked,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Intermediate results of a batch of this size fit into the processor's cache.
PAIRS_PER_RUN = 256
SILENT = 4


class OnnxPredictor:
    """Predict QoS from a file that `to_onnx` wrote.

    It needs onnxruntime, numpy and pandas, and imports neither torch nor scikit-learn. It can be
    used by several threads at once.

    Parameters
    ----------
    path : str or path-like
        The file.
    n_threads : int, default=1
        Number of threads that compute. With 1, no thread is started, so that a server can fork
        afterwards.

    Raises
    ------
    ValueError
        If the file was not written by `to_onnx`, or `n_threads` is below 1.
    TypeError
        If `path` is not a path.
    OSError
        If the file does not exist.
    ImportError
        If onnxruntime is not installed.

    See Also
    --------
    to_onnx : Write the file.

    Examples
    --------
    >>> from skqos.export import OnnxPredictor
    >>> OnnxPredictor("model.onnx").predict([[17, 203]])  # doctest: +SKIP
    array([0.41])
    """

    def __init__(self, path: str | os.PathLike[str], *, n_threads: int = 1) -> None:
        if not isinstance(n_threads, Integral) or n_threads < 1:
            raise ValueError(f"n_threads must be an int of at least 1; got {n_threads!r}.")
        self._session: InferenceSession = _open(path, int(n_threads))
        self._contents: Contents = _read_contents(self._session, path)
        self._indexes: list[pd.Index] = [
            make_index(ids) for ids in (self._contents.users, self._contents.services)
        ]

    def predict(self, X: Any) -> np.ndarray:
        """Predict the QoS of pairs.

        Ids that are not in the file are predicted as the average user or service; context in X is
        ignored.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            User ids, service ids and, for a temporal estimator, times: integers or time stamps as
            in `fit`. All columns of `fit` are accepted as well, but only these are read.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            Predictions in the unit and shape of y.

        Raises
        ------
        ValueError
            If X has no rows or a wrong number of columns, or ids or times are missing or of another
            kind than in `fit`.
        TypeError
            If X is a lazy frame, or ids are not labels.
        """
        columns = self._columns(_as_frame(X))
        n, shape = len(columns[0]), self._contents.target_shape
        y = np.empty((n, int(np.prod(shape))))
        for start in range(0, n, PAIRS_PER_RUN):
            rows = slice(start, start + PAIRS_PER_RUN)
            batch = {name: column[rows] for name, column in zip(ID_COLUMNS, columns, strict=False)}
            y[rows] = self._session.run([OUTPUT], batch)[0]
        return y.reshape(n, *shape)

    def _columns(self, frame: pd.DataFrame) -> list[np.ndarray]:
        """Return the inputs of the graph: positions of users and services, and times if needed."""
        n_ids = self._contents.n_id_columns
        _check_shape(frame, n_ids, self._contents.n_features)
        check_names(frame.columns[:n_ids], n_ids, n_ids)
        columns = [self._positions(frame, side) for side in range(2)]
        if n_ids == 2:
            return columns
        scale = self._contents.time_scale
        steps = scale.steps_of(read_times(frame.iloc[:, 2]))
        warn_of_early(steps, self._contents.first_step, scale)
        return [*columns, steps]

    def _positions(self, frame: pd.DataFrame, side: int) -> np.ndarray:
        index, ids = self._indexes[side], read_id_column(frame, side)
        known_kind = id_kind(index.to_numpy())
        if (kind := id_kind(ids)) != known_kind:
            raise ValueError(
                f"{ID_COLUMNS[side]} ids are of kind {kind} (for example {ids[0]}), but in fit "
                f"they were of kind {known_kind} (for example {index[0]}). Give the same kind."
            )
        positions = find_ids(index, ids)
        positions[positions < 0] = len(index)
        return positions


def _open(path: Any, n_threads: int) -> InferenceSession:
    """Open a session of a file; onnxruntime has its own errors for unreadable files."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "OnnxPredictor requires onnxruntime. You can install it with `pip install onnxruntime`."
        ) from error
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path; got {path!r:.60}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} was not written by to_onnx: {reason:.200}.") from error


def _read_contents(session: InferenceSession, path: Any) -> Contents:
    metadata = session.get_modelmeta().custom_metadata_map
    if KEY not in metadata:
        raise ValueError(f"{path} is an ONNX model that was not written by to_onnx.")
    try:
        return Contents.from_json(metadata[KEY])
    except ValueError as error:
        raise ValueError(f"{path} cannot be read by this version of skqos: {error}.") from error


def _as_frame(X: Any) -> pd.DataFrame:
    frame = named_columns(X)
    if frame is not None:
        return frame
    rows = stack_rows(X) if isinstance(X, list | tuple) else np.asarray(unmasked(X))
    if rows.ndim != 2:
        raise ValueError(f"X must have 2 dimensions, with one row per pair; got {rows.ndim}.")
    return as_columns(rows)


def _check_shape(frame: pd.DataFrame, n_ids: int, n_features: int) -> None:
    n_rows, n_columns = frame.shape
    if n_columns not in (n_ids, n_features):
        of_fit = f", or all {n_features} of fit" if n_features != n_ids else ""
        raise ValueError(
            f"X has {n_columns} columns; it must have {n_ids} ({', '.join(ID_COLUMNS[:n_ids])})"
            f"{of_fit}."
        )
    if not n_rows:
        raise ValueError("X has 0 rows; at least one is needed.")
