"""R2SL as a scikit-learn regressor: latent states of regions, then one network."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from skqos._sklearn_compat import Interval, StrOptions
from skqos.base import BaseQoSRegressor, TrainingData
from skqos.entities import EntityEncoder
from skqos.r2sl.latent_states import RegionalLatentStates

if TYPE_CHECKING:
    from skqos.r2sl.module import R2SLModule
    from skqos.training import QoSNet, Trainer

LOSS_NAMES = ("absolute_error", "squared_error", "huber", "e_huber", "e_huber_printed")


class R2SLRegressor(BaseQoSRegressor):
    PAPER_PARAMS: ClassVar[dict[str, Any]] = {
        "region_features": ("city", "as"),
        "n_states": 5,
        "concentration": 5.0,
        "rate": "printed",
        "slow_quantile": 0.951,
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
        **BaseQoSRegressor._parameter_constraints,
        **{
            name: RegionalLatentStates._parameter_constraints[name]
            for name in ("n_states", "concentration", "rate", "slow_quantile")
        },
        "region_features": ["array-like", None],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "n_filters": [Interval(Integral, 1, None, closed="left")],
        "hidden_size": [Interval(Integral, 4, None, closed="left")],
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
        n_states: int = 5,
        concentration: float = 1.0,
        rate: str = "matched",
        slow_quantile: float = 0.9,
        embedding_dim: int = 32,
        input_dropout: float = 0.3,
        n_filters: int = 4,
        hidden_size: int = 256,
        loss: str = "absolute_error",
        loss_threshold: float = 0.5,
        tail_weight: float = 0.05,
        max_epochs: int = 20,
        target_transform: str | None = "auto",
        optimizer: str = "adamw",
        learning_rate: float = 3e-3,
        learning_rate_schedule: str = "one_cycle",
        weight_decay: float = 0.05,
        batch_size: int = 256,
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
        self.region_features = region_features
        self.n_states = n_states
        self.concentration = concentration
        self.rate = rate
        self.slow_quantile = slow_quantile
        self.embedding_dim = embedding_dim
        self.input_dropout = input_dropout
        self.n_filters = n_filters
        self.hidden_size = hidden_size
        self.loss = loss
        self.loss_threshold = loss_threshold
        self.tail_weight = tail_weight
        self.max_epochs = max_epochs
        self.target_transform = target_transform
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

    def _fit_networks(
        self, data: TrainingData, trainer: Trainer
    ) -> tuple[dict[str, QoSNet], dict[str, Any]]:
        from skqos.losses import ObservedLoss
        from skqos.training import InteractionDataset, ValidationDataset

        models = {
            kind: self._fit_states(data, columns)
            for kind, columns in self._region_columns(data).items()
        }
        constants = {
            "huber": {"threshold": self.loss_threshold},
            "e_huber": {"threshold": self.loss_threshold, "tail_weight": self.tail_weight},
        }
        constants["e_huber_printed"] = constants["e_huber"]
        net = trainer.fit(
            self._build_module(data, models),
            ObservedLoss(self.loss, **constants.get(self.loss, {})),
            InteractionDataset(
                {"users": data.user_codes, "services": data.service_codes}, data.target
            ),
            None if data.validation is None else ValidationDataset(*data.validation),
            stage="final",
            max_epochs=self.max_epochs,
        )
        return {"final": net}, {
            "latent_state_models_": models,
            "region_features_": list(models),
        }

    def _region_columns(self, data: TrainingData) -> dict[str, tuple[int, int]]:
        """Find the categorical columns of users and services for each kind of region."""
        users, services = (
            {
                name.removeprefix(prefix): position
                for position, name in enumerate(encoder.categorical_)
                if isinstance(name, str) and name.startswith(prefix)
            }
            for encoder, prefix in ((data.users, "user_"), (data.services, "service_"))
        )
        found = [kind for kind in users if kind in services]
        kinds = found if self.region_features is None else list(self.region_features)
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
        return model.fit(*regions, _positive(data.y))

    def _build_module(
        self, data: TrainingData, models: dict[str, RegionalLatentStates]
    ) -> R2SLModule:
        from skqos.r2sl.module import EntityRows, R2SLModule

        columns = self._region_columns(data)
        shares = {
            kind: _shares_by_code(model, data, columns[kind]) for kind, model in models.items()
        }
        sides = [
            EntityRows(
                encoder.table_,
                encoder.n_categories,
                [(columns[kind][side], shares[kind][side]) for kind in models],
                self.n_states,
                self.embedding_dim,
                self.input_dropout,
            )
            for side, encoder in enumerate((data.users, data.services))
        ]
        return R2SLModule(*sides, n_filters=self.n_filters, hidden_size=self.hidden_size)


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


def _positive(y: np.ndarray) -> np.ndarray:
    """Shift a target that is not positive, as the exponential model needs."""
    lowest = y.min()
    if lowest > 0:
        return y
    shifted = y - lowest
    # Of the order of small values, so that the lowest is not infinitely far in ratio.
    return shifted + (1e-3 * shifted.mean() or 1.0)
