"""A multilayer perceptron with the training recipe of this package, as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from skqos._sklearn_compat import Interval, StrOptions
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    LossName,
    OptimizerName,
    TargetTransformName,
)
from skqos.base import TrainingData, TrainingRows, check_layer_sizes
from skqos.incremental import IncrementalQoSRegressor

if TYPE_CHECKING:
    from skqos.baselines.embedding_mlp_module import EmbeddingMLPModule
    from skqos.training import QoSNet, Trainer


class EmbeddingMLPRegressor(IncrementalQoSRegressor):
    """Multilayer perceptron on embeddings of ids and context, averaged over members.

    Each id, each categorical context column and the numeric columns together are represented by a
    vector. The vectors of the user and of the service are concatenated and processed by dense
    layers. No part of the network is specific to QoS. Fitting takes about as long as fitting
    `SAMoERegressor`, and with ``n_members=1`` about 0.3 times as long.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. If None, the columns of a DataFrame whose names
        start with ``user_`` and ``service_`` are used. Columns of strings, categories, booleans,
        dates or durations, and of objects other than numbers, are categorical; all other columns
        are numeric, and values more than ten standard deviations from the mean count as ten. NaN
        means that the value is unknown.

    n_members : int, default=4
        Number of networks, each with weights of its own. They are trained in one pass, and their
        predictions are averaged in units of the transformed target.

    embedding_dim : int, default=32
        Size of the vectors that represent the features of a user or service. There is one vector
        for the id, one for each categorical column, and one linear projection of all numeric
        columns together.

    hidden_sizes : sequence of int, default=(256, 128)
        Sizes of the hidden dense layers, each followed by a ReLU.

    input_dropout : float, default=0.3
        Dropout rate of the inputs of the network during training. It reduces overfitting to sparse
        training data.

        The inputs are the concatenated vectors.

    max_epochs : int, default=20
        Number of epochs of the final training stage.

    loss : {"absolute_error", "squared_error", "huber"}, default="absolute_error"
        Training loss, in units of the transformed target.

        The threshold of "huber" is 1.

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

    batch_size : int or "auto", default="auto"
        Maximum number of training rows in each step of the optimiser. The sizes of the batches of
        an epoch differ by one row at most.

        "auto" is 1/192 of the training rows, but at least 32 and at most 256. In an update, it is
        256.

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

        It determines the initial weights, dropout, batches and the validation split. Fits that run
        in several threads are not reproducible, because threads share the random state of torch.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per epoch, with the stage, the losses and the time left. In a terminal,
        the lines of a stage replace each other.

    Attributes
    ----------
    module_ : EmbeddingMLPModule
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

    See Also
    --------
    skqos.SAMoERegressor : Adds experts, a gate and pseudo-labels.

    Notes
    -----
    `partial_fit` continues the training of the network. A new user or service starts from the
    average of the known ones.

    A pickle contains the weights, the entity tables, and up to `replay_buffer_size` training rows
    as codes, transformed targets and weights. It contains no optimiser state.

    Examples
    --------
    >>> from skqos.baselines import EmbeddingMLPRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = EmbeddingMLPRegressor(max_epochs=2, random_state=0).fit(data.X, data.y)
    >>> model.predict([[3, 17], [3, 4711]]).shape
    (2,)
    """

    _parameter_constraints: dict = {
        **IncrementalQoSRegressor._parameter_constraints,
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden_sizes": ["array-like"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions(set(get_args(LossName)))],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        n_members: int = 4,
        embedding_dim: int = 32,
        hidden_sizes: Sequence[int] = (256, 128),
        input_dropout: float = 0.3,
        max_epochs: int = 20,
        loss: LossName = "absolute_error",
        partial_fit_epochs: int = 4,
        replay_buffer_size: int = 100_000,
        target_transform: TargetTransformName | None = "auto",
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: LearningRateSchedule = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int | Literal["auto"] = "auto",
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
        self.n_members = n_members
        self.embedding_dim = embedding_dim
        self.hidden_sizes = hidden_sizes
        self.input_dropout = input_dropout
        self.max_epochs = max_epochs
        self.loss = loss
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

    def _check_parameters(self) -> None:
        """Check combinations of parameters; raise ValueError."""
        check_layer_sizes("hidden_sizes", self.hidden_sizes)

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.training import ValidationDataset

        net = trainer.fit(
            self._build_module(data),
            **self._objective(data),
            validation=None if data.validation is None else ValidationDataset(*data.validation),
            stage="final",
            max_epochs=self.max_epochs,
            batch_size=self._rows_per_step(len(data.target)),
        )
        return {"final": net}, {}

    def _prepare_update(self, module: EmbeddingMLPModule, rows: TrainingRows) -> dict[str, Any]:
        module.grow(rows.users, rows.services)
        return self._objective(rows)

    def _objective(self, rows: TrainingRows) -> dict[str, Any]:
        from skqos.losses import ObservedLoss
        from skqos.training import InteractionDataset

        return {"criterion": ObservedLoss(self.loss), "rows": InteractionDataset.of_rows(rows)}

    def _build_module(self, data: TrainingData) -> EmbeddingMLPModule:
        from skqos.baselines.embedding_mlp_module import EmbeddingMLPModule
        from skqos.embeddings import FeatureEmbedding

        features = [
            FeatureEmbedding(
                encoder.table_, encoder.n_categories, self.embedding_dim, self.n_members
            )
            for encoder in (data.users, data.services)
        ]
        return EmbeddingMLPModule(
            *features,
            n_members=self.n_members,
            hidden_sizes=self.hidden_sizes,
            dropout=self.input_dropout,
        )
