"""SA-MoE as a scikit-learn regressor: the stages of its training, in the paper's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from sklearn.utils.validation import check_consistent_length

from skqos._sklearn_compat import Interval, StrOptions
from skqos.base import BaseQoSRegressor, TrainingData
from skqos.entities import Interactions
from skqos.factorization import interaction_matrix, truncated_svd
from skqos.sa_moe.augmentation import count_cells, sample_unobserved

if TYPE_CHECKING:
    from skqos.sa_moe.module import SAMoEModule
    from skqos.training import QoSNet, Trainer

EXPERTS = ("attention", "lhuc", "mlp")


@dataclass(frozen=True)
class Cells:
    """Cells of the interaction matrix and what they hold, in units of the transformed target."""

    users: np.ndarray
    services: np.ndarray
    values: np.ndarray

    def __add__(self, other: Cells) -> Cells:
        return Cells(
            np.concatenate([self.users, other.users]),
            np.concatenate([self.services, other.services]),
            np.concatenate([self.values, other.values]),
        )


class SAMoERegressor(BaseQoSRegressor):
    PAPER_PARAMS: ClassVar[dict[str, Any]] = {}

    _parameter_constraints: dict = {
        **BaseQoSRegressor._parameter_constraints,
        "n_factors": [Interval(Integral, 0, None, closed="left")],
        "fill_value": [StrOptions({"mean", "zero"})],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "tower_dim": [Interval(Integral, 1, None, closed="left")],
        "mlp_hidden_sizes": ["array-like"],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "experts": ["array-like"],
        "refill_ratio": [Interval(Real, 0, None, closed="left")],
        "pseudo_label_ratio": [Interval(Real, 0, None, closed="left")],
        "ratio_unit": [StrOptions({"observed", "missing"})],
        "first_stage_epochs": [Interval(Integral, 1, None, closed="left")],
        "second_stage_batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "loss": [StrOptions({"absolute_error", "squared_error", "huber"})],
    }

    def __init__(
        self,
        *,
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        n_factors: int = 32,
        fill_value: str = "mean",
        embedding_dim: int = 32,
        tower_dim: int = 128,
        mlp_hidden_sizes: Sequence[int] = (256, 128),
        n_heads: int = 2,
        attention_dropout: float = 0.5,
        dropout: float = 0.3,
        experts: Sequence[str] = EXPERTS,
        refill_ratio: float = 1.0,
        pseudo_label_ratio: float = 1.0,
        ratio_unit: str = "observed",
        first_stage_epochs: int = 20,
        max_epochs: int = 20,
        loss: str = "absolute_error",
        target_transform: str | None = "auto",
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int = 256,
        second_stage_batch_size: int | None = None,
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
        self.fill_value = fill_value
        self.embedding_dim = embedding_dim
        self.tower_dim = tower_dim
        self.mlp_hidden_sizes = mlp_hidden_sizes
        self.n_heads = n_heads
        self.attention_dropout = attention_dropout
        self.dropout = dropout
        self.experts = experts
        self.refill_ratio = refill_ratio
        self.pseudo_label_ratio = pseudo_label_ratio
        self.ratio_unit = ratio_unit
        self.first_stage_epochs = first_stage_epochs
        self.max_epochs = max_epochs
        self.loss = loss
        self.target_transform = target_transform
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.learning_rate_schedule = learning_rate_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.second_stage_batch_size = second_stage_batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def expert_shares(self, X: Any, y: Any) -> pd.DataFrame:
        """Tell on which share of given pairs each expert is best, and how the gate weighs them.

        Each expert's output goes through the head alone (figure 2 of the paper).

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Pairs, columns as in `fit`.
        y : array-like of shape (n_samples,)
            What was measured there.

        Returns
        -------
        DataFrame of shape (n_experts, 2)
            Index: the experts. Columns: ``best_share``, the share of pairs on which the expert's
            absolute error is the smallest (ties go to the first), and ``mean_gate_weight``; both
            columns sum to 1.
        """
        from skqos.prediction import predict_interactions, resolve_device

        interactions = self._interactions(X)
        y = self._check_target(y)
        check_consistent_length(interactions.users, y)
        device = resolve_device(self.device)
        module = self.module_.to(device)
        result = predict_interactions(module, interactions, device, score=module.score_experts)
        alone, gate = result[:, 0], result[:, 1]
        predictions = self._target_transform.inverse_transform(alone.ravel()).reshape(alone.shape)
        best = np.abs(predictions - y[:, None]).argmin(axis=1)
        return pd.DataFrame(
            {
                "best_share": np.bincount(best, minlength=len(self.experts)) / len(y),
                "mean_gate_weight": gate.mean(axis=0),
            },
            index=pd.Index(list(self.experts), name="expert"),
        )

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        observed = Cells(data.user_codes, data.service_codes, data.target)
        if self.refill_ratio == 0 and self.pseudo_label_ratio == 0:
            return {"final": self._fit_stage("final", data, trainer, observed, observed)}, {}
        first = self._fit_stage("first", data, trainer, observed, observed)
        rng = np.random.default_rng(data.seed)
        refill = self._predict_cells(first, self.refill_ratio, data, trainer.device, rng)
        pseudo_labels = self._predict_cells(
            first, self.pseudo_label_ratio, data, trainer.device, rng
        )
        final = self._fit_stage("final", data, trainer, observed + refill, observed + pseudo_labels)
        return {"first": first, "final": final}, {}

    def _fit_stage(
        self, stage: str, data: TrainingData, trainer: Trainer, matrix: Cells, rows: Cells
    ) -> QoSNet:
        """Factor a matrix, then train a network on rows from fresh weights."""
        from skqos.losses import ObservedLoss
        from skqos.training import InteractionDataset, ValidationDataset

        is_first = stage == "first"
        return trainer.fit(
            self._build_module(data, *self._factorize(matrix, data)),
            ObservedLoss(self.loss),
            InteractionDataset({"users": rows.users, "services": rows.services}, rows.values),
            None if data.validation is None else ValidationDataset(*data.validation),
            stage=stage,
            max_epochs=self.first_stage_epochs if is_first else self.max_epochs,
        )

    def _factorize(self, matrix: Cells, data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
        """Truncated SVD of a sparse matrix."""
        # Not stored is 0 to the SVD: centred values make that the mean.
        center = data.target.mean() if self.fill_value == "mean" else 0.0
        centred = interaction_matrix(
            matrix.users, matrix.services, matrix.values - center, data.shape
        )
        return truncated_svd(centred, self.n_factors, data.seed)

    def _predict_cells(
        self,
        net: QoSNet,
        ratio: float,
        data: TrainingData,
        device: torch.device,
        rng: np.random.Generator,
    ) -> Cells:
        """Draw unobserved cells of training entities and predict them."""
        from skqos.prediction import predict_interactions

        n_users, n_services = data.shape
        n_observed = interaction_matrix(
            data.user_codes, data.service_codes, data.target, data.shape
        ).nnz
        n_cells = count_cells(ratio, self.ratio_unit, n_observed, n_users * n_services)
        users, services = sample_unobserved(
            data.user_codes, data.service_codes, data.shape, n_cells, rng
        )
        nobody = np.arange(0)
        pairs = Interactions(
            users,
            services,
            times=None,
            new_users=data.users.table_.take(nobody),
            new_services=data.services.table_.take(nobody),
        )
        return Cells(users, services, predict_interactions(net.module_.to(device), pairs, device))

    def _build_module(
        self, data: TrainingData, user_factors: np.ndarray, service_factors: np.ndarray
    ) -> SAMoEModule:
        from skqos.sa_moe.module import EntityTower, SAMoEModule

        towers = [
            EntityTower(
                encoder.table_,
                encoder.n_categories,
                factors,
                self.embedding_dim,
                self.tower_dim,
                self.dropout,
            )
            for encoder, factors in (
                (data.users, user_factors),
                (data.services, service_factors),
            )
        ]
        return SAMoEModule(
            *towers,
            dim=self.tower_dim,
            hidden_sizes=self.mlp_hidden_sizes,
            experts=self.experts,
            n_heads=self.n_heads,
            attention_dropout=self.attention_dropout,
            # tanh never reaches its bounds: the largest target lies a little inside.
            bound=1.05 * float(np.abs(data.target).max()) or 1.0,
        )
