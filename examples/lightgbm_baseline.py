"""Gradient boosted trees on codes and target means: the baseline from outside deep learning.

    from embedding_mlp import context_codes
    from lightgbm_baseline import LightGBM
    model = LightGBM(context_codes(data.users, data.services), log=True, seed=0)
    model.fit(X, y).predict(X_test)

A row has the codes of its ids and of their context as categories, and for each of `groups` (the
user, the service) how many training values there are and what they are on average. Of a training
row that average is taken over the other folds, so that no row sees its own value; of a row to
predict it is taken over all training rows.

Needs LightGBM: ``pip install lightgbm``, or the extra ``benchmark`` of this package.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


class GroupMeans:
    """Mean and count of the target for each combination of some columns of ids."""

    def __init__(self, columns: Sequence[int]) -> None:
        self.columns = list(columns)

    def fit(self, X: np.ndarray, y: np.ndarray) -> GroupMeans:
        self.mean_ = y.mean()
        groups = pd.Series(y).groupby(self._keys(X))
        self.table_ = groups.agg(["mean", "count"])
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return mean and count; the mean of all, and none, for what `fit` did not see."""
        keys = self._keys(X)
        index = keys[0] if len(keys) == 1 else pd.MultiIndex.from_arrays(keys)
        found = self.table_.reindex(index)
        return np.column_stack([found["mean"].fillna(self.mean_), found["count"].fillna(0)])

    def _keys(self, X: np.ndarray) -> list[np.ndarray]:
        return list(X[:, self.columns].T)


class LightGBM:
    """The baseline with `fit` and `predict`; ids are positions in the tables, one a column."""

    def __init__(
        self,
        tables: list[np.ndarray],
        *,
        log: bool,
        seed: int,
        groups: Sequence[Sequence[int]] = ((0,), (1,)),
        n_folds: int = 5,
        n_trees: int = 500,
        learning_rate: float = 0.05,
        n_leaves: int = 63,
        n_threads: int = 1,
    ) -> None:
        self.tables = tables
        self.log = log
        self.seed = seed
        self.groups = groups
        self.n_folds = n_folds
        self.n_trees = n_trees
        self.learning_rate = learning_rate
        self.n_leaves = n_leaves
        self.n_threads = n_threads

    def fit(self, X: np.ndarray, y: np.ndarray) -> LightGBM:
        import lightgbm

        target = np.log1p(y) if self.log else y
        codes = self._codes(X)
        data = lightgbm.Dataset(
            np.column_stack([codes, self._out_of_fold(X, target)]),
            target,
            categorical_feature=list(range(codes.shape[1])),
        )
        params = {
            "objective": "l1",
            "learning_rate": self.learning_rate,
            "num_leaves": self.n_leaves,
            "num_threads": self.n_threads,
            "seed": self.seed,
            "feature_fraction": 0.8,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "deterministic": True,
            "verbosity": -1,
        }
        self.means_ = [GroupMeans(columns).fit(X, target) for columns in self.groups]
        self.booster_ = lightgbm.train(params, data, self.n_trees)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        means = [means.transform(X) for means in self.means_]
        prediction = self.booster_.predict(np.column_stack([self._codes(X), *means]))
        return np.expm1(prediction) if self.log else prediction

    def _codes(self, X: np.ndarray) -> np.ndarray:
        return np.column_stack([table[ids] for table, ids in zip(self.tables, X.T, strict=True)])

    def _out_of_fold(self, X: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Describe each row by the training rows of the other folds."""
        fold = np.random.default_rng(self.seed).permutation(len(X)) % self.n_folds
        features = np.empty((len(X), 2 * len(self.groups)))
        for k in range(self.n_folds):
            own, others = fold == k, fold != k
            features[own] = np.column_stack(
                [
                    GroupMeans(columns).fit(X[others], target[others]).transform(X[own])
                    for columns in self.groups
                ]
            )
        return features
