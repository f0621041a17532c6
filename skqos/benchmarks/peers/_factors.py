"""Factorizations from other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin

from skqos.benchmarks.peers._encoding import count_codes, import_peer, number_codes


class CornacMF(RegressorMixin, BaseEstimator):
    """Matrix factorization of Cornac, with biases, by stochastic gradient descent.

    It is fitted to the target divided by its mean, so that its learning rate has no unit.
    """

    def __init__(
        self,
        *,
        seed: int,
        n_factors: int = 30,
        n_epochs: int = 150,
        learning_rate: float = 0.03,
        regularization: float = 0.1,
    ) -> None:
        self.seed = seed
        self.n_factors = n_factors
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.regularization = regularization

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> CornacMF:
        """Fit the factors to rows of ids."""
        models = import_peer("cornac.models", "Cornac")
        dataset = import_peer("cornac.data", "Cornac").Dataset
        self.unit_ = float(np.mean(np.abs(y)))
        rows = zip(*X.T.tolist(), (y / self.unit_).tolist(), strict=True)
        self.data_ = dataset.from_uir(list(rows), seed=self.seed)
        self.model_ = models.MF(
            k=self.n_factors,
            max_iter=self.n_epochs,
            learning_rate=self.learning_rate,
            lambda_reg=self.regularization,
            use_bias=True,
            seed=self.seed,
        ).fit(self.data_)
        return self

    def predict(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict rows of ids; unknown ids are replaced by the average."""
        model = self.model_
        users, user_bias, user_factors = _look_up(
            self.data_.uid_map, X[:, 0], model.u_biases, model.u_factors
        )
        services, bias, factors = _look_up(
            self.data_.iid_map, X[:, 1], model.i_biases, model.i_factors
        )
        product = np.where(users & services, (user_factors * factors).sum(axis=1), 0)
        return self.unit_ * (model.global_mean + user_bias + bias + product)


def _look_up(
    codes: dict[Any, int], ids: NDArray[np.int64], biases: NDArray, factors: NDArray
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return which ids are known, and the bias and factors of each; 0 for unknown ids."""
    code = np.array([codes.get(name, -1) for name in ids.tolist()])
    known = code >= 0
    return known, np.where(known, biases[code], 0), np.where(known[:, None], factors[code], 0)


class MyFM(RegressorMixin, BaseEstimator):
    """Bayesian factorization machine of myFM on indicators of ids and context."""

    def __init__(
        self,
        tables: Sequence[NDArray[np.int64]],
        *,
        seed: int,
        rank: int = 16,
        n_iter: int = 100,
    ) -> None:
        self.tables = tables
        self.seed = seed
        self.rank = rank
        self.n_iter = n_iter

    def fit(self, X: NDArray[np.int64], y: NDArray[np.float64]) -> MyFM:
        """Sample the weights by rows of ids."""
        library = import_peer("myfm", "myFM")
        sizes = count_codes(self.tables)
        groups = np.repeat(np.arange(len(sizes)), sizes).tolist()
        self.model_ = library.MyFMRegressor(rank=self.rank, random_seed=self.seed)
        self.model_.fit(self._indicators(X), y, n_iter=self.n_iter, grouping=groups)
        return self

    def predict(self, X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict rows of ids."""
        return self.model_.predict(self._indicators(X))

    def _indicators(self, X: NDArray[np.int64]) -> sparse.csr_matrix:
        columns = number_codes(self.tables, X)
        starts = np.arange(0, columns.size + 1, columns.shape[1])
        shape = (len(X), int(count_codes(self.tables).sum()))
        return sparse.csr_matrix((np.ones(columns.size), columns.ravel(), starts), shape=shape)
