"""Medians of what was measured: what a model has to beat before anything else."""

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

# Who answers, in this order; where none of them knows a row, the constant does.
LEVELS = {
    "constant": (),
    "user": ("user",),
    "service": ("service",),
    "pair": ("pair", "service", "user"),
}


class MedianRegressor(BaselineRegressor):
    """Predict the median of the training rows of the same service, user or pair.

    What there is without a model, and what a model has to be better than. The median minimises the
    mean absolute error among all predictions that are the same for all rows of a group.

    Context columns of X are accepted, as a `ContextJoiner` ahead appends them, and not used. A time
    column is not used either: all measurements of a pair are its rows.

    Parameters
    ----------
    by : {"constant", "user", "service", "pair"}, default="service"
        Whose training rows a prediction is the median of:

        - "constant": all rows;
        - "user": those of the user; of all rows where the user is unknown;
        - "service": those of the service; of all rows where the service is unknown;
        - "pair": those of the user and service together; where the pair was not measured, those of
          the service; where the service is unknown, those of the user; else all rows.

    Attributes
    ----------
    median_ : float
        Of all rows.
    user_medians_ : ndarray of shape (n_users,)
        In the order of ``users_.ids_``.
    service_medians_ : ndarray of shape (n_services,)
        In the order of ``services_.ids_``.
    pair_codes_ : ndarray of int64 of shape (n_pairs,)
        The measured pairs in ascending order, each as ``user * n_services + service`` of their
        positions in ``users_.ids_`` and ``services_.ids_``. With ``by="pair"`` only.
    pair_medians_ : ndarray of shape (n_pairs,)
        In the order of `pair_codes_`. With ``by="pair"`` only.
    levels_ : tuple of str
        Whose medians answer, the first that knows a row; ahead of `median_`.
    users_, services_ : EntityEncoder
        The ids of the training rows.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns of X, if they were all strings.

    See Also
    --------
    sklearn.dummy.DummyRegressor : The constant, of any X.

    Notes
    -----
    Repeated measurements of a pair count each, in all medians, as often as their `sample_weight`
    tells.

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
        """
        fitted = self._snapshot()
        pairs = fitted._interactions(X)
        prediction = np.full(len(pairs), fitted.median_)
        # The first level is the last to write.
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
        """Return the rows that a level knows, and its medians there."""
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
