"""SHARP-QoS as a scikit-learn regressor: features, graphs, network, in the paper's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from skqos._arrays import sorted_unique
from skqos._parameters import SwitchedOff
from skqos._sklearn_compat import Interval, StrOptions
from skqos._target_checks import as_target, as_weights, warn_of_missing_codes
from skqos._weighted import weighted_median
from skqos.base import TrainingData, TrainingRows
from skqos.factorization import interaction_matrix, nonnegative_factors
from skqos.incremental import IncrementalQoSRegressor
from skqos.metrics import nan_r2_score

if TYPE_CHECKING:
    from skqos.graphs import BipartiteGraph
    from skqos.sharp_qos.context import ContextColumn
    from skqos.sharp_qos.hyperbolic import PoincareBall
    from skqos.sharp_qos.module import ContextConvolution, QoSGraph, SharpQoSModule
    from skqos.training import QoSNet, Trainer

LOSS_NAMES = ("absolute_error", "squared_error", "huber")
# About log(100): HardConcreteGates keeps log odds within that.
MAX_LOG_ODDS = 4.6
MIN_BATCH_SIZE = 96
MAX_STEPS_PER_EPOCH = 100


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
        Edge of each training row; -1 where the target was not observed.
    """

    users: np.ndarray
    services: np.ndarray
    values: np.ndarray
    of_row: np.ndarray


