"""SHARP-QoS as a scikit-learn regressor: features, graphs, network, in the paper's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from skqos._arrays import sorted_unique
from skqos._sklearn_compat import Interval, StrOptions
from skqos.base import BaseQoSRegressor, TrainingData
from skqos.factorization import interaction_matrix, nonnegative_factors
from skqos.metrics import nan_r2_score

if TYPE_CHECKING:
    from skqos.sharp_qos.context import ContextColumn
    from skqos.sharp_qos.hyperbolic import PoincareBall
    from skqos.sharp_qos.module import ContextConvolution, QoSGraph, SharpQoSModule
    from skqos.training import QoSNet, Trainer

LOSS_NAMES = ("absolute_error", "squared_error", "huber")
MIN_BATCH_SIZE = 256
MAX_STEPS_PER_EPOCH = 100


@dataclass(frozen=True)
class Edges:
    """Distinct pairs observed for one target.

    Attributes
    ----------
    users, services : ndarray of int64 of shape (n_edges,)
        Codes.
    of_row : ndarray of int64 of shape (n,)
        Edge of each training row; -1 where the target was not observed.
    """

    users: np.ndarray
    services: np.ndarray
    of_row: np.ndarray


class SharpQoSRegressor(BaseQoSRegressor):
    """XX.

    Examples
    --------
    >>> import numpy as np
    """

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
    }

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "context_dim": [Interval(Integral, 1, None, closed="left")],
        "fine_tune_features": ["boolean"],
        "convolution": [StrOptions({"hhgcn", "hygcn", "gcn", "none"})],
        "n_layers": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "curvature": [Interval(Real, 0, None, closed="neither")],
        "learn_curvature": ["boolean"],
        "context_graphs": [StrOptions({"separate", "merged"})],
        "n_context_layers": [Interval(Integral, 1, None, closed="left")],
        "routing": ["boolean"],
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "cross_routing": ["boolean"],
        "n_cross_blocks": [Interval(Integral, 1, None, closed="left")],
        "gate_temperature": [Interval(Real, 0, None, closed="neither")],
        "l0_penalty": [Interval(Real, 0, None, closed="left")],
        "routed_dim": [Interval(Integral, 1, None, closed="left")],
        "output_dim": [Interval(Integral, 1, None, closed="left")],
        "feature_dropout": [Interval(Real, 0, 1, closed="left")],
        "context_dropout": [Interval(Real, 0, 1, closed="left")],
        "disjoint_supervision": ["boolean"],
        "task_weighting": [StrOptions({"ema", "dwa", "uncertainty", "equal"})],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "loss": [StrOptions(set(LOSS_NAMES))],
        "batch_size": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        n_factors: int = 64,
        context_dim: int = 32,
        fine_tune_features: bool = True,
        convolution: str = "hhgcn",
        n_layers: int = 2,
        hidden_dim: int = 64,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        context_graphs: str = "separate",
        n_context_layers: int = 1,
        routing: bool = True,
        n_blocks: int = 4,
        cross_routing: bool = True,
        n_cross_blocks: int = 4,
        gate_temperature: float = 2 / 3,
        l0_penalty: float = 1e-5,
        routed_dim: int = 128,
        output_dim: int = 128,
        feature_dropout: float = 0.4,
        context_dropout: float = 0.3,
        disjoint_supervision: bool = True,
        task_weighting: str = "ema",
        ema_decay: float = 0.99,
        loss: str = "absolute_error",
        target_transform: str | None = "auto",
        max_epochs: int = 20,
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int | str = "auto",
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
        self.n_factors = n_factors
        self.context_dim = context_dim
        self.fine_tune_features = fine_tune_features
        self.convolution = convolution
        self.n_layers = n_layers
        self.hidden_dim = hidden_dim
        self.curvature = curvature
        self.learn_curvature = learn_curvature
        self.context_graphs = context_graphs
        self.n_context_layers = n_context_layers
        self.routing = routing
        self.n_blocks = n_blocks
        self.cross_routing = cross_routing
        self.n_cross_blocks = n_cross_blocks
        self.gate_temperature = gate_temperature
        self.l0_penalty = l0_penalty
        self.routed_dim = routed_dim
        self.output_dim = output_dim
        self.feature_dropout = feature_dropout
        self.context_dropout = context_dropout
        self.disjoint_supervision = disjoint_supervision
        self.task_weighting = task_weighting
        self.ema_decay = ema_decay
        self.loss = loss
        self.target_transform = target_transform
        self.max_epochs = max_epochs
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def score(self, X: Any, y: Any) -> float:
        """Return R2 over observed entries, averaged over the targets that have any.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Measured QoS; NaN where nothing was observed.

        Returns
        -------
        float
            1.0 is best.

        Raises
        ------
        ValueError
            If no target has an observation.
        """
        return nan_r2_score(y, self.predict(X))

    @property
    def gate_probabilities_(self) -> dict[str, np.ndarray]:
        """Probability that each gate is open.

        ``"snr"`` has shape (n_targets, n_blocks), ``"cross_snr"`` (n_targets, n_targets,
        n_cross_blocks): of a target, for the features of another; 0 for its own. A routing that
        takes no part is missing.
        """
        check_is_fitted(self)
        probabilities = self.module_.gate_probabilities()
        return {name: p.detach().numpy() for name, p in probabilities.items()}

    @property
    def active_shares_(self) -> pd.DataFrame:
        """Share of each target's gates that are not 0 at prediction.

        One row a target, one column a routing that takes part.
        """
        check_is_fitted(self)
        return pd.DataFrame(self.module_.active_shares()).rename_axis("target")

    def _check_target(self, y: Any) -> np.ndarray:
        shape = np.shape(y)
        if y is None or len(shape) < 2:
            return super()._check_target(y)
        columns = getattr(y, "columns", range(shape[1]))
        y = check_array(
            y, dtype=np.float64, ensure_all_finite=False, input_name="y", estimator=self
        )
        for k, (name, values) in enumerate(zip(columns, y.T, strict=True)):
            if np.isinf(values).any():
                row = int(np.flatnonzero(np.isinf(values))[0])
                raise ValueError(
                    f"y, column {k} ({name}): row {row} is {values[row]} (infinity); give a finite "
                    "value, or NaN for what was not observed."
                )
            if np.isnan(values).all():
                raise ValueError(
                    f"y, column {k} ({name}) is NaN in every row; a target needs an observation. "
                    "Leave the column out."
                )
        return y

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.losses import JointLoss
        from skqos.sharp_qos.hyperbolic import RiemannianAdamW
        from skqos.training import InteractionDataset, ValidationDataset

        target = data.target.reshape(len(data.target), -1)
        n_tasks = target.shape[1]
        edges = [_distinct_pairs(data, ~np.isnan(column)) for column in target.T]
        inputs = {"users": data.user_codes, "services": data.service_codes}
        if self.disjoint_supervision and self.convolution != "none":
            inputs["edges"] = np.column_stack([found.of_row for found in edges])
        validation = None
        if data.validation is not None:
            interactions, held_out = data.validation
            validation = ValidationDataset(interactions, held_out.reshape(len(held_out), n_tasks))
        net = trainer.fit(
            self._build_module(data, target, edges),
            JointLoss(self.loss, n_tasks, self.task_weighting, self.ema_decay),
            InteractionDataset(inputs, target),
            validation,
            stage="final",
            max_epochs=self.max_epochs,
            batch_size=self._batch_rows(len(target)),
            optimizer=RiemannianAdamW,
        )
        return {"final": net}, {}

    def _build_module(
        self, data: TrainingData, target: np.ndarray, edges: list[Edges]
    ) -> SharpQoSModule:
        from skqos.sharp_qos.hyperbolic import PoincareBall
        from skqos.sharp_qos.module import NumericContext, SharpQoSModule

        ball = None
        if self.convolution in ("hhgcn", "hygcn"):
            ball = PoincareBall(c=float(self.curvature), learnable=self.learn_curvature)
        context_graphs = self._context_graphs(data, ball)
        tables = data.users.table_, data.services.table_
        numbers = None
        if any(table.numerics.shape[1] for table in tables):
            numbers = tuple(NumericContext(table, self.hidden_dim) for table in tables)
        return SharpQoSModule(
            [
                self._qos_graph(data, values, found, ball)
                for values, found in zip(target.T, edges, strict=True)
            ],
            context_graphs,
            numbers,
            n_users=data.users.n_entities,
            context_dim=self.hidden_dim * (len(context_graphs) + (numbers is not None)),
            hidden_dim=self.routed_dim,
            out_dim=self.output_dim,
            routing=self.routing,
            cross_routing=self.cross_routing,
            n_blocks=self.n_blocks,
            n_cross_blocks=self.n_cross_blocks,
            gate_temperature=self.gate_temperature,
            l0_penalty=self.l0_penalty,
            context_dropout=self.context_dropout,
            start=np.nanmedian(target, axis=0),
        )

    def _context_graphs(
        self, data: TrainingData, ball: PoincareBall | None
    ) -> list[ContextConvolution]:
        """One graph per categorical column, or one of them all; features by autoencoder."""
        from skqos.sharp_qos.context import match_columns
        from skqos.sharp_qos.module import ContextConvolution

        columns = match_columns(data.users, data.services)
        if self.context_graphs == "separate" or not columns:
            of_graph = [[column] for column in columns]
        else:
            of_graph = [columns]
        return [
            ContextConvolution(
                members,
                [self._context_features(column, data) for column in members],
                data.users.table_,
                data.services.table_,
                self.hidden_dim,
                self.n_context_layers,
                ball,
                self.fine_tune_features,
            )
            for members in of_graph
        ]

    def _context_features(self, column: ContextColumn, data: TrainingData) -> np.ndarray:
        from skqos.sharp_qos.context import autoencode

        codes = np.concatenate(
            [column.user_codes(data.users.table_), column.service_codes(data.services.table_)]
        )
        counts = np.bincount(codes[codes >= 0], minlength=len(column.groups))
        return autoencode(counts, self.context_dim)

    def _qos_graph(
        self, data: TrainingData, values: np.ndarray, edges: Edges, ball: PoincareBall | None
    ) -> QoSGraph:
        """Graph of one target; features of its nodes by NMF of the observed values."""
        from skqos.graphs import BipartiteGraph
        from skqos.sharp_qos.module import QoSGraph

        observed = ~np.isnan(values)
        # NMF needs values that are not negative; targets of any sign may be transformed ones.
        shifted = values[observed] - min(values[observed].min(), 0.0)
        matrix = interaction_matrix(
            data.user_codes[observed], data.service_codes[observed], shifted, data.shape
        )
        return QoSGraph(
            BipartiteGraph(edges.users, edges.services, *data.shape),
            np.concatenate(nonnegative_factors(matrix, self.n_factors, data.seed)),
            self.hidden_dim,
            self.n_layers,
            self.convolution,
            ball,
            self.feature_dropout,
            self.fine_tune_features,
        )

    def _batch_rows(self, n_rows: int) -> int:
        """Rows per step; "auto" bounds the number of steps, whose cost grows with the graph."""
        if self.batch_size == "auto":
            return max(MIN_BATCH_SIZE, -(-n_rows // MAX_STEPS_PER_EPOCH))
        return self.batch_size


def _distinct_pairs(data: TrainingData, observed: np.ndarray) -> Edges:
    n_services = data.services.n_entities
    cells = data.user_codes[observed] * n_services + data.service_codes[observed]
    distinct = sorted_unique(cells)
    of_row = np.full(len(observed), -1)
    of_row[observed] = np.searchsorted(distinct, cells)
    return Edges(*np.divmod(distinct, n_services), of_row)
