"""Base classes of the estimators: from X and y to a fitted network and to predictions.

Data flows from X and y to ids and context (`inputs`), codes and entity tables (`entities`),
transformed targets (`targets`), networks (`training`, in stages) and predictions (`prediction`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

import skqos
from skqos._errors import about, check_same_length
from skqos._html import FittedSummaryMixin
from skqos._parameters import (
    SwitchedOff,
    check_items,
    check_numbers,
    parameter_names,
    warn_of_unused_parameters,
    with_plain_parameters,
)
from skqos._progress import reports_of
from skqos._sklearn_compat import (
    Interval,
    StrOptions,
    check_feature_names,
    check_n_features,
    fit_context,
    get_feature_names,
)
from skqos._target_checks import (
    as_single_target,
    as_target,
    as_weights,
    check_target_names,
    names_of_targets,
    warn_of_missing_codes,
)
from skqos._times import TimeScale
from skqos._types import LearningRateSchedule, OptimizerName
from skqos.distribution.mixin import DistributionMixin
from skqos.distribution.model import Intervals, Pairs, learn_intervals
from skqos.distribution.predicted import PredictedRows
from skqos.entities import EntityEncoder, Interactions
from skqos.exceptions import warn_of_other_version
from skqos.inputs import Columns, as_frame, check_names, locate_context, read_columns
from skqos.metrics import finite_r2_score, nan_r2_score
from skqos.state import FittedAttribute, FittedState, NetworkState
from skqos.targets import TRANSFORMS, TargetTransform

if TYPE_CHECKING:
    from skqos.training import QoSNet, Trainer


# batch_size="auto": number of steps per epoch, and bounds of the rows per step.
AUTO_STEPS = 192
MIN_AUTO_BATCH, MAX_AUTO_BATCH = 32, 256


@dataclass(frozen=True)
class Measurements:
    """Measured rows, split into columns but not encoded.

    Attributes
    ----------
    columns : Columns
        X.
    y : ndarray of float64 of shape (n,) or (n, n_targets)
        Targets in their own unit; NaN where not observed.
    weights : ndarray of float64 of shape (n,)
        Positive weights of the rows.
    """

    columns: Columns
    y: np.ndarray
    weights: np.ndarray

    @classmethod
    def weighted(cls, columns: Columns, y: np.ndarray, sample_weight: Any) -> Self:
        """Create measurements without the rows of weight 0.

        Raises
        ------
        ValueError
            If `sample_weight` is not accepted by `as_weights` or has another length, or no observed
            target is left.
        """
        if sample_weight is None:
            return cls(columns, y, np.ones(len(y)))
        weights = as_weights(sample_weight, "sample_weight")
        check_same_length(y=y, sample_weight=weights)
        rows = cls(columns, y, weights)
        if weights.all():
            return rows
        rows = rows.take(np.flatnonzero(weights))
        if np.isnan(rows.y).all():
            raise ValueError("sample_weight is 0 in every row with an observed y.")
        return rows

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> Self:
        """Return the given rows only."""
        return type(self)(self.columns.take(rows), self.y[rows], self.weights[rows])

    def check_targets(self) -> None:
        """Raise ValueError if a target has no observation."""
        unobserved = np.isnan(self.y.reshape(len(self), -1)).all(axis=0)
        if unobserved.any():
            raise ValueError(
                f"sample_weight is 0 in every row with an observation of y, column "
                f"{unobserved.argmax()}; every target needs at least one observation."
            )


@dataclass(frozen=True)
class TrainingRows:
    """Encoded rows on which a network is trained.

    Attributes
    ----------
    users, services : EntityEncoder
        Encoders that know all users and services of the rows.
    user_codes, service_codes : ndarray of int64 of shape (n,)
        The rows.
    target : ndarray of float64 of shape (n,) or (n, n_targets)
        Transformed targets; NaN where not observed.
    weights : ndarray of float64 of shape (n,)
        Positive weights of the rows.
    times : ndarray of int64 of shape (n,) or None
        Time steps of the rows.
    n_replayed : int
        Number of rows, the last ones, that were measured earlier and are trained on again.
    """

    users: EntityEncoder
    services: EntityEncoder
    user_codes: np.ndarray
    service_codes: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    times: np.ndarray | None = field(default=None, kw_only=True)
    n_replayed: int = field(default=0, kw_only=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users and of services."""
        return self.users.n_entities, self.services.n_entities


