"""Updating a fitted estimator with further observations: `partial_fit`.

New ids extend the encoders (`entities`) and a copy of the network. The copy is trained for a few
epochs on the new rows and on earlier ones (`replay`). All results are stored at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from skqos._errors import check_same_length
from skqos._sklearn_compat import Interval, fit_context
from skqos._target_checks import check_target_names
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
# An update with this share of the earlier rows, or more, is a short training on all rows from a
# good starting point, with its own learning rate. It needs a small part of the epochs of a refit.
LARGE_SHARE = 0.25
LARGE_RATE = 2.0
# A smaller update replays this multiple of the new rows, at least one batch of the default size.
# Its steps are smaller, because large steps would degrade predictions of rows that are not
# replayed.
REPLAYED_PER_NEW = 1 / LARGE_SHARE
MIN_REPLAYED = 256
# A row of a new user or service counts as this part of a row: its information is learnt by the
# vector of the new id, and further steps of all weights would degrade the predictions of other
# rows.
NEWCOMER_WEIGHT = 0.1
# Lower bound of the kept share, so that updates without earlier rows still take steps.
MIN_KEPT = 0.05
# Trained weights need only a short warm-up.
WARM_UP = 0.1
# The learning rate of an update of fewer steps is reduced. At the learning rate of `fit`, the first
# steps move the weights away from a minimum, and a short update would end before they reach one
# again.
STEPS_AT_FULL_RATE = 64


class Newcomers(NamedTuple):
    """Rows of new users or services.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    weight : float
        Their total weight.
    """

    n_rows: int
    weight: float


@dataclass(frozen=True)
class Update:
    """Result of an update.

    Attributes
    ----------
    module : Module
        Extended and trained network.
    net : QoSNet or None
        Net that trained the module; None without training.
    attributes : dict of str to object
        Fitted attributes that have changed.
    """

    module: nn.Module
    net: QoSNet | None
    attributes: dict[str, Any]


class IncrementalQoSRegressor(BaseQoSRegressor):
    """Base class of estimators that are updated with further observations.

    A subclass has the parameters ``partial_fit_epochs`` and ``replay_buffer_size``, and defines
    ``_fit_networks`` and ``_prepare_update``. A subclass that keeps other rows than a sample of all
    rows defines ``_kept_rows`` and ``_update`` instead.
    """

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "partial_fit_epochs": [Interval(Integral, 0, None, closed="left")],
        "replay_buffer_size": [Interval(Integral, 0, None, closed="left")],
    }
    # An update is short and overfits less than `fit`; without dropout it learns more from its rows.
    _update_has_dropout = False
    _replay_buffer = FittedAttribute[Any]()
    _n_updates = FittedAttribute[int]()

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Update the model with further measured interactions; the first call fits it.

        New users and services are added to the network, and the vectors of their ids are learnt
        from their rows, with all other weights fixed. Known ones keep the context with which they
        were fitted. Then the network is trained for `partial_fit_epochs` epochs on the new rows and
        on a sample of the earlier rows that `replay_buffer_size` keeps. The sample has four times
        as many rows as are new, but at least 256. The learning rate grows with the ratio of new
        rows to earlier ones; from a ratio of one quarter on, it is twice that of `fit`. Rows of new
        users and services, whose vectors have been learnt, count a tenth. The learning rate is at
        most that of `fit` multiplied by the number of training steps and divided by 64. If a pair
        is measured again, the new value replaces the old one, which is not replayed. No validation
        rows are held out, whatever the value of `early_stopping`. The target transform and the
        scales of numeric context do not change.

        With ``partial_fit_epochs=0`` nothing is trained. New users and services are added with
        their context. If the network has a graph of the measurements, the new edges are added, and
        predictions for new entities depend on them.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            At least one row, with columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS in the unit and shape of `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, at least 0. A row of weight n counts as n equal rows, and a row of
            weight 0 is ignored. If None, all rows have weight 1.

            Earlier rows keep the weights with which they were passed.

        Returns
        -------
        self : object
            The updated estimator, or the result of `fit` if it was not fitted before.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described. The model remains unchanged, as after an
            interruption.
        FloatingPointError
            If training diverges. The model remains unchanged.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y, sample_weight)
        from skqos.prediction import recorded_gradients

        with recorded_gradients():
            self._state = self._snapshot()._updated_by(X, y, sample_weight)
        return self

    def _prepare_update(self, module: Any, rows: TrainingRows) -> dict[str, Any]:
        """Extend a copy of the network in place, and return how to train it.

        Returns
        -------
        dict
            Arguments of `Trainer.fit`: "criterion", "rows", and those that differ from the
            defaults.
        """
        raise NotImplementedError

    def _updated_by(self, X: Any, y: Any, sample_weight: Any) -> NetworkState:
        """Return the updated state; to be called on a snapshot."""
        # scikit-learn skips these checks in `partial_fit` of a fitted estimator.
        self._validate_params()
        self._check_parameters()
        state = self._state
        check_target_names(y, getattr(self, "target_names_in_", None))
        y = self._check_further_target(y, state.target_shape)
        columns = self._read_again(X)
        check_same_length(X=columns.users, y=y)
        state.target_transform.check(y)
        rows = Measurements.weighted(columns, y, sample_weight)
        new = self._further_rows(rows, state.target_transform.transform(rows.y))
        update = self._update(new)
        updated = replace(
            state.with_attributes(**update.attributes, _n_updates=self._n_updates + 1),
            users_=new.users,
            services_=new.services,
            module_=update.module,
        )
        if update.net is not None:
            from skqos.training import history_frame

            # Only the last net, because each of the earlier ones would keep a network.
            nets = {STAGE: update.net}
            updated = replace(
                updated,
                history_=pd.concat([state.history_, history_frame(nets)], ignore_index=True),
                n_iter_=len(update.net.history),
            ).with_nets(nets)
        if self._has_intervals:
            return updated.with_intervals(self._updated_intervals(updated, rows))
        return updated

    def _updated_intervals(self, updated: NetworkState, rows: Measurements) -> Intervals:
        """Update the intervals with the errors of the network on the new rows before the update."""
        now = self._with_state(updated)
        before, after = (
            fitted._predict_pairs(fitted._encode(rows.columns)) for fitted in (self, now)
        )
        shape = now.users_.n_entities, now.services_.n_entities
        return self._fitted_intervals().with_rows(
            before, rows.y.reshape(len(rows), -1), shape, after
        )

    def _update(self, new: TrainingRows) -> Update:
        """Sample earlier rows, extend the network and train it."""
        from skqos.prediction import copy_module

        rng = self._update_rng()
        earlier = self._replay_buffer.without(new)
        newcomers = self._find_newcomers(new.user_codes, new.service_codes, new.weights)
        n_replayed, rate = plan_update(
            len(new.target), len(earlier), earlier.n_seen, newcomers.n_rows
        )
        replayed = earlier.sample(n_replayed, rng)
        buffer = earlier.joined(ReplayBuffer.of_rows(new, rng)).limited(self.replay_buffer_size)
        module = copy_module(self.module_)
        if not self.partial_fit_epochs:
            self._prepare_update(module, new)
            return Update(module.eval(), None, {"_replay_buffer": buffer})
        net = self._train_update(
            module,
            rate,
            newcomers.weight,
            rng,
            lambda: self._prepare_update(module, replayed.appended_to(new)),
        )
        return Update(net.module_, net, {"_replay_buffer": buffer})

    def _find_newcomers(
        self, users: np.ndarray, services: np.ndarray, weights: np.ndarray
    ) -> Newcomers:
        """Count the rows whose user or service is new and gets a vector of its own."""
        from skqos.newcomers import has_new_id, has_vectors

        if not has_vectors(self.module_):
            return Newcomers(0, 0.0)
        is_new = has_new_id(users, services, self.users_.n_entities, self.services_.n_entities)
        return Newcomers(int(is_new.sum()), float(weights[is_new].sum()))

    def _train_update(
        self,
        module: Any,
        rate: float,
        newcomer_weight: float,
        rng: np.random.RandomState,
        prepare: Callable[[], dict[str, Any]],
    ) -> QoSNet:
        """Learn vectors of new ids, then train all weights at `rate` times the learning rate.

        An update of few steps has a lower learning rate. `prepare` extends `module` and returns
        arguments of `Trainer.fit`, as ``_prepare_update`` does.
        """
        from skqos.newcomers import find_new_vectors, learn_vectors, select_rows
        from skqos.training import monitors_validation, seeded, without_dropout

        trainer = self._make_trainer()
        # No rows are held out, so that these callbacks have nothing to read.
        used = [one for one in trainer.callbacks if not monitors_validation(one)]
        trainer = replace(trainer, callbacks=used)
        seed = int(rng.randint(np.iinfo(np.int32).max))
        dropout = nullcontext() if self._update_has_dropout else without_dropout(module)
        with seeded(seed, trainer.device), dropout:
            arguments = prepare()
            if vectors := find_new_vectors(self.module_, module):
                known = self.users_.n_entities, self.services_.n_entities
                rows = select_rows(arguments["rows"], *known).to(trainer.device)
                module.to(trainer.device)
                learn_vectors(module, vectors, rows, arguments["criterion"], newcomer_weight)
            n_steps = trainer.count_steps(
                arguments["rows"], self.partial_fit_epochs, arguments.get("batch_size")
            )
            rate = min(rate, n_steps / STEPS_AT_FULL_RATE)
            return trainer.fit(
                module,
                validation=None,
                stage=STAGE,
                max_epochs=self.partial_fit_epochs,
                learning_rate=rate * self.learning_rate,
                warm_up=WARM_UP,
                **arguments,
            )

    def _update_rng(self) -> np.random.RandomState:
        return update_rng(self.random_state, self._n_updates)

    def _train(self, data: TrainingData) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        """Train as in `fit`, and keep rows for updates."""
        nets, attributes = super()._train(data)
        buffer = self._kept_rows(data, np.random.RandomState(data.seed))
        buffer = buffer.limited(self.replay_buffer_size)
        return nets, {**attributes, "_replay_buffer": buffer, "_n_updates": 0}

    def _kept_rows(self, rows: TrainingRows, rng: np.random.RandomState) -> Any:
        """Return the rows that updates train on again; they are limited in number later."""
        return ReplayBuffer.of_rows(rows, rng)

    def __getstate__(self) -> dict[str, Any]:
        """Drop rows beyond `replay_buffer_size`, which may be lower than it was in `fit`."""
        state = super().__getstate__()
        size = self.replay_buffer_size
        # The parameter may have been set to anything since `fit`.
        if "_state" in state and isinstance(size, Integral) and int(size) >= 0:
            buffer = state["_state"].attributes["_replay_buffer"].limited(int(size))
            state["_state"] = state["_state"].with_attributes(_replay_buffer=buffer)
        return state


def update_rng(
    random_state: int | np.random.RandomState | None, n_updates: int
) -> np.random.RandomState:
    """Return a generator for the update after `n_updates` others.

    It differs between updates, also if `random_state` is an int.
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return np.random.RandomState([seed, n_updates])


def plan_update(n_new: int, n_kept: int, n_seen: int, n_newcomers: int = 0) -> tuple[int, float]:
    """Return the number of replayed rows, and the learning rate as a multiple of that of `fit`.

    `n_newcomers` of the new rows are of new users or services. If only `n_kept` of the `n_seen`
    earlier rows were kept, the learning rate is reduced by that part.
    """
    n_replayed = min(n_kept, max(round(REPLAYED_PER_NEW * n_new), MIN_REPLAYED))
    if n_seen == 0:
        return 0, LARGE_RATE
    n_counted = n_new - (1 - NEWCOMER_WEIGHT) * n_newcomers
    share, kept = n_counted / n_seen, n_kept / n_seen
    return n_replayed, LARGE_RATE * min(share / LARGE_SHARE, 1.0) * max(kept, MIN_KEPT)
