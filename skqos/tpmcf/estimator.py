"""TPMCF as a scikit-learn regressor: node features, GCMF, sequences, encoder, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skqos._arrays import sorted_unique
from skqos._sklearn_compat import Interval, StrOptions
from skqos.base import BaseQoSRegressor, TrainingData
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

LOSS_NAMES = ("cauchy", "absolute_error", "squared_error", "huber")


class TPMCFRegressor(BaseQoSRegressor):
    """PLACEHOLDER."""

    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "features": FAMILIES,
        "n_factors": 100,
        "similarity_dim": 50,
        "similarity": "autoencoder",
        "autoencoder_epochs": 500,
        "n_folds": None,
        "gcmf_dim": 64,
        "step_weights": "own",
        "self_loops": "normalised",
        "gcmf_epochs": 1000,
        "gcmf_learning_rate": 1e-3,
        "gcmf_loss_scale": 0.5,
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
        "initial_features": ["boolean"],
        "entity_dim": [Interval(Integral, 1, None, closed="left"), None],
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
        user_features: Sequence[str | int] | None = None,
        service_features: Sequence[str | int] | None = None,
        features: Sequence[str] = FAMILIES,
        n_factors: int = 16,
        similarity_dim: int = 16,
        similarity: str = "factors",
        autoencoder_epochs: int = 20,
        n_folds: int | None = 5,
        modules: str = "both",
        gcmf_dim: int = 32,
        step_weights: str = "shared",
        self_loops: str = "whole",
        gcmf_epochs: int = 40,
        gcmf_learning_rate: float = 1e-2,
        gcmf_loss_scale: float = 0.25,
        initial_features: bool = True,
        entity_dim: int | None = 32,
        window: int = 8,
        token_dim: int | None = 32,
        temporal: str = "transformer",
        n_blocks: int = 1,
        n_heads: int = 2,
        head_dim: int = 16,
        convolution: str = "time",
        n_filters: int = 64,
        dropout: float = 0.0,
        pooling: str = "max",
        step_encoding: bool = True,
        target_features: bool = True,
        hidden_sizes: Sequence[int] = (256, 128),
        entity_dropout: float = 0.0,
        newcomer_share: float = 0.05,
        forecast_share: float = 0.1,
        target_steps: Sequence[int] | str | None = None,
        loss: str = "absolute_error",
        loss_scale: float = 0.25,
        target_transform: str | None = "auto",
        max_epochs: int = 12,
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int = 512,
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
        self.initial_features = initial_features
        self.entity_dim = entity_dim
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
            Attention of the step on the fourth axis to that on the fifth, which sums to 1. Both
            are in the order of time: the last is the row's own step, or, if training has not seen
            that, the last before it. 0 for attention to steps before the first.

        Raises
        ------
        AttributeError
            If there is no transformer (`temporal` or `modules` is set otherwise).
        """
        from skqos.prediction import predict_interactions, resolve_device

        check_is_fitted(self)
        if self.modules == "gcmf" or self.temporal != "transformer":
            raise AttributeError(
                f"modules={self.modules!r} with temporal={self.temporal!r} has no attention; "
                "attention_weights needs modules='both' or 'pte', and temporal='transformer'."
            )
        device = resolve_device(self.device)
        module = self.module_.to(device)
        return predict_interactions(
            module, self._interactions(X), device, score=module.attention_weights
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        return tags

    def _check_parameters(self) -> None:
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
            steps, data.user_codes, data.service_codes, data.target, (len(times), *data.shape)
        )
        folds = draw_folds(len(cells), self.n_folds, np.random.RandomState(data.seed))
        rows = {
            "users": data.user_codes,
            "services": data.service_codes,
            "steps": steps,
            "tables": folds[cell_of_row],
        }
        targets = self._target_rows(data.times)
        validation = None if data.validation is None else ValidationDataset(*data.validation)
        initial = self._initial_features(data, cells, folds)
        nets = {}
        if self.modules != "pte":
            gcmf = self._build_gcmf(times, cells, folds, initial, data)
            stage = "gcmf" if self.modules == "both" else "final"
            nets[stage] = self._train_gcmf(gcmf, rows, data.target, trainer, validation, stage)
        if self.modules != "gcmf":
            features = self._sequence_features(initial, nets.get("gcmf"))
            module = self._build_module(times, features, data)
            nets["final"] = self._train_module(
                module, rows, data.target, targets, trainer, validation
            )
        return nets, {}

    def _target_rows(self, times: np.ndarray) -> np.ndarray:
        """Training rows that the PTE learns to predict."""
        if self.target_steps is None:
            return np.arange(len(times))
        wanted = times.max() if isinstance(self.target_steps, str) else self.target_steps
        rows = np.flatnonzero(np.isin(times, wanted))
        if len(rows) == 0:
            raise ValueError(
                f"target_steps={self.target_steps!r}: no training row is at one of these steps; "
                f"those of X are from {times.min()} to {times.max()}."
            )
        return rows

    def _initial_features(self, data: TrainingData, cells: StepCells, folds: np.ndarray) -> Sides:
        """Features of the nodes without the cells of each fold (F_0)."""
        families = self._families(data.seed)
        features = NodeFeatures([families[name] for name in self.features]).fit(cells)
        return without_folds(features.transform, cells, folds, self.n_folds)

    def _families(self, seed: int) -> dict[str, Family]:
        similarity = SimilarityFactors(self.similarity_dim, seed)
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
            hidden_dim=self.gcmf_dim,
            own_weights=self.step_weights == "own",
            whole_self=self.self_loops == "whole",
            start=np.median(data.target),
        )

    def _train_gcmf(
        self,
        gcmf: GCMF,
        rows: dict[str, np.ndarray],
        target: np.ndarray,
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
            InteractionDataset(rows, target, one_per_batch="tables"),
            validation,
            stage=stage,
            max_epochs=self.gcmf_epochs,
            batch_size=len(target),
            learning_rate=self.gcmf_learning_rate,
        )

    def _sequence_features(self, initial: Sides, gcmf: QoSNet | None) -> TensorSides:
        """Features of the nodes in the sequences: embeddings, initial features, or both."""
        import torch

        from skqos.tpmcf.gcmf import standardise

        parts = []
        if gcmf is None or self.initial_features:
            parts.append([torch.as_tensor(side) for side in initial])
        if gcmf is not None:
            parts.append([standardise(side) for side in gcmf.module_.embed_all()])
            gcmf.module_.freeze()
        return [torch.cat(side, dim=3) for side in zip(*parts, strict=True)]

    def _build_module(
        self, times: np.ndarray, features: TensorSides, data: TrainingData
    ) -> TPMCFModule:
        from skqos.embeddings import FeatureEmbedding
        from skqos.tpmcf.module import TPMCFModule

        vectors = None
        if self.entity_dim is not None:
            vectors = [
                FeatureEmbedding(side.table_, side.n_categories, self.entity_dim)
                for side in (data.users, data.services)
            ]
        token_dim = self.token_dim
        if token_dim is None:
            token_dim = sum(side.shape[-1] for side in features)
        return TPMCFModule(
            times,
            features,
            vectors,
            self._build_encoder(token_dim),
            token_dim=self.token_dim,
            window=self.window,
            hidden_sizes=self.hidden_sizes,
            pooling=self.pooling,
            step_encoding=self.step_encoding,
            target_features=self.target_features,
            vector_dropout=self.entity_dropout,
            newcomer_share=self.newcomer_share,
            forecast_share=self.forecast_share,
            start=np.median(data.target),
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
            return RecurrentEncoder(self.temporal, dim, self.n_blocks)
        make_convolution, width = {
            "time": (TimeConvolution, dim),
            "paper": (FeatureConvolution, self.window),
        }[self.convolution]
        return TransformerEncoder(
            [
                EncoderBlock(
                    dim,
                    self.n_heads,
                    self.head_dim,
                    make_convolution(width, self.n_filters, self.dropout),
                )
                for _ in range(self.n_blocks)
            ]
        )

    def _train_module(
        self,
        module: TPMCFModule,
        rows: dict[str, np.ndarray],
        target: np.ndarray,
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
                {name: codes[targets] for name, codes in rows.items()}, target[targets]
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
