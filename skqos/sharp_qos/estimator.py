"""SHARP-QoS as a scikit-learn regressor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from skqos._arrays import sorted_unique
from skqos._parameters import SwitchedOff
from skqos._sklearn_compat import Interval, StrOptions
from skqos._target_checks import (
    as_target,
    check_target_names,
    column_names,
    warn_of_missing_codes,
)
from skqos._types import (
    EarlyStoppingOption,
    LearningRateSchedule,
    LossName,
    OptimizerName,
    TargetTransformName,
    TaskWeighting,
)
from skqos._weighted import weighted_median
from skqos.base import TrainingData, TrainingRows
from skqos.factorization import (
    assign_folds,
    interaction_matrix,
    nonnegative_factors,
    nonnegative_factors_by_fold,
)
from skqos.incremental import IncrementalQoSRegressor

if TYPE_CHECKING:
    from skqos.sharp_qos.context import ContextColumn
    from skqos.sharp_qos.hyperbolic import PoincareBall
    from skqos.sharp_qos.module import ContextConvolution, SharpQoSModule
    from skqos.sharp_qos.qos_graph import QoSGraph
    from skqos.training import QoSNet, Trainer

# About log(100), the bound to which HardConcreteGates clips the log-odds.
MAX_LOG_ODDS = 4.6
MIN_BATCH_SIZE = 96
MAX_STEPS_PER_EPOCH = 50


@dataclass(frozen=True)
class Edges:
    """Distinct pairs observed for one target.

    Attributes
    ----------
    users, services : ndarray of int64 of shape (n_edges,)
        Codes.
    values : ndarray of float64 of shape (n_edges,)
        Transformed targets, averaged over the rows of a pair.
    of_row : ndarray of int64 of shape (n,)
        Edge of each training row, or -1 if the target was not observed.
    """

    users: np.ndarray
    services: np.ndarray
    values: np.ndarray
    of_row: np.ndarray


class SharpQoSRegressor(IncrementalQoSRegressor):
    """Sparsely gated hierarchical adaptive routing (SHARP-QoS) for several QoS parameters at once.

    Each QoS parameter is a task with its own graph, which connects users and services with an
    observed value. Convolutions in the Poincare ball, over this graph and over the hypergraphs of
    its second hops, give the structural features of the task. Context graphs connect entities that
    share, for example, a country or an autonomous system; convolutions over them give features that
    all tasks share. Blocks transform the shared features, and gates select for each task what it
    receives (subnetwork routing, SNR). The structural features of the other tasks are routed in the
    same way (Cross-SNR). For each task, a gate fuses its own features and the routed ones, one
    network for users and one for services transform the result into a vector, and the product of
    the two vectors is the prediction [1]_.

    By default there is no convolution over the graph of a QoS parameter: the structural features
    are factors of its observed values. See `convolution`.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. If None, the columns of a DataFrame whose names
        start with ``user_`` and ``service_`` are used. Columns of strings, categories, booleans,
        dates or durations, and of objects other than numbers, are categorical; all other columns
        are numeric, and values more than ten standard deviations from the mean count as ten. NaN
        means that the value is unknown.

        A categorical column of users and one of services whose names differ only in the prefix form
        one context graph.

    n_members : int, default=4
        Number of networks, each with weights of its own. They are trained in one pass, and their
        predictions are averaged in units of the transformed target.

        The paper uses 1.

    n_factors : int, default=32
        Rank of the factorisation of the interaction matrix.

        The factorisation is non-negative (NMF). The factors are the features of the nodes of the
        QoS graph (F_p).

    factor_folds : int or None, default=None
        Number of folds of the training pairs. With None, as in the paper, the factors with which a
        pair is trained contain its own value. With a number, a pair is trained with factors that
        are computed without the pairs of its fold, and all pairs of a training step are of one
        fold; `predict` uses the averages over the folds. Factors of different folds are more alike
        with more folds, such as 20. The correction of the factors that `fine_tune_features` trains
        is the same for all folds.

    context_dim : int, default=32
        Size of the autoencoder's code of a category (F_r, F_a).

    autoencoder_epochs : int, default=100
        Number of epochs for which each autoencoder is trained.

        There is one autoencoder for each categorical column. An epoch is one step on all categories
        of the column.

    fine_tune_features : bool, default=True
        Whether the factors and the codes of categories are trained further with the network. The
        summary of the paper does not say; this is our choice.

    convolution : {"hhgcn", "hygcn", "gcn", "none"}, default="none"
        Kind of convolution.

        "hhgcn", as in the paper, convolves over the QoS graph of each target and over its two
        hypergraphs, in hyperbolic space. "hygcn" convolves over the QoS graph alone. "gcn" does the
        same in Euclidean space. With "none" there is no convolution over the QoS graph, and the
        factors are the structural features. On WS-DREAM at 2.5 % density, "hhgcn" does not reduce
        the error after a full training, and `fit` takes about three times as long.

    edge_values : {"binary", "quantile", "sender_quantile"}, default="binary"
        Information on the edges of the QoS graph. With "binary", as in the paper, an edge means
        that a pair was observed. With "quantile", the edges have four types, the quarters of the
        residuals. A residual is the value minus the damped means of its service and its user. With
        "sender_quantile", only the mean of the node that sends the message is subtracted, so that
        the types contain the level of the receiver. Each layer has a linear map for each type, as
        in GC-MC [2]_, and one for the features of the node itself. Neither kind of edge types is in
        the paper. Used only if `convolution` is not "none".

    messages : {"factors", "factors_and_context"}, default="factors"
        Features that travel over the edges of the QoS graph: the factors, as in the paper, or the
        factors and the context features of a node, which are the outputs over the context graphs
        and the projected numeric context. An unknown user or service has no edges, so that its
        context reaches the prediction only as without messages of the context. Without context
        columns, both are the same. Used only if `convolution` is not "none".

    edge_dropout : float, default=0.0
        Fraction of the edges that carry no messages in a training step. It is not in the paper.
        Used only if `convolution` is not "none".

    normalization : {"symmetric", "row"}, default="symmetric"
        Normalisation of the messages: by the degrees of both nodes, as in the paper, or by the
        degree of the receiver ("row"). Used only if `convolution` is not "none".

    side_scales : bool, default=False
        Whether each layer multiplies what users receive, and what services receive, by learnt
        factors. It is not in the paper. Used only if `convolution` is not "none".

    n_layers : int, default=2
        Number of layers over the QoS graph. The structural features are the factors and the outputs
        of all layers, concatenated (our choice). Used only if `convolution` is not "none".

    hidden_dim : int, default=32
        Size of the layers over all graphs.

    curvature : float, default=1.0
        Curvature c of the Poincare ball, from 0.001 to 50; the radius of the ball is 1 / sqrt(c).
        Used only if `convolution` is "hhgcn" or "hygcn", or `context_convolution` is "hygcn".

    learn_curvature : bool, default=False
        Whether the curvature is trained, starting from `curvature`. Used only if
        `convolution` is "hhgcn" or "hygcn", or `context_convolution` is "hygcn".

    context_graphs : {"separate", "merged"}, default="separate"
        Context graphs: one for each categorical column ("separate"), or a single graph that
        connects entities which share any of the categories ("merged").

    context_convolution : {"hygcn", "gcn"}, default="gcn"
        Whether the context graphs are convolved in hyperbolic space, as in the paper, or in
        Euclidean space, which takes less time.

    n_context_layers : int, default=1
        Number of layers over each context graph.

    routing : bool, default=True
        Whether SNR routes the context features to the tasks. If False, each task receives all
        context features.

    n_blocks : int, default=4
        Number of blocks.

        The blocks are those of SNR (K_1). Used only with ``routing=True``.

    cross_routing : bool, default=True
        Whether Cross-SNR routes the features of the other tasks to each task. If False, a task
        receives none of them. It has no effect with one target.

    n_cross_blocks : int, default=4
        Number of blocks of Cross-SNR for each other task (K_2). Used only with
        ``cross_routing=True``.

    gate_temperature : float, default=2/3
        Temperature beta of the hard-concrete gates. Used only with `routing` or `cross_routing`.

    gate_log_odds : float, default=3.0
        Initial log-odds (log alpha) of the gates, from -4.6 to 4.6. Gates with log-odds near 0 are
        open or closed at random and add noise to the features; the default lets them start open
        (our choice). Used only with `routing` or `cross_routing`.

    l0_penalty : float, default=1e-3
        Weight lambda of the expected number of open gates in the loss. Used only with `routing` or
        `cross_routing`.

    routed_dim : int, default=64
        Size of the outputs of the blocks and of the fused features.

    output_dim : int, default=128
        Size of the vectors Z_u and Z_s, whose product is the prediction.

    feature_dropout : float, default=0.3
        Dropout rate of the factors. It is not in the paper.

    context_dropout : float, default=0.3
        Dropout rate of the context features. It is not in the paper.

    newcomer_share : float, default=0.05
        Fraction of the users and of the services that are represented as unknown ones during
        training, so that the network learns to predict unknown users and services.

        In each step, the structural features of this fraction are replaced by the average, as in
        the prediction of an unknown entity. With a convolution, the factors of another such
        fraction are averages, as those of an entity that `partial_fit` adds. It is not in the
        paper.

    disjoint_supervision : bool, default=True
        Whether the pairs of a training step carry no messages in this step. The network then learns
        to predict pairs from other edges, as in the prediction of a pair without an edge. If False,
        the network can read the labels from its own edges. In `predict`, all edges carry messages.
        It is not in the paper. Used only if `convolution` is not "none".

    task_weighting : {"ema", "dwa", "uncertainty", "equal"}, default="ema"
        Weights of the losses of the tasks: inverse to an exponential moving average of the loss
        ("ema"), dynamic weight averaging ("dwa"), learnt uncertainty ("uncertainty"), or the same
        for all ("equal").

    ema_decay : float, default=0.99
        Decay beta of the moving average: the weight of its previous value at each step. Used only
        with ``task_weighting="ema"``.

    loss : {"absolute_error", "squared_error", "huber"}, default="absolute_error"
        Training loss, in units of the transformed target.

        Each task has its own loss; see `task_weighting`. The threshold of "huber" is 1.

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

    max_epochs : int, default=15
        Number of epochs of the final training stage.

    partial_fit_epochs : int, default=3
        Number of epochs of an update by `partial_fit`.

        Dropout is switched off during updates. With 0, `partial_fit` adds entities and edges
        without training.

    replay_buffer_size : int, default=100_000
        Maximum number of training rows that the fitted estimator keeps. `partial_fit` trains on
        some of them together with the new rows. With 0, no rows are kept, and updates degrade what
        was learnt before more quickly.

        If there are more training rows, a uniform random sample is kept.

    optimizer : {"adamw", "adam"}, default="adamw"
        Optimiser of the weights. `weight_decay` is decoupled with "adamw" and an L2 penalty with
        "adam".

        The biases in the Poincare ball are always trained by Riemannian Adam.

    learning_rate : float, default=7e-3
        Learning rate. With ``learning_rate_schedule="one_cycle"``, it is the maximum of the
        schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Schedule of the learning rate within a training stage. "one_cycle" increases the learning
        rate to its maximum and then decreases it to almost 0; "constant" does not change it.

    weight_decay : float, default=0.05
        Weight decay of the optimiser; see `optimizer`.

        The biases in the Poincare ball, the curvature and the gates have no weight decay.

    batch_size : int or "auto", default="auto"
        Maximum number of training rows in each step of the optimiser. The sizes of the batches of
        an epoch differ by one row at most.

        Each step computes the convolutions over all graphs. Therefore "auto" is 1/50 of the
        training rows, but at least 96, so that the time of an epoch is linear in the number of
        observations.

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

        All targets have the same weight in the validation loss.

    validation_fraction : float, default=0.1
        Fraction of the rows that are held out for validation. Used only with `early_stopping`, and
        only if no `X_val` is passed to `fit`.

        Each target keeps at least one observation in the training rows.

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

        It determines the initial weights, dropout, gates, batches, factors and the validation
        split. Fits that run in several threads are not reproducible, because threads share the
        random state of torch.

    verbose : int, default=0
        If 1, `fit` reports its progress: as records of the logger "skqos" if logging is configured
        for their level, INFO, and otherwise on the standard error stream.

        There is one line per epoch, with the stage, the losses and the time left. In a terminal,
        the lines of a stage replace each other.

    Attributes
    ----------
    module_ : SharpQoSModule
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

        For each target k there are the columns ``train_loss_k`` and ``task_weight_k``, the weight
        of its loss in the last step of the epoch. `partial_fit` appends rows whose stage is
        "partial".

    n_iter_ : int
        Number of iterations that were run.

        An iteration is an epoch of the final training stage or, after `partial_fit`, of the update.

    gate_probabilities_ : dict of str to ndarray
        Probability that each gate is open, for the routings "snr" and "cross_snr".

    active_shares_ : DataFrame
        Fraction of the gates of each target that are not 0 in prediction.

    users_, services_ : EntityEncoder
        Encoders of the users and of the services. They hold the ids seen in `fit`.

        They also hold the categories and scales of the context. `partial_fit` adds new ids and new
        categories.

    n_features_in_ : int
        Number of columns of X seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X seen in `fit`. Defined only if all names are strings.

    target_names_in_ : ndarray of shape (n_targets,)
        Names of the columns of y seen in `fit`. Defined only if y was a DataFrame whose column
        names are all strings.

    PAPER_PARAMS : dict
        Published settings [1]_, as keyword arguments of the estimator.

        They hold what the summary of the paper states: convolution, graphs, penalty, loss and
        weighting, without our regularisation. The summary does not give the rest of the training
        recipe, for which the defaults are used. With two targets and the country and autonomous
        system of WS-DREAM data set 1, the network has 1.16 million parameters; the paper has 1.62
        million.

    Notes
    -----
    Only a summary of the paper was available. We decided what it leaves open as follows. NMF is
    applied to the zero-filled matrix. The autoencoders have one-hot categories as input. In a
    context graph, the entities of a category form a clique. The branches of HHGCN are added before
    the activation. Each block has a ReLU. Gates are drawn once for the users and once for the
    services of a step. The fusion has a sigmoid gate for each dimension. The networks of the users
    and services of a task have one hidden layer. The prediction of each task has a
    constant term.

    By default, the factors are computed from all training values. With `disjoint_supervision`, a
    pair is predicted without its edge, but its value still contributes to the factors. With
    `factor_folds`, it does not; it contributes to what training learns from it, which includes the
    correction of the factors, and to the scale of the target and the start of the constant term.
    `partial_fit` does not compute factors again.

    A HyGCN layer at the origin differs from a GCN layer only in the Mobius addition of its bias, so
    the differences between the two are small.

    `partial_fit` adds the new pairs and entities to the graphs and continues the training of the
    network. A new node starts from the average factors of its side, and the weights of the tasks
    are initialised again. A target without an observation in the update may be NaN in all its rows.

    A pickle contains the weights, the entity tables, and up to `replay_buffer_size` training rows
    as codes, transformed targets and weights. With a convolution, it contains the edges of all
    graphs, and unless `edge_values` is "binary", their transformed values. With `factor_folds`, it
    contains the factors of each fold. It contains no optimiser state.

    References
    ----------
    .. [1] S. Kumar, A. Kumar, S. Chattopadhyay, "SHARP-QoS: Sparsely-gated Hierarchical Adaptive
       Routing for joint Prediction of QoS", arXiv:2512.17262, 2025.
    .. [2] R. van den Berg, T. N. Kipf, M. Welling, "Graph convolutional matrix completion",
       arXiv:1706.02263, 2017.

    Examples
    --------
    >>> from skqos import SharpQoSRegressor
    >>> from skqos.datasets import make_qos
    >>> data = make_qos(20, 30, density=0.3, n_qos=2, random_state=0)
    >>> model = SharpQoSRegressor(max_epochs=2, random_state=0).fit(data.X, data.y)
    >>> model.predict([[3, 17], [3, 4711]]).shape
    (2, 2)
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "n_members": 1,
        "n_factors": 64,
        "context_dim": 50,
        "convolution": "hhgcn",
        "context_convolution": "hygcn",
        "hidden_dim": 64,
        "context_graphs": "separate",
        "n_context_layers": 2,
        "gate_log_odds": 0.0,
        "l0_penalty": 1e-5,
        "routed_dim": 64,
        "output_dim": 64,
        "feature_dropout": 0.0,
        "context_dropout": 0.0,
        "newcomer_share": 0.0,
        "disjoint_supervision": False,
        "task_weighting": "ema",
        "ema_decay": 0.99,
        "loss": "absolute_error",
        "target_transform": "max",
        "max_epochs": 30,
    }

    _parameter_constraints: dict = {
        **IncrementalQoSRegressor._parameter_constraints,
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "factor_folds": [Interval(Integral, 2, None, closed="left"), None],
        "context_dim": [Interval(Integral, 1, None, closed="left")],
        "autoencoder_epochs": [Interval(Integral, 1, None, closed="left")],
        "fine_tune_features": ["boolean"],
        "convolution": [StrOptions({"hhgcn", "hygcn", "gcn", "none"})],
        "edge_values": [StrOptions({"binary", "quantile", "sender_quantile"})],
        "messages": [StrOptions({"factors", "factors_and_context"})],
        "edge_dropout": [Interval(Real, 0, 1, closed="left")],
        "normalization": [StrOptions({"symmetric", "row"})],
        "side_scales": ["boolean"],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "curvature": [Interval(Real, 1e-3, 50, closed="both")],
        "learn_curvature": ["boolean"],
        "context_graphs": [StrOptions({"separate", "merged"})],
        "context_convolution": [StrOptions({"hygcn", "gcn"})],
        "n_context_layers": [Interval(Integral, 1, None, closed="left")],
        "routing": ["boolean"],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "cross_routing": ["boolean"],
        "n_cross_blocks": [Interval(Integral, 1, None, closed="left")],
        "gate_temperature": [Interval(Real, 0, None, closed="neither")],
        "gate_log_odds": [Interval(Real, -MAX_LOG_ODDS, MAX_LOG_ODDS, closed="both")],
        "l0_penalty": [Interval(Real, 0, None, closed="left")],
        "routed_dim": [Interval(Integral, 1, None, closed="left")],
        "output_dim": [Interval(Integral, 1, None, closed="left")],
        "feature_dropout": [Interval(Real, 0, 1, closed="left")],
        "context_dropout": [Interval(Real, 0, 1, closed="left")],
        "newcomer_share": [Interval(Real, 0, 1, closed="left")],
        "disjoint_supervision": ["boolean"],
        "task_weighting": [StrOptions(set(get_args(TaskWeighting)))],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions(set(get_args(LossName)))],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    }
    _switched_off: ClassVar[tuple[SwitchedOff, ...]] = (
        *IncrementalQoSRegressor._switched_off,
        SwitchedOff(
            (
                *("edge_values", "messages", "edge_dropout"),
                *("normalization", "side_scales", "n_layers"),
            ),
            by={"convolution": ("none",)},
        ),
        SwitchedOff(("disjoint_supervision",), by={"convolution": ("none",)}),
        SwitchedOff(
            ("curvature", "learn_curvature"),
            by={"convolution": ("none", "gcn"), "context_convolution": ("gcn",)},
        ),
        SwitchedOff(("n_blocks",), by={"routing": (False,)}),
        SwitchedOff(("n_cross_blocks",), by={"cross_routing": (False,)}),
        SwitchedOff(
            ("gate_temperature", "gate_log_odds", "l0_penalty"),
            by={"routing": (False,), "cross_routing": (False,)},
        ),
        SwitchedOff(("ema_decay",), by={"task_weighting": ("dwa", "uncertainty", "equal")}),
    )

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        n_members: int = 4,
        n_factors: int = 32,
        factor_folds: int | None = None,
        context_dim: int = 32,
        autoencoder_epochs: int = 100,
        fine_tune_features: bool = True,
        convolution: Literal["hhgcn", "hygcn", "gcn", "none"] = "none",
        edge_values: Literal["binary", "quantile", "sender_quantile"] = "binary",
        messages: Literal["factors", "factors_and_context"] = "factors",
        edge_dropout: float = 0.0,
        normalization: Literal["symmetric", "row"] = "symmetric",
        side_scales: bool = False,
        n_layers: int = 2,
        hidden_dim: int = 32,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        context_graphs: Literal["separate", "merged"] = "separate",
        context_convolution: Literal["hygcn", "gcn"] = "gcn",
        n_context_layers: int = 1,
        routing: bool = True,
        n_blocks: int = 4,
        cross_routing: bool = True,
        n_cross_blocks: int = 4,
        gate_temperature: float = 2 / 3,
        gate_log_odds: float = 3.0,
        l0_penalty: float = 1e-3,
        routed_dim: int = 64,
        output_dim: int = 128,
        feature_dropout: float = 0.3,
        context_dropout: float = 0.3,
        newcomer_share: float = 0.05,
        disjoint_supervision: bool = True,
        task_weighting: TaskWeighting = "ema",
        ema_decay: float = 0.99,
        loss: LossName = "absolute_error",
        target_transform: TargetTransformName | None = "auto",
        max_epochs: int = 15,
        partial_fit_epochs: int = 3,
        replay_buffer_size: int = 100_000,
        optimizer: OptimizerName = "adamw",
        learning_rate: float = 7e-3,
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
        self.n_factors = n_factors
        self.factor_folds = factor_folds
        self.context_dim = context_dim
        self.autoencoder_epochs = autoencoder_epochs
        self.fine_tune_features = fine_tune_features
        self.convolution = convolution
        self.edge_values = edge_values
        self.messages = messages
        self.edge_dropout = edge_dropout
        self.normalization = normalization
        self.side_scales = side_scales
        self.n_layers = n_layers
        self.hidden_dim = hidden_dim
        self.curvature = curvature
        self.learn_curvature = learn_curvature
        self.context_graphs = context_graphs
        self.context_convolution = context_convolution
        self.n_context_layers = n_context_layers
        self.routing = routing
        self.n_blocks = n_blocks
        self.cross_routing = cross_routing
        self.n_cross_blocks = n_cross_blocks
        self.gate_temperature = gate_temperature
        self.gate_log_odds = gate_log_odds
        self.l0_penalty = l0_penalty
        self.routed_dim = routed_dim
        self.output_dim = output_dim
        self.feature_dropout = feature_dropout
        self.context_dropout = context_dropout
        self.newcomer_share = newcomer_share
        self.disjoint_supervision = disjoint_supervision
        self.task_weighting = task_weighting
        self.ema_decay = ema_decay
        self.loss = loss
        self.target_transform = target_transform
        self.max_epochs = max_epochs
        self.partial_fit_epochs = partial_fit_epochs
        self.replay_buffer_size = replay_buffer_size
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

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R2 over the observed entries, averaged over the targets that have any.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS.

            NaN where a value was not observed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the score.

        Returns
        -------
        float
            R2; the best value is 1.0.

        Raises
        ------
        ValueError
            If X, y or `sample_weight` is not as described, or no target has an observation.
        """
        check_is_fitted(self)
        check_target_names(y, getattr(self, "target_names_in_", None))
        return self._score_observed(X, y, sample_weight)

    @property
    def gate_probabilities_(self) -> dict[str, np.ndarray]:
        """Probability that each gate is open, averaged over the members.

        ``"snr"`` has shape (n_targets, n_blocks). ``"cross_snr"`` has shape (n_targets, n_targets,
        n_cross_blocks): the gates of a target for the features of another one, and 0 for its own.
        A routing that is switched off has no entry.
        """
        check_is_fitted(self)
        probabilities = self.module_.gate_probabilities()
        return {name: p.detach().cpu().numpy() for name, p in probabilities.items()}

    @property
    def active_shares_(self) -> pd.DataFrame:
        """Share of the gates of each target, in all members, that are not 0 in prediction.

        There is one row for each target and one column for each routing that is switched on.
        """
        module = self._snapshot().module_
        targets = pd.RangeIndex(len(module.graphs), name="target")
        return pd.DataFrame(module.active_shares(), index=targets)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_parameters(self) -> None:
        if (
            self.convolution != "none"
            and self.edge_values != "binary"
            and not self.disjoint_supervision
        ):
            raise ValueError(
                f"edge_values={self.edge_values!r} needs disjoint_supervision=True: an edge would "
                "contain the value that the network is to predict."
            )

    def _check_target(self, y: Any) -> np.ndarray:
        values = self._check_values(y)
        if values.ndim == 1:
            return super()._check_target(values)
        for k, name in enumerate(column_names(y) or range(values.shape[1])):
            if np.isnan(values[:, k]).all():
                raise ValueError(
                    f"y, column {k} ({name}) is NaN in every row, but every target needs at least "
                    "one observation. Remove the column."
                )
        warn_of_missing_codes(values)
        return values

    def _check_further_target(self, y: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Check y as in `fit`, but accept targets without an observation."""
        values = self._check_values(y)
        if values.shape[1:] != shape:
            raise ValueError(
                f"y has shape {values.shape}, but in fit it had shape {('n_samples', *shape)}."
            )
        if values.ndim == 1:
            return super()._check_target(values)
        if np.isnan(values).all():
            raise ValueError("y is NaN in every entry; at least one observation is needed.")
        warn_of_missing_codes(values)
        return values

    def _check_values(self, y: Any) -> np.ndarray:
        """Check y, which may contain NaN."""
        if y is None:
            return super()._check_target(y)
        return as_target(y, "y", allow_nan=True, estimator=self)

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.training import ValidationDataset

        target = data.target.reshape(len(data.target), -1)
        edges = [_distinct_pairs(data, column) for column in target.T]
        validation = None
        if data.validation is not None:
            interactions, held_out, weights = data.validation
            held_out = held_out.reshape(len(held_out), -1)
            validation = ValidationDataset(interactions, held_out, weights)
        module = self._build_module(data, target, edges)
        net = trainer.fit(
            module,
            validation=validation,
            stage="final",
            max_epochs=self.max_epochs,
            **self._training(data, target, edges, module),
        )
        return {"final": net}, {}

    def _prepare_update(self, module: SharpQoSModule, rows: TrainingRows) -> dict[str, Any]:
        target = rows.target.reshape(len(rows.target), -1)
        edges = [
            _distinct_pairs(rows, column, of_task.graph)
            for column, of_task in zip(target.T, module.graphs, strict=True)
        ]
        graphs = [
            self._extend_graph(of_task.graph, found, rows.shape)
            for found, of_task in zip(edges, module.graphs, strict=True)
        ]
        columns = _columns_as_fitted(module, rows)
        module.grow(graphs, columns, rows.users.table_, rows.services.table_)
        return self._training(rows, target, edges, module)

    def _training(
        self, rows: TrainingRows, target: np.ndarray, edges: list[Edges], module: SharpQoSModule
    ) -> dict[str, Any]:
        """Return the arguments of `Trainer.fit` for training a network on rows."""
        from skqos.losses import JointLoss
        from skqos.sharp_qos.hyperbolic import RiemannianAdamW
        from skqos.training import InteractionDataset

        inputs = {"users": rows.user_codes, "services": rows.service_codes}
        # The parameters may have changed since `fit`, but not the kind of the network.
        if self.disjoint_supervision and module.graphs[0].graph is not None:
            inputs["edges"] = np.column_stack([found.of_row for found in edges])
        one_per_batch = None
        if module.n_folds is not None:
            one_per_batch = "folds"
            inputs["folds"] = assign_folds(rows.user_codes, rows.service_codes, module.n_folds)
        return {
            "criterion": JointLoss(self.loss, target.shape[1], self.task_weighting, self.ema_decay),
            "rows": InteractionDataset(inputs, target, rows.weights, one_per_batch=one_per_batch),
            "batch_size": self._rows_per_step(len(target)),
            "optimizer": RiemannianAdamW,
        }

    def _build_module(
        self, data: TrainingData, target: np.ndarray, edges: list[Edges]
    ) -> SharpQoSModule:
        from skqos.sharp_qos.hyperbolic import PoincareBall
        from skqos.sharp_qos.module import NumericContext, SharpQoSModule

        ball = PoincareBall(self.curvature, self.learn_curvature)
        graph_ball = ball if self.convolution in ("hhgcn", "hygcn") else None
        context = self._context(data, ball if self.context_convolution == "hygcn" else None)
        tables = data.users.table_, data.services.table_
        numbers = None
        if any(table.numerics.shape[1] for table in tables):
            users, services = (
                NumericContext(table, self.n_members, self.hidden_dim) for table in tables
            )
            numbers = users, services
        widths = 0 if context is None else context.out_dim, self.hidden_dim * (numbers is not None)
        sends_context = self.messages == "factors_and_context" and sum(widths) > 0
        sent_dim = sum(widths) if sends_context else 0
        return SharpQoSModule(
            [
                self._qos_graph(data, values, found, graph_ball, sent_dim)
                for values, found in zip(target.T, edges, strict=True)
            ],
            context,
            numbers,
            context_dim=sum(widths),
            n_members=self.n_members,
            hidden_dim=self.routed_dim,
            out_dim=self.output_dim,
            routing=self.routing,
            cross_routing=self.cross_routing,
            n_blocks=self.n_blocks,
            n_cross_blocks=self.n_cross_blocks,
            gate_temperature=self.gate_temperature,
            gate_log_odds=self.gate_log_odds,
            l0_penalty=self.l0_penalty,
            context_dropout=self.context_dropout,
            newcomer_share=self.newcomer_share,
            sends_context=sends_context,
            start=_medians(target, data.weights),
        )

    def _context(self, data: TrainingData, ball: PoincareBall | None) -> ContextConvolution | None:
        """Create the context graphs, with features from autoencoders."""
        from skqos.sharp_qos.module import ContextConvolution

        graphs = self._columns_of_graphs(data)
        if not graphs:
            return None
        return ContextConvolution(
            graphs,
            [[self._context_features(column, data) for column in columns] for columns in graphs],
            data.users.table_,
            data.services.table_,
            n_members=self.n_members,
            dim=self.hidden_dim,
            n_layers=self.n_context_layers,
            ball=ball,
            fine_tune=self.fine_tune_features,
        )

    def _columns_of_graphs(self, rows: TrainingRows) -> list[list[ContextColumn]]:
        """Return one graph for each categorical column, or a single graph for all."""
        from skqos.sharp_qos.context import match_columns

        columns = match_columns(rows.users, rows.services)
        if self.context_graphs == "separate" or not columns:
            return [[column] for column in columns]
        return [columns]

    def _context_features(self, column: ContextColumn, data: TrainingData) -> np.ndarray:
        from skqos.sharp_qos.context import autoencode

        codes = np.concatenate(
            [column.user_codes(data.users.table_), column.service_codes(data.services.table_)]
        )
        counts = np.bincount(codes[codes >= 0], minlength=len(column.groups))
        return autoencode(counts, self.context_dim, self.autoencoder_epochs)

    def _qos_graph(
        self,
        data: TrainingData,
        values: np.ndarray,
        edges: Edges,
        ball: PoincareBall | None,
        context_dim: int,
    ) -> QoSGraph:
        """Create the graph of one target, whose node features are an NMF of the observed values."""
        from skqos.sharp_qos.qos_graph import QoSGraph

        return QoSGraph(
            self._graph_of(edges, data.shape),
            self._factors(data, values),
            n_members=self.n_members,
            dim=self.hidden_dim,
            n_layers=self.n_layers,
            convolution=self.convolution,
            ball=ball,
            dropout=self.feature_dropout,
            edge_dropout=self.edge_dropout,
            side_scales=self.side_scales,
            newcomer_share=self.newcomer_share,
            fine_tune=self.fine_tune_features,
            context_dim=context_dim,
        )

    def _factors(self, data: TrainingData, values: np.ndarray) -> np.ndarray:
        """Return the factors of all nodes, ([n_folds,] n_nodes, rank)."""
        observed = ~np.isnan(values)
        entries = values[observed]
        if self.factor_folds is None:
            # NMF needs non-negative values, but transformed targets can be negative. With folds,
            # the smallest value depends on the fold.
            entries = entries - min(entries.min(), 0.0)
        matrix = interaction_matrix(
            data.user_codes[observed],
            data.service_codes[observed],
            entries,
            data.shape,
            data.weights[observed],
        )
        if self.factor_folds is None:
            return np.concatenate(nonnegative_factors(matrix, self.n_factors, data.seed))
        by_fold = nonnegative_factors_by_fold(matrix, self.n_factors, self.factor_folds, data.seed)
        return np.concatenate(by_fold, axis=1)

    def _extend_graph(self, fitted: Any, edges: Edges, shape: tuple[int, int]) -> Any:
        """Return the graph of an update, of the same kind as in `fit`."""
        if fitted is None:
            return self._graph_of(edges, shape)
        # The parameters may have changed since `fit`.
        return fitted.with_edges(edges.users, edges.services, edges.values, shape)

    def _graph_of(self, edges: Edges, shape: tuple[int, int]) -> Any:
        from skqos.graphs import BipartiteGraph

        return BipartiteGraph(
            edges.users,
            edges.services,
            *shape,
            values=None if self.edge_values == "binary" else edges.values,
            residuals="sender" if self.edge_values == "sender_quantile" else "both",
            normalization=self.normalization,
        )

    def _rows_per_step(self, n_rows: int) -> int:
        """Return `batch_size` as a number; "auto" bounds the number of steps."""
        if self.batch_size == "auto":
            return max(MIN_BATCH_SIZE, -(-n_rows // MAX_STEPS_PER_EPOCH))
        return super()._rows_per_step(n_rows)


def _columns_as_fitted(module: SharpQoSModule, rows: TrainingRows) -> list[list[ContextColumn]]:
    """Return the columns of each context graph of the network, with the entities of an update.

    `context_graphs` may have changed since `fit`.
    """
    from skqos.sharp_qos.context import match_columns

    if module.context is None:
        return []
    columns = iter(match_columns(rows.users, rows.services))
    return [[*islice(columns, len(graph))] for graph in module.context.graphs]


def _medians(target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the median of each target over its observed rows."""
    observed = ~np.isnan(target)
    return np.array(
        [
            weighted_median(values[rows], weights[rows])
            for values, rows in zip(target.T, observed.T, strict=True)
        ]
    )


def _distinct_pairs(rows: TrainingRows, target: np.ndarray, graph: Any = None) -> Edges:
    """Return the edges of observed rows and of an earlier graph.

    If a pair is measured again, its edge gets the new value. Replayed rows have edges already,
    whose values do not change.
    """
    n_services = rows.services.n_entities
    observed = ~np.isnan(target)
    cells = rows.user_codes[observed] * n_services + rows.service_codes[observed]
    earlier, all_cells = cells[:0], cells
    if graph is not None:
        users, services = (side.numpy().astype(np.int64) for side in (graph.users, graph.services))
        earlier = users * n_services + services
        all_cells = np.concatenate([earlier, cells])
    distinct = sorted_unique(all_cells)
    found = np.searchsorted(distinct, cells)
    values = np.zeros(len(distinct))
    if graph is not None and graph.values is not None:
        values[np.searchsorted(distinct, earlier)] = graph.values.numpy()
    is_new = np.flatnonzero(observed) < len(observed) - rows.n_replayed
    weights = rows.weights[observed] * is_new
    total = np.bincount(found, weights, len(distinct))
    sums = np.bincount(found, weights * target[observed], len(distinct))
    np.divide(sums, total, out=values, where=total > 0)
    of_row = np.full(len(observed), -1)
    of_row[observed] = found
    return Edges(*np.divmod(distinct, n_services), values, of_row)
