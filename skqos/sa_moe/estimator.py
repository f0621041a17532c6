"""SA-MoE as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from skqos._errors import check_same_length
from skqos._parameters import SwitchedOff, lacks
from skqos._sklearn_compat import Interval, StrOptions
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    LossName,
    OptimizerName,
    TargetTransformName,
)
from skqos.base import TrainingData, TrainingRows, check_layer_sizes
from skqos.entities import Interactions
from skqos.factorization import interaction_matrix, truncated_svd
from skqos.incremental import IncrementalQoSRegressor
from skqos.sa_moe.augmentation import count_cells, observed_cells, sample_unobserved

if TYPE_CHECKING:
    import torch

    from skqos.sa_moe.module import SAMoEModule
    from skqos.training import QoSNet, Trainer

ExpertName: TypeAlias = Literal["attention", "lhuc", "mlp"]
EXPERTS: tuple[ExpertName, ...] = ("attention", "lhuc", "mlp")


@dataclass(frozen=True)
class WeightedCells:
    """Cells of the interaction matrix, with values of the transformed target and weights.

    A cell that was measured several times occurs several times.
    """

    users: np.ndarray
    services: np.ndarray
    values: np.ndarray
    weights: np.ndarray

    def __add__(self, other: WeightedCells) -> WeightedCells:
        return WeightedCells(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.services, other.services]),
            np.concatenate([self.values, other.values]),
            np.concatenate([self.weights, other.weights]),
        )


# Parameters without effect if there is one stage.
TWO_STAGES = ("first_stage_epochs", "independent_experts", "second_stage_start", "ratio_unit")


class SAMoERegressor(IncrementalQoSRegressor):
    """Self-augmented mixture of experts (SA-MoE) for QoS prediction.

    One tower for users and one for services compute a vector from the id embedding, the context
    features and, if `n_factors` is above 0, factors of the interaction matrix. Three experts of
    different kinds process the pair of vectors, and a gate weights their outputs. Training has two
    stages. The network of the first stage predicts cells that were not measured. These predictions
    are added to the training rows of the second stage as pseudo-labels, or they fill the matrix
    whose factors are an input of the second network (refill) [1]_.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. If None, the columns of a DataFrame whose names
        start with ``user_`` and ``service_`` are used. Columns of strings, categories, booleans,
        dates or durations, and of objects other than numbers, are categorical; all other columns
        are numeric, and values more than ten standard deviations from the mean count as ten. NaN
        means that the value is unknown.

    n_factors : int, default=0
        Rank of the factorisation of the interaction matrix.

        The factorisation is a truncated SVD (d in the paper). With 0 there are no factors. The
        paper uses 32; beside the embeddings of ids, factors increase the error slightly.

    fill_value : {"mean", "zero"}, default="mean"
        Value of the unobserved cells in the SVD: the mean of the training targets, or 0 as in the
        paper. Used only if `n_factors` is above 0.

    embedding_dim : int, default=32
        Size of the vectors that represent the features of a user or service. There is one vector
        for the id, one for each categorical column, and one linear projection of all numeric
        columns together.

    n_members : int, default=2
        Number of networks, each with weights of its own. They are trained in one pass, and their
        predictions are averaged in units of the transformed target.

        The paper uses 1. Pseudo-labels are the averaged predictions.

    tower_dim : int or None, default=128
        Size of the vectors u_i of a user and s_j of a service, which the towers compute from their
        inputs by a linear layer (eq. 11). With None there is no such layer: the experts receive the
        concatenated inputs.

    tower_activation : {"relu", "identity"}, default="relu"
        Activation function of u_i and s_j. The paper has none ("identity"); a linear layer directly
        before the linear layers of the experts is only a bottleneck. Used only if `tower_dim` is
        not None.

    input_dropout : float, default=0.3
        Dropout rate of the inputs of the network during training. It reduces overfitting to sparse
        training data.

        The inputs are those of the towers. The paper has no input dropout.

    mlp_hidden_sizes : sequence of int, default=(256, 64)
        Sizes of the layers of the MLP expert. The last size is also the output size of all experts.

    attention_dim : int, default=32
        Size of queries, keys and values of the attention expert, summed over its heads. Used only
        if `experts` contains "attention".

    n_heads : int, default=2
        Number of attention heads.

        The heads are those of the attention expert; their number must divide `attention_dim`. Used
        only if `experts` contains "attention".

    attention_dropout : float, default=0.0
        Dropout rate of the attention weights. Used only if `experts` contains "attention".

    batch_norm : bool, default=False
        Whether the expert "lhuc" normalises its two stages (BN_1 and BN_2 in eq. 14), as in the
        paper. Used only if `experts` contains "lhuc".

    experts : sequence of {"attention", "lhuc", "mlp"}, default=("attention", "lhuc", "mlp")
        Experts of the mixture: "attention", "lhuc" (learning hidden unit contributions, LHUC) and
        "mlp" (multilayer perceptron, MLP). Table 4 of the paper drops one of them at a time.

    mixture_activation : {"relu", "identity"}, default="relu"
        Activation function of the mixed output of the experts, before the head. The paper has none
        ("identity").

    refill_ratio : float, default=0.0
        Number of unobserved cells that are filled with predictions before the second factorisation
        (r_m in the paper), in the unit given by `ratio_unit`. 0 switches refill off. It has an
        effect only if `n_factors` is above 0.

    pseudo_label_ratio : float, default=0.5
        Number of unobserved cells whose predictions are added to the training rows as pseudo-labels
        (r_p in the paper), in the unit given by `ratio_unit`. 0 switches pseudo-labels off. If both
        ratios are 0, there is only the final training stage.

    pseudo_label_weight : float, default=0.5
        Weight of a pseudo-label in the loss of the final stage. A measured row has weight 1, or its
        `sample_weight`. The paper uses 1. Used only if `pseudo_label_ratio` is above 0.

    ratio_unit : {"observed", "missing"}, default="observed"
        Unit of `refill_ratio` and `pseudo_label_ratio`. With "observed", they are multiples of the
        number of observed cells, so that the cost of `fit` is linear in the number of observations.
        With "missing", they are fractions of the missing cells, as in the paper.

    first_stage_epochs : int, default=17
        Number of epochs of the first training stage. Used only if `refill_ratio` or
        `pseudo_label_ratio` is above 0.

    max_epochs : int, default=8
        Number of epochs of the final training stage.

    loss : {"absolute_error", "squared_error", "huber"}, default="absolute_error"
        Training loss, in units of the transformed target.

        The paper does not state its loss; its figures imply the absolute error. The threshold of
        "huber" is 1.

    partial_fit_epochs : int, default=4
        Number of epochs of an update by `partial_fit`.

        With 0, an update adds new users and services without training.

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

    independent_experts : bool, default=False
        Whether the first stage trains each expert independently, as a network of its own with one
        expert, and averages their predictions, as section 3.2 of the paper says. Otherwise it
        trains the mixture, as eq. 15 to 17 say. It requires ``second_stage_start="fresh"``. Used
        only if there are two stages.

    second_stage_start : {"first", "fresh"}, default="first"
        Initial weights of the network of the final stage: those at the end of the first stage
        ("first") or new random ones ("fresh"). "first" needs fewer epochs and requires
        ``refill_ratio=0``. Used only if there are two stages.

    second_stage_batch_size : int or None, default=None
        Number of rows in each step of a final stage with pseudo-labels. With None, an epoch has as
        many steps as without pseudo-labels. Used only if `pseudo_label_ratio` is above 0.

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

        It determines the initial weights, dropout, batches, sampled cells and the validation split.
        Fits that run in several threads are not reproducible, because threads share the random
        state of torch.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per epoch, with the stage, the losses and the time left. In a terminal,
        the lines of a stage replace each other.

    Attributes
    ----------
    module_ : SAMoEModule
        Network of the final training stage, on the CPU after `fit`.

    net_ : QoSNet
        skorch net of the final training stage.

    stage_nets_ : dict of str to QoSNet
        skorch net of each training stage, by the name of the stage.

        The stages are "first" (only if there are two) and "final". With `independent_experts`,
        there is a stage for each expert in place of "first", such as "first_mlp". After
        `partial_fit`, there is only the net of the stage "partial". A pickle keeps only the last
        net.

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

        The variants of the paper are obtained by further arguments:
        ``refill_ratio=0, pseudo_label_ratio=0, max_epochs=100`` is MF-MoE, and
        ``pseudo_label_ratio=0`` is SA-MoE-.

    Notes
    -----
    The paper reports that SA-MoE has about two thirds of the error of SA-MoE-, and that its error
    is the same at 2.5 % and at 10 % density. Training on the true values of test cells gives such
    results; training on predictions does not. In this implementation, refill and pseudo-labels
    contain only predictions.

    No parameter undoes the following differences from the paper. Linear layers have biases. Factors
    are scaled to the size of an embedding. Predictions are bounded by 1.05 times the largest
    absolute target.

    `partial_fit` continues the training of the final network. A new user or service starts from the
    average of the known ones, including the factors. The factors are not computed again, and refill
    and pseudo-labels are not drawn again.

    A pickle contains the weights, the entity tables, the factors, and up to `replay_buffer_size`
    training rows as codes, transformed targets and weights. It contains no optimiser state.

    References
    ----------
    .. [1] K. Cai, C. Peng, C. Xu, X. Chen, "Self-Augmented Mixture-of-Experts for QoS Prediction",
       arXiv:2601.11036, 2026.

    Examples
    --------
    >>> from skqos import SAMoERegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = SAMoERegressor(max_epochs=2, first_stage_epochs=2, random_state=0)
    >>> model.fit(data.X, data.y).predict([[3, 17], [3, 4711]]).shape
    (2,)
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "n_factors": 32,
        "fill_value": "zero",
        "embedding_dim": 32,
        "n_members": 1,
        "tower_dim": 32,
        "tower_activation": "identity",
        "attention_dim": 32,
        "batch_norm": True,
        "input_dropout": 0.0,
        "mlp_hidden_sizes": (64, 64, 32),
        "n_heads": 2,
        "attention_dropout": 0.5,
        "mixture_activation": "identity",
        "refill_ratio": 0.4,
        "pseudo_label_ratio": 0.4,
        "pseudo_label_weight": 1.0,
        "second_stage_start": "fresh",
        "ratio_unit": "missing",
        "first_stage_epochs": 40,
        "max_epochs": 60,
        "loss": "absolute_error",
        "target_transform": "max",
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "learning_rate_schedule": "constant",
        "weight_decay": 2e-4,
        "batch_size": 128,
        "second_stage_batch_size": 2000,
    }

    _parameter_constraints: dict = {
        **IncrementalQoSRegressor._parameter_constraints,
        "n_factors": [Interval(Integral, 0, None, closed="left")],
        "fill_value": [StrOptions({"mean", "zero"})],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "tower_dim": [Interval(Integral, 1, None, closed="left"), None],
        "tower_activation": [StrOptions({"relu", "identity"})],
        "attention_dim": [Interval(Integral, 1, None, closed="left")],
        "batch_norm": ["boolean"],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "mlp_hidden_sizes": ["array-like"],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "experts": ["array-like"],
        "mixture_activation": [StrOptions({"relu", "identity"})],
        "refill_ratio": [Interval(Real, 0, None, closed="left")],
        "pseudo_label_ratio": [Interval(Real, 0, None, closed="left")],
        "pseudo_label_weight": [Interval(Real, 0, None, closed="neither")],
        "independent_experts": ["boolean"],
        "second_stage_start": [StrOptions({"first", "fresh"})],
        "ratio_unit": [StrOptions({"observed", "missing"})],
        "first_stage_epochs": [Interval(Integral, 1, None, closed="left")],
        "second_stage_batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "loss": [StrOptions(set(get_args(LossName)))],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    }
    _switched_off: ClassVar[tuple[SwitchedOff, ...]] = (
        *IncrementalQoSRegressor._switched_off,
        SwitchedOff(("fill_value", "refill_ratio"), by={"n_factors": (0,)}),
        SwitchedOff(("tower_activation",), by={"tower_dim": (None,)}),
        SwitchedOff(
            ("attention_dim", "n_heads", "attention_dropout"), by={"experts": lacks("attention")}
        ),
        SwitchedOff(("batch_norm",), by={"experts": lacks("lhuc")}),
        SwitchedOff(
            ("pseudo_label_weight", "second_stage_batch_size"), by={"pseudo_label_ratio": (0,)}
        ),
        SwitchedOff(TWO_STAGES, by={"refill_ratio": (0,), "pseudo_label_ratio": (0,)}),
        SwitchedOff(TWO_STAGES, by={"n_factors": (0,), "pseudo_label_ratio": (0,)}),
    )

    # An update recovered 71 % of a refit's gain with dropout and 64 % without (WS-DREAM, one seed).
    _update_has_dropout = True

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        n_factors: int = 0,
        fill_value: Literal["mean", "zero"] = "mean",
        embedding_dim: int = 32,
        n_members: int = 2,
        tower_dim: int | None = 128,
        tower_activation: Literal["relu", "identity"] = "relu",
        input_dropout: float = 0.3,
        mlp_hidden_sizes: Sequence[int] = (256, 64),
        attention_dim: int = 32,
        n_heads: int = 2,
        attention_dropout: float = 0.0,
        batch_norm: bool = False,
        experts: Sequence[ExpertName] = EXPERTS,
        mixture_activation: Literal["relu", "identity"] = "relu",
        refill_ratio: float = 0.0,
        pseudo_label_ratio: float = 0.5,
        pseudo_label_weight: float = 0.5,
        ratio_unit: Literal["observed", "missing"] = "observed",
        first_stage_epochs: int = 17,
        max_epochs: int = 8,
        loss: LossName = "absolute_error",
        partial_fit_epochs: int = 4,
        replay_buffer_size: int = 100_000,
        target_transform: TargetTransformName | None = "auto",
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: LearningRateSchedule = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int | Literal["auto"] = "auto",
        independent_experts: bool = False,
        second_stage_start: Literal["first", "fresh"] = "first",
        second_stage_batch_size: int | None = None,
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
        self.n_factors = n_factors
        self.fill_value = fill_value
        self.embedding_dim = embedding_dim
        self.n_members = n_members
        self.tower_dim = tower_dim
        self.tower_activation = tower_activation
        self.input_dropout = input_dropout
        self.mlp_hidden_sizes = mlp_hidden_sizes
        self.attention_dim = attention_dim
        self.n_heads = n_heads
        self.attention_dropout = attention_dropout
        self.batch_norm = batch_norm
        self.experts = experts
        self.mixture_activation = mixture_activation
        self.refill_ratio = refill_ratio
        self.pseudo_label_ratio = pseudo_label_ratio
        self.pseudo_label_weight = pseudo_label_weight
        self.ratio_unit = ratio_unit
        self.first_stage_epochs = first_stage_epochs
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
        self.independent_experts = independent_experts
        self.second_stage_start = second_stage_start
        self.second_stage_batch_size = second_stage_batch_size
        self.intervals = intervals
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def expert_shares(self, X: Any, y: Any, *, include_mixture: bool = False) -> pd.DataFrame:
        """Return the share of given pairs on which each expert is best, and the mean gate weights.

        For this, the output of each expert is passed through the head separately (figure 2 of the
        paper).

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,)
            Measured QoS of the pairs.
        include_mixture : bool, default=False
            Whether the prediction of the mixture competes as a further expert, in the last row
            "mixture" (second part of figure 2). It has no gate weight (NaN).

        Returns
        -------
        DataFrame of shape (n_experts, 2) or (n_experts + 1, 2)
            The index holds the experts. The column ``best_share`` is the share of pairs on which
            the expert has the smallest absolute error (ties go to the first expert), and
            ``mean_gate_weight`` is its mean gate weight. Each column sums to 1.

        Raises
        ------
        ValueError
            If X or y is not as described.
        NotFittedError
            If the estimator is not fitted.
        """
        fitted = self._snapshot()
        y = fitted._check_target(y)
        pairs = fitted._interactions(X)
        result = fitted._score(pairs, "score_experts")
        check_same_length(X=result, y=y)
        alone, gate = result[:, 0], result[:, 1].mean(axis=0)
        experts = list(fitted.module_.experts)
        if include_mixture:
            alone = np.column_stack([alone, fitted._score(pairs)])
            gate, experts = np.append(gate, np.nan), [*experts, "mixture"]
        transform = fitted._state.target_transform
        predictions = transform.inverse_transform(alone.ravel()).reshape(alone.shape)
        best = np.abs(predictions - y[:, None]).argmin(axis=1)
        return pd.DataFrame(
            {
                "best_share": np.bincount(best, minlength=len(experts)) / len(y),
                "mean_gate_weight": gate,
            },
            index=pd.Index(experts, name="expert"),
        )

    @property
    def _refills(self) -> bool:
        """Whether predictions fill the matrix; only factors read it."""
        return self.n_factors > 0 and self.refill_ratio > 0

    def _check_parameters(self) -> None:
        """Check combinations of parameters; raise ValueError."""
        unknown = [name for name in self.experts if name not in EXPERTS]
        if unknown or not len(self.experts) or len(set(self.experts)) < len(self.experts):
            raise ValueError(
                f"experts must name one or more of {EXPERTS}, each once; got "
                f"{tuple(self.experts)!r}."
            )
        check_layer_sizes("mlp_hidden_sizes", self.mlp_hidden_sizes)
        if "attention" in self.experts and self.attention_dim % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} must divide attention_dim={self.attention_dim}, which is "
                "distributed over the heads."
            )
        is_fresh = self.second_stage_start == "fresh"
        if self._refills and not is_fresh:
            raise ValueError(
                f"refill_ratio={self.refill_ratio} changes the factors with which the first "
                "network was trained, so the second network cannot start from its weights. Set "
                "refill_ratio=0 or second_stage_start='fresh'."
            )
        if self.independent_experts and self.pseudo_label_ratio > 0 and not is_fresh:
            raise ValueError(
                "independent_experts=True trains a network for each expert, from which the second "
                "network cannot start. Set second_stage_start='fresh'."
            )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        observed = WeightedCells(data.user_codes, data.service_codes, data.target, data.weights)
        if not self._refills and self.pseudo_label_ratio == 0:
            module = self._build_module(data, observed, self.experts)
            return {"final": self._fit_stage("final", module, data, trainer, observed)}, {}
        first = self._fit_first_stage(data, trainer, observed)
        predict = self._cell_predictor(list(first.values()), trainer.device)
        rng = np.random.RandomState(data.seed)
        known = observed_cells(data.user_codes, data.service_codes, data.shape)
        refill, pseudo_labels = (
            self._predict_cells(predict, ratio, known, data, rng)
            for ratio in (self.refill_ratio * self._refills, self.pseudo_label_ratio)
        )
        module = self._second_module(first, data, observed + refill)
        final = self._fit_stage("final", module, data, trainer, observed, pseudo_labels)
        return {**first, "final": final}, {}

    def _fit_first_stage(
        self, data: TrainingData, trainer: Trainer, observed: WeightedCells
    ) -> dict[str, QoSNet]:
        """Train the mixture, or a network for each expert; return the nets by stage."""
        groups = {"first": self.experts}
        if self.independent_experts:
            groups = {f"first_{name}": [name] for name in self.experts}
        return {
            stage: self._fit_stage(
                stage, self._build_module(data, observed, experts), data, trainer, observed
            )
            for stage, experts in groups.items()
        }

    def _second_module(
        self, first: dict[str, QoSNet], data: TrainingData, matrix: WeightedCells
    ) -> SAMoEModule:
        """Create the network of the second stage: a new one, or a copy of the first."""
        from skqos.prediction import copy_module

        if self.second_stage_start == "first":
            return copy_module(first["first"].module_)
        return self._build_module(data, matrix, self.experts)

    def _fit_stage(
        self,
        stage: str,
        module: SAMoEModule,
        data: TrainingData,
        trainer: Trainer,
        observed: WeightedCells,
        pseudo_labels: WeightedCells | None = None,
    ) -> QoSNet:
        """Train a network on observed cells and on pseudo-labels, if there are any."""
        from skqos.losses import ObservedLoss
        from skqos.training import InteractionDataset, ValidationDataset

        has_labels = pseudo_labels is not None and len(pseudo_labels.values) > 0
        cells = observed + pseudo_labels if has_labels else observed
        inputs = {"users": cells.users, "services": cells.services}
        batch_size = self._rows_per_step(len(observed.values))
        if has_labels:
            as_many_steps = -(-batch_size * len(cells.values) // len(observed.values))
            batch_size = self.second_stage_batch_size or as_many_steps
        return trainer.fit(
            module,
            ObservedLoss(self.loss),
            InteractionDataset(inputs, cells.values, cells.weights),
            None if data.validation is None else ValidationDataset(*data.validation),
            stage=stage,
            max_epochs=self.max_epochs if stage == "final" else self.first_stage_epochs,
            batch_size=batch_size,
        )

    def _prepare_update(self, module: SAMoEModule, rows: TrainingRows) -> dict[str, Any]:
        from skqos.losses import ObservedLoss
        from skqos.training import InteractionDataset

        # Without training, predictions of known pairs stay the same.
        bound = _bound(rows.target) if self.partial_fit_epochs else 0.0
        module.grow(rows.users, rows.services, bound)
        return {"criterion": ObservedLoss(self.loss), "rows": InteractionDataset.of_rows(rows)}

    def _factorize(
        self, matrix: WeightedCells, data: TrainingData
    ) -> tuple[np.ndarray, np.ndarray]:
        """Factor a matrix by truncated SVD (section 3.1 of the paper)."""
        if not self.n_factors:
            return np.empty((data.shape[0], 0)), np.empty((data.shape[1], 0))
        # The SVD reads cells that are not stored as 0, which is the mean after centring.
        center = 0.0
        if self.fill_value == "mean":
            center = np.average(data.target, weights=data.weights)
        centred = interaction_matrix(
            matrix.users, matrix.services, matrix.values - center, data.shape, matrix.weights
        )
        return truncated_svd(centred, self.n_factors, data.seed)

    def _cell_predictor(
        self, nets: list[QoSNet], device: torch.device
    ) -> Callable[[Interactions], np.ndarray]:
        """Return a function that averages the predictions of cells; the nets stay on the CPU."""
        from skqos.prediction import Predictor
        from skqos.training import diverged

        predictors = [Predictor(net.module_) for net in nets]

        def predict(pairs: Interactions) -> np.ndarray:
            of_nets = [predictor.predict(pairs, device) for predictor in predictors]
            for net, values in zip(nets, of_nets, strict=True):
                if not np.isfinite(values).all():
                    raise diverged(net, "a prediction of an unobserved cell is not finite")
            return np.mean(of_nets, axis=0)

        return predict

    def _predict_cells(
        self,
        predict: Callable[[Interactions], np.ndarray],
        ratio: float,
        known: np.ndarray,
        data: TrainingData,
        rng: np.random.RandomState,
    ) -> WeightedCells:
        """Draw unobserved cells of training entities, and predict and weight them."""
        n_users, n_services = data.shape
        n_cells = count_cells(ratio, self.ratio_unit, len(known), n_users * n_services)
        users, services = sample_unobserved(known, data.shape, n_cells, rng)
        weights = np.full(n_cells, float(self.pseudo_label_weight))
        if not n_cells:
            # Predicting would encode all users and services.
            return WeightedCells(users, services, np.empty(0), weights)
        pairs = Interactions.of_known(users, services, data.users.table_, data.services.table_)
        return WeightedCells(users, services, predict(pairs), weights)

    def _build_module(
        self, data: TrainingData, matrix: WeightedCells, experts: Sequence[ExpertName]
    ) -> SAMoEModule:
        """Create a new network of some experts with the factors of a matrix."""
        from skqos.sa_moe.module import EntityTower, SAMoEModule

        user_factors, service_factors = self._factorize(matrix, data)
        towers = [
            EntityTower(
                encoder.table_,
                encoder.n_categories,
                factors,
                n_members=self.n_members,
                embedding_dim=self.embedding_dim,
                out_dim=self.tower_dim,
                activation=self.tower_activation,
                dropout=self.input_dropout,
            )
            for encoder, factors in (
                (data.users, user_factors),
                (data.services, service_factors),
            )
        ]
        return SAMoEModule(
            *towers,
            n_members=self.n_members,
            hidden_sizes=self.mlp_hidden_sizes,
            experts=experts,
            attention_dim=self.attention_dim,
            n_heads=self.n_heads,
            attention_dropout=self.attention_dropout,
            shared_projections=self.tower_dim is not None,
            batch_norm=self.batch_norm,
            activation=self.mixture_activation,
            bound=_bound(data.target),
        )


def _bound(target: np.ndarray) -> float:
    """Return the bound of predictions: above the largest target, because tanh never reaches 1."""
    return 1.05 * float(np.abs(target).max()) or 1.0
