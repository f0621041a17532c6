"""Medians of the training values as baselines."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from skqos._sklearn_compat import StrOptions
from skqos._weighted import group_medians, weighted_median
from skqos.base import TrainingRows
from skqos.baselines._common import BaselineRegressor
from skqos.entities import Interactions
from skqos.state import FittedAttribute

__all__ = ["MedianRegressor"]

# Groups in the order in which they are tried; a row that is unknown to all gets the constant.
LEVELS = {
    "constant": (),
    "user": ("user",),
    "service": ("service",),
    "pair": ("pair", "service", "user"),
}


class MedianRegressor(BaselineRegressor):
    """Predict the median of the training rows of the same service, user or pair.

    It is the simplest baseline. Among all predictions that are equal for the rows of a group, the
    median minimises the mean absolute error.

    Context columns of X, for example from a `ContextJoiner`, are accepted but not used. A time
    column is not used either: a pair has the rows of all times.

    Parameters
    ----------
    by : {"constant", "user", "service", "pair"}, default="service"
        Group of training rows whose median is the prediction:

        - "constant": all rows;
        - "user": rows of the user, or all rows if the user is unknown;
        - "service": rows of the service, or all rows if the service is unknown;
        - "pair": rows of the user and the service. If the pair was not measured, rows of the
          service; if the service is unknown, rows of the user; otherwise all rows.

    Attributes
    ----------
    median_ : float
        Median of all rows.
    user_medians_ : ndarray of shape (n_users,)
        Medians of the users, in the order of ``users_.ids_``.
    service_medians_ : ndarray of shape (n_services,)
        Medians of the services, in the order of ``services_.ids_``.
    pair_codes_ : ndarray of int64 of shape (n_pairs,)
        Measured pairs in ascending order, coded as ``user * n_services + service`` with positions
        in ``users_.ids_`` and ``services_.ids_``. Defined only with ``by="pair"``.
    pair_medians_ : ndarray of shape (n_pairs,)
        Medians of the pairs, in the order of `pair_codes_`. Defined only with ``by="pair"``.
    levels_ : tuple of str
        Groups in the order in which they are tried; if none is known, `median_` is used.
    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    See Also
    --------
    sklearn.dummy.DummyRegressor : A constant, for any X.

    Notes
    -----
    In all medians, each of the repeated measurements of a pair counts with its `sample_weight`.

    Examples
    --------
    >>> from skqos.baselines import MedianRegressor
    >>> X = [["ann", "map"], ["bob", "map"], ["ann", "mail"]]
    >>> model = MedianRegressor(by="service").fit(X, [1.0, 3.0, 8.0])
    >>> model.predict([["eve", "map"], ["eve", "chat"]])
    array([2., 3.])
    """

    median_ = FittedAttribute[float]()
    user_medians_ = FittedAttribute[np.ndarray]()
    service_medians_ = FittedAttribute[np.ndarray]()
    pair_codes_ = FittedAttribute[np.ndarray]()
    pair_medians_ = FittedAttribute[np.ndarray]()
    levels_ = FittedAttribute[tuple[str, ...]]()

    _parameter_constraints: dict = {"by": [StrOptions(set(LEVELS))]}

    def __init__(self, *, by: Literal["constant", "user", "service", "pair"] = "service") -> None:
        self.by = by

    def predict(self, X: Any) -> np.ndarray:
        """Predict the QoS of pairs, measured or not, known or not.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples,)
            Predictions in the unit of y.

        Raises
        ------
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        pairs = fitted._interactions(X)
        prediction = np.full(len(pairs), fitted.median_)
        # The first level is written last and overwrites the others.
        for level in reversed(fitted.levels_):
            rows, medians = fitted._known_medians(level, pairs)
            prediction[rows] = medians
        return prediction

    def _fit_rows(self, rows: TrainingRows) -> dict[str, Any]:
        y, weights = rows.target, rows.weights
        attributes = {
            "median_": weighted_median(y, weights),
            "user_medians_": group_medians(y, rows.user_codes, weights)[1],
            "service_medians_": group_medians(y, rows.service_codes, weights)[1],
            "levels_": LEVELS[self.by],
        }
        if self.by == "pair":
            pairs = rows.user_codes * rows.shape[1] + rows.service_codes
            codes, medians = group_medians(y, pairs, weights)
            attributes |= {"pair_codes_": codes, "pair_medians_": medians}
        return attributes

    def _known_medians(self, level: str, pairs: Interactions) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that are known to a level, and their medians."""
        known_users, known_services = self._known_ids(pairs).T
        if level == "user":
            return known_users, self.user_medians_[pairs.users[known_users]]
        if level == "service":
            return known_services, self.service_medians_[pairs.services[known_services]]
        rows = np.flatnonzero(known_users & known_services)
        codes = pairs.users[rows] * self.services_.n_entities + pairs.services[rows]
        place = np.searchsorted(self.pair_codes_, codes)
        place = np.minimum(place, len(self.pair_codes_) - 1)
        measured = self.pair_codes_[place] == codes
        return rows[measured], self.pair_medians_[place[measured]]
