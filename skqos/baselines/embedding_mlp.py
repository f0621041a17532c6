"""A plain network under the recipe of this package: what the methods have to beat at its cost."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

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

    Each id, each categorical context column and the numeric columns together have a vector; those
    of the user and of the service go side by side through dense layers. The network has no part
    that is made for QoS. It takes a fraction of the time of the published methods.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. None takes the columns of a DataFrame that are
        named ``user_*`` and ``service_*``. Columns of strings, objects, categories or bools are
        categorical, others numeric; NaN is "unknown".

    n_members : int, default=4
        Number of networks of this kind, each with weights of its own, that train in one pass and
        are averaged in the transformed target.

    embedding_dim : int, default=32
        Width of the embedding of an id and of each categorical column, and of the numeric columns'
        projection.

    hidden_sizes : sequence of int, default=(256, 128)
        Widths of the dense layers, each followed by a ReLU.

    input_dropout : float, default=0.3
        Dropout of the concatenated embeddings in training.

    max_epochs : int, default=20
        Epochs.

    loss : {"absolute_error", "squared_error", "huber"}, default="absolute_error"
        Training loss, in units of the transformed target.

    partial_fit_epochs : int, default=4
        Epochs of an update by `partial_fit`.

    replay_buffer_size : int, default=100_000
        How many training rows the fitted estimator keeps for `partial_fit`, which trains on them
        again; of more, a uniform sample. 0 keeps none, and what was learnt fades faster.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        How y is transformed ahead of training, learnt from the training rows alone. "sqrt" is
        ``sqrt(y / mean(y))``, "log" ``log(1 + y / mean(y))``, "max" divides by the largest absolute
        value, "standard" centres and scales. "auto" takes "sqrt" if no y is negative and their mean
        is above their median, else "standard".

    optimizer : {"adamw", "adam"}, default="adamw"
        With Adam, `weight_decay` is an L2 penalty; with AdamW it is decoupled.

    learning_rate : float, default=3e-3
        Learning rate; the peak of the "one_cycle" schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Course of the learning rate.

    weight_decay : float, default=0.05
        Weight decay.

    batch_size : int or "auto", default="auto"
        Rows per step. "auto" takes as many as make 192 steps an epoch of `fit`, at least 32 and at
        most 256; 256 in an update. A last batch of one row joins the one before.

    intervals : bool, default=False
        Whether `fit` also learns how far measurements lie from predictions, so that `predict` takes
        `quantiles` and there are `predict_interval` and `predict_probability`. It trains a second
        network, without some of the rows, which takes two thirds of the time again; predictions
        stay the same.

    early_stopping : bool or "monitor", default=False
        True holds out validation rows before anything is learnt from them, ends training when their
        loss has not improved for `n_iter_no_change` epochs, and restores the best weights.
        "monitor" holds them out and records their loss, but changes nothing else.

    validation_fraction : float, default=0.1
        Share of the rows held out, with `early_stopping`; not used where `fit` gets `X_val`.

    n_iter_no_change : int, default=10
        Epochs without improvement that end training, with ``early_stopping=True``.

    device : str, default="auto"
        A torch device; "auto" is a GPU where there is one. Prediction uses it, too.

    callbacks : list of skorch callbacks, default=None
        Run during training. They are cloned.

    random_state : int, RandomState instance or None, default=None
        Seeds weights, dropout, batches and the validation split. Threads share torch's random
        state, so that fits in several threads are not reproducible.

    verbose : int, default=0
        1 shows a line on stderr: epoch, losses, time left.

    Attributes
    ----------
    module_ : EmbeddingMLPModule
        The network, on the CPU after `fit`.

    net_ : QoSNet
        The skorch net.

    history_ : DataFrame
        One row an epoch: stage, epoch, train_loss, valid_loss (NaN without validation rows),
        duration in seconds. Losses are in units of the transformed target. Updates append rows of
        stage "partial".

    n_iter_ : int
        Epochs of training, or of the latest update.

    users_, services_ : EntityEncoder
        Ids, context categories and scales seen in `fit`; ids and categories of updates after them.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X in `fit`, if they are all strings.

    See Also
    --------
    skqos.SAMoERegressor : A method that adds experts, a gate and pseudo-labels.

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
        "loss": [StrOptions({"absolute_error", "squared_error", "huber"})],
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
        """Check what parameters must be together."""
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