@dataclass(frozen=True)
class TrainingData(TrainingRows):
    """Data with which `fit` trains the networks; the encoders were fitted on the rows.

    Attributes
    ----------
    time_scale : TimeScale or None
        Conversion of times to steps.
    y : ndarray of float64, of the shape of `target`
        Targets in their own unit.
    validation : tuple of Interactions and two ndarrays, or None
        Held-out rows, their transformed targets and their weights.
    seed : int
        Seed of all random numbers outside torch.
    """

    time_scale: TimeScale | None
    y: np.ndarray
    validation: tuple[Interactions, np.ndarray, np.ndarray] | None
    seed: int


class PairRegressor(FittedSummaryMixin, RegressorMixin, BaseEstimator):
    """Base class of all regressors over rows of user and service, with or without a network.

    It checks y, encodes X at prediction, and stores the version in pickles. The `fit` of a subclass
    ends with a single assignment, to `_state`.
    """

    _n_id_columns = 2
    # Number of columns that may have names of ids and time, if not `_n_id_columns`.
    _n_places: int | None = None
    # A FittedState, or that of a subclass, once fitted.
    _state: Any = None

    n_features_in_ = FittedAttribute[int]()
    feature_names_in_ = FittedAttribute[np.ndarray]()
    users_ = FittedAttribute[EntityEncoder]()
    services_ = FittedAttribute[EntityEncoder]()

    def _snapshot(self) -> Self:
        """Return a view of the fitted estimator that no later call changes.

        A method that reads several attributes reads them from the view, because another thread may
        fit the estimator in the meantime.
        """
        view = with_plain_parameters(self)
        if view._state is None:
            check_is_fitted(view)
        return view

    def _validate_params(self) -> None:
        check_numbers({name: getattr(self, name) for name in parameter_names(type(self))})
        super()._validate_params()
        for name, constraint in self._parameter_constraints.items():
            if "array-like" in constraint and getattr(self, name) is not None:
                check_items(name, getattr(self, name))

    def _check_target(self, y: Any) -> np.ndarray:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target "
                "y is None."
            )
        y = as_single_target(y, estimator=self)
        warn_of_missing_codes(y)
        return y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination (R2) of the predictions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,)
            Measured QoS.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the score.

        Returns
        -------
        float
            R2; the best value is 1.0.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        y = as_single_target(y, estimator=self)
        weights = None if sample_weight is None else as_weights(sample_weight, "sample_weight")
        predicted = self.predict(X)
        check_same_length(X=predicted, y=y, sample_weight=weights)
        return finite_r2_score(y, predicted, weights)

    def _score_observed(self, X: Any, y: Any, sample_weight: Any) -> float:
        """Return R2 over the entries of y that are not NaN, averaged over the targets."""
        y = as_target(y, "y", allow_nan=True)
        weights = None if sample_weight is None else as_weights(sample_weight, "sample_weight")
        return float(nan_r2_score(y, self.predict(X), sample_weight=weights))

    def is_known(self, X: Any) -> np.ndarray:
        """Return whether the user and the service of each row are among the training rows.

        The prediction for an unknown id uses its context or, without context, the average user or
        service.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`. X is checked as in `predict`, but only the ids determine the
            result, not context or time.

        Returns
        -------
        ndarray of bool of shape (n_samples, 2)
            Column 0 is True if the user is known, column 1 if the service is known. Ids that occur
            only in validation rows are unknown; ids of later updates are known.

        Raises
        ------
        ValueError
            If X is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        return fitted._known_ids(fitted._interactions(X))

    def _known_ids(self, pairs: Interactions) -> np.ndarray:
        """Return whether `fit` saw the ids of pairs, (n, 2); to be called on a snapshot."""
        n_known = self.users_.n_entities, self.services_.n_entities
        return np.column_stack([pairs.users, pairs.services]) < n_known

    def _interactions(self, X: Any) -> Interactions:
        return self._encode(self._read_again(X))

    def _encode(self, columns: Columns) -> Interactions:
        return encode_columns(columns, self.users_, self.services_)

    def _further_rows(self, measured: Measurements, target: np.ndarray) -> TrainingRows:
        """Encode the rows of an update, with encoders extended by their new entities.

        To be called on a snapshot, whose own encoders do not change.
        """
        columns = measured.columns
        users, user_codes = self.users_.extend(columns.users, columns.user_context)
        services, service_codes = self.services_.extend(columns.services, columns.service_context)
        return TrainingRows(
            users=users,
            services=services,
            user_codes=user_codes,
            service_codes=service_codes,
            target=target,
            weights=measured.weights,
            times=columns.times,
        )

    def _with_state(self, state: FittedState) -> Self:
        """Return a view, as `_snapshot` does, with the given state."""
        view = with_plain_parameters(self)
        view._state = state
        return view

    def _read_again(self, X: Any) -> Columns:
        """Check that X has the columns of `fit`, and split it."""
        frame = as_frame(X, 1, self)
        check_feature_names(self, frame, reset=False)
        check_n_features(self, frame, reset=False)
        n_places = self._n_places or self._n_id_columns
        check_names(frame.columns, self._n_id_columns, n_places, self._state.layout.names)
        columns = read_columns(frame, self._n_id_columns, self._state.layout)
        scale = self._state.time_scale
        return columns if scale is None else columns.in_steps(scale)

    def __sklearn_is_fitted__(self) -> bool:
        return self._state is not None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        # The checks of scikit-learn draw ids at random, which contain nothing to learn.
        tags.regressor_tags.poor_score = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Add the version of the package."""
        return {**super().__getstate__(), "_skqos_version": skqos.__version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Warn if another version saved the model."""
        saved = state.get("_skqos_version", "unknown")
        if saved != skqos.__version__:
            warn_of_other_version(type(self).__name__, saved)
        super().__setstate__({k: v for k, v in state.items() if k != "_skqos_version"})


class BaseQoSRegressor(DistributionMixin, PairRegressor):
    """Base class of all estimators that train networks.

    It provides checks, encoding, validation rows, target transform, prediction and pickling. A
    subclass stores its parameters in ``__init__`` and defines ``_fit_networks``.
    """

    module_ = FittedAttribute[Any]()
    history_ = FittedAttribute[pd.DataFrame]()
    n_iter_ = FittedAttribute[int]()
    target_names_in_ = FittedAttribute[np.ndarray]()

    _parameter_constraints: dict = {
        "user_features": ["array-like", None],
        "service_features": ["array-like", None],
        "target_transform": [StrOptions(set(TRANSFORMS)), None],
        "intervals": ["boolean"],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [StrOptions(set(get_args(OptimizerName)))],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "learning_rate_schedule": [StrOptions(set(get_args(LearningRateSchedule)))],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"monitor"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }
    # A subclass adds its own rules to these.
    _switched_off: ClassVar[tuple[SwitchedOff, ...]] = (
        SwitchedOff(("validation_fraction",), by={"early_stopping": (False,)}),
        SwitchedOff(("n_iter_no_change",), by={"early_stopping": (False, "monitor")}),
    )

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Fit the estimator to measured interactions.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Column 0 holds the user ids and column 1 the service ids.

            For `TPMCFRegressor`, column 2 holds the times: integers or time stamps. All further
            columns are context; see `user_features` and `service_features`.
        y : array-like of shape (n_samples,)
            Measured QoS: finite values of any sign, in any unit.

            `SharpQoSRegressor` also accepts several QoS parameters, as an array of shape
            (n_samples, n_targets) with NaN where a value was not observed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, at least 0. A row of weight n counts as n equal rows, and a row of
            weight 0 is ignored. If None, all rows have weight 1.
        X_val : array-like or DataFrame of shape (n_val_samples, n_columns), default=None
            Validation rows, with the columns of X. They replace the rows that `early_stopping`
            would hold out. Users and services may be missing from X. In a `Pipeline`,
            ``Pipeline(..., transform_input=["X_val"])`` applies the transformers to `X_val`, too.
        y_val : array-like of shape (n_val_samples,) or (n_val_samples, n_targets), default=None
            Measured QoS of the validation rows, in the unit and shape of y.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X, y, `sample_weight`, `X_val` or `y_val` is not as described, if only one of `X_val`
            and `y_val` is given, or if they are given with ``early_stopping=False``. A previously
            fitted model remains unchanged.
        FloatingPointError
            If training diverges.

        Warns
        -----
        UnusedParameterWarning
            If a parameter was set that has no effect with the others.
        UnusedColumnsWarning
            If X has columns that are neither ids nor context.
        SparseStepsWarning
            If all distances between the time steps of X are multiples of a number above 1.
        """
        self._check_parameters()
        warn_of_unused_parameters(self)
        self._check_validation_is_used(X_val, y_val)
        y, target_names = self._check_target(y), names_of_targets(y)
        with about("y_val"):
            check_target_names(y_val, target_names)
        frame = as_frame(X, self._n_id_columns, self)
        names = get_feature_names(frame)
        layout = locate_context(
            frame.columns, self._n_id_columns, self.user_features, self.service_features
        )
        columns = read_columns(frame, self._n_id_columns, layout)
        check_same_length(X=frame, y=y)
        plain = with_plain_parameters(self)
        rows = Measurements.weighted(columns, y, sample_weight)
        rows = replace(rows, columns=plain._count_time(rows.columns))
        rows.check_targets()
        held_out = None if X_val is None else self._read_validation(X_val, y_val, rows, names)
        # Here, so that bad input raises without the import of torch.
        from skqos.prediction import recorded_gradients

        with recorded_gradients():
            state = plain._learn(rows, held_out, names).with_target_names(target_names)
            if plain.intervals:
                state = state.with_intervals(plain._learn_intervals(state, rows, held_out))
        self._state = state
        return self

    def predict(self, X: Any, quantiles: Any = None) -> np.ndarray:
        """Predict the QoS of pairs, measured or not, known or not.

        A known id keeps the context with which it was fitted. An unknown id is represented by the
        context in its row or, without context, by the average user or service.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.
        quantiles : array-like of shape (n_quantiles,), default=None
            Levels of the quantiles to predict, from 0.01 to 0.99. If None, the QoS is predicted.
            Quantiles need a model fitted with ``intervals=True``.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            Predictions in the unit and shape of y. With `quantiles`, there is an additional last
            axis of length n_quantiles. Values do not decrease with the level.

        Raises
        ------
        ValueError
            If X or `quantiles` is not as described, or `quantiles` is given and the model was
            fitted without intervals.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        if quantiles is not None:
            return fitted._predict_quantiles(X, quantiles)
        return fitted._predict(fitted._interactions(X))

    @property
    def stage_nets_(self) -> dict[str, QoSNet]:
        """Nets (skorch) by training stage; after unpickling, of the last stage only."""
        state = self._state
        if state is None:
            raise AttributeError(f"{type(self).__name__} is not fitted and has no nets.")
        return state.nets

    @property
    def net_(self) -> QoSNet:
        """Net (skorch) of the final training stage."""
        return list(self.stage_nets_.values())[-1]

    def _score_rows(self, X: Any, method: str = "score") -> np.ndarray:
        """Score the rows of X by a method of the network; to be called on a snapshot."""
        return self._score(self._interactions(X), method)

    def _score(self, interactions: Interactions, method: str = "score") -> np.ndarray:
        from skqos.prediction import resolve_device

        return self._state.predictor.predict(interactions, resolve_device(self.device), method)

    def _predict(self, interactions: Interactions) -> np.ndarray:
        """Predict interactions in the unit of y; to be called on a snapshot."""
        z = self._score(interactions)
        z = z.reshape(len(z), *self._state.target_shape)
        return self._state.target_transform.inverse_transform(z)

    def _predicted_rows(self, X: Any) -> PredictedRows:
        pairs = self._predict_pairs(self._interactions(X))
        return PredictedRows(
            values=self._state.target_transform.inverse_transform(pairs.prediction),
            pairs=pairs,
            shape=(self.users_.n_entities, self.services_.n_entities),
            distribution=self._state.attributes.get("_intervals"),
        )

    def _predict_pairs(self, interactions: Interactions) -> Pairs:
        """Predict interactions in units of the transformed target; to be called on a snapshot."""
        z = self._score(interactions)
        return Pairs(interactions.users, interactions.services, z.reshape(len(z), -1))

    def _target_shape(self) -> tuple[int, ...]:
        return self._state.target_shape

    def _check_validation_is_used(self, X_val: Any, y_val: Any) -> None:
        if X_val is None and y_val is None:
            return
        for given, missing, value in (("X_val", "y_val", y_val), ("y_val", "X_val", X_val)):
            if value is None:
                raise ValueError(f"{given} was given without {missing}; give both or neither.")
        if not self.early_stopping:
            raise ValueError(
                "X_val and y_val were given with early_stopping=False, which does not use them. "
                "Set early_stopping=True, or 'monitor' to only record their loss."
            )

    def _read_validation(
        self, X_val: Any, y_val: Any, rows: Measurements, names: np.ndarray | None
    ) -> Measurements:
        """Read validation rows as an estimator that is fitted to the given rows would."""
        fitted = self._with_state(
            FittedState(
                n_features_in_=rows.columns.frame.shape[1],
                feature_names_in_=names,
                layout=rows.columns.layout,
                time_scale=rows.columns.time_scale,
                users_=None,
                services_=None,
                attributes={},
            )
        )
        with about("y_val"):
            y = self._check_further_target(y_val, rows.y.shape[1:])
        with about("X_val"):
            columns = fitted._read_again(X_val)
        check_same_length(X_val=columns.users, y_val=y)
        return Measurements(columns, y, np.ones(len(y)))

    def _check_further_target(self, y: Any, shape: tuple[int, ...]) -> np.ndarray:  # noqa: ARG002
        """Check targets as in `fit`; each row has the given shape."""
        return self._check_target(y)

    def _learn(
        self,
        rows: Measurements,
        held_out: Measurements | None,
        names: np.ndarray | None = None,
    ) -> NetworkState:
        """Train on rows, and return what was learnt.

        The validation rows are `held_out` or, with `early_stopping`, a part of the rows.
        """
        from skqos.training import history_frame

        transform, data = self._prepare(rows, held_out)
        nets, attributes = self._train(data)
        final = list(nets.values())[-1]
        return NetworkState(
            n_features_in_=rows.columns.frame.shape[1],
            feature_names_in_=names,
            layout=rows.columns.layout,
            time_scale=rows.columns.time_scale,
            users_=data.users,
            services_=data.services,
            attributes=attributes,
            target_transform=transform,
            target_shape=rows.y.shape[1:],
            module_=final.module_,
            history_=history_frame(nets),
            n_iter_=len(final.history),
        ).with_nets(nets)

    def _learn_intervals(
        self, state: NetworkState, rows: Measurements, held_out: Measurements | None
    ) -> Intervals:
        """Learn the distribution of measurements around predictions by training on a part.

        The training uses the weights of the part. The distribution gives all rows the same weight.
        """
        columns, y = rows.columns, rows.y

        def fit_and_predict(kept: np.ndarray) -> np.ndarray:
            twin = with_plain_parameters(self)
            # The user's callbacks are for the training whose network is kept.
            twin.callbacks = None
            with reports_of("intervals"):
                twin._state = twin._learn(rows.take(kept), held_out)
            return twin._predict(twin._encode(columns))

        fitted = self._with_state(state)
        return learn_intervals(
            fitted._predict_pairs(fitted._encode(columns)),
            y.reshape(len(y), -1),
            columns.times,
            (state.users_.n_entities, state.services_.n_entities),
            state.target_transform,
            fit_and_predict,
            check_random_state(self.random_state).randint(np.iinfo(np.int32).max),
        )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        """Train the networks of all stages, the final one last.

        Returns
        -------
        nets : dict of str to QoSNet
            Nets by name of the stage.
        attributes : dict of str to object
            Further fitted attributes.
        """
        raise NotImplementedError

    def _count_time(self, columns: Columns) -> Columns:
        """Convert the times of training rows to step numbers, if there are times."""
        return columns

    def _check_parameters(self) -> None:
        """Check combinations of parameters; raise ValueError."""

    def _prepare(
        self, rows: Measurements, held_out: Measurements | None
    ) -> tuple[TargetTransform, TrainingData]:
        """Hold out validation rows, then learn ids, context and target scale from the rest."""
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=2)
        name = "X_val"
        if held_out is None:
            name = "X"
            train, others = self._split_rows(rows.y, seeds[0])
            held_out = rows.take(others) if len(others) else None
            rows = rows.take(train)
        columns = rows.columns
        users, services = EntityEncoder("user"), EntityEncoder("service")
        user_codes = users.fit(columns.users, columns.user_context)
        service_codes = services.fit(columns.services, columns.service_context)
        _check_enough(len(rows), users.n_entities, services.n_entities)
        transform = TargetTransform(self.target_transform).fit(rows.y, rows.weights)
        validation = None
        if held_out is not None:
            with about(name):
                interactions = encode_columns(held_out.columns, users, services)
            validation = interactions, transform.transform(held_out.y), held_out.weights
        data = TrainingData(
            users=users,
            services=services,
            user_codes=user_codes,
            service_codes=service_codes,
            times=columns.times,
            time_scale=columns.time_scale,
            target=transform.transform(rows.y),
            weights=rows.weights,
            y=rows.y,
            validation=validation,
            seed=int(seeds[1]),
        )
        return transform, data

    def _split_rows(self, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return training rows and held-out rows; the split depends on NaN but on no value of y."""
        n_rows = len(y)
        if not self.early_stopping:
            return np.arange(n_rows), np.arange(0)
        n_held_out = max(1, round(self.validation_fraction * n_rows))
        if n_rows - n_held_out < 2:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} with n_samples={n_rows} leaves "
                f"{n_rows - n_held_out} training rows; at least 2 are needed."
            )
        order = np.random.RandomState(seed).permutation(n_rows)
        observed = ~np.isnan(y[order].reshape(n_rows, -1))
        # The last observation of every target is a training row.
        kept = n_rows - 1 - observed[::-1].argmax(axis=0)
        held_out = np.zeros(n_rows, dtype=bool)
        # Rows without an observation cannot be used for validation.
        held_out[np.flatnonzero(observed.any(axis=1))[:n_held_out]] = True
        held_out[kept] = False
        if not held_out.any():
            raise ValueError(
                f"y has too few observations to hold out validation rows, which early_stopping="
                f"{self.early_stopping!r} needs: every target must keep a training observation."
            )
        return np.sort(order[~held_out]), np.sort(order[held_out])

    def _train(self, data: TrainingData) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.training import seeded

        trainer = self._make_trainer()
        with seeded(data.seed, trainer.device):
            return self._fit_networks(data, trainer)

    def _make_trainer(self) -> Trainer:
        from skqos.prediction import resolve_device
        from skqos.training import Trainer

        return Trainer(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=MAX_AUTO_BATCH if self.batch_size == "auto" else self.batch_size,
            optimizer=self.optimizer,
            learning_rate_schedule=self.learning_rate_schedule,
            early_stopping=self.early_stopping,
            n_iter_no_change=self.n_iter_no_change,
            device=resolve_device(self.device),
            callbacks=self.callbacks or (),
            verbose=self.verbose,
        )

    def _rows_per_step(self, n_rows: int) -> int:
        """Return `batch_size` as a number, for the given number of training rows."""
        if self.batch_size == "auto":
            return min(max(n_rows // AUTO_STEPS, MIN_AUTO_BATCH), MAX_AUTO_BATCH)
        return self.batch_size

    def __getstate__(self) -> dict[str, Any]:
        """Keep only what is needed after `fit`: weights on the CPU, no optimiser state."""
        state = super().__getstate__()
        if "_state" in state:
            state["_state"] = state["_state"].on_cpu()
        return state


def encode_columns(columns: Columns, users: EntityEncoder, services: EntityEncoder) -> Interactions:
    """Encode X for prediction."""
    # Context is read only if there are unknown ids.
    user_positions, new_users = users.transform(columns.users, lambda: columns.user_context)
    service_positions, new_services = services.transform(
        columns.services, lambda: columns.service_context
    )
    return Interactions(
        users=user_positions,
        services=service_positions,
        times=columns.times,
        new_users=new_users,
        new_services=new_services,
    )


def _check_enough(n_rows: int, n_users: int, n_services: int) -> None:
    for n, what in ((n_rows, "sample"), (n_users, "user"), (n_services, "service")):
        if n < 2:
            raise ValueError(
                f"X: Found n_{what}s={n} for training: one {what} is not enough, at least 2 are "
                "needed."
            )


def check_layer_sizes(parameter: str, sizes: Any, min_layers: Literal[0, 1] = 1) -> None:
    """Raise ValueError unless a parameter contains the sizes of at least `min_layers` layers."""
    if len(sizes) < min_layers or any(not isinstance(n, Integral) or n < 1 for n in sizes):
        what = "at least one layer size" if min_layers else "layer sizes"
        raise ValueError(
            f"{parameter} must contain {what}, each an int of 1 or more; got {sizes!r}."
        )
