"""Updating a fitted estimator with further observations: `partial_fit`.

X, y -> grown encoders (`entities`) -> a grown copy of the network -> a short training on the new
rows and on earlier ones (`replay`) -> all results stored at once.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._sklearn_compat import Interval, fit_context
from skqos.base import (
    BaseQoSRegressor,
    Measurements,
    TrainingData,
    TrainingRows,
)
from skqos.distribution.model import Intervals
from skqos.replay import ReplayBuffer
from skqos.state import FittedAttribute, NetworkState

if TYPE_CHECKING:
    from torch import nn

    from skqos.training import QoSNet

STAGE = "partial"
# An update by this share of the earlier rows, or more, is a short training on all rows from a good
# start, at a rate of its own. It takes a small part of a refit's epochs.
LARGE_SHARE = 0.25
LARGE_RATE = 2.0
# A smaller one replays so many times the new rows, at least a batch of the default size, in smaller
# steps: large ones would undo what is not replayed.
REPLAYED_PER_NEW = 1 / LARGE_SHARE
MIN_REPLAYED = 256
# Without any earlier rows left, steps are still taken.
MIN_KEPT = 0.05
# Trained weights need no long one.
WARM_UP = 0.1


class IncrementalQoSRegressor(BaseQoSRegressor):
    """An estimator that further observations update.

    A subclass has parameters ``partial_fit_epochs`` and ``replay_buffer_size``, and defines
    ``_prepare_update`` beside ``_fit_networks``.
    """

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "partial_fit_epochs": [Interval(Integral, 0, None, closed="left")],
        "replay_buffer_size": [Interval(Integral, 0, None, closed="left")],
    }
    # So short a training overfits less than `fit`, and learns more of what it sees.
    _update_has_dropout = False
    _replay_buffer = FittedAttribute()

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Update the model with further measured interactions, or fit it to the first ones.

        Users and services that are new get a place in the network; of known ones the context that
        they were fitted with stays. Then the network trains for `partial_fit_epochs` epochs on the
        new rows and on earlier ones of those that `replay_buffer_size` keeps: on four times as many
        as are new, at least 256. The learning rate grows with the share of the new rows, up to
        twice that of `fit` at a quarter. A pair that is measured again is not replayed: the new
        value replaces the old one. No row is held out, whatever `early_stopping` says. Target
        transform and scales of numeric context stay as they are.

        With ``partial_fit_epochs=0`` nothing is trained: new users and services, their context and,
        where the network has a graph of the measurements, the new edges are taken over.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            One row or more; columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS in the unit and shape of `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, not negative; a row of weight n counts as n equal rows do, and one
            of weight 0 as none. None is 1 for all.
            Earlier rows keep the weight that they came with.

        Returns
        -------
        self : object
            The updated estimator; fitted by `fit` if it was not fitted.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described. As after an interruption, the model is
            as it was then.
        FloatingPointError
            If training diverges; the model is as it was.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y, sample_weight)
        self._state = self._snapshot()._updated_by(X, y, sample_weight)
        return self

    def _prepare_update(self, module: nn.Module, rows: TrainingRows) -> dict[str, Any]:
        """Grow a copy of the network in place, and say how it is to be trained.

        Returns
        -------
        dict
            Arguments of `Trainer.fit`: "criterion", "rows", and others that differ from its
            defaults.
        """
        raise NotImplementedError

    def _updated_by(self, X: Any, y: Any, sample_weight: Any) -> NetworkState:
        """Return the state that follows; to be called on a snapshot."""
        # scikit-learn skips these checks for a fitted estimator's `partial_fit`.
        self._validate_params()
        self._check_parameters()
        state = self._state
        y = self._check_further_target(y, state.target_shape)
        columns = self._read_again(X)
        check_same_length(X=columns.users, y=y)
        state.target_transform.check(y)
        rows = Measurements.weighted(columns, y, sample_weight)
        columns = rows.columns
        users, user_codes = state.users_.extend(columns.users, columns.user_context)
        services, service_codes = state.services_.extend(columns.services, columns.service_context)
        new = TrainingRows(
            users=users,
            services=services,
            user_codes=user_codes,
            service_codes=service_codes,
            target=state.target_transform.transform(rows.y),
            weights=rows.weights,
        )
        updated = replace(state, users_=users, services_=services)
        if self.partial_fit_epochs:
            updated = self._trained_on(updated, new)
        else:
            updated = self._grown_by(updated, new)
        if self._has_intervals:
            return updated.with_intervals(self._updated_intervals(updated, rows))
        return updated

    def _updated_intervals(self, updated: NetworkState, rows: Measurements) -> Intervals:
        """Learn from the errors that the network made on new rows ahead of the update."""
        now = self._with_state(updated)
        before, after = (
            fitted._predict_pairs(fitted._encode(rows.columns)) for fitted in (self, now)
        )
        shape = now.users_.n_entities, now.services_.n_entities
        return self._fitted_intervals().with_rows(
            before, rows.y.reshape(len(rows), -1), shape, after
        )

    def _grown_by(self, state: NetworkState, new: TrainingRows) -> NetworkState:
        """Take new rows over without training."""
        from skqos.prediction import copy_module

        module = copy_module(self.module_)
        self._prepare_update(module, new)
        joined = self._replay_buffer.without(new).joined(
            ReplayBuffer.of_rows(new, self._update_rng())
        )
        buffer = joined.limited(self.replay_buffer_size)
        return replace(
            state.with_attributes(_replay_buffer=buffer), module_=module.eval(), n_iter_=0
        )

    def _trained_on(self, state: NetworkState, new: TrainingRows) -> NetworkState:
        """Take new rows over and train on them."""
        from skqos.training import history_frame

        net, buffer = self._update(new)
        # Earlier nets would keep a network each.
        nets = {STAGE: net}
        return replace(
            state.with_attributes(_replay_buffer=buffer),
            module_=net.module_,
            history_=pd.concat([state.history_, history_frame(nets)], ignore_index=True),
            n_iter_=len(net.history),
        ).with_nets(nets)

    def _update(self, new: TrainingRows) -> tuple[QoSNet, ReplayBuffer]:
        """Replay, grow, train."""
        from skqos.prediction import copy_module
        from skqos.training import seeded, without_dropout

        rng = self._update_rng()
        earlier = self._replay_buffer.without(new)
        n_replayed, rate = _plan(len(new.target), earlier)
        replayed = earlier.sample(n_replayed, rng)
        buffer = earlier.joined(ReplayBuffer.of_rows(new, rng)).limited(self.replay_buffer_size)
        trainer = self._make_trainer()
        module = copy_module(self.module_)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        dropout = nullcontext() if self._update_has_dropout else without_dropout(module)
        with seeded(seed, trainer.device), dropout:
            net = trainer.fit(
                module,
                validation=None,
                stage=STAGE,
                max_epochs=self.partial_fit_epochs,
                learning_rate=rate * self.learning_rate,
                warm_up=WARM_UP,
                **self._prepare_update(module, replayed.appended_to(new)),
            )
        return net, buffer

    def _update_rng(self) -> np.random.RandomState:
        """Random numbers that differ from update to update, also where `random_state` is an int."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return np.random.RandomState([seed, len(self.history_)])

    def _train(self, data: TrainingData) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        """Train as in `fit`, and keep rows for updates."""
        nets, attributes = super()._train(data)
        buffer = ReplayBuffer.of_rows(data, np.random.RandomState(data.seed))
        return nets, {**attributes, "_replay_buffer": buffer.limited(self.replay_buffer_size)}

    def __getstate__(self) -> dict[str, Any]:
        """Leave rows out that `replay_buffer_size` has no room for: it may have been lowered."""
        state = super().__getstate__()
        if "_state" in state:
            buffer = state["_state"].attributes["_replay_buffer"].limited(self.replay_buffer_size)
            state["_state"] = state["_state"].with_attributes(_replay_buffer=buffer)
        return state


def _plan(n_new: int, buffer: ReplayBuffer) -> tuple[int, float]:
    """Tell how many rows to replay, and the learning rate, of that of `fit`; both grow smoothly.

    Where the buffer holds only a part of the earlier rows, steps are smaller by that part.
    """
    n_replayed = min(len(buffer), max(round(REPLAYED_PER_NEW * n_new), MIN_REPLAYED))
    if buffer.n_seen == 0:
        return 0, LARGE_RATE
    share, kept = n_new / buffer.n_seen, len(buffer) / buffer.n_seen
    return n_replayed, LARGE_RATE * min(share / LARGE_SHARE, 1.0) * max(kept, MIN_KEPT)
