"""Parameters of TPMCF: allowed values, when they have no effect, and those of the paper."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, get_args

from skqos._parameters import SwitchedOff, lacks
from skqos._sklearn_compat import Interval, StrOptions
from skqos._times import DURATION_TYPES
from skqos._types import LossName
from skqos.tpmcf.features import FAMILIES

GCMF_PARAMETERS = (
    *("gcmf_dim", "gcmf_weights", "self_loops", "gcmf_edges", "gcmf_bounded", "gcmf_epochs"),
    *("gcmf_edge_dropout", "gcmf_normalization", "gcmf_side_scales"),
    *("gcmf_learning_rate", "gcmf_loss_scale"),
)
# Parameters of the sequences of embeddings, and of the stage that trains the embeddings.
JOINED_PARAMETERS = ("gcmf_joint", "bounded_embeddings", "initial_features")
GCMF_STAGE_PARAMETERS = ("gcmf_learning_rate", "gcmf_loss_scale", "gcmf_bounded")
TRANSFORMER_PARAMETERS = ("n_heads", "head_dim", "convolution", "n_filters", "dropout")
PTE_PARAMETERS = (
    *("entity_dim", "window", "window_side", "token_dim", "temporal", "n_blocks", "pooling"),
    *(
        "step_encoding",
        "target_features",
        "pair_history",
        "hidden_sizes",
        "entity_dropout",
        "newcomer_share",
    ),
    *("forecast_share", "max_horizon", "target_steps", "loss_scale", "max_epochs"),
    "partial_fit_epochs",
)
TemporalLossName: TypeAlias = Literal["cauchy", LossName]

PAPER_PARAMS: dict[str, Any] = {
    "n_members": 1,
    "features": FAMILIES,
    "n_factors": 100,
    "similarity_dim": 50,
    "similarity": "autoencoder",
    "autoencoder_epochs": 500,
    "n_folds": None,
    "modules": "both",
    "gcmf_dim": 64,
    "gcmf_weights": "own",
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
    "pair_history": False,
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

SWITCHED_OFF = (
    SwitchedOff(GCMF_PARAMETERS, {"modules": ("pte",)}),
    SwitchedOff(JOINED_PARAMETERS, {"modules": ("pte", "gcmf")}),
    SwitchedOff(GCMF_STAGE_PARAMETERS, {"gcmf_epochs": (0,)}),
    SwitchedOff((*PTE_PARAMETERS, *TRANSFORMER_PARAMETERS), {"modules": ("gcmf",)}),
    SwitchedOff(("learning_rate", "batch_size"), {"modules": ("gcmf",)}),
    SwitchedOff(TRANSFORMER_PARAMETERS, {"temporal": ("gru", "lstm")}),
    SwitchedOff(("window_side",), {"window": (1,)}),
    SwitchedOff(("entity_dropout",), {"entity_dim": (None,)}),
    # It also bounds distances to later steps.
    SwitchedOff(("max_horizon",), {"forecast_share": (0,), "window_side": ("past",)}),
    SwitchedOff(("max_horizon",), {"forecast_share": (0,), "window": (1,)}),
    SwitchedOff(("self_loops",), {"gcmf_edges": ("quantile",)}),
    SwitchedOff(("n_factors",), {"features": lacks("factors")}),
    SwitchedOff(
        ("similarity_dim", "similarity", "autoencoder_epochs"), {"features": lacks("similarity")}
    ),
    SwitchedOff(("autoencoder_epochs",), {"similarity": ("factors",)}),
    SwitchedOff(("loss_scale", "gcmf_loss_scale"), {"loss": ("absolute_error", "squared_error")}),
)

CONSTRAINTS: dict[str, list[Any]] = {
    "features": ["array-like"],
    "n_factors": [Interval(Integral, 1, None, closed="left")],
    "similarity_dim": [Interval(Integral, 1, None, closed="left")],
    "similarity": [StrOptions({"factors", "autoencoder"})],
    "autoencoder_epochs": [Interval(Integral, 1, None, closed="left")],
    "n_folds": [Interval(Integral, 2, None, closed="left"), None],
    "modules": [StrOptions({"both", "gcmf", "pte"})],
    "gcmf_dim": [Interval(Integral, 1, None, closed="left")],
    "gcmf_weights": [StrOptions({"shared", "own"})],
    "self_loops": [StrOptions({"whole", "normalised"})],
    "gcmf_edges": [StrOptions({"binary", "quantile"})],
    "gcmf_bounded": ["boolean"],
    "gcmf_edge_dropout": [Interval(Real, 0, 1, closed="left")],
    "gcmf_normalization": [StrOptions({"symmetric", "row"})],
    "gcmf_side_scales": ["boolean"],
    "gcmf_epochs": [Interval(Integral, 0, None, closed="left")],
    "gcmf_learning_rate": [Interval(Real, 0, None, closed="neither")],
    "gcmf_loss_scale": [Interval(Real, 0, None, closed="neither")],
    "gcmf_joint": ["boolean"],
    "bounded_embeddings": ["boolean"],
    "initial_features": ["boolean"],
    "entity_dim": [Interval(Integral, 1, None, closed="left"), None],
    "time_step": [*DURATION_TYPES, None],
    "window": [Interval(Integral, 1, None, closed="left")],
    "window_side": [StrOptions({"past", "both"})],
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
    "pair_history": ["boolean"],
    "hidden_sizes": ["array-like"],
    "entity_dropout": [Interval(Real, 0, 1, closed="left")],
    "newcomer_share": [Interval(Real, 0, 1, closed="left")],
    "forecast_share": [Interval(Real, 0, 1, closed="left")],
    "max_horizon": [Interval(Integral, 1, None, closed="left")],
    "target_steps": ["array-like", StrOptions({"last"}), None],
    "loss": [StrOptions(set(get_args(TemporalLossName)))],
    "loss_scale": [Interval(Real, 0, None, closed="neither")],
}
