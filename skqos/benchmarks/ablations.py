"""Variants of the four methods in which one part differs from the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.pipeline import make_pipeline

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.benchmarks._split import Split
from skqos.preprocessing import ContextJoiner

DEFAULT = "default"
SETTINGS = {
    "0.025": "wsdream1-{}-0.025",
    "0.01": "wsdream1-{}-0.01",
    "0.005": "wsdream1-{}-0.005",
    "new-users": "wsdream1-{}-new-users",
    "slot-63": "wsdream2-{}-imputation-0.1",
}
STATIC = ("0.025", "0.01", "0.005", "new-users")
# Setting in which parts are run that are not marked as main ones.
FIRST = ("0.025", "slot-63")
SHORT = ("0.025", "0.005", "new-users", "slot-63")
NO_CONTEXT = {"user_features": (), "service_features": ()}
NO_SECOND_STAGE = {"refill_ratio": 0.0, "pseudo_label_ratio": 0.0}


@dataclass(frozen=True)
class Part:
    """A variant of a method.

    Parameters
    ----------
    group : str
        Part of the method that differs, such as "convolution".

    name : str
        Name of the variant, unique in the method.

    params : dict of str to object
        Parameters that differ from those of the reference.

    reference : str
        Name of the variant that this one is compared with.

    main : bool
        Whether it belongs to the parts that are measured in all settings.
    """

    group: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    reference: str = DEFAULT
    main: bool = False


@dataclass(frozen=True)
class Method:
    """A method with its variants.

    Parameters
    ----------
    title : str
        Name of the method.

    estimator : type
        Class of the regressor.

    settings : tuple of str
        Keys of `SETTINGS`.

    qos : tuple of str
        QoS of the splits.

    parts : tuple of Part
        Variants; the first is the default.

    joint : bool
        Whether one fit learns all QoS.
    """

    title: str
    estimator: type
    settings: tuple[str, ...]
    qos: tuple[str, ...]
    parts: tuple[Part, ...]
    joint: bool = False

    def label(self, part: str) -> str:
        """Return the name of a variant in results."""
        return f"{self.title}, {part}"

    def part(self, name: str) -> Part:
        """Return the variant of a name."""
        return next(part for part in self.parts if part.name == name)

    def params(self, part: Part) -> dict[str, Any]:
        """Return all parameters of a variant, with those of its reference."""
        if part.name == DEFAULT:
            return dict(part.params)
        return {**self.params(self.part(part.reference)), **part.params}

    def choose(self, names: Iterable[str] | None, *, only_main: bool = False) -> list[Part]:
        """Return the variants of some groups or names, and their references."""
        wanted = None if names is None else set(names)
        chosen = [
            part
            for part in self.parts
            if (wanted is None or wanted & {part.group, part.name}) and part.main >= only_main
        ]
        needed = {reference for part in chosen for reference in self._references(part)}
        return [part for part in self.parts if part in chosen or part.name in needed]

    def make(self, part: Part, split: Split, **params: Any) -> Any:
        """Create the regressor of a variant, with the context of a split if it has any."""
        model = self.estimator(**{**self.params(part), **params})
        if split.users is None:
            return model
        return make_pipeline(ContextJoiner(split.users, split.services), model)

    def groups(self, setting: str, qos: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the names of the splits of each fit."""
        names = tuple(SETTINGS[setting].format(name) for name in self.qos if name in qos)
        if self.joint:
            return [names] if names else []
        return [(name,) for name in names]

    def _references(self, part: Part) -> Iterator[str]:
        while part.name != DEFAULT:
            yield part.reference
            part = self.part(part.reference)


