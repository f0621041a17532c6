"""What baselines of bare ids share: reading X and y."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from skqos._errors import check_same_length
from skqos._parameters import with_plain_parameters
from skqos._sklearn_compat import fit_context, get_feature_names
from skqos.base import PairRegressor
from skqos.entities import EntityEncoder
from skqos.inputs import ContextLayout, as_frame, check_names, read_columns
from skqos.state import FittedState


class BaselineRegressor(PairRegressor):
    """Reading X and y; a subclass defines ``_fit_codes`` and ``predict``."""

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> Self:
        """Fit to measured interactions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Column 0 is the user id, column 1 the service id; further columns are not used.
        y : array-like of shape (n_samples,)
            Measured QoS, finite, in any unit and of any sign.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or y is not as described; nothing of an earlier fit is changed then.
        """
        y = self._check_target(y)
        frame = as_frame(X, self._n_id_columns, self)
        names = get_feature_names(frame)
        check_names(frame.columns, self._n_id_columns, self._n_id_columns)
        # Ids alone: context is not looked at.
        layout = ContextLayout([], [])
        columns = read_columns(frame, self._n_id_columns, layout)
        check_same_length(X=frame, y=y)
        users, services = EntityEncoder("user"), EntityEncoder("service")
        user_codes = users.fit(columns.users, columns.user_context)
        service_codes = services.fit(columns.services, columns.service_context)
        shape = users.n_entities, services.n_entities
        plain = with_plain_parameters(self)
        attributes = plain._fit_codes(user_codes, service_codes, y, shape)
        self._state = FittedState(
            n_features_in_=frame.shape[1],
            feature_names_in_=names,
            layout=layout,
            users_=users,
            services_=services,
            attributes=attributes,
        )
        return self

    def _fit_codes(
        self, users: np.ndarray, services: np.ndarray, y: np.ndarray, shape: tuple[int, int]
    ) -> dict[str, Any]:
        """Return the fitted attributes, given codes below `shape` of users and services."""
        raise NotImplementedError
