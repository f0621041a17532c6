"""R2SL as a scikit-learn regressor: latent states of regions, then one network."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

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
    from skqos.r2sl.module import R2SLModule
    from skqos.training import QoSNet, Trainer

LOSS_NAMES = ("absolute_error", "squared_error", "huber", "e_huber", "e_huber_printed")
PAPER_KINDS = ("city", "as")


class R2SLRegressor(IncrementalQoSRegressor):
    """Regional latent states and a multi-scale convolutional network (R2SL) for QoS prediction.

    Users and services are grouped by region: city, autonomous system, country. For each kind of
    region, latent states are learnt from the QoS between regions, user regions and service regions
    apart. A map holds the known features of the pair, embedded, and the latent states of its
    regions; convolutions of several widths and a dense head read it [1]_.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. None takes the columns of a DataFrame that are
        named ``user_*`` and ``service_*``. Columns of strings, objects, categories or bools are
        categorical, others numeric; NaN is "unknown".

    region_features : list of str, default=None
        Kinds of region that get latent states: "city" stands for the categorical columns
        ``user_city`` and ``service_city``. None takes those of the paper, city and AS, where
        both sides have both; otherwise all kinds that both have, perhaps none. Without city:
        ``("as",)``; without latent states: ``()``. The columns stay known features in any case.

    n_states : int, default=3
        Number m of latent states of each side and kind. The paper has 5; on real data more than 3
        add little to the log posterior.

    concentration : float, default=1.0
        Parameter of the Dirichlet prior of the states' frequencies, see `RegionalLatentStates`.

    rate : {"matched", "printed"}, default="matched"
        Whether the QoS depends on whether states match, or as the paper prints it, which leaves
        the states without any knowledge of QoS; see `RegionalLatentStates`.

    slow_quantile : float, default=0.9
        The threshold eta of the latent states, as a quantile of y.

    n_members : int, default=2
        Number of networks of this kind, each with weights of its own, that train in one pass and
        are averaged in the transformed target. 1 is the network of the paper.

    embedding_dim : int, default=32
        Width of the vector in each cell of the map.

    input_dropout : float, default=0.3
        Dropout of the map. Ours, and what keeps the network from learning its sparse training rows
        by heart; the paper has none.

    n_filters : int, default=2
        Filters of each width of kernel (1, 3 and 5). The paper leaves it open.

    hidden_size : int, default=256
        Width 2^v of the first dense layer; the next have a half and a quarter of it. The paper
        leaves v open.

    skip_connection : bool, default=True
        Whether the first dense layer also reads the embedded known features themselves, beside what
        the convolutions make of them. The paper has False.

    loss : {"absolute_error", "squared_error", "huber", "e_huber", "e_huber_printed"}, \
            default="absolute_error"
        Training loss, in units of the transformed target. "e_huber" is continuous; the loss of the
        paper's eq. 27, "e_huber_printed", falls at its threshold.

    loss_threshold : float, default=0.1
        Where the Huber losses change from squares to lines. The paper has 0.5, in seconds.

    tail_weight : float, default=0.5
        Weight of the linear part of both E-Huber losses. The paper has 0.05.

    max_epochs : int, default=20
        Epochs of training.

    partial_fit_epochs : int, default=4
        Epochs of an update by `partial_fit`, which has no dropout.

    replay_buffer_size : int, default=100_000
        How many training rows the fitted estimator keeps for `partial_fit`, which trains on them
        again; of more, a uniform sample. 0 keeps none, and what was learnt fades faster.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        How y is transformed ahead of training, learnt from the training rows alone.
        "sqrt" is ``sqrt(y / mean(y))``, "log" ``log(1 + y / mean(y))``, "max" divides by the
        largest absolute value, "standard" centres and scales, None leaves it as it is. "auto"
        takes ``sqrt((y - min(y)) / mean(y - min(y)))`` for a target with a heavy right tail, as
        response times and throughput have (its mean is above its median, and its lowest value
        is not far below all others), else "standard": neither the unit nor an offset of y
        matters to it. Under "sqrt" and "auto" a value below those seen takes the negative root.
        Latent states see y itself, less its minimum and plus a thousandth of the mean of what is
        left.

    optimizer : {"adamw", "adam"}, default="adamw"
        With Adam, `weight_decay` is an L2 penalty; with AdamW it is decoupled.

    learning_rate : float, default=3e-3
        Learning rate; the peak of the "one_cycle" schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Course of the learning rate.

    weight_decay : float, default=0.05
        Weight decay.

    batch_size : int, default=256
        Rows per step. A last batch of one row joins the one before.

    intervals : bool, default=False
        Whether `fit` also learns how far measurements lie from predictions, so that `predict` takes
        `quantiles` and there are `predict_interval` and `predict_probability`. It trains a second
        network, without some of the rows, which takes two thirds of the time again; predictions
        stay the same.

    early_stopping : bool or "monitor", default=False
        True holds out validation rows before anything is learnt from them, latent states included,
        ends training when their loss has not improved for `n_iter_no_change` epochs, and restores
        the best weights. "monitor" holds them out and records their loss, but changes nothing else.

    validation_fraction : float, default=0.1
        Share of the rows held out, with `early_stopping`; not used where `fit` gets `X_val`.

    n_iter_no_change : int, default=10
        Epochs without improvement that end training, with ``early_stopping=True``.

    device : str, default="auto"
        A torch device; "auto" is a GPU where there is one. Prediction uses it, too.

    callbacks : list of skorch callbacks, default=None
        Run in training. They are cloned.

    random_state : int, RandomState instance or None, default=None
        Seeds weights, dropout, batches, the starts of the latent states and the validation split.
        Threads share torch's random state, so that fits in several threads are not reproducible.

    verbose : int, default=0
        1 shows a line on stderr: epoch, losses, time left.

    Attributes
    ----------
    region_features_ : list of str
        Kinds of region that have latent states; empty where the context has none.

    latent_states_ : dict of str to DataFrame
        By kind of region, P(state given region): a row per side ("user", "service") and region.

    latent_state_models_ : dict of str to RegionalLatentStates
        By kind of region, the fitted model: its rates, w and log posterior.

    module_ : R2SLModule
        The network, on the CPU after `fit`.

    net_ : QoSNet
        Its skorch net.

    stage_nets_ : dict of str to QoSNet
        The net under the name of the only stage, "final", or "partial" after an update.

    history_ : DataFrame
        One row an epoch: stage, epoch, train_loss, valid_loss (NaN without validation rows),
        duration in seconds. Losses are in units of the transformed target. Updates
        append rows of stage "partial".

    n_iter_ : int
        Epochs of training, or of the latest update.

    users_, services_ : EntityEncoder
        Ids, context categories and scales seen in `fit`; ids and categories of updates after them.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X in `fit`, if they are all strings.

    PAPER_PARAMS : dict
        The published settings [1]_: ``R2SLRegressor(**R2SLRegressor.PAPER_PARAMS)``, for context
        that has cities and autonomous systems. Its loss is in units of y, and its eta of 5 s is
        the quantile that 5 s is in the paper's data. What the paper does not state (optimiser,
        epochs, batches, v, filters) is that of its authors' later code, or ours.

    Notes
    -----
    A user or service that was never seen has the latent states of its region; an unknown region
    has the frequencies of the states, and an id the average of all ids.

    `partial_fit` trains the network on; latent states stay those of `fit`. A new entity has
    those of its region, a new region the frequencies of the states.

    A pickle holds weights, entity tables, latent states, and of the training rows what
    `replay_buffer_size` says, as codes, transformed targets and weights; no
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
        "region_features": ["array-like", None],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 4, None, closed="left")],
        "skip_connection": ["boolean"],
        "loss": [StrOptions(set(LOSS_NAMES))],
        "loss_threshold": [Interval(Real, 0, None, closed="neither")],
        "tail_weight": [Interval(Real, 0, None, closed="left")],
    }

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
        n_members: int = 2,
        embedding_dim: int = 32,
        input_dropout: float = 0.3,
        n_filters: int = 2,
        hidden_size: int = 256,
        skip_connection: bool = True,
        loss: LossName | Literal["e_huber", "e_huber_printed"] = "absolute_error",
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
        """P(state given region) by kind of region, with a row per side and region."""
        return {
            kind: pd.concat(
                {
                    "user": pd.DataFrame(model.user_states_, index=model.user_regions_),
                    "service": pd.DataFrame(model.service_states_, index=model.service_regions_),
                },
                names=["side", kind],
            )
            for kind, model in self.latent_state_models_.items()
        }

    def _check_parameters(self) -> None:
        """Check what parameters must be together."""
        kinds = self.region_features
        if kinds is not None and len(set(kinds)) < len(kinds):
            raise ValueError(f"region_features must name each kind once; got {list(kinds)}.")

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
                    f"region_features names {kind!r}, which needs categorical context in both "
                    f"'user_{kind}' and 'service_{kind}'. Kinds of region found: {found}."
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
            random_state=data.seed,
        )
        users, services = regions
        return model.fit(users, services, _positive(data.y, data.weights), data.weights)

    def _build_module(
        self,
        data: TrainingData,
        regions: dict[str, tuple[int, int]],
        models: dict[str, RegionalLatentStates],
    ) -> R2SLModule:
        from skqos.r2sl.module import EntityRows, R2SLModule

        shares = {
            kind: _shares_by_code(models[kind], data, columns) for kind, columns in regions.items()
        }
        sides = [
            EntityRows(
                encoder.table_,
                encoder.n_categories,
                [(columns[side], shares[kind][side]) for kind, columns in regions.items()],
                self.n_states,
                n_members=self.n_members,
                dim=self.embedding_dim,
                dropout=self.input_dropout,
            )
            for side, encoder in enumerate((data.users, data.services))
        ]
        return R2SLModule(
            *sides,
            n_members=self.n_members,
            n_filters=self.n_filters,
            hidden_size=self.hidden_size,
            skip_connection=self.skip_connection,
        )


def _shares_by_code(
    model: RegionalLatentStates, data: TrainingData, columns: tuple[int, int]
) -> list[np.ndarray]:
    """States of each code of a side's regions; the last row is that of an unknown region."""
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
    """Shift a target to be positive, as the exponential model needs; an offset does not matter."""
    above = y - y.min()
    # Of the order of small values, so that the lowest is not infinitely far in ratio.
    return above + (1e-3 * np.average(above, weights=weights) or 1.0)
