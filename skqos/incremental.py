"""Updating a fitted estimator with further observations: `partial_fit`.

X, y -> grown encoders (`entities`) -> a grown copy of the network -> a short training on the new
rows and on a few cells that the old network labels -> all results stored at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from skqos._arrays import draw_distinct, sorted_unique
from skqos._sklearn_compat import Interval, fit_context
from skqos.base import BaseQoSRegressor
from skqos.entities import EntityEncoder, Interactions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from skqos.training import QoSNet

STAGE = "partial"
# The learning rate of an update, of that of `fit`: on cells of WS-DREAM that are in no test file,
# SA-MoE lost at 0.6 and at 1, R2SL at 0.15; between 0.3 and 0.6 R2SL and SHARP-QoS hardly differ.
LEARNING_RATE_SHARE = 0.3
# Cells that the old network labels, a batch of the default size: they keep a few new rows from
# pulling the network where they like. As many as there are new rows keep it from learning.
N_REPLAYED = 256


@dataclass(frozen=True)
class UpdateData:
    """What an update trains on: the new rows, then rows that the old network labelled.

    Attributes
    ----------
    users, services : EntityEncoder
        They know the new entities, too.
    user_codes, service_codes : ndarray of int64 of shape (n_new + n_replayed,)
        The rows.
    target : ndarray of float64 of shape (n_new + n_replayed,) or (..., n_targets)
        Transformed targets; NaN where not observed.
    n_new : int
        How many rows, from the first, were observed.
    """

    users: EntityEncoder
    services: EntityEncoder
    user_codes: np.ndarray
    service_codes: np.ndarray
    target: np.ndarray
    n_new: int


class IncrementalQoSRegressor(BaseQoSRegressor):
    """An estimator that further observations update.

    A subclass has a parameter ``partial_fit_epochs`` and defines ``_prepare_update`` beside
    ``_fit_networks``.
    """

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "partial_fit_epochs": [Interval(Integral, 1, None, closed="left")],
    }

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any) -> Self:
        """Update the model with further measured interactions, or fit it to the first ones.

        Users and services that are new get a place in the network; of known ones the context that
        they were fitted with stays. Then the network trains for `partial_fit_epochs` epochs on the
        new rows, and on a few cells which the model itself labels ahead of that, so that a single
        row does not change all else. No row is held out, whatever `early_stopping` says. Target
        transform and scales of numeric context stay as they are.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            One row or more; columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS in the unit and shape of `fit`.

        Returns
        -------
        self : object
            The updated estimator; fitted by `fit` if it was not fitted.

        Raises
        ------
        ValueError
            If X or y is not as described. As after an interruption, the model is as it was then.
        FloatingPointError
            If training diverges; the model is as it was.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        # scikit-learn skips these checks for a fitted estimator's `partial_fit`.
        self._validate_params()
        self._check_parameters()
        y = self._check_update_target(y)
        columns = self._read_again(X)
        check_consistent_length(columns.users, y)
        self._target_transform.check(y)
        users, user_codes = self.users_.extend(columns.users, columns.user_context)
        services, service_codes = self.services_.extend(columns.services, columns.service_context)
        new = UpdateData(
            users=users,
            services=services,
            user_codes=user_codes,
            service_codes=service_codes,
            target=self._target_transform.transform(y),
            n_new=len(y),
        )
        self._set_updated(self._update(new), new)
        return self

    def _prepare_update(self, module: nn.Module, data: UpdateData) -> dict[str, Any]:
        """Grow a copy of the network in place, and say how it is to be trained.

        Returns
        -------
        dict
            Arguments of `Trainer.fit`: "criterion", "rows", and others that differ from its
            defaults.
        """
        raise NotImplementedError

    def _check_update_target(self, y: Any) -> np.ndarray:
        """Check y as in `fit`."""
        return self._check_target(y)

    def _update(self, new: UpdateData) -> QoSNet:
        """Replay, grow, train."""
        from skqos.prediction import copy_module
        from skqos.training import seeded

        trainer = self._make_trainer()
        rng = self._update_rng()
        module = copy_module(self.module_)
        data = self._replay(new, module, trainer.device, rng)
        with seeded(int(rng.randint(np.iinfo(np.int32).max)), trainer.device):
            return trainer.fit(
                module,
                validation=None,
                stage=STAGE,
                max_epochs=self.partial_fit_epochs,
                learning_rate=LEARNING_RATE_SHARE * self.learning_rate,
                **self._prepare_update(module.to("cpu"), data),
            )

    def _update_rng(self) -> np.random.RandomState:
        """Random numbers that differ from update to update, also where `random_state` is an int."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return np.random.RandomState([seed, len(self.history_)])

    def _replay(
        self,
        new: UpdateData,
        module: nn.Module,
        device: torch.device,
        rng: np.random.RandomState,
    ) -> UpdateData:
        """Append cells of known entities, drawn uniformly, that the old network labels."""
        from skqos.prediction import predict_interactions

        shape = self.users_.n_entities, self.services_.n_entities
        known = (new.user_codes < shape[0]) & (new.service_codes < shape[1])
        measured = sorted_unique(new.user_codes[known] * shape[1] + new.service_codes[known])
        n_cells = min(N_REPLAYED, shape[0] * shape[1] - len(measured))
        users, services = np.divmod(
            draw_distinct(shape[0] * shape[1], n_cells, rng, excluded=measured), shape[1]
        )
        pairs = Interactions.of_known(users, services, self.users_.table_, self.services_.table_)
        labels = predict_interactions(module.to(device), pairs, device)
        return replace(
            new,
            user_codes=np.concatenate([new.user_codes, users]),
            service_codes=np.concatenate([new.service_codes, services]),
            target=np.concatenate([new.target, labels.reshape(-1, *new.target.shape[1:])]),
        )

    def _set_updated(self, net: QoSNet, data: UpdateData) -> None:
        """Store all results at once."""
        from skqos.training import history_frame

        history = pd.concat([self.history_, history_frame({STAGE: net})], ignore_index=True)
        # Earlier nets would keep a network each.
        self._nets = {STAGE: net}
        self.users_ = data.users
        self.services_ = data.services
        self.module_ = net.module_
        self.history_ = history
        self.n_iter_ = len(net.history)
