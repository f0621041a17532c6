"""Metrics that skip what was not observed, of intervals and of choices; scorers of them.

Targets may be of shape (n_samples,) or (n_samples, n_targets) in which NaN stands for "not
observed", as `skqos.SharpQoSRegressor` takes it. scikit-learn's own metrics refuse such targets,
and a search that scores with them ends in NaN.
"""

from skqos.metrics._choice import choice_regret, near_best_share
from skqos.metrics._intervals import interval_coverage, winkler_score
from skqos.metrics._outliers import outlier_mask
from skqos.metrics._regression import (
    finite_r2_score as finite_r2_score,
)
from skqos.metrics._regression import (
    nan_mean_absolute_error,
    nan_normalized_mean_absolute_error,
    nan_pinball_loss,
    nan_r2_score,
    nan_root_mean_squared_error,
)
from skqos.metrics._scorers import (
    make_choice_scorer,
    nan_r2_scorer,
    near_best_scorer,
    neg_choice_regret_scorer,
    neg_nan_mae_scorer,
    neg_nan_nmae_scorer,
    neg_nan_rmse_scorer,
    neg_winkler_scorer,
)

__all__ = [
    "choice_regret",
    "interval_coverage",
    "make_choice_scorer",
    "nan_mean_absolute_error",
    "nan_normalized_mean_absolute_error",
    "nan_pinball_loss",
    "nan_r2_score",
    "nan_r2_scorer",
    "nan_root_mean_squared_error",
    "near_best_scorer",
    "near_best_share",
    "neg_choice_regret_scorer",
    "neg_nan_mae_scorer",
    "neg_nan_nmae_scorer",
    "neg_nan_rmse_scorer",
    "neg_winkler_scorer",
    "outlier_mask",
    "winkler_score",
]
