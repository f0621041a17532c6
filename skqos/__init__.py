"""Deep models that predict Web-service QoS, as scikit-learn regressors."""

from skqos.exceptions import UnusedColumnsWarning
from skqos.r2sl.estimator import R2SLRegressor
from skqos.sa_moe.estimator import SAMoERegressor
from skqos.sharp_qos.estimator import SharpQoSRegressor
from skqos.tpmcf.estimator import TPMCFRegressor

__version__ = "0.1.0.dev0"

__all__ = [
    "R2SLRegressor",
    "SAMoERegressor",
    "SharpQoSRegressor",
    "TPMCFRegressor",
    "UnusedColumnsWarning",
]
