"""TPMCF as a scikit-learn regressor: node features, GCMF, sequences, encoder, in that order."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from skqos._arrays import sorted_unique
from skqos._errors import about
from skqos._sklearn_compat import Interval, StrOptions
from skqos._times import (
    DURATION_TYPES,
    TIME_LABEL,
    check_steps,
    learn_time_scale,
    read_time_step,
    read_times,
)
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    LossName,
    OptimizerName,
    TargetTransformName,
)
from skqos._weighted import weighted_median
from skqos.base import BaseQoSRegressor, TrainingData
from skqos.entities import Interactions
from skqos.exceptions import EarlyTimeWarning
from skqos.inputs import Columns
from skqos.tpmcf.features import (
    FAMILIES,
    Family,
    MatrixFactors,
    NodeFeatures,
    Sides,
    SimilarityFactors,
    Statistics,
    StepCells,
    draw_folds,
    without_folds,
)

if TYPE_CHECKING:
    from torch import nn

    from skqos.tpmcf.gcmf import GCMF, TensorSides
    from skqos.tpmcf.module import TPMCFModule
    from skqos.training import QoSNet, Trainer, ValidationDataset

# In arrays of integers, time stamps, and those with a time zone.
MISSING_TIMES = {"i": np.nan, "M": np.datetime64("NaT", "ns"), "O": pd.NaT}
LOSS_NAMES = ("cauchy", "absolute_error", "squared_error", "huber")


class TPMCFRegressor(BaseQoSRegressor):
    """Temporal prediction with graph convolution and a predictive transformer encoder (TPMCF).

    Every user and service is described at every time step by what was measured there: statistics,
    factors of the interaction matrix, similarities to others. Graph convolutions over the pairs
    measured in a step (GCMF) give spatial features. The features of a user and a service over the
    last steps are a sequence; a transformer encoder goes over it, the maximum over time summarises
    it, and dense layers predict the QoS at the target step [1]_.

    By default there is no graph convolution: the sequence encoder alone (PTE) goes over the initial
    features. See `modules`.

    X has a third column, the time: integers, which number time steps, or time stamps, which
    `time_step` divides into steps. Steps are real distances: between the steps 2 and 100 lie 97
    that were not measured. A step that training has not seen is predicted from the window that ends
    at the last step before it: that is a forecast where it comes after all others.

    Parameters
    ----------
    n_members : int, default=1
        Number of networks of this kind, each with weights of its own, that train in one pass and
        are averaged in the transformed target. 1 is the network of the paper. Initial features are
        the same for all members; each has a graph convolution, an encoder, dense layers and
        vectors of its own.

    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. None takes the columns of a DataFrame that are
        named ``user_*`` and ``service_*``. Columns of strings, objects, categories or bools are
        categorical, others numeric; NaN is "unknown".

    features : list of {"statistics", "factors", "similarity"}, default=("statistics",)
        Families of initial features of users and services at each step: minimum, maximum, median,
        mean and standard deviation (F_S); factors of the interaction matrix (F_Q); compressed rows
        of cosine similarity (F_C).

    n_factors : int, default=16
        Width of the factors (f_q), with "factors" among the `features`.

    similarity_dim : int, default=16
        Width of the compressed similarities (f_c), with "similarity" among the `features`.

    similarity : {"factors", "autoencoder"}, default="factors"
        What compresses the similarities: a truncated factor of the normalised matrix, or a stacked
        autoencoder per side, whose time grows with the square of the number of entities.

    autoencoder_epochs : int, default=20
        Passes of the autoencoders over the rows of all steps.

    n_folds : int or None, default=20
        Training pairs are predicted from features that the pairs of their own fold are no part of;
        `predict` takes the average over the folds. With None, as in the paper, the features of a
        training pair contain its own value, which the network then learns to read off.

    modules : {"both", "gcmf", "pte"}, default="pte"
        "both" is the paper's model: the sequences hold the graph convolution's embeddings. "gcmf"
        predicts by the product of these, "pte" encodes sequences of the initial features alone,
        which is more accurate on WS-DREAM and takes less time. All parameters of the graph
        convolution act with "both" and "gcmf" only.

    gcmf_dim : int, default=8
        Width of each of the two graph-convolution units (f').

    step_weights : {"shared", "own"}, default="shared"
        Whether all steps share the weights of the units, or each has its own, as in the paper:
        then their embeddings have nothing in common from step to step.

    self_loops : {"whole", "normalised"}, default="whole"
        Weight of a node's own features in the convolution: 1, as in the authors' code, or
        1 / (degree + 1) (eq. 2 to 4), which leaves a user next to nothing of its own.

    gcmf_epochs : int, default=10
        Passes of the graph convolution over the training rows; each takes one step per fold.

    gcmf_learning_rate : float, default=1e-2
        Its learning rate.

    gcmf_loss_scale : float, default=0.25
        Scale of its loss, as `loss_scale` is (gamma_s).

    bounded_embeddings : bool, default=True
        Whether the embeddings of the graph convolution are standardised and bounded (tanh) before
        they enter the sequences (ours): few of them are very large.

    initial_features : bool, default=True
        Whether the sequences hold the initial features beside the spatial ones (ours).

    entity_dim : int or None, default=32
        Width of the vectors of each user's and service's id and context columns, which are the
        same at every step (ours). None leaves ids and context out.

    time_step : str, Timedelta, timedelta or timedelta64, default=None
        How long a time step is, such as "15min", where the third column of X holds time stamps;
        None where it holds integers. Steps are counted from midnight ahead of the first time stamp
        of `fit`, in its time zone if it has one, and are all equally long: a step of "1D" is 24
        hours, whatever clocks do.

    window : int, default=4
        Length of a sequence in time steps. Steps in which nothing was measured are left out of it.

    token_dim : int or None, default=32
        Width to which the features of a step of the sequence are mixed. None takes them as they
        are, side by side (eq. 7).

    temporal : {"transformer", "gru", "lstm"}, default="transformer"
        What encodes the sequence.

    n_blocks : int, default=1
        Blocks of the encoder (C_1), or layers of the recurrent network.

    n_heads : int, default=2
        Heads of the attention (h).

    head_dim : int, default=16
        Width of a head's queries, keys and values (d_k, d_v).

    convolution : {"time", "paper"}, default="time"
        Direction of a block's convolutions: along time over the features, or along the features
        with the steps as channels. "paper" pads windows that are not full with zeros.

    n_filters : int, default=64
        Filters of the first of a block's two convolutions.

    dropout : float, default=0.0
        Dropout between these two.

    pooling : {"max", "mean", "last"}, default="max"
        How the encoded sequence is summarised: by its largest values, as in the paper, by the
        average, or by the last step.

    step_encoding : bool, default=True
        Whether a step of the sequence tells its time and its distance from the last (ours).

    target_features : bool, default=True
        Whether the dense layers see features and vectors of the last step beside the summary
        (ours).

    hidden_sizes : list of int, default=(256, 128)
        Widths of the dense layers but the last (C_2 - 1 of them).

    entity_dropout : float, default=0.0
        Dropout of the vectors of ids and context. Ours.

    newcomer_share : float, default=0.02
        Share of the training rows whose user, and whose service, is given as one that is new at
        prediction will be: by its context and the average of all else. Ours.

    forecast_share : float, default=0.2
        Share of the training rows that are predicted from the steps before their own, as steps
        after the last will be. Ours.

    target_steps : list of int or of time stamps, "last" or None, default=None
        Time steps whose rows the sequence encoder learns to predict: all, the last one, as in the
        paper, or those listed, by number or by any time stamp in them. Features are of all rows in
        any case.

    loss : {"cauchy", "absolute_error", "squared_error", "huber"}, default="absolute_error"
        Loss of both stages, in units of the transformed target.

    loss_scale : float, default=0.25
        Scale of the Cauchy loss (gamma_t), or threshold of the Huber loss.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        How y is transformed ahead of training, learnt from the training rows alone.
        "sqrt" is ``sqrt(y / mean(y))``, "log" ``log(1 + y / mean(y))``, "max" divides by the
        largest absolute value, "standard" centres and scales, None leaves it as it is. "auto"
        takes ``sqrt((y - min(y)) / mean(y - min(y)))`` for a target with a heavy right tail, as
        response times and throughput have (its mean is above its median, and its lowest value
        is not far below all others), else "standard": neither the unit nor an offset of y
        matters to it. Under "sqrt" and "auto" a value below those seen takes the negative root.

    max_epochs : int, default=12
        Passes of the sequence encoder over its training rows.

    optimizer : {"adamw", "adam"}, default="adamw"
        Optimiser of both stages.

    learning_rate : float, default=6e-3
        Learning rate; the peak of the "one_cycle" schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Course of the learning rate.

    weight_decay : float, default=0.1
        Weight decay; an L2 penalty with ``optimizer="adam"``.

    batch_size : int, default=1024
        Rows per step of the sequence encoder. A step of the graph convolution takes all rows of a
        fold.

    intervals : bool, default=False
        Whether `fit` also learns how far measurements lie from predictions, so that `predict` takes
        `quantiles` and there are `predict_interval` and `predict_probability`. It trains a second
        network, without some of the rows, which takes two thirds of the time again; predictions
        stay the same.

    early_stopping : bool or "monitor", default=False
        True holds out validation rows before anything is learnt from them, ends each stage when
        their loss has not improved for `n_iter_no_change` epochs, and restores the best weights.
        "monitor" holds them out and records their loss, but changes nothing else.

    validation_fraction : float, default=0.1
        Share of the rows held out, with `early_stopping`; not used where `fit` gets `X_val`.

    n_iter_no_change : int, default=10
        Epochs without improvement that end a stage, with ``early_stopping=True``.

    device : str, default="auto"
        A torch device; "auto" is a GPU where there is one. Prediction uses it, too.

    callbacks : list of skorch callbacks, default=None
        Run in both stages. They are cloned.

    random_state : int, RandomState instance or None, default=None
        Seeds weights, dropout, batches, folds, factors and the validation split. Threads share
        torch's random state, so that fits in several threads are not reproducible.

    verbose : int, default=0
        1 shows a line per stage on stderr: epoch, losses, time left.

    Attributes
    ----------
    module_ : TPMCFModule or GCMF
        The network, on the CPU after `fit`.

    net_ : QoSNet
        Its skorch net.

    stage_nets_ : dict of str to QoSNet
        The nets of the stages "gcmf" and "final".

    history_ : DataFrame
        One row an epoch: stage, epoch, train_loss, valid_loss (NaN without validation rows) and
        duration in seconds. Losses are in units of the transformed target.

    n_iter_ : int
        Epochs of the final stage.

    times_ : ndarray of shape (n_time_steps,)
        The time steps that were measured, ascending: int64, or their beginnings as datetime64[ns],
        or, with a time zone, as objects (pandas.Timestamp).

    users_, services_ : EntityEncoder
        Ids, context categories and scales seen in `fit`.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X in `fit`, if they are all strings.

    PAPER_PARAMS : dict
        The published sizes and form. What the paper does not state (epochs, batch size, learning
        rates, dropout, the autoencoder's epochs) is as in the authors' code, but for 1000 epochs of
        GCMF, where the code has up to 10000. Its scales of the loss are in the unit of y.

    Notes
    -----
    What the paper leaves open or what is not sound in it is decided as follows. Factors of all
    steps share a basis and one autoencoder serves all steps: bases of their own, which the paper
    has, make the features of different steps incomparable. An entity without a measurement in a
    step takes the statistics of its other steps. The product of GCMF has a constant and is divided
    by the root of its width. Convolutions of the encoder run along time, and padded steps, those
    ahead of the first and those in which nothing was measured, take part in nothing. Bases and
    scales of the features are those of all training values, folds or not.

    How far a forecast lies ahead is not told to the network: all steps after the last measured one
    have the same prediction. A time before the first measured step is predicted from that step, and
    `EarlyTimeWarning` says so.

    A pickle holds weights, the features of every user and service at every step and the entity
    tables; no graph, no target values, no optimiser state.

    References
    ----------
    .. [1] S. Kumar, S. Chattopadhyay, C. Adak, "TPMCF: Temporal QoS Prediction Using Multi-Source
       Collaborative Features", IEEE Transactions on Network and Service Management 21(4), 2024.

    Examples
    --------
    >>> from skqos import TPMCFRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.2, n_time_steps=4, random_state=0)
    >>> model = TPMCFRegressor(max_epochs=2, gcmf_epochs=2, random_state=0).fit(data.X, data.y)
    >>> model.predict([[3, 17, 2], [3, 17, 4]]).shape
    (2,)
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "n_members": 1,
        "features": FAMILIES,
        "n_factors": 100,
        "similarity_dim": 50,
        "similarity": "autoencoder",
        "autoencoder_epochs": 500,
        "n_folds": None,
        "modules": "both",
        "gcmf_dim": 64,
        "step_weights": "own",
        "self_loops": "normalised",
        "gcmf_epochs": 1000,
        "gcmf_learning_rate": 1e-3,
        "gcmf_loss_scale": 0.5,
        "bounded_embeddings": False,
        "initial_features": False,
        "entity_dim": None,
        "window": 8,
        "token_dim": None,
        "n_blocks": 4,
        "n_heads": 4,
        "head_dim": 256,
        "convolution": "paper",
        "n_filters": 4,
        "dropout": 0.4,
        "pooling": "max",
        "step_encoding": False,
        "target_features": False,
        "hidden_sizes": (128,),
        "newcomer_share": 0.0,
        "forecast_share": 0.0,
        "target_steps": "last",
        "loss": "cauchy",
        "loss_scale": 0.75,
        "target_transform": None,
        "max_epochs": 200,
        "learning_rate": 1e-4,
        "learning_rate_schedule": "constant",
        "weight_decay": 0.01,
        "batch_size": 32,
    }

    _n_id_columns = 3

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "features": ["array-like"],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "similarity_dim": [Interval(Integral, 1, None, closed="left")],
        "similarity": [StrOptions({"factors", "autoencoder"})],
        "autoencoder_epochs": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left"), None],
        "modules": [StrOptions({"both", "gcmf", "pte"})],
        "gcmf_dim": [Interval(Integral, 1, None, closed="left")],
        "step_weights": [StrOptions({"shared", "own"})],
        "self_loops": [StrOptions({"whole", "normalised"})],
        "gcmf_epochs": [Interval(Integral, 1, None, closed="left")],
        "gcmf_learning_rate": [Interval(Real, 0, None, closed="neither")],
        "gcmf_loss_scale": [Interval(Real, 0, None, closed="neither")],
        "bounded_embeddings": ["boolean"],
        "initial_features": ["boolean"],
        "entity_dim": [Interval(Integral, 1, None, closed="left"), None],
        "time_step": [*DURATION_TYPES, None],
        "window": [Interval(Integral, 1, None, closed="left")],
        "token_dim": [Interval(Integral, 1, None, closed="left"), None],
        "temporal": [StrOptions({"transformer", "gru", "lstm"})],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "head_dim": [Interval(Integral, 1, None, closed="left")],
        "convolution": [StrOptions({"time", "paper"})],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "pooling": [StrOptions({"max", "mean", "last"})],
        "step_encoding": ["boolean"],
        "target_features": ["boolean"],
        "hidden_sizes": ["array-like"],
        "entity_dropout": [Interval(Real, 0, 1, closed="left")],
        "newcomer_share": [Interval(Real, 0, 1, closed="left")],
        "forecast_share": [Interval(Real, 0, 1, closed="left")],
        "target_steps": ["array-like", StrOptions({"last"}), None],
        "loss": [StrOptions(set(LOSS_NAMES))],
        "loss_scale": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_members: int = 1,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        features: Sequence[Literal["statistics", "factors", "similarity"]] = ("statistics",),
        n_factors: int = 16,
        similarity_dim: int = 16,
        similarity: Literal["factors", "autoencoder"] = "factors",
        autoencoder_epochs: int = 20,
        n_folds: int | None = 20,
        modules: Literal["both", "gcmf", "pte"] = "pte",
        gcmf_dim: int = 8,
        step_weights: Literal["shared", "own"] = "shared",
        self_loops: Literal["whole", "normalised"] = "whole",
        gcmf_epochs: int = 10,
        gcmf_learning_rate: float = 1e-2,
        gcmf_loss_scale: float = 0.25,
        bounded_embeddings: bool = True,
        initial_features: bool = True,
        entity_dim: int | None = 32,
        time_step: str | datetime.timedelta | np.timedelta64 | None = None,
        window: int = 4,
        token_dim: int | None = 32,
        temporal: Literal["transformer", "gru", "lstm"] = "transformer",
        n_blocks: int = 1,
        n_heads: int = 2,
        head_dim: int = 16,
        convolution: Literal["time", "paper"] = "time",
        n_filters: int = 64,
        dropout: float = 0.0,
        pooling: Literal["max", "mean", "last"] = "max",
        step_encoding: bool = True,
        target_features: bool = True,
        hidden_sizes: Sequence[int] = (256, 128),
        entity_dropout: float = 0.0,
        newcomer_share: float = 0.02,
        forecast_share: float = 0.2,
        target_steps: Sequence[Any] | Literal["last"] | None = None,
        loss: LossName | Literal["cauchy"] = "absolute_error",
        loss_scale: float = 0.25,
        target_transform: TargetTransformName | None = "auto",
        max_epochs: int = 12,
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 6e-3,
        learning_rate_schedule: LearningRateSchedule = "one_cycle",
        weight_decay: float = 0.1,
        batch_size: int = 1024,
        intervals: bool = False,
        early_stopping: EarlyStoppingOption = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        device: str = "auto",
        callbacks: Sequence[Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_members = n_members
        self.user_features = user_features
        self.service_features = service_features
        self.features = features
        self.n_factors = n_factors
        self.similarity_dim = similarity_dim
        self.similarity = similarity
        self.autoencoder_epochs = autoencoder_epochs
        self.n_folds = n_folds
        self.modules = modules
        self.gcmf_dim = gcmf_dim
        self.step_weights = step_weights
        self.self_loops = self_loops
        self.gcmf_epochs = gcmf_epochs
        self.gcmf_learning_rate = gcmf_learning_rate
        self.gcmf_loss_scale = gcmf_loss_scale
        self.bounded_embeddings = bounded_embeddings
        self.initial_features = initial_features
        self.entity_dim = entity_dim
        self.time_step = time_step
        self.window = window
        self.token_dim = token_dim
        self.temporal = temporal
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.head_dim = head_dim
        self.convolution = convolution
        self.n_filters = n_filters
        self.dropout = dropout
        self.pooling = pooling
        self.step_encoding = step_encoding
        self.target_features = target_features
        self.hidden_sizes = hidden_sizes
        self.entity_dropout = entity_dropout
        self.newcomer_share = newcomer_share
        self.forecast_share = forecast_share
        self.target_steps = target_steps
        self.loss = loss
        self.loss_scale = loss_scale
        self.target_transform = target_transform
        self.max_epochs = max_epochs
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

    def attention_weights(self, X: Any) -> np.ndarray:
        """Return how much each step of each row's window attends to each.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of float64 of shape (n_samples, n_blocks, n_heads, window, window)
            Attention of the step on the fourth axis to that on the fifth, averaged over the
            members, which sums to 1. Both are in the order of time: the last is the row's own
            step, or, if training has not seen that, the last before it. 0 for attention to steps
            in which nothing was measured.

        Raises
        ------
        AttributeError
            If there is no transformer (`temporal` or `modules` is set otherwise).
        """
        fitted = self._snapshot()
        if self.modules == "gcmf" or self.temporal != "transformer":
            raise AttributeError(
                f"modules={self.modules!r} with temporal={self.temporal!r} has no attention; "
                "attention_weights needs modules='both' or 'pte', and temporal='transformer'."
            )
        return fitted._score_rows(X, "attention_weights")

    def window_times(self, X: Any) -> np.ndarray:
        """Return the time steps of each row's window, which `attention_weights` is about.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Columns as in `fit`.

        Returns
        -------
        ndarray of shape (n_samples, window)
            Of float64 where times are integers, else of the dtype of `times_`. Ascending; the last
            is the row's own step, or, if training has not seen that, the last before it. NaN, or
            NaT, ahead of the first step and where nothing was measured.

        Raises
        ------
        AttributeError
            If there are no sequences (``modules="gcmf"``).
        """
        import torch

        fitted = self._snapshot()
        if fitted.modules == "gcmf":
            raise AttributeError(
                "modules='gcmf' has no windows; window_times needs modules='both' or 'pte'."
            )
        module = fitted.module_
        windows = module.windows(torch.as_tensor(fitted._interactions(X).times).to(module.times))
        times = fitted.times_[windows.steps.cpu().numpy()]
        missing = ~windows.present.cpu().numpy()
        return np.where(missing, MISSING_TIMES[times.dtype.kind], times)

    @property
    def times_(self) -> np.ndarray:
        """The time steps that were measured, as they were given."""
        if self._state is None:
            raise AttributeError(f"{type(self).__name__} has no times_: it is not fitted.")
        return self._state.time_scale.times_of(self._state.module_.times.cpu().numpy())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        return tags

    def _interactions(self, X: Any) -> Interactions:
        interactions = super()._interactions(X)
        self._warn_of_early(interactions.times)
        return interactions

    def _warn_of_early(self, steps: np.ndarray) -> None:
        """Warn of time steps before all that were measured; to be called on a snapshot."""
        first = self._state.module_.times[0].item()
        n_early = np.count_nonzero(steps < first)
        if n_early:
            name = self._state.time_scale.name_of(first)
            warnings.warn(
                f"{TIME_LABEL}: {n_early} of {len(steps)} rows are before {name}, the "
                "first time step of the training rows; they are taken for rows of that step.",
                EarlyTimeWarning,
                stacklevel=4,
            )

    def _count_time(self, columns: Columns) -> Columns:
        scale = learn_time_scale(columns.times, self.time_step)
        check_steps(columns.times, scale)
        return columns.in_steps(scale)

    def _check_parameters(self) -> None:
        read_time_step(self.time_step)
        unknown = [name for name in self.features if name not in FAMILIES]
        if unknown or len(self.features) == 0:
            raise ValueError(
                f"features={self.features!r} must name at least one of {list(FAMILIES)}, and "
                "nothing else."
            )
        if any(not isinstance(n, Integral) or n < 1 for n in self.hidden_sizes):
            raise ValueError(
                f"hidden_sizes={self.hidden_sizes!r} must hold integers of at least 1: the widths "
                "of the dense layers but the last."
            )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.training import ValidationDataset

        times = sorted_unique(data.times)
        steps = np.searchsorted(times, data.times)
        cells, cell_of_row = StepCells.from_rows(
            steps,
            data.user_codes,
            data.service_codes,
            data.target,
            data.weights,
            (len(times), *data.shape),
        )
        folds = draw_folds(len(cells), self.n_folds, np.random.RandomState(data.seed))
        rows = {
            "users": data.user_codes,
            "services": data.service_codes,
            "steps": steps,
            "tables": folds[cell_of_row],
        }
        targets = self._target_rows(data)
        validation = None if data.validation is None else ValidationDataset(*data.validation)
        initial = self._initial_features(data, cells, folds)
        nets = {}
        if self.modules != "pte":
            gcmf = self._build_gcmf(times, cells, folds, initial, data)
            stage = "gcmf" if self.modules == "both" else "final"
            nets[stage] = self._train_gcmf(gcmf, rows, data, trainer, validation, stage)
        if self.modules != "gcmf":
            features = self._sequence_features(initial, nets.get("gcmf"))
            module = self._build_module(times, features, data)
            nets["final"] = self._train_module(module, rows, data, targets, trainer, validation)
        else:
            gcmf.freeze()
        return nets, {}

    def _target_rows(self, data: TrainingData) -> np.ndarray:
        """Training rows that the PTE learns to predict."""
        steps = data.times
        if self.target_steps is None:
            return np.arange(len(steps))
        rows = np.flatnonzero(np.isin(steps, self._target_steps(data)))
        if len(rows) == 0:
            first, last = map(data.time_scale.name_of, (int(steps.min()), int(steps.max())))
            raise ValueError(
                f"target_steps={self.target_steps!r}: no training row is at one of these steps; "
                f"those of X are from {first} to {last}."
            )
        return rows

    def _target_steps(self, data: TrainingData) -> Any:
        """Numbers of the steps that the PTE learns to predict."""
        if isinstance(self.target_steps, str):
            return data.times.max()
        if len(self.target_steps) == 0:
            return []
        with about("target_steps"):
            times = read_times(pd.Series(list(self.target_steps)), "target_steps")
            return data.time_scale.steps_of(times, "target_steps")

    def _initial_features(self, data: TrainingData, cells: StepCells, folds: np.ndarray) -> Sides:
        """Features of the nodes without the cells of each fold (F_0)."""
        families = self._families(data.seed)
        features = NodeFeatures([families[name] for name in self.features]).fit(cells)
        return without_folds(features.transform, cells, folds, self.n_folds)

    def _families(self, seed: int) -> dict[str, Family]:
        similarity: Family = SimilarityFactors(self.similarity_dim, seed)
        if self.similarity == "autoencoder":
            from skqos.tpmcf.autoencoder import SimilarityAutoencoder

            similarity = SimilarityAutoencoder(self.similarity_dim, self.autoencoder_epochs)
        return {
            "statistics": Statistics(),
            "factors": MatrixFactors(self.n_factors, seed),
            "similarity": similarity,
        }

    def _build_gcmf(
        self,
        times: np.ndarray,
        cells: StepCells,
        folds: np.ndarray,
        features: Sides,
        data: TrainingData,
    ) -> GCMF:
        from skqos.tpmcf.gcmf import GCMF

        return GCMF(
            times,
            cells,
            folds,
            features,
            n_members=self.n_members,
            hidden_dim=self.gcmf_dim,
            own_weights=self.step_weights == "own",
            whole_self=self.self_loops == "whole",
            start=weighted_median(data.target, data.weights),
        )

    def _train_gcmf(
        self,
        gcmf: GCMF,
        rows: dict[str, np.ndarray],
        data: TrainingData,
        trainer: Trainer,
        validation: ValidationDataset | None,
        stage: str,
    ) -> QoSNet:
        """Train the graph convolution by the product of its embeddings (eq. 9)."""
        from skqos.training import InteractionDataset

        return trainer.fit(
            gcmf,
            self._criterion(self.gcmf_loss_scale),
            # Each step of training convolves all nodes, so that it takes all rows of a fold.
            InteractionDataset(rows, data.target, data.weights, one_per_batch="tables"),
            validation,
            stage=stage,
            max_epochs=self.gcmf_epochs,
            batch_size=len(data.target),
            learning_rate=self.gcmf_learning_rate,
        )

    def _sequence_features(self, initial: Sides, gcmf: QoSNet | None) -> TensorSides:
        """Features of the nodes in the sequences: embeddings, initial features, or both.

        Embeddings are of each member, initial features for all.
        """
        import torch

        from skqos.tpmcf.gcmf import standardise

        parts = []
        if gcmf is None or self.initial_features:
            parts.append([torch.as_tensor(side).unsqueeze(0) for side in initial])
        if gcmf is not None:
            embedded = gcmf.module_.embed_all()
            if self.bounded_embeddings:
                embedded = [torch.tanh(standardise(side)) for side in embedded]
            parts.append(embedded)
            gcmf.module_.freeze()
        n_members = len(parts[-1][0])
        return [
            torch.cat([part.expand(n_members, -1, -1, -1, -1) for part in side], dim=4)
            for side in zip(*parts, strict=True)
        ]

    def _build_module(
        self, times: np.ndarray, features: TensorSides, data: TrainingData
    ) -> TPMCFModule:
        from skqos.embeddings import FeatureEmbedding
        from skqos.tpmcf.module import TPMCFModule

        vectors = None
        if self.entity_dim is not None:
            users, services = (
                FeatureEmbedding(side.table_, side.n_categories, self.entity_dim, self.n_members)
                for side in (data.users, data.services)
            )
            vectors = users, services
        token_dim = self.token_dim
        if token_dim is None:
            token_dim = sum(side.shape[-1] for side in features)
        return TPMCFModule(
            times,
            features,
            vectors,
            self._build_encoder(token_dim),
            n_members=self.n_members,
            token_dim=self.token_dim,
            window=self.window,
            hidden_sizes=self.hidden_sizes,
            pooling=self.pooling,
            step_encoding=self.step_encoding,
            target_features=self.target_features,
            vector_dropout=self.entity_dropout,
            newcomer_share=self.newcomer_share,
            forecast_share=self.forecast_share,
            start=weighted_median(data.target, data.weights),
        )

    def _build_encoder(self, dim: int) -> nn.Module:
        from skqos.tpmcf.transformer import (
            EncoderBlock,
            FeatureConvolution,
            RecurrentEncoder,
            TimeConvolution,
            TransformerEncoder,
        )

        if self.temporal != "transformer":
            return RecurrentEncoder(self.n_members, self.temporal, dim, self.n_blocks)
        make_convolution, width = {
            "time": (TimeConvolution, dim),
            "paper": (FeatureConvolution, self.window),
        }[self.convolution]
        return TransformerEncoder(
            [
                EncoderBlock(
                    self.n_members,
                    dim,
                    self.n_heads,
                    self.head_dim,
                    make_convolution(self.n_members, width, self.n_filters, self.dropout),
                )
                for _ in range(self.n_blocks)
            ]
        )

    def _train_module(
        self,
        module: TPMCFModule,
        rows: dict[str, np.ndarray],
        data: TrainingData,
        targets: np.ndarray,
        trainer: Trainer,
        validation: ValidationDataset | None,
    ) -> QoSNet:
        """Train the PTE on the target rows (eq. 10)."""
        from skqos.training import InteractionDataset

        net = trainer.fit(
            module,
            self._criterion(self.loss_scale),
            InteractionDataset(
                {name: codes[targets] for name, codes in rows.items()},
                data.target[targets],
                data.weights[targets],
            ),
            validation,
            stage="final",
            max_epochs=self.max_epochs,
        )
        module.forget_training_tables()
        return net

    def _criterion(self, scale: float) -> nn.Module:
        from skqos.losses import ObservedLoss

        constants = {"cauchy": {"scale": scale}, "huber": {"threshold": scale}}
        return ObservedLoss(self.loss, **constants.get(self.loss, {}))
