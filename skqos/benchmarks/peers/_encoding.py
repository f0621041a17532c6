"""Ids and context as codes, and the target means of their groups."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

USER_COLUMNS = ("country", "as", "subnet")
SERVICE_COLUMNS = ("country", "as", "subnet", "provider")


def import_peer(module: str, package: str) -> Any:
    """Import the library of a peer.

    Raises
    ------
    ImportError
        If it is not installed. The message contains the command to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} cannot be imported ({error}): pip install 'skqos[peers]' installs it."
        ) from error


def context_codes(users: pd.DataFrame, services: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Encode the context, with one table per side.

    Parameters
    ----------
    users, services : DataFrame
        Context by id, as `skqos.datasets.load_wsdream` returns it.

    Returns
    -------
    list of ndarray
        Tables of users and of services, with one row per id. Column 0 is the id; the others are
        codes of country, autonomous system, subnet and, for services, provider. Unknown values have
        a separate code.
    """
    tables = []
    for table, columns in ((users, USER_COLUMNS), (services, SERVICE_COLUMNS)):
        codes = [pd.factorize(table[column], use_na_sentinel=False)[0] for column in columns]
        tables.append(np.column_stack([np.arange(len(table)), *codes]))
    return tables


def take_codes(tables: Sequence[NDArray[np.int64]], X: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes of rows of ids, side by side."""
    return np.column_stack([table[ids] for table, ids in zip(tables, X.T, strict=True)])


def count_codes(tables: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the number of codes of each column, table by table."""
    return np.concatenate([table.max(axis=0) + 1 for table in tables])


def number_codes(tables: Sequence[NDArray[np.int64]], X: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the codes of rows of ids, numbered consecutively over the columns."""
    sizes = count_codes(tables)
    return take_codes(tables, X) + np.cumsum(sizes) - sizes


class GroupMeans:
    """Mean and count of the target for each combination of some columns of ids."""

    def __init__(self, columns: Sequence[int]) -> None:
        self.columns = list(columns)

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> GroupMeans:
        """Average the target over each group."""
        self.mean_ = y.mean()
        groups = pd.Series(y).groupby(self._keys(X))
        self.table_ = groups.agg(["mean", "count"])
        return self

    def transform(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return mean and count; the mean of all rows and 0 for unknown groups."""
        keys = self._keys(X)
        index = keys[0] if len(keys) == 1 else pd.MultiIndex.from_arrays(keys)
        found = self.table_.reindex(index)
        return np.column_stack([found["mean"].fillna(self.mean_), found["count"].fillna(0)])

    def _keys(self, X: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return list(X[:, self.columns].T)


class OutOfFoldMeans:
    """Target means of groups; for a training row, they are computed from the other folds.

    They do not contain the value of the training row. A row to predict gets the means of all
    training rows.
    """

    def __init__(self, groups: Sequence[Sequence[int]], n_folds: int, seed: int) -> None:
        self.groups = groups
        self.n_folds = n_folds
        self.seed = seed

    def fit_transform(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Learn the means of all rows; return the means over the other folds for each row."""
        self.means_ = self._fit(X, y)
        fold = np.random.default_rng(self.seed).permutation(len(X)) % self.n_folds
        features = np.empty((len(X), 2 * len(self.groups)))
        for k in range(self.n_folds):
            own, others = fold == k, fold != k
            features[own] = self._apply(self._fit(X[others], y[others]), X[own])
        return features

    def transform(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the means of all training rows."""
        return self._apply(self.means_, X)

    def _fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> list[GroupMeans]:
        return [GroupMeans(columns).fit(X, y) for columns in self.groups]

    @staticmethod
    def _apply(means: list[GroupMeans], X: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.column_stack([part.transform(X) for part in means])
