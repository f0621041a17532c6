"""Intervals around any regressor over rows of user and service."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted

from skqos._errors import check_same_length
from skqos._frames import to_frame
from skqos._pipelines import regressor_of, target_names_of
from skqos._sklearn_compat import HasMethods, fit_context, get_feature_names, safe_indexing
from skqos._target_checks import as_target, as_weights, check_target_names
from skqos._times import read_times
from skqos.base import PairRegressor
from skqos.distribution.mixin import DistributionMixin
from skqos.distribution.model import Pairs, learn_intervals
from skqos.distribution.predicted import PredictedRows
from skqos.entities import EntityEncoder
from skqos.exceptions import EarlyTimeWarning
from skqos.inputs import N_PLACES, ContextLayout, as_frame, check_names, read_columns
from skqos.state import FittedAttribute, FittedState
from skqos.targets import TargetTransform

__all__ = ["IntervalRegressor"]


class IntervalRegressor(DistributionMixin, PairRegressor):
    """Add quantiles, intervals and probabilities to a regressor over rows of user and service.

    The regressor is fitted twice: to all rows, for its predictions, and to a part of the rows, so
    that its errors on the held-out pairs, users and services give the distribution of measurements
    around predictions. The estimators of skqos do the same with ``intervals=True``.

    Parameters
    ----------
    estimator : estimator
        Regressor of one or several targets. The first columns of its X must be the user id and the
        service id. Examples are the regressors of `skqos.baselines`, and a Pipeline of a
        `ContextJoiner` and any regressor. It is cloned.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws: the held-out rows, and the network that learns
        the quantiles. Pass an int for reproducible results across several calls.

    Attributes
    ----------
    estimator_ : estimator
        Regressor that was fitted to all rows.

    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    See Also
    --------
    skqos.SAMoERegressor : Predicts intervals itself, with ``intervals=True``.

    Notes
    -----
    The held-out rows are a fifth of the pairs, and all rows of a tenth of the users and of a tenth
    of the services. A network with five members, each trained without one fold, learns quantiles of
    the errors on these rows, from the prediction and from how well the user and the service are
    predicted. The quantiles are corrected by conformal prediction [1]_, separately for each level,
    kind of pair (known, new user, new service) and band of predictions [2]_.

    References
    ----------
    .. [1] Y. Romano, E. Patterson, E. J. Candes, "Conformalized Quantile Regression", NeurIPS 2019.
    .. [2] V. Vovk, D. Lindsay, I. Nouretdinov, A. Gammerman, "Mondrian Confidence Machine", 2003.

    Examples
    --------
    >>> from skqos.baselines import UIPCCRegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.intervals import IntervalRegressor
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = IntervalRegressor(UIPCCRegressor(), random_state=0).fit(data.X, data.y)
    >>> model.predict_interval([[3, 17], [3, 4711]], confidence_level=0.8).shape
    (2, 2)
    """

    # A time column, which the regressor reads.
    _n_places = N_PLACES

    estimator_ = FittedAttribute[Any]()

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: BaseEstimator,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the regressor, and learn the distribution of measurements around its predictions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Column 0 holds the user ids and column 1 the service ids. The regressor receives all
            columns.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS, in a form that the regressor accepts.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, at least 0. A row of weight n counts as n equal rows, and a row of
            weight 0 is ignored. If None, all rows have weight 1. The ``fit`` of the regressor must
            accept `sample_weight`. The distribution around the predictions gives all rows the same
            weight.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described, or there are too few rows to hold some
            out.
        """
        if y is None:
            self._check_target(y)
        if sample_weight is None:
            return self._fit(X, y, None)
        values = as_target(y, "y", allow_nan=True, estimator=self)
        frame = as_frame(X, self._n_id_columns, self)
        weights = as_weights(sample_weight, "sample_weight")
        check_same_length(X=frame, y=values, sample_weight=weights)
        kept = np.flatnonzero(weights)
        rows = safe_indexing(_indexable(X, frame), kept)
        # A DataFrame keeps the names of the targets.
        table = to_frame(y, "y")
        y = values[kept] if table is None else table.iloc[kept]
        return self._fit(rows, y, weights[kept])

    def _fit(self, X: Any, y: Any, weights: np.ndarray | None) -> Self:
        values = as_target(y, "y", allow_nan=True, estimator=self)
        frame = as_frame(X, self._n_id_columns, self)
        check_names(frame.columns, self._n_id_columns, self._n_places)
        unobserved = np.isnan(_by_target(values)).all(axis=0)
        if unobserved.any():
            raise ValueError(
                f"y, column {unobserved.argmax()}, is NaN in every row; remove the column."
            )
        layout = ContextLayout([], [])
        columns = read_columns(frame, self._n_id_columns, layout)
        check_same_length(X=frame, y=values)
        users, services = EntityEncoder("user"), EntityEncoder("service")
        codes = (
            users.fit(columns.users, columns.user_context),
            services.fit(columns.services, columns.service_context),
        )
        transform = TargetTransform("auto").fit(values)
        fitted = _fit_clone(self.estimator, X, y, weights)
        predictions = _predict(fitted, X)
        rows = _indexable(X, frame)

        def fit_and_predict(kept: np.ndarray) -> np.ndarray:
            weights_kept = None if weights is None else weights[kept]
            twin = _fit_clone(self.estimator, safe_indexing(rows, kept), values[kept], weights_kept)
            with warnings.catch_warnings():
                # The first time steps may be among the rows that are left out.
                warnings.simplefilter("ignore", EarlyTimeWarning)
                return _predict(twin, X)

        intervals = learn_intervals(
            Pairs(*codes, transform.transform(_by_target(predictions))),
            _by_target(values),
            _steps_of(fitted, frame),
            (users.n_entities, services.n_entities),
            transform,
            fit_and_predict,
            check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
        )
        self._state = FittedState(
            n_features_in_=frame.shape[1],
            feature_names_in_=get_feature_names(frame),
            layout=layout,
            users_=users,
            services_=services,
            attributes={
                "estimator_": fitted,
                "_intervals": intervals,
                "_shape_of_target": predictions.shape[1:],
            },
        )
        return self

    def predict(self, X: Any, quantiles: Any = None) -> np.ndarray:
        """Return the predictions of the regressor, or quantiles around them.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.
        quantiles : array-like of shape (n_quantiles,), default=None
            Levels of the quantiles to predict, from 0.01 to 0.99. If None, the QoS is predicted.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            Predictions in the unit and shape of y. With `quantiles`, there is an additional last
            axis of length n_quantiles. Values do not decrease with the level.

        Raises
        ------
        ValueError
            If X or `quantiles` is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        if quantiles is not None:
            return fitted._predict_quantiles(X, quantiles)
        return _predict(fitted.estimator_, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination (R2) of the predictions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS. With several targets, NaN where a value was not observed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the score.

        Returns
        -------
        float
            R2, averaged over the targets; the best value is 1.0.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described, or no target has an observation.
        NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(self)
        check_target_names(y, target_names_of(self))
        if self._target_shape():
            return self._score_observed(X, y, sample_weight)
        return super().score(X, y, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if isinstance(self.estimator, BaseEstimator):
            tags.target_tags.multi_output = get_tags(self.estimator).target_tags.multi_output
        return tags

    def _predicted_rows(self, X: Any) -> PredictedRows:
        rows = self._interactions(X)
        distribution = self._state.attributes["_intervals"]
        values = _by_target(_predict(self.estimator_, X))
        z = distribution.transform.transform(values)
        return PredictedRows(
            values=values,
            pairs=Pairs(rows.users, rows.services, z),
            shape=(self.users_.n_entities, self.services_.n_entities),
            distribution=distribution,
        )

    def _target_shape(self) -> tuple[int, ...]:
        return self._state.attributes["_shape_of_target"]


def _indexable(X: Any, frame: pd.DataFrame) -> Any:
    """Return X, or the frame read from it if scikit-learn cannot select rows of X."""
    package = type(X).__module__.partition(".")[0]
    return X if package in ("builtins", "numpy", "pandas", "polars", "pyarrow") else frame


def _fit_clone(estimator: BaseEstimator, X: Any, y: Any, weights: np.ndarray | None) -> Any:
    """Fit a clone to rows, with weights if they were given."""
    weighted = {} if weights is None else {"sample_weight": weights}
    return clone(estimator).fit(X, y, **weighted)


def _predict(fitted: Any, X: Any) -> np.ndarray:
    return np.asarray(fitted.predict(X), dtype=np.float64)


def _by_target(values: np.ndarray) -> np.ndarray:
    """Return values of one or several targets as (n, n_targets)."""
    return values.reshape(len(values), -1)


def _steps_of(fitted: Any, frame: pd.DataFrame) -> np.ndarray | None:
    """Return the time step of each row, or None if the regressor reads no times."""
    regressor = regressor_of(fitted)
    if getattr(regressor, "_n_id_columns", 2) < 3:
        return None
    return regressor._state.time_scale.steps_of(read_times(frame.iloc[:, 2]))