class SharpQoSRegressor(IncrementalQoSRegressor):
    """Sparsely gated hierarchical adaptive routing (SHARP-QoS) for several QoS parameters at once.

    Each QoS parameter is a task with a graph of its own: users and services, joined where a value
    was observed. Convolutions over this graph and over the hypergraphs of its second hops, in the
    Poincare ball, give its structural features. Convolutions over context graphs, which join
    entities that share a country, an autonomous system and so on, give features that all tasks
    share: blocks transform them, and gates of each task route them (SNR). The structural features
    of the other tasks are routed likewise (Cross-SNR). A gate blends a task's own and shared
    features, a network per task and side turns the blend into a vector, and the product of a
    user's and a service's vector predicts [1]_.

    By default the graph of a QoS parameter is not convolved: factors of its observed values are
    the structural features. See `convolution`.

    Parameters
    ----------
    user_features, service_features : list of str or int, default=None
        Context columns of X, by name or position. None takes the columns of a DataFrame that are
        named ``user_*`` and ``service_*``. Columns of strings, objects, categories or bools are
        categorical, others numeric; NaN is "unknown". Categorical columns named alike but for the
        prefix make one context graph of users and services.

    n_members : int, default=2
        Number of networks of this kind, each with weights of its own, that train in one pass and
        are averaged in the transformed target. 1 is the network of the paper.

    n_factors : int, default=32
        Rank of the non-negative factors (NMF) of the interaction matrix, which are the features of
        the nodes of the QoS graph (F_p).

    context_dim : int, default=32
        Width of the autoencoder's code of a category (F_r, F_a).

    autoencoder_epochs : int, default=100
        Steps of the autoencoder of each categorical column, over all its categories at once.

    fine_tune_features : bool, default=True
        Whether training goes on to change factors and codes. Ours; the summary of the paper does
        not say.

    convolution : {"hhgcn", "hygcn", "gcn", "none"}, default="none"
        "hhgcn", the paper's, convolves over the QoS graph and both its hypergraphs, "hygcn" over
        the QoS graph, "gcn" does so in Euclidean space, "none" leaves the factors as they are: on
        WS-DREAM two such networks are as good as one that convolves, in less time.

    edge_values : {"binary", "quantile"}, default="binary"
        What an edge of the QoS graph tells. "binary", the paper's, is that the pair was observed.
        "quantile" is the quarter in which its residual lies, the value less the damped means of
        its service and its user: each layer has a linear map per quarter, as GC-MC has [2]_, and
        one for a node's own features. Ours.

    edge_dropout : float, default=0.0
        Share of the edges that carry no messages in a training step. Ours.

    normalization : {"symmetric", "row"}, default="symmetric"
        Whether messages are scaled by the degrees of both ends, as in the paper, or by that of the
        receiver, which averages. Ours.

    side_scales : bool, default=False
        Whether each layer scales what users, and what services receive by factors that are learnt.
        Ours.

    n_layers : int, default=2
        Layers over the QoS graph. The structural features are the outputs of all, and the factors,
        side by side (ours).

    hidden_dim : int, default=32
        Width of the layers of all graphs.

    curvature : float, default=1.0
        Curvature c of the ball, whose radius is 1 / sqrt(c); from 0.001 to 50.

    learn_curvature : bool, default=False
        Whether the curvature is trained on, from `curvature`.

    context_graphs : {"separate", "merged"}, default="separate"
        One graph per categorical column, or one that joins entities by any of them.

    context_convolution : {"hygcn", "gcn"}, default="gcn"
        Whether context graphs are convolved in the ball, as in the paper, or in Euclidean space,
        which is faster.

    n_context_layers : int, default=1
        Layers over a context graph.

    routing : bool, default=True
        Whether context is routed to tasks by SNR; else each task gets all of it as it is.

    n_blocks : int, default=4
        Blocks of SNR (K_1).

    cross_routing : bool, default=True
        Whether features of the other tasks are routed to a task by Cross-SNR; else it gets none.

    n_cross_blocks : int, default=4
        Blocks of Cross-SNR for each other task (K_2).

    gate_temperature : float, default=2/3
        Temperature beta of the hard-concrete gates.

    gate_log_odds : float, default=3.0
        Log odds (log alpha) of the gates at first. Gates that start near 0, where they are open or
        closed alike, are noise that the network cannot tell from its features. Ours.

    l0_penalty : float, default=1e-3
        Weight lambda of the expected number of open gates in the loss.

    routed_dim : int, default=64
        Width of the blocks' outputs and of the blended features.

    output_dim : int, default=128
        Width of the vectors whose product predicts (Z_u, Z_s).

    feature_dropout : float, default=0.3
        Dropout of the factors. Ours.

    context_dropout : float, default=0.3
        Dropout of the context features. Ours.

    newcomer_share : float, default=0.05
        Share of a step's users and of its services whose structural features are replaced by the
        average, as those of an entity that is new at prediction will be. Ours.

    disjoint_supervision : bool, default=True
        Whether the pairs of a training step carry no messages in it: the network is to predict them
        from the other edges, as it will predict pairs that have no edge. Else it reads its labels
        off its own edges. In `predict` all edges carry messages. Ours.

    task_weighting : {"ema", "dwa", "uncertainty", "equal"}, default="ema"
        Weights of the tasks' losses: inverse to an exponential moving average of the loss, dynamic
        weight average, learnt uncertainty, or all the same.

    ema_decay : float, default=0.99
        Share of the old average in the new one (beta), a step at a time.

    loss : {"absolute_error", "squared_error", "huber"}, default="absolute_error"
        Loss of each task, in units of the transformed target.

    target_transform : {"auto", "sqrt", "log", "max", "standard"} or None, default="auto"
        How each target is transformed ahead of training, learnt from the training rows alone.
        "sqrt" is ``sqrt(y / mean(y))``, "log" ``log(1 + y / mean(y))``, "max" divides by the
        largest absolute value, "standard" centres and scales, None leaves it as it is. "auto"
        takes ``sqrt((y - min(y)) / mean(y - min(y)))`` for a target with a heavy right tail, as
        response times and throughput have (its mean is above its median, and its lowest value
        is not far below all others), else "standard": neither the unit nor an offset of y
        matters to it. Under "sqrt" and "auto" a value below those seen takes the negative root.

    max_epochs : int, default=15
        Passes over the training rows.

    partial_fit_epochs : int, default=3
        Epochs of an update by `partial_fit`, which has no dropout.

    replay_buffer_size : int, default=100_000
        How many training rows the fitted estimator keeps for `partial_fit`, which trains on them
        again; of more, a uniform sample. 0 keeps none, and what was learnt fades faster.

    optimizer : {"adamw", "adam"}, default="adamw"
        Optimiser of all but the biases in the ball, which take Riemannian Adam.

    learning_rate : float, default=3e-3
        Learning rate; the peak of the "one_cycle" schedule.

    learning_rate_schedule : {"one_cycle", "constant"}, default="one_cycle"
        Course of the learning rate.

    weight_decay : float, default=0.05
        Weight decay; an L2 penalty with ``optimizer="adam"``. None on biases in the ball.

    batch_size : int or "auto", default="auto"
        Rows per step. Every step convolves over all graphs, so that "auto" takes a hundredth of the
        rows, at least 96: the time of an epoch then grows linearly with the observations.

    intervals : bool, default=False
        Whether `fit` also learns how far measurements lie from predictions, so that `predict` takes
        `quantiles` and there are `predict_interval` and `predict_probability`. It trains a second
        network, without some of the rows, which takes two thirds of the time again; predictions
        stay the same.

    early_stopping : bool or "monitor", default=False
        True holds out validation rows before anything is learnt from them, ends training when their
        loss has not improved for `n_iter_no_change` epochs, and restores the best weights.
        "monitor" holds them out and records their loss, but changes nothing else. Tasks weigh the
        same in it.

    validation_fraction : float, default=0.1
        Share of the rows held out, with `early_stopping`; not used where `fit` gets `X_val`. Each
        target keeps an observation in training.

    n_iter_no_change : int, default=10
        Epochs without improvement that end training, with ``early_stopping=True``.

    device : str, default="auto"
        A torch device; "auto" is a GPU where there is one. Prediction uses it, too.

    callbacks : list of skorch callbacks, default=None
        Run in training. They are cloned.

    random_state : int, RandomState instance or None, default=None
        Seeds weights, dropout, gates, batches, factors and the validation split. Threads share
        torch's random state, so that fits in several threads are not reproducible.

    verbose : int, default=0
        1 shows a line on stderr: epoch, losses, time left.

    Attributes
    ----------
    module_ : SharpQoSModule
        The network, on the CPU after `fit`.

    net_ : QoSNet
        Its skorch net.

    stage_nets_ : dict of str to QoSNet
        ``net_`` under the name "final", or "partial" after an update.

    history_ : DataFrame
        One row an epoch: stage, epoch, train_loss, valid_loss (NaN without validation rows),
        duration in seconds, and for target k ``train_loss_k`` and ``task_weight_k``, the weight of
        its loss in the last step. Losses are in units of the transformed target. Updates
        append rows of stage "partial".

    n_iter_ : int
        Epochs of training, or of the latest update.

    gate_probabilities_ : dict of str to ndarray
        Probability that each gate is open, of "snr" and "cross_snr".

    active_shares_ : DataFrame
        Share of each target's gates that are not 0 at prediction.

    users_, services_ : EntityEncoder
        Ids, context categories and scales seen in `fit`; ids and categories of updates after them.

    n_features_in_ : int
        Number of columns of X in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of X in `fit`, if they are all strings.

    PAPER_PARAMS : dict
        What the summary of the paper states: convolution, graphs, penalty, loss and weighting, none
        of our regularisers, and widths that come near its count of parameters. The rest of the
        recipe, which it does not give, is ours.

    Notes
    -----
    Only a summary of the paper was at hand. What it leaves open is decided here as follows: NMF
    of the zero-filled matrix; autoencoders of one-hot categories; context graphs in which the
    entities of a category form a clique; branches of HHGCN that add up ahead of the activation; a
    ReLU in each block; gates that are drawn once for the users and once for the services of a step;
    a sigmoid gate over each dimension in the fusion; networks of one hidden layer per task and
    side; a constant per task.

    The factors are those of all training values: where `disjoint_supervision` keeps a pair's edge
    from its prediction, its share in the factors stays.

    A HyGCN layer at the origin differs from a GCN layer in the Mobius addition of its bias alone:
    expect small differences.

    `partial_fit` joins the new pairs and entities to the graphs and trains the network on. A new
    node starts from the average factors of its side; the weights of the tasks start afresh. A
    target that an update does not observe may be NaN in all its rows.

    A pickle holds weights, the edges of all graphs and the entity tables, and of the training rows
    what `replay_buffer_size` says, as codes, transformed targets and weights; no
    optimiser state.

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
        "context_dim": [Interval(Integral, 1, None, closed="left")],
        "autoencoder_epochs": [Interval(Integral, 1, None, closed="left")],
        "fine_tune_features": ["boolean"],
        "convolution": [StrOptions({"hhgcn", "hygcn", "gcn", "none"})],
        "edge_values": [StrOptions({"binary", "quantile"})],
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
        "task_weighting": [StrOptions({"ema", "dwa", "uncertainty", "equal"})],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions(set(LOSS_NAMES))],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    }
    _switched_off: ClassVar[tuple[SwitchedOff, ...]] = (
        *IncrementalQoSRegressor._switched_off,
        SwitchedOff(
            ("edge_values", "edge_dropout", "normalization", "side_scales", "n_layers"),
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
        n_members: int = 2,
        n_factors: int = 32,
        context_dim: int = 32,
        autoencoder_epochs: int = 100,
        fine_tune_features: bool = True,
        convolution: str = "none",
        edge_values: str = "binary",
        edge_dropout: float = 0.0,
        normalization: str = "symmetric",
        side_scales: bool = False,
        n_layers: int = 2,
        hidden_dim: int = 32,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        context_graphs: str = "separate",
        context_convolution: str = "gcn",
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
        task_weighting: str = "ema",
        ema_decay: float = 0.99,
        loss: str = "absolute_error",
        target_transform: str | None = "auto",
        max_epochs: int = 15,
        partial_fit_epochs: int = 3,
        replay_buffer_size: int = 100_000,
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int | str = "auto",
        intervals: bool = False,
        early_stopping: bool | str = False,
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
        self.context_dim = context_dim
        self.autoencoder_epochs = autoencoder_epochs
        self.fine_tune_features = fine_tune_features
        self.convolution = convolution
        self.edge_values = edge_values
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
        """Return R2 over observed entries, averaged over the targets that have any.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS; NaN where nothing was observed.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row in the score.

        Returns
        -------
        float
            1.0 is best.

        Raises
        ------
        ValueError
            If X, y or sample_weight is not as described, or no target has an observation.
        """
        y = as_target(y, "y", allow_nan=True)
        weights = None if sample_weight is None else as_weights(sample_weight, "sample_weight")
        return nan_r2_score(y, self.predict(X), sample_weight=weights)

    @property
    def gate_probabilities_(self) -> dict[str, np.ndarray]:
        """Probability that each gate is open.

        ``"snr"`` has shape (n_targets, n_blocks), ``"cross_snr"`` (n_targets, n_targets,
        n_cross_blocks): of a target, for the features of another; 0 for its own. They are averages
        over the members. A routing that takes no part is missing.
        """
        check_is_fitted(self)
        probabilities = self.module_.gate_probabilities()
        return {name: p.detach().cpu().numpy() for name, p in probabilities.items()}

    @property
    def active_shares_(self) -> pd.DataFrame:
        """Share of each target's gates, those of all members, that are not 0 at prediction.

        One row a target, one column a routing that takes part.
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
            and self.edge_values == "quantile"
            and not self.disjoint_supervision
        ):
            raise ValueError(
                "edge_values='quantile' needs disjoint_supervision=True: an edge would tell the "
                "value that the network is to predict."
            )

    def _check_target(self, y: Any) -> np.ndarray:
        values = self._check_values(y)
        if values.ndim == 1:
            return super()._check_target(values)
        names = getattr(y, "columns", range(values.shape[1]))
        for k, name in enumerate(names):
            if np.isnan(values[:, k]).all():
                raise ValueError(
                    f"y, column {k} ({name}) is NaN in every row; a target needs an observation. "
                    "Leave the column out."
                )
        warn_of_missing_codes(values, stacklevel=5)
        return values

    def _check_further_target(self, y: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Check y as in `fit`, but for targets of which nothing may be observed."""
        values = self._check_values(y)
        if values.shape[1:] != shape:
            raise ValueError(
                f"y has shape {values.shape}; fit saw one of shape {('n_samples', *shape)}."
            )
        if values.ndim == 1:
            return super()._check_target(values)
        if np.isnan(values).all():
            raise ValueError("y is NaN everywhere; it needs an observation.")
        warn_of_missing_codes(values, stacklevel=5)
        return values

    def _check_values(self, y: Any) -> np.ndarray:
        """Check all but what was not observed."""
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
        net = trainer.fit(
            self._build_module(data, target, edges),
            validation=validation,
            stage="final",
            max_epochs=self.max_epochs,
            **self._training(data, target, edges),
        )
        return {"final": net}, {}

    def _prepare_update(self, module: SharpQoSModule, rows: TrainingRows) -> dict[str, Any]:
        target = rows.target.reshape(len(rows.target), -1)
        edges = [
            _distinct_pairs(rows, column, of_task.graph)
            for column, of_task in zip(target.T, module.graphs, strict=True)
        ]
        module.grow(
            [self._graph_of(found, rows.shape) for found in edges],
            self._columns_of_graphs(rows),
            rows.users.table_,
            rows.services.table_,
        )
        return self._training(rows, target, edges)

    def _training(
        self, rows: TrainingRows, target: np.ndarray, edges: list[Edges]
    ) -> dict[str, Any]:
        """Say how to train on rows: arguments of `Trainer.fit`."""
        from skqos.losses import JointLoss
        from skqos.sharp_qos.hyperbolic import RiemannianAdamW
        from skqos.training import InteractionDataset

        inputs = {"users": rows.user_codes, "services": rows.service_codes}
        if self.disjoint_supervision and self.convolution != "none":
            inputs["edges"] = np.column_stack([found.of_row for found in edges])
        return {
            "criterion": JointLoss(self.loss, target.shape[1], self.task_weighting, self.ema_decay),
            "rows": InteractionDataset(inputs, target, rows.weights),
            "batch_size": self._batch_rows(len(target)),
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
            numbers = tuple(
                NumericContext(table, self.n_members, self.hidden_dim) for table in tables
            )
        widths = 0 if context is None else context.out_dim, self.hidden_dim * (numbers is not None)
        return SharpQoSModule(
            [
                self._qos_graph(data, values, found, graph_ball)
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
            start=_medians(target, data.weights),
        )

    def _context(self, data: TrainingData, ball: PoincareBall | None) -> ContextConvolution | None:
        """Context graphs, their features by autoencoder."""
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
        """One graph per categorical column, or one of them all."""
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
        self, data: TrainingData, values: np.ndarray, edges: Edges, ball: PoincareBall | None
    ) -> QoSGraph:
        """Graph of one target; features of its nodes by NMF of the observed values."""
        from skqos.sharp_qos.module import QoSGraph

        observed = ~np.isnan(values)
        # NMF needs values that are not negative; targets of any sign may be transformed ones.
        shifted = values[observed] - min(values[observed].min(), 0.0)
        matrix = interaction_matrix(
            data.user_codes[observed],
            data.service_codes[observed],
            shifted,
            data.shape,
            data.weights[observed],
        )
        return QoSGraph(
            self._graph_of(edges, data.shape),
            np.concatenate(nonnegative_factors(matrix, self.n_factors, data.seed)),
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
        )

    def _graph_of(self, edges: Edges, shape: tuple[int, int]) -> BipartiteGraph:
        from skqos.graphs import BipartiteGraph

        return BipartiteGraph(
            edges.users,
            edges.services,
            *shape,
            values=edges.values if self.edge_values == "quantile" else None,
            normalization=self.normalization,
        )

    def _batch_rows(self, n_rows: int) -> int:
        """Rows per step; "auto" bounds the number of steps, whose cost grows with the graph."""
        if self.batch_size == "auto":
            return max(MIN_BATCH_SIZE, -(-n_rows // MAX_STEPS_PER_EPOCH))
        return self.batch_size


def _medians(target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of each target over the rows in which it was observed."""
    observed = ~np.isnan(target)
    return np.array(
        [
            weighted_median(values[rows], weights[rows])
            for values, rows in zip(target.T, observed.T, strict=True)
        ]
    )


def _distinct_pairs(
    rows: TrainingRows, target: np.ndarray, graph: BipartiteGraph | None = None
) -> Edges:
    """Join the pairs of observed rows, beside those that an earlier graph joins.

    A pair that is measured again has the new value.
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
    weights = rows.weights[observed]
    total = np.bincount(found, weights, len(distinct))
    sums = np.bincount(found, weights * target[observed], len(distinct))
    np.divide(sums, total, out=values, where=total > 0)
    of_row = np.full(len(observed), -1)
    of_row[observed] = found
    return Edges(*np.divmod(distinct, n_services), values, of_row)
