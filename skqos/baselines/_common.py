"""Base class of the baselines that use ids only."""

from __future__ import annotations

from typing import Any, Self

from skqos._errors import check_same_length
from skqos._parameters import with_plain_parameters
from skqos._sklearn_compat import fit_context, get_feature_names
from skqos.base import Measurements, PairRegressor, TrainingRows
from skqos.entities import EntityEncoder
from skqos.inputs import N_PLACES, ContextLayout, as_frame, check_names, read_columns
from skqos.state import FittedState


class BaselineRegressor(PairRegressor):
    """Base class that reads X and y; a subclass defines ``_fit_rows`` and ``predict``."""

    # A time column, which is not read.
    _n_places = N_PLACES

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimator to measured interactions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Column 0 holds the user ids and column 1 the service ids.

            Further columns are not used: neither context nor times, which column 2 may hold.
        y : array-like of shape (n_samples,)
            Measured QoS: finite values of any sign, in any unit.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, at least 0. A row of weight n counts as n equal rows, and a row of
            weight 0 is ignored. If None, all rows have weight 1.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described. A previously fitted model remains
            unchanged.
        FloatingPointError
            If the steps of `AMFRegressor` diverge.
        """
        y = self._check_target(y)
        frame = as_frame(X, self._n_id_columns, self)
        names = get_feature_names(frame)
        check_names(frame.columns, self._n_id_columns, self._n_places)
        # Only ids are read, no context.
        layout = ContextLayout([], [])
        columns = read_columns(frame, self._n_id_columns, layout)
        check_same_length(X=frame, y=y)
        measured = Measurements.weighted(columns, y, sample_weight)
        columns = measured.columns
        users, services = EntityEncoder("user"), EntityEncoder("service")
        rows = TrainingRows(
            users=users,
            services=services,
            user_codes=users.fit(columns.users, columns.user_context),
            service_codes=services.fit(columns.services, columns.service_context),
            target=measured.y,
            weights=measured.weights,
        )
        attributes = with_plain_parameters(self)._fit_rows(rows)
        self._state = FittedState(
            n_features_in_=frame.shape[1],
            feature_names_in_=names,
            layout=layout,
            users_=users,
            services_=services,
            attributes=attributes,
        )
        return self

    def _fit_rows(self, rows: TrainingRows) -> dict[str, Any]:
        """Return the fitted attributes; targets are in the unit of y."""
        raise NotImplementedError
