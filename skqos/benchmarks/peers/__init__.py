"""Models from other libraries, for comparisons, as factories for `skqos.benchmarks.run`.

``python -m skqos.benchmarks run --model skqos.benchmarks.peers:catboost`` runs one on a split of
WS-DREAM data set 1. Each needs its library, which is imported when a model is fitted:
``pip install "skqos[peers]"``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor

from skqos.benchmarks.peers._encoding import context_codes
from skqos.benchmarks.peers._factors import CornacMF, MyFM
from skqos.benchmarks.peers._tabm import TabM
from skqos.benchmarks.peers._trees import CatBoost, LightGBM

__all__ = ["LightGBM", "catboost", "context_codes", "cornac_mf", "lightgbm", "myfm", "tabm"]


def lightgbm(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> LightGBM:
    """Make LightGBM on codes of the context and out-of-fold target means of user and service.

    Parameters
    ----------
    users, services : DataFrame
        Context by id, as `skqos.datasets.load_wsdream` returns it. Ids are the positions of its
        rows.

    seed : int
        Seed of the folds and of the trees.

    Returns
    -------
    regressor

    Examples
    --------
    >>> from skqos.benchmarks import evaluate, load_split
    >>> from skqos.benchmarks.peers import lightgbm
    >>> split = load_split("wsdream1-rt-0.025", "wsdream1")  # doctest: +SKIP
    >>> evaluate(lightgbm(split.users, split.services, seed=0), split)  # doctest: +SKIP
    """
    # Ids as categories, in addition to the means of their rows, did not reduce the error and took
    # longer. The logarithm reduced it for both QoS. Both were measured on a validation part of the
    # training rows.
    codes = [table[:, 1:] for table in context_codes(users, services)]
    return LightGBM(codes, log=True, seed=seed)


def catboost(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> CatBoost:
    """Make CatBoost on out-of-fold target means of user, service and their context.

    Parameters
    ----------
    users, services, seed
        As for `lightgbm`.

    Returns
    -------
    regressor
    """
    return CatBoost(context_codes(users, services), seed=seed)


def cornac_mf(seed: int) -> TransformedTargetRegressor:
    """Make the matrix factorization with biases of Cornac, on roots of the target.

    Parameters
    ----------
    seed : int
        Seed of the factors.

    Returns
    -------
    regressor
    """
    return _on_roots(CornacMF(seed=seed))


def myfm(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> TransformedTargetRegressor:
    """Make the Bayesian factorization machine of myFM on ids and context, and roots of the target.

    Parameters
    ----------
    users, services, seed
        As for `lightgbm`.

    Returns
    -------
    regressor
    """
    return _on_roots(MyFM(context_codes(users, services), seed=seed))


def tabm(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> TabM:
    """Make TabM, an ensemble of networks that share most weights, on embeddings of ids and context.

    Parameters
    ----------
    users, services, seed
        As for `lightgbm`.

    Returns
    -------
    regressor
    """
    return TabM(context_codes(users, services), seed=seed)


def _on_roots(regressor: CornacMF | MyFM) -> TransformedTargetRegressor:
    # Roots, and the settings of both, were chosen on a fifth of the training rows.
    return TransformedTargetRegressor(
        regressor, func=np.sqrt, inverse_func=_square, check_inverse=False
    )


def _square(roots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return squares, and 0 for negative values."""
    return np.maximum(roots, 0) ** 2
