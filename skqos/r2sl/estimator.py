"""R2SL as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from skqos._parameters import SwitchedOff, is_empty
from skqos._sklearn_compat import Interval, StrOptions
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    LossName,
    OptimizerName,
    TargetTransformName,
)
from skqos.base import TrainingData, TrainingRows
from skqos.incremental import IncrementalQoSRegressor
from skqos.r2sl.latent_states import RegionalLatentStates
from skqos.state import FittedAttribute

if TYPE_CHECKING:
    from skqos.losses import ObservedLoss
    from skqos.r2sl.module import EntityRows, PairLevels, R2SLModule
    from skqos.training import QoSNet, Trainer

RegionalLossName: TypeAlias = Literal[LossName, "e_huber", "e_huber_printed"]
PAPER_KINDS = ("city", "as")


class R2SLRegressor(IncrementalQoSRegressor):
    """Regional latent states and a multi-scale convolutional network (R2SL) for QoS prediction.

    Users and services are grouped by region, for example by city, autonomous system or country. For
    each kind of region, latent states of user regions and of service regions are learnt from the
    QoS between regions. The embedded features of a pair and the latent states of its regions form a
    map, which is processed by convolutions of several widths and by dense layers [1]_.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. If None, the columns of a DataFrame whose names
        start with ``user_`` and ``service_`` are used. Columns of strings, categories, booleans,
        dates or durations, and of objects other than numbers, are categorical; all other columns
        are numeric, and values more than ten standard deviations from the mean count as ten. NaN
        means that the value is unknown.

    region_features : list of str, default=None
        Kinds of region with latent states: "city" stands for the categorical columns ``user_city``
        and ``service_city``. If None, the kinds of the paper, "city" and "as", are used if users
        and services have both; otherwise all kinds that both sides have, possibly none. ``("as",)``
        leaves the city out, and ``()`` disables latent states. In all cases the columns remain
        features.

    n_states : int, default=3
        Number m of latent states of user regions, and of service regions.

        The paper uses 5. On real data, more than 3 states add little to the log posterior. Used
        only if there are latent states; see `region_features`.

    concentration : float, default=1.0
        Parameter alpha of the symmetric Dirichlet prior of the state frequencies, at least 1.

        The paper uses 5. Used only if there are latent states; see `region_features`.

    rate : {"matched", "printed"}, default="matched"
        Model of the mean QoS. With "matched", it depends on whether the states of the two regions
        match. "printed" is the model as printed in the paper (eq. 3), in which the states do not
        depend on the QoS.

        See `RegionalLatentStates`. Used only if there are latent states; see `region_features`.

    slow_quantile : float, default=0.9
        Threshold eta between fast and slow measurements, as a quantile of the QoS.

        With the default `rate`, it determines only the initial value of w. Used only if there are
        latent states; see `region_features`.

    state_target : {"raw", "transformed"}, default="raw"
        Values from which the latent states are learnt: the QoS, as in the paper, or the transformed
        target, in which time-outs are less extreme. Used only if there are latent states; see
        `region_features`.

    state_shrinkage : float, default=0.0
        Strength of the shrinkage of states and levels of a region to those of all regions, as a
        number of measurements. It is not in the paper. Used only if there are latent states; see
        `region_features`.

    expected_level : bool, default=False
        Whether the map also has, for each kind of region, a cell with the expected QoS of the pair
        given its regions, as a logarithm. It is not in the paper. Used only if there are latent
        states; see `region_features`.

    min_region_size : int, default=1
        Number of users, or services, below which a region of a kind with latent states has no
        embedding, so that only its states describe it. `fit` decides it; a region that
        `partial_fit` adds has an embedding. It is not in the paper. Used only if there are latent
        states; see `region_features`.

    n_members : int, default=2
        Number of networks, each with weights of its own. They are trained in one pass, and their
        predictions are averaged in units of the transformed target.

        The paper uses 1.

    embedding_dim : int, default=32
        Size of the vectors that represent the features of a user or service. There is one vector
        for the id, one for each categorical column, and one linear projection of all numeric
        columns together.

        Each latent state has a vector of this size, too.

    input_dropout : float, default=0.3
        Dropout rate of the inputs of the network during training. It reduces overfitting to sparse
        training data.

        The inputs are the features and latent states in the map. The paper has no input dropout.

    n_filters : int, default=1
        Number of convolution filters.

        There are this many filters for each of the kernel widths 1, 3 and 5. The paper does not
        state their number.

    hidden_size : int, default=256
        Size 2^v of the first dense layer. The two following layers have a half and a quarter of it.
        The paper does not state v.

    skip_connection : bool, default=True
        Whether the first dense layer also receives the embedded features directly, in addition to
        the output of the convolutions. The paper has no skip connection (False).

    loss : {"absolute_error", "squared_error", "huber", "e_huber", "e_huber_printed"}, \
            default="absolute_error"
        Training loss, in units of the transformed target.

        "e_huber_printed" is the loss of the paper (eq. 27), which is discontinuous at its
        threshold; "e_huber" is its continuous form.

    loss_threshold : float, default=0.1
        Absolute error at which the Huber losses change from quadratic to linear. The paper uses 0.5
        s. Used only if `loss` is "huber", "e_huber" or "e_huber_printed".

    tail_weight : float, default=0.5
        Weight of the linear part of the E-Huber losses. The paper uses 0.05. Used only if `loss` is
        "e_huber" or "e_huber_printed".

    max_epochs : int, default=20
        Number of epochs of the final training stage.

    partial_fit_epochs : int, default=4
        Number of epochs of an update by `partial_fit`.

        Dropout is switched off during updates. With 0, an update adds new users and services
        without training.

    replay_buffer_size : int, default=100_000
        Maximum number of training rows that the fitted estimator keeps. `partial_fit` trains on
        some of them together with the new rows. With 0, no rows are kept, and updates degrade what
        was learnt before more quickly.

        If there are more training rows, a uniform random sample is kept.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        Transformation of each target before training. It is estimated from the training rows alone,
        and predictions are transformed back. "sqrt" is
        ``sqrt(y / mean(abs(y)))``, "log" is ``log(1 + y / mean(y))`` and requires that no value is
        negative, "max" divides by the largest absolute value, "standard" subtracts the mean and
        divides by the standard deviation, and None leaves y unchanged. "auto" is
        ``sqrt((y - min(y)) / mean(y - min(y)))`` for a target with a heavy right tail, such as
        response time or throughput, and "standard" for all others. A right tail is heavy if the
        mean is above the median and the minimum is not an outlier. The result of "auto" depends
        neither on the unit of y nor on an offset. A negative value under a root gives the
        negative root of its absolute value.

        The latent states are learnt from y itself, shifted to be positive: its minimum is
        subtracted, and a thousandth of the resulting mean is added.

    optimizer : {"adamw", "adam"}, default="adamw"
        Optimiser of the weights. `weight_decay` is decoupled with "adamw" and an L2 penalty with
        "adam".

    learning_rate : float, default=3e-3
        Learning rate. With ``learning_rate_schedule="one_cycle"``, it is the maximum of the
        schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Schedule of the learning rate within a training stage. "one_cycle" increases the learning
        rate to its maximum and then decreases it to almost 0; "constant" does not change it.

    weight_decay : float, default=0.05
        Weight decay of the optimiser; see `optimizer`.

    batch_size : int, default=256
        Maximum number of training rows in each step of the optimiser. The sizes of the batches of
        an epoch differ by one row at most.

    intervals : bool, default=False
        Whether `fit` also estimates the distribution of measurements around the predictions, which
        ``predict(X, quantiles=...)``, `predict_interval` and `predict_probability` need. For this,
        a second network is trained on a part of the rows: `fit` takes 1.6 to 1.9 times as long. The
        predictions do not change.

    early_stopping : bool or "monitor", default=False
        If True, validation rows are held out before anything is learnt from the data. A training
        stage ends when the validation loss has not improved for `n_iter_no_change` epochs, and the
        best weights are restored. If "monitor", validation rows are held out and their loss is
        recorded, but training does not use it. If False, all rows are used for training.

    validation_fraction : float, default=0.1
        Fraction of the rows that are held out for validation. Used only with `early_stopping`, and
        only if no `X_val` is passed to `fit`.

    n_iter_no_change : int, default=10
        Number of epochs without improvement of the validation loss after which a training stage
        ends. Used only with ``early_stopping=True``.

    device : str, default="auto"
        Torch device on which the estimator trains and predicts. "auto" is a CUDA GPU if
        torch finds one, and the CPU otherwise.

    callbacks : list of skorch callbacks, default=None
        skorch callbacks. They are cloned and run in each training stage; the attribute ``stage`` of
        the net that they receive is the name of the stage.

    random_state : int, RandomState instance or None, default=None
        Controls the random numbers that `fit` draws. Pass an int for reproducible results across
        several calls.

        It determines the initial weights, dropout, batches, the starts of the latent states and the
        validation split. Fits that run in several threads are not reproducible, because threads
        share the random state of torch.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per epoch, with the stage, the losses and the time left. In a terminal,
        the lines of a stage replace each other.

    Attributes
    ----------
    region_features_ : list of str
        Kinds of region that have latent states. Empty if the context has none.

    latent_states_ : dict of str to DataFrame
        P(state given region) for each kind of region, with one row per side ("user", "service") and
        region.

    latent_state_models_ : dict of str to RegionalLatentStates
        Fitted model of each kind of region, with its rates, w and log posterior.

    module_ : R2SLModule
        Network of the final training stage, on the CPU after `fit`.

    net_ : QoSNet
        skorch net of the final training stage.

    stage_nets_ : dict of str to QoSNet
        skorch net of each training stage, by the name of the stage.

        The only stage is "final". After `partial_fit`, there is only the net of the stage
        "partial". A pickle keeps only the last net.

    history_ : DataFrame
        Training history with one row per epoch and the columns ``stage``, ``epoch``,
        ``train_loss``, ``valid_loss`` (NaN without validation rows) and ``duration`` (in seconds).
        Losses are in units of the transformed target.

        `partial_fit` appends rows whose stage is "partial".

    n_iter_ : int
        Number of iterations that were run.

        An iteration is an epoch of the final training stage or, after `partial_fit`, of the update.

    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.

        They also hold the categories and scales of the context. `partial_fit` adds new ids and new
        categories.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    PAPER_PARAMS : dict
        Published settings [1]_, as keyword arguments of the estimator.

        They need context with cities and autonomous systems. Their loss is in units of y, and their
        eta is the quantile of 5 s in the data of the paper. What the paper does not state
        (optimiser, epochs, batch size, v, filters) is taken from later code of its authors or
        chosen by us.

    Notes
    -----
    An unknown user or service has the latent states of its region, and the average of all ids in
    place of its id. An unknown region has the frequencies of the states.

    `partial_fit` continues the training of the network. The latent states remain those of `fit`: a
    new user or service has those of its region, and a new region has the frequencies of the states.

    A pickle contains the weights, the entity tables, the latent states, and up to
    `replay_buffer_size` training rows as codes, transformed targets and weights. It contains no
    optimiser state.

    References
    ----------
    .. [1] Z. Wang, X. Zhang, M. Yan, "A Dual Latent State Learning Approach: Exploiting Regional
       Network Similarities for QoS Prediction", arXiv:2310.05988, 2023.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqos import R2SLRegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.preprocessing import ContextJoiner
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = R2SLRegressor(n_states=2, max_epochs=2, random_state=0)
    >>> pipeline = make_pipeline(ContextJoiner(data.users, data.services), model)
    >>> pipeline.fit(data.X, data.y).predict([[3, 17], [3, 4711]]).shape
    (2,)
    >>> model.region_features_
    ['country', 'as', 'region']
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "region_features": PAPER_KINDS,
        "n_states": 5,
        "concentration": 5.0,
        "rate": "printed",
        "slow_quantile": 0.951,
        "n_members": 1,
        "n_filters": 8,
        "hidden_size": 256,
        "skip_connection": False,
        "input_dropout": 0.0,
        "loss": "e_huber_printed",
        "loss_threshold": 0.5,
        "tail_weight": 0.05,
        "target_transform": None,
        "max_epochs": 30,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "learning_rate_schedule": "constant",
        "weight_decay": 0.0,
        "batch_size": 64,
    }

    _parameter_constraints: dict = {
        **IncrementalQoSRegressor._parameter_constraints,
        **{
            name: RegionalLatentStates._parameter_constraints[name]
            for name in ("n_states", "concentration", "rate", "slow_quantile")
        },
        "state_target": [StrOptions({"raw", "transformed"})],
        "state_shrinkage": [Interval(Real, 0, None, closed="left")],
        "expected_level": ["boolean"],
        "min_region_size": [Interval(Integral, 1, None, closed="left")],
        "region_features": ["array-like", None],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 4, None, closed="left")],
        "skip_connection": ["boolean"],
        "loss": [StrOptions(set(get_args(RegionalLossName)))],
        "loss_threshold": [Interval(Real, 0, None, closed="neither")],
        "tail_weight": [Interval(Real, 0, None, closed="left")],
    }
    _switched_off: ClassVar[tuple[SwitchedOff, ...]] = (
        *IncrementalQoSRegressor._switched_off,
        SwitchedOff(
            (
                *("n_states", "concentration", "rate", "slow_quantile", "state_target"),
                *("state_shrinkage", "expected_level", "min_region_size"),
            ),
            by={"region_features": is_empty},
        ),
        SwitchedOff(("loss_threshold",), by={"loss": ("absolute_error", "squared_error")}),
        SwitchedOff(("tail_weight",), by={"loss": ("absolute_error", "squared_error", "huber")}),
    )

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        region_features: Sequence[str] | None = None,
        n_states: int = 3,
        concentration: float = 1.0,
        rate: Literal["matched", "printed"] = "matched",
        slow_quantile: float = 0.9,
        state_target: Literal["raw", "transformed"] = "raw",
        state_shrinkage: float = 0.0,
        expected_level: bool = False,
        min_region_size: int = 1,
        n_members: int = 2,
        embedding_dim: int = 32,
        input_dropout: float = 0.3,
        n_filters: int = 1,
        hidden_size: int = 256,
        skip_connection: bool = True,
        loss: RegionalLossName = "absolute_error",
        loss_threshold: float = 0.1,
        tail_weight: float = 0.5,
        max_epochs: int = 20,
        partial_fit_epochs: int = 4,
        replay_buffer_size: int = 100_000,
        target_transform: TargetTransformName | None = "auto",
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: LearningRateSchedule = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int = 256,
        intervals: bool = False,
        early_stopping: EarlyStoppingOption = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        device: str = "auto",
        callbacks: Sequence[Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.user_features = user_features
        self.service_features = service_features
        self.region_features = region_features
        self.n_states = n_states
        self.concentration = concentration
        self.rate = rate
        self.slow_quantile = slow_quantile
        self.state_target = state_target
        self.state_shrinkage = state_shrinkage
        self.expected_level = expected_level
        self.min_region_size = min_region_size
        self.n_members = n_members
        self.embedding_dim = embedding_dim
        self.input_dropout = input_dropout
        self.n_filters = n_filters
        self.hidden_size = hidden_size
        self.skip_connection = skip_connection
        self.loss = loss
        self.loss_threshold = loss_threshold
        self.tail_weight = tail_weight
        self.max_epochs = max_epochs
        self.partial_fit_epochs = partial_fit_epochs
        self.replay_buffer_size = replay_buffer_size
        self.target_transform = target_transform
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.intervals = intervals
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    latent_state_models_ = FittedAttribute[dict[str, RegionalLatentStates]]()
    region_features_ = FittedAttribute[list[str]]()

    @property
    def latent_states_(self) -> dict[str, pd.DataFrame]:
        """P(state given region) for each kind of region, with one row per side and region."""
        return {
            kind: model.states_by_side(kind) for kind, model in self.latent_state_models_.items()
        }

    def _check_parameters(self) -> None:
        """Check combinations of parameters; raise ValueError."""
        kinds = self.region_features
        if kinds is not None and len(set(kinds)) < len(kinds):
            raise ValueError(
                f"region_features must contain each kind of region once; got {list(kinds)}."
            )
        if self.expected_level and self.rate == "printed":
            raise ValueError(
                "expected_level=True needs rate='matched': with rate='printed', the mean of a pair "
                "depends on its measurement and not on its states."
            )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.training import InteractionDataset, ValidationDataset

        regions = self._region_columns(data)
        models = {kind: self._fit_states(data, columns) for kind, columns in regions.items()}
        net = trainer.fit(
            self._build_module(data, regions, models),
            self._make_loss(),
            InteractionDataset.of_rows(data),
            None if data.validation is None else ValidationDataset(*data.validation),
            stage="final",
            max_epochs=self.max_epochs,
        )
        return {"final": net}, {
            "latent_state_models_": models,
            "region_features_": list(models),
        }

    def _prepare_update(self, module: R2SLModule, rows: TrainingRows) -> dict[str, Any]:
        from skqos.training import InteractionDataset

        module.grow(rows.users, rows.services)
        return {"criterion": self._make_loss(), "rows": InteractionDataset.of_rows(rows)}

    def _make_loss(self) -> ObservedLoss:
        from skqos.losses import ObservedLoss

        constants = {
            "huber": {"threshold": self.loss_threshold},
            "e_huber": {"threshold": self.loss_threshold, "tail_weight": self.tail_weight},
        }
        constants["e_huber_printed"] = constants["e_huber"]
        return ObservedLoss(self.loss, **constants.get(self.loss, {}))

    def _region_columns(self, data: TrainingData) -> dict[str, tuple[int, int]]:
        """Find the categorical columns of users and services for each kind of region."""
        users, services = data.users.shared_names, data.services.shared_names
        found = [kind for kind in users if kind in services]
        kinds = self.region_features
        if kinds is None:
            kinds = PAPER_KINDS if set(PAPER_KINDS) <= set(found) else found
        for kind in kinds:
            if kind not in found:
                raise ValueError(
                    f"region_features contains {kind!r}, which needs the categorical context "
                    f"columns 'user_{kind}' and 'service_{kind}'. Kinds of region found: {found}."
                )
        return {kind: (users[kind], services[kind]) for kind in kinds}

    def _fit_states(self, data: TrainingData, columns: tuple[int, int]) -> RegionalLatentStates:
        """Learn the latent states of one kind of region."""
        regions = [
            np.asarray(encoder.categories_[column], dtype=object)[
                encoder.table_.categories[codes, column]
            ]
            for encoder, codes, column in (
                (data.users, data.user_codes, columns[0]),
                (data.services, data.service_codes, columns[1]),
            )
        ]
        model = RegionalLatentStates(
            self.n_states,
            concentration=self.concentration,
            rate=self.rate,
            slow_quantile=self.slow_quantile,
            shrinkage=self.state_shrinkage,
            random_state=data.seed,
        )
        users, services = regions
        values = data.y if self.state_target == "raw" else np.asarray(data.target, np.float64)
        return model.fit(users, services, _positive(values, data.weights), data.weights)

    def _build_module(
        self,
        data: TrainingData,
        regions: dict[str, tuple[int, int]],
        models: dict[str, RegionalLatentStates],
    ) -> R2SLModule:
        from skqos.r2sl.module import EntityRows, R2SLModule

        shares, levels = (
            {kind: found(models[kind], data, columns) for kind, columns in regions.items()}
            for found in (_shares_by_code, _levels_by_code)
        )
        has_levels = self.expected_level and bool(models)
        sides = [
            EntityRows(
                encoder.table_,
                encoder.n_categories,
                [(columns[side], shares[kind][side]) for kind, columns in regions.items()],
                self.n_states,
                n_members=self.n_members,
                dim=self.embedding_dim,
                dropout=self.input_dropout,
                log_levels=[levels[kind][side] for kind in regions] if has_levels else (),
                min_size=self.min_region_size,
            )
            for side, encoder in enumerate((data.users, data.services))
        ]
        return R2SLModule(
            *sides,
            n_members=self.n_members,
            n_filters=self.n_filters,
            hidden_size=self.hidden_size,
            skip_connection=self.skip_connection,
            levels=self._make_levels(data, sides, models) if has_levels else None,
        )

    def _make_levels(
        self,
        data: TrainingData,
        sides: list[EntityRows],
        models: dict[str, RegionalLatentStates],
    ) -> PairLevels:
        """Create the expected levels of pairs, standardised over the training rows."""
        import torch

        from skqos.r2sl.module import PairLevels

        levels = PairLevels(
            np.array([model.mismatch_ for model in models.values()]),
            n_members=self.n_members,
            dim=self.embedding_dim,
            dropout=self.input_dropout,
        )
        of_rows = [
            side.levels[torch.as_tensor(codes)].unsqueeze(0)
            for side, codes in zip(sides, (data.user_codes, data.service_codes), strict=True)
        ]
        levels.standardise(*of_rows)
        return levels


def _levels_by_code(
    model: RegionalLatentStates, data: TrainingData, columns: tuple[int, int]
) -> list[np.ndarray]:
    """Return the log levels of each region code of a side, and of an unknown region at the end."""
    unknown = object()
    users, services = (
        [*encoder.categories_[column], unknown]
        for encoder, column in zip((data.users, data.services), columns, strict=True)
    )
    return list(model.log_levels(users, services))


def _shares_by_code(
    model: RegionalLatentStates, data: TrainingData, columns: tuple[int, int]
) -> list[np.ndarray]:
    """Return the states of each region code of a side; the last row is for unknown regions."""
    users, services = (
        encoder.categories_[column]
        for encoder, column in zip((data.users, data.services), columns, strict=True)
    )
    unknown = (model.user_frequencies_, model.service_frequencies_)
    return [
        np.vstack([shares, frequencies])
        for shares, frequencies in zip(model.transform(users, services), unknown, strict=True)
    ]


def _positive(y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shift a target to be positive, as the exponential model requires."""
    above = y - y.min()
    # A small positive minimum keeps the ratios of values finite.
    return above + (1e-3 * np.average(above, weights=weights) or 1.0)
