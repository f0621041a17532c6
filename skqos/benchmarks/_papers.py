"""The published settings of the methods, by paper and protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.pipeline import make_pipeline

from skqos.preprocessing import ContextJoiner

NO_AUGMENTATION = {"refill_ratio": 0, "pseudo_label_ratio": 0, "max_epochs": 100}
# Table 5 of the paper; its regions are the countries.
SA_MOE_CONTEXT = ["country", "as", "provider"]
R2SL_CONTEXT = ["as", "city", "latitude", "longitude"]


@dataclass(frozen=True)
class Paper:
    """A published method.

    Parameters
    ----------
    method, year : str and int
        As in `load_published_results`.

    model : str
        Factory of the model, as in `run`.

    task : str
        Task of its protocol, as in `list_splits`.

    protocol : str
        Protocol of its figures, as in `load_published_results`.

    differs : str
        Further differences between our protocol and that of the paper.

    filtered : bool
        Whether its figures exclude test cells that an isolation forest flags.
    """

    method: str
    year: int
    model: str
    task: str
    protocol: str
    differs: str
    filtered: bool = False


def sa_moe(users: pd.DataFrame, services: pd.DataFrame, seed: int, **params: Any) -> Any:
    """Make SA-MoE, or a variant by its parameters."""
    from skqos import SAMoERegressor

    context = [table[table.columns.intersection(SA_MOE_CONTEXT)] for table in (users, services)]
    settings = {**SAMoERegressor.PAPER_PARAMS, **params}
    return make_pipeline(ContextJoiner(*context), SAMoERegressor(random_state=seed, **settings))


def sa_moe_refill(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> Any:
    """Make SA-MoE-, without pseudo-labels."""
    return sa_moe(users, services, seed, pseudo_label_ratio=0)


def mf_moe(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> Any:
    """Make MF-MoE, without refill and pseudo-labels."""
    return sa_moe(users, services, seed, **NO_AUGMENTATION)


def r2sl(users: pd.DataFrame, services: pd.DataFrame, seed: int) -> Any:
    """Make R2SL on cities and autonomous systems."""
    from skqos import R2SLRegressor

    return make_pipeline(
        ContextJoiner(users[R2SL_CONTEXT], services[R2SL_CONTEXT]),
        R2SLRegressor(random_state=seed, **R2SLRegressor.PAPER_PARAMS),
    )


def tpmcf(seed: int) -> Any:
    """Make TPMCF."""
    from skqos import TPMCFRegressor

    return TPMCFRegressor(random_state=seed, **TPMCFRegressor.PAPER_PARAMS)


OTHER_CELLS = "other cells"
SA_MOE_DIFFERS = (
    "other draws of the cells, tested on the cells of the split; the paper does not say which "
    "columns of its table 5 are side features, here all of them"
)
PAPERS = [
    Paper(
        method, 2026, f"skqos.benchmarks._papers:{name}", OTHER_CELLS, "all cells", SA_MOE_DIFFERS
    )
    for method, name in (("SA-MoE", "sa_moe"), ("SA-MoE-", "sa_moe_refill"), ("MF-MoE", "mf_moe"))
]
PAPERS += [
    Paper(
        "R2SL",
        2023,
        "skqos.benchmarks._papers:r2sl",
        "other cells; density of the measured cells",
        "filtered",
        "other draws of the cells, tested on the cells of the split; the paper sets some aside for "
        "validation",
        filtered=True,
    ),
    Paper(
        "TPMCF",
        2024,
        "skqos.benchmarks._papers:tpmcf",
        "other cells of slot 63; slots 56 to 63 train",
        "time-outs kept, slot 63",
        "other draws of the cells, tested on the given cells",
    ),
]
