"""Gradient boosted trees on codes and target means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin

from skqos.benchmarks.peers._encoding import OutOfFoldMeans, import_peer, take_codes


class LightGBM(RegressorMixin, BaseEstimator):
    """LightGBM with absolute error, on codes of the context and target means of groups.

    The means of a training row are out-of-fold: they leave out the fold of the row.

    Parameters
    ----------
    tables : sequence of ndarray of shape (n_ids, n_codes)
        Codes by id, a table for each column of X. Ids are positions in the tables.

    log : bool
        Whether to fit log(1 + y).

    seed : int
        Seed of the folds and of the trees.

    groups : sequence of tuple of int, default=((0,), (1,))
        Columns of X whose combinations have a mean and a count each.

    n_folds : int, default=5
        Number of folds.

    n_trees, n_leaves : int, default=500 and 63
        Number of trees, and of the leaves of each.

    learning_rate : float, default=0.05
        Learning rate.

    n_threads : int, default=1
        Number of threads.
    """

    def __init__(
        self,
        tables: Sequence[NDArray[np.int64]],
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

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> LightGBM:
        """Fit the trees to rows of ids."""
        lightgbm = import_peer("lightgbm", "LightGBM")
        target = np.log1p(y) if self.log else y
        codes = take_codes(self.tables, X)
        self.means_ = OutOfFoldMeans(self.groups, self.n_folds, self.seed)
        data = lightgbm.Dataset(
            np.column_stack([codes, self.means_.fit_transform(X, target)]),
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
        self.booster_ = lightgbm.train(params, data, self.n_trees)
        return self

    def predict(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict rows of ids."""
        features = np.column_stack([take_codes(self.tables, X), self.means_.transform(X)])
        prediction = self.booster_.predict(features)
        return np.expm1(prediction) if self.log else prediction


class CatBoost(RegressorMixin, BaseEstimator):
    """CatBoost on the target means of ids and context, out-of-fold in training.

    Its own encodings of categories were worse.
    """

    def __init__(
        self,
        tables: Sequence[NDArray[np.int64]],
        *,
        seed: int,
        n_folds: int = 5,
        n_trees: int = 1000,
        learning_rate: float = 0.1,
        depth: int = 8,
        n_threads: int = 1,
    ) -> None:
        self.tables = tables
        self.seed = seed
        self.n_folds = n_folds
        self.n_trees = n_trees
        self.learning_rate = learning_rate
        self.depth = depth
        self.n_threads = n_threads

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> CatBoost:
        """Fit the trees to rows of ids."""
        catboost = import_peer("catboost", "CatBoost")
        codes = take_codes(self.tables, X)
        groups = [(column,) for column in range(codes.shape[1])]
        self.means_ = OutOfFoldMeans(groups, self.n_folds, self.seed)
        self.model_ = catboost.CatBoostRegressor(
            loss_function="MAE",
            iterations=self.n_trees,
            learning_rate=self.learning_rate,
            depth=self.depth,
            random_seed=self.seed,
            thread_count=self.n_threads,
            allow_writing_files=False,
            verbose=False,
        )
        self.model_.fit(self.means_.fit_transform(codes, y), y)
        return self

    def predict(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict rows of ids."""
        return self.model_.predict(self.means_.transform(take_codes(self.tables, X)))
