"""Deep models that predict Web-service QoS, as scikit-learn regressors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skqos.exceptions import UnusedColumnsWarning

if TYPE_CHECKING:
    from skqos import baselines as baselines
    from skqos import benchmarks as benchmarks
    from skqos import datasets as datasets
    from skqos import export as export
    from skqos import graphs as graphs
    from skqos import inspection as inspection
    from skqos import intervals as intervals
    from skqos import metrics as metrics
    from skqos import model_selection as model_selection
    from skqos import persistence as persistence
    from skqos import preprocessing as preprocessing
    from skqos import selection as selection
    from skqos import tuning as tuning
    from skqos.r2sl.estimator import R2SLRegressor
    from skqos.sa_moe.estimator import SAMoERegressor
    from skqos.sharp_qos.estimator import SharpQoSRegressor
    from skqos.tpmcf.estimator import TPMCFRegressor

__version__ = "0.1.0"

__all__ = [
    "R2SLRegressor",
    "SAMoERegressor",
    "SharpQoSRegressor",
    "TPMCFRegressor",
    "UnusedColumnsWarning",
]

_ESTIMATORS = {
    "R2SLRegressor": "skqos.r2sl.estimator",
    "SAMoERegressor": "skqos.sa_moe.estimator",
    "SharpQoSRegressor": "skqos.sharp_qos.estimator",
    "TPMCFRegressor": "skqos.tpmcf.estimator",
}
_SUBMODULES = (
    "baselines",
    "benchmarks",
    "datasets",
    "export",
    "graphs",
    "inspection",
    "intervals",
    "metrics",
    "model_selection",
    "persistence",
    "preprocessing",
    "selection",
    "tuning",
)


if not TYPE_CHECKING:
    # Type checkers read the names from the imports above.

    def __getattr__(name: str) -> Any:
        """Import estimators and submodules at their first use.

        `skqos.export.OnnxPredictor` runs where neither scikit-learn nor torch is installed.
        """
        if name in _ESTIMATORS:
            return getattr(import_module(_ESTIMATORS[name]), name)
        if name in _SUBMODULES:
            return import_module(f"skqos.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS, *_SUBMODULES})
