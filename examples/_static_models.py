"""The models of `benchmark_static.py`, by the names of its tables.

A model is made from the context, the QoS (None for all at once) and a seed. Ours get nothing that
depends on the QoS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from embedding_mlp import EmbeddingMLP
from sklearn.ensemble import VotingRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor
from skqos.baselines import EmbeddingMLPRegressor, MedianRegressor
from skqos.benchmarks import peers
from skqos.benchmarks.peers import context_codes
from skqos.preprocessing import ContextJoiner

Factory = Callable[[Bunch, str | None, int], object]

KINDS = ["country", "continent", "as", "region", "city", "subnet"]
# Context and kinds of region of the R2SL paper.
R2SL_CONTEXT = ["as", "city", "latitude", "longitude"]
# Weight of the user side in the published figures.
UIPCC_USER_WEIGHT = {"rt": 0.1, "tp": 0.9}
NO_AUGMENTATION = {"refill_ratio": 0, "pseudo_label_ratio": 0}
ABLATION_EPOCHS = 15
SHARP_ABLATIONS = {
    "15 epochs": {},
    "GCN": {"convolution": "gcn"},
    "HyGCN": {"convolution": "hygcn"},
    "HHGCN": {"convolution": "hhgcn"},
    "merged context": {"context_graphs": "merged"},
    "no SNR": {"routing": False},
    "no Cross-SNR": {"cross_routing": False},
    "head alone": {"routing": False, "cross_routing": False},
    "even gates": {"gate_log_odds": 0.0},
    "1 member": {"n_members": 1},
    "DWA": {"task_weighting": "dwa"},
    "uncertainty": {"task_weighting": "uncertainty"},
    "equal": {"task_weighting": "equal"},
    "messages from targets": {"convolution": "hhgcn", "disjoint_supervision": False},
    "no newcomers": {"newcomer_share": 0.0},
    "fixed features": {"fine_tune_features": False},
}


def with_context(data: Bunch, regressor: object) -> Pipeline:
    """Give a regressor all context."""
    return make_pipeline(ContextJoiner(data.users, data.services), regressor)


def ours(estimator: type, **params: object) -> Factory:
    """Make a regressor of ours on the context."""

    def make(data: Bunch, qos: str | None, seed: int) -> Pipeline:  # noqa: ARG001
        return with_context(data, estimator(random_state=seed, device="cpu", **params))

    return make


sa_moe = partial(ours, SAMoERegressor)
r2sl = partial(ours, R2SLRegressor)
sharp_qos = partial(ours, SharpQoSRegressor)


def voting(data: Bunch, qos: str | None, seed: int) -> VotingRegressor:
    """Average two of ours."""
    members = {"sa_moe": sa_moe(), "r2sl": r2sl()}
    return VotingRegressor([(name, make(data, qos, seed)) for name, make in members.items()])


def r2sl_without(left_out: str) -> Factory:
    """Make R2SL with all kinds of region but one."""

    def make(data: Bunch, qos: str | None, seed: int) -> Pipeline:
        kinds = [kind for kind in KINDS if kind in data.users and kind != left_out]
        return r2sl(region_features=kinds)(data, qos, seed)

    return make


def r2sl_paper(data: Bunch, qos: str | None, seed: int) -> Pipeline:  # noqa: ARG001
    return make_pipeline(
        ContextJoiner(data.users[R2SL_CONTEXT], data.services[R2SL_CONTEXT]),
        R2SLRegressor(random_state=seed, device="cpu", **R2SLRegressor.PAPER_PARAMS),
    )


def uipcc(user_weight: float | None = None) -> Factory:
    """Make UPCC (1), IPCC (0), or UIPCC with the published weight of the QoS (None)."""

    def make(data: Bunch, qos: str | None, seed: int) -> object:  # noqa: ARG001
        from skqos.baselines import UIPCCRegressor

        weight = UIPCC_USER_WEIGHT[qos] if user_weight is None else user_weight
        return UIPCCRegressor(user_weight=weight)

    return make


def pmf(data: Bunch, qos: str | None, seed: int) -> object:  # noqa: ARG001
    from skqos.baselines import PMFRegressor

    return PMFRegressor(random_state=seed)


def lightgbm(data: Bunch, qos: str | None, seed: int) -> object:  # noqa: ARG001
    return peers.lightgbm(data.users, data.services, seed)


def embedding_mlp(data: Bunch, qos: str | None, seed: int) -> EmbeddingMLP:
    return EmbeddingMLP(context_codes(data.users, data.services), log=qos == "rt", seed=seed)


DEFAULT: dict[str, Factory] = {
    "constant median": lambda *_: MedianRegressor(by="constant"),
    "service median": lambda *_: MedianRegressor(by="service"),
    "UPCC": uipcc(1.0),
    "IPCC": uipcc(0.0),
    "UIPCC": uipcc(),
    "PMF": pmf,
    "LightGBM": lightgbm,
    "embedding MLP": embedding_mlp,
    "EmbeddingMLPRegressor, 1 member": ours(EmbeddingMLPRegressor, n_members=1),
    "EmbeddingMLPRegressor": ours(EmbeddingMLPRegressor),
    "SAMoERegressor": sa_moe(),
    "R2SLRegressor": r2sl(),
    "SharpQoSRegressor": sharp_qos(),
}
ABLATIONS: dict[str, Factory] = {
    "VotingRegressor": voting,
    "MF-MoE": sa_moe(**NO_AUGMENTATION),
    # As many steps as the two stages of SAMoERegressor take: what is left is augmentation.
    "MF-MoE, all steps": sa_moe(**NO_AUGMENTATION, max_epochs=25),
    "SA-MoE, paper": sa_moe(**SAMoERegressor.PAPER_PARAMS),
    "MF-MoE, paper": sa_moe(
        **{**SAMoERegressor.PAPER_PARAMS, **NO_AUGMENTATION, "max_epochs": 100}
    ),
    "R2SL, no city": r2sl_without("city"),
    "R2SL, no AS": r2sl_without("as"),
    "R2SL, all kinds": r2sl_without(""),
    "R2SL, no latent states": r2sl(region_features=[]),
    "R2SL, printed rate": r2sl(rate="printed"),
    "R2SL, absolute error": r2sl(loss="absolute_error"),
    "R2SL, squared error": r2sl(loss="squared_error"),
    "R2SL, Huber": r2sl(loss="huber"),
    "R2SL, printed E-Huber": r2sl(loss="e_huber_printed"),
    "R2SL, paper": r2sl_paper,
    "SHARP-QoS, one QoS": sharp_qos(),
    "SHARP-QoS, paper": sharp_qos(**SharpQoSRegressor.PAPER_PARAMS),
    # These share a shorter training, and are to be compared with one another.
    **{
        f"SHARP-QoS, {name}": sharp_qos(max_epochs=ABLATION_EPOCHS, **params)
        for name, params in SHARP_ABLATIONS.items()
    },
}
# Fitted to all QoS at once.
JOINT = {
    "SharpQoSRegressor",
    "SHARP-QoS, paper",
    *(f"SHARP-QoS, {name}" for name in SHARP_ABLATIONS),
}


def make_model(name: str, data: Bunch, qos: str | None, seed: int) -> object:
    return {**DEFAULT, **ABLATIONS}[name](data, qos, seed)
