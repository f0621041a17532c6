"""Displays of fitted estimators and their predictions, with the API of scikit-learn's displays.

Importing this module needs neither matplotlib nor torch; plotting needs matplotlib.
"""

from skqos.inspection._attention import AttentionDisplay
from skqos.inspection._group_errors import GroupErrorDisplay, group_errors
from skqos.inspection._interval_coverage import IntervalCoverageDisplay
from skqos.inspection._latent_states import LatentStateDisplay
from skqos.inspection._prediction_intervals import PredictionIntervalDisplay
from skqos.inspection._probability import ProbabilityCalibrationDisplay
from skqos.inspection._routing import ExpertShareDisplay, GateProbabilityDisplay
from skqos.inspection._training_history import TrainingHistoryDisplay

__all__ = [
    "AttentionDisplay",
    "ExpertShareDisplay",
    "GateProbabilityDisplay",
    "GroupErrorDisplay",
    "IntervalCoverageDisplay",
    "LatentStateDisplay",
    "PredictionIntervalDisplay",
    "ProbabilityCalibrationDisplay",
    "TrainingHistoryDisplay",
    "group_errors",
]
