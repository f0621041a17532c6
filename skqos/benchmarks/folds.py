"""Validation folds of the training rows of a split, for choices without the test rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from skqos.benchmarks._split import Split

N_FOLDS = 5


def take_fold(split: Split, fold: int, n_folds: int = N_FOLDS) -> Split:
    """Hold out a fold of the training rows in place of the test rows.

    The fold resembles the test rows. It contains all rows of a part of the users if the test users
    have no training rows, rows of the last step if rows have a time step, and random rows
    otherwise.

    Parameters
    ----------
    split : Split
        Split whose test rows are not used.

    fold : int
        Number of the fold, from 0.

    n_folds : int
        Number of folds.

    Examples
    --------
    >>> from skqos.benchmarks import Split
    >>> from skqos.benchmarks.folds import take_fold
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.5, random_state=0)
    >>> take_fold(Split(data.X[:200], data.y[:200], data.X[200:], None), 0)
    <Split '': 160 training rows, 40 test rows>
    """
    rows = _held_out_rows(split, fold, n_folds)
    kept = np.ones(len(split.y), dtype=bool)
    kept[rows] = False
    X, y = np.asarray(split.X), split.y
    return replace(split, X=X[kept], y=y[kept], X_test=X[rows], y_test=y[rows])


def _held_out_rows(split: Split, fold: int, n_folds: int) -> NDArray[np.int64]:
    X, X_test = np.asarray(split.X), np.asarray(split.X_test)
    if not np.isin(X_test[:, 0], X[:, 0]).any():
        users = _draw(np.unique(X[:, 0]), fold, n_folds)
        return np.flatnonzero(np.isin(X[:, 0], users))
    has_steps = X.shape[1] > 2
    candidates = np.flatnonzero(X[:, 2] == X[:, 2].max()) if has_steps else np.arange(len(X))
    return np.sort(_draw(candidates, fold, n_folds))


def _draw(items: NDArray[np.int64], fold: int, n_folds: int) -> NDArray[np.int64]:
    return np.array_split(np.random.default_rng(0).permutation(items), n_folds)[fold]