GRAPH = "valued graph"
SHARP_QOS = Method(
    "SHARP-QoS",
    SharpQoSRegressor,
    STATIC,
    ("rt", "tp"),
    (
        Part("default", DEFAULT, main=True),
        Part("convolution", "GCN", {"convolution": "gcn"}),
        Part("convolution", "HyGCN", {"convolution": "hygcn"}),
        Part("convolution", "HHGCN", {"convolution": "hhgcn"}, main=True),
        Part("convolution", "HyGCN, 1 layer", {"convolution": "hygcn", "n_layers": 1}),
        Part("convolution", "HyGCN, 3 layers", {"convolution": "hygcn", "n_layers": 3}),
        Part(
            "convolution",
            GRAPH,
            {
                "convolution": "hhgcn",
                "edge_values": "sender_quantile",
                "edge_dropout": 0.2,
                "normalization": "row",
            },
            main=True,
        ),
        Part("graph", "... GCN", {"convolution": "gcn"}, GRAPH),
        Part("graph", "... HyGCN", {"convolution": "hygcn"}, GRAPH),
        Part("graph", "... binary edges", {"edge_values": "binary"}, GRAPH),
        Part("graph", "... types of all edges", {"edge_values": "quantile"}, GRAPH),
        Part("graph", "... no edge dropout", {"edge_dropout": 0.0}, GRAPH),
        Part("graph", "... symmetric", {"normalization": "symmetric"}, GRAPH),
        Part("graph", "... context in messages", {"messages": "factors_and_context"}, GRAPH),
        Part("graph", "... factors of 20 folds", {"factor_folds": 20}, GRAPH),
        Part("graph", "... side scales", {"side_scales": True}, GRAPH),
        Part("graph", "... 1 layer", {"n_layers": 1}, GRAPH),
        Part("graph", "... 3 layers", {"n_layers": 3}, GRAPH),
        Part("graph", "HHGCN, edges of targets", {"disjoint_supervision": False}, "HHGCN"),
        Part("routing", "no SNR", {"routing": False}),
        Part("routing", "no Cross-SNR", {"cross_routing": False}),
        Part("routing", "no routing", {"routing": False, "cross_routing": False}, main=True),
        Part("routing", "even gates", {"gate_log_odds": 0.0}),
        Part("weighting", "DWA", {"task_weighting": "dwa"}),
        Part("weighting", "uncertainty", {"task_weighting": "uncertainty"}),
        Part("weighting", "equal", {"task_weighting": "equal"}),
        Part("context", "merged context graphs", {"context_graphs": "merged"}),
        Part("context", "HyGCN of the context", {"context_convolution": "hygcn"}),
        Part("context", "no context", NO_CONTEXT),
        Part("features", "factors of 20 folds", {"factor_folds": 20}),
        Part("features", "fixed features", {"fine_tune_features": False}),
        Part("training", "no newcomers", {"newcomer_share": 0.0}),
        Part("training", "1 member", {"n_members": 1}),
    ),
    joint=True,
)
EXPECTED_LEVEL = {"expected_level": True, "state_shrinkage": 20.0}
R2SL = Method(
    "R2SL",
    R2SLRegressor,
    STATIC,
    ("rt", "tp"),
    (
        Part("default", DEFAULT, main=True),
        Part("states", "no states", {"region_features": ()}, main=True),
        Part("states", "5 states", {"n_states": 5}),
        Part("states", "printed rate", {"rate": "printed"}),
        Part("states", "transformed target", {"state_target": "transformed"}),
        Part("states", "shrinkage", {"state_shrinkage": 20.0}),
        Part("states", "states of rare regions", {"min_region_size": 3}),
        Part("states", "expected level", EXPECTED_LEVEL, main=True),
        Part("regions", "city", {"region_features": ("city",)}),
        Part("regions", "AS", {"region_features": ("as",)}),
        Part("regions", "country, AS, region", {"region_features": ("country", "as", "region")}),
        Part("regions", "no context", NO_CONTEXT),
        Part("network", "no skip connection", {"skip_connection": False}, main=True),
        Part("network", "2 filters", {"n_filters": 2}),
        Part("network", "8 filters", {"n_filters": 8}),
        Part("loss", "E-Huber", {"loss": "e_huber"}),
        Part("loss", "Huber", {"loss": "huber"}),
        Part("loss", "squared error", {"loss": "squared_error"}),
        Part("training", "1 member", {"n_members": 1}),
    ),
)
FRESH = "fresh second stage"
SA_MOE = Method(
    "SA-MoE",
    SAMoERegressor,
    STATIC,
    ("rt", "tp"),
    (
        Part("default", DEFAULT, main=True),
        Part("stages", "no second stage", NO_SECOND_STAGE, main=True),
        Part("stages", "no second stage, 27 epochs", {**NO_SECOND_STAGE, "max_epochs": 27}),
        Part("stages", FRESH, {"second_stage_start": "fresh"}),
        Part("stages", "... independent experts", {"independent_experts": True}, FRESH),
        Part("refill", "factors", {"n_factors": 16}),
        Part("refill", "... fresh", {"second_stage_start": "fresh"}, "factors"),
        Part("refill", "... refill", {"refill_ratio": 1.0}, "... fresh"),
        Part("pseudo-labels", "half as many", {"pseudo_label_ratio": 0.25}),
        Part("pseudo-labels", "twice as many", {"pseudo_label_ratio": 1.0}),
        Part("experts", "no attention", {"experts": ("lhuc", "mlp")}),
        Part("experts", "no LHUC", {"experts": ("attention", "mlp")}),
        Part("experts", "no MLP", {"experts": ("attention", "lhuc")}),
        Part("experts", "attention alone", {"experts": ("attention",)}),
        Part("experts", "LHUC alone", {"experts": ("lhuc",)}),
        Part("experts", "MLP alone", {"experts": ("mlp",)}, main=True),
        Part("network", "no towers", {"tower_dim": None}),
        Part("network", "no context", NO_CONTEXT),
        Part("training", "1 member", {"n_members": 1}),
    ),
)
VALUED = {"gcmf_edges": "quantile", "gcmf_bounded": True}
TPMCF = Method(
    "TPMCF",
    TPMCFRegressor,
    ("slot-63",),
    ("rt",),
    (
        Part("default", DEFAULT, main=True),
        Part("GCMF", "GCMF and PTE", {"modules": "both"}, main=True),
        Part("GCMF", "GCMF alone", {"modules": "gcmf"}, main=True),
        Part("GCMF", "valued GCMF and PTE", {"modules": "both", **VALUED}, main=True),
        Part("GCMF", "valued GCMF alone", VALUED, "GCMF alone", main=True),
        Part("GCMF", "... bounded alone", {"gcmf_bounded": True}, "GCMF alone"),
        Part("GCMF", "... valued alone", {"gcmf_edges": "quantile"}, "GCMF alone"),
        Part("GCMF", "... without features", {"initial_features": False}, "GCMF and PTE"),
        Part("GCMF", "... unbounded", {"bounded_embeddings": False}, "GCMF and PTE"),
        Part("features", "factors", {"features": ("factors",)}),
        Part("features", "similarity", {"features": ("similarity",)}),
        Part("features", "all", {"features": ("statistics", "factors", "similarity")}),
        Part("features", "in-sample", {"n_folds": None}),
        Part("transformer", "GRU", {"temporal": "gru"}, main=True),
        Part("transformer", "LSTM", {"temporal": "lstm"}),
        Part("transformer", "2 blocks", {"n_blocks": 2}),
        Part("transformer", "1 head", {"n_heads": 1}),
        Part("transformer", "no step encoding", {"step_encoding": False}),
        Part("window", "window 1", {"window": 1}, main=True),
        Part("window", "window 8", {"window": 8}),
        Part("window", "steps of both sides", {"window_side": "both"}),
        Part("window", "no pair history", {"pair_history": False}, main=True),
        Part("tokens", "features as tokens", {"token_dim": None}),
        Part("tokens", "no id vectors", {"entity_dim": None}),
        Part("tokens", "no features of the step", {"target_features": False}, main=True),
        Part("training", "no newcomers", {"newcomer_share": 0.0}),
        Part("training", "no forecasts", {"forecast_share": 0.0}),
    ),
)
METHODS = {"sharp_qos": SHARP_QOS, "r2sl": R2SL, "sa_moe": SA_MOE, "tpmcf": TPMCF}
