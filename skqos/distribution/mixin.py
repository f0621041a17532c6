"""The methods of estimators that predict a distribution."""

from __future__ import annotations

from typing import Any

import numpy as np

from skqos._pipelines import target_names_of
from skqos._target_checks import in_target_order
from skqos.distribution.model import Intervals
from skqos.distribution.predicted import PredictedRows
from skqos.distribution.quantiles import check_confidence_level, check_levels, check_limits


class DistributionMixin:
    """Mixin for estimators that predict intervals and probabilities of pairs.

    The state of a fitted subclass has an attribute ``_intervals`` if intervals were requested. A
    subclass defines ``_predicted_rows`` and ``_target_shape``.
    """

    def predict_interval(self, X: Any, confidence_level: float = 0.9) -> np.ndarray:
        """Predict intervals for measurements of pairs.

        Equal shares of the measurements are expected below and above an interval.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.
        confidence_level : float, default=0.9
            Share of the measurements that the intervals should contain, at most 0.98.

        Returns
        -------
        ndarray of float64 of shape (n_samples, 2) or (n_samples, n_targets, 2)
            Lower and upper ends of the intervals, in the unit of y.

        Raises
        ------
        ValueError
            If the model was fitted without intervals, X is not as described, or `confidence_level`
            is out of range.
        NotFittedError
            If the estimator is not fitted.

        See Also
        --------
        predict : Returns quantiles with `quantiles`, also in a Pipeline.
        """
        return self.predict(X, quantiles=check_confidence_level(confidence_level))

    def predict_probability(self, X: Any, limit: Any) -> np.ndarray:
        """Predict the probability that a measurement of a pair is at most a limit.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.
        limit : float or array-like of shape (n_targets,)
            Limit in the unit of y. For several targets, one limit for all of them or one for each;
            a Series or dict has the names of the targets as labels.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            P(y <= limit). It is 0 for limits below the quantile of level 0.01, and 1 for limits
            above that of level 0.99.

        Raises
        ------
        ValueError
            If the model was fitted without intervals, or X or `limit` is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        intervals = fitted._fitted_intervals()
        names = target_names_of(fitted)
        limits = check_limits(in_target_order(limit, "limit", names), len(intervals.targets))
        found = intervals.probability(fitted._predicted_rows(X).pairs, limits)
        return found.reshape(len(found), *fitted._target_shape())

    def _predict_quantiles(self, X: Any, quantiles: Any) -> np.ndarray:
        """Predict quantiles; to be called on a snapshot."""
        levels = check_levels(quantiles)
        found = self._fitted_intervals().quantiles(self._predicted_rows(X).pairs, levels)
        return found.reshape(len(found), *self._target_shape(), len(levels))

    @property
    def _has_intervals(self) -> bool:
        """Whether `fit` learnt intervals, whatever the parameters are now."""
        return "_intervals" in self._state.attributes

    def _fitted_intervals(self) -> Intervals:
        if not self._has_intervals:
            raise ValueError(
                f"This {type(self).__name__} was fitted without intervals and cannot predict "
                "quantiles or probabilities. Set intervals=True and fit it again."
            )
        return self._state.attributes["_intervals"]

    def _predicted_rows(self, X: Any) -> PredictedRows:
        """Encode and predict X; to be called on a snapshot."""
        raise NotImplementedError

    def _target_shape(self) -> tuple[int, ...]:
        """Shape of a row of y."""
        raise NotImplementedError
