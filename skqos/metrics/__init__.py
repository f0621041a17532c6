"""Metrics of incompletely observed targets, of intervals and of choices, and their scorers.

Targets have the shape (n_samples,) or (n_samples, n_targets). NaN stands for values that were not
observed, as in `skqos.SharpQoSRegressor`. The metrics of scikit-learn raise an error for such
targets, so that a search with them has only NaN as scores.
"""

from sklearn.metrics import make_scorer

from skqos.metrics._choice import choice_regret, near_best_share
from skqos.metrics._intervals import interval_coverage, winkler_score
from skqos.metrics._outliers import outlier_mask
from skqos.metrics._regression import (
    finite_r2_score,  # noqa: F401  (not public)
    nan_mean_absolute_error,
    nan_normalized_mean_absolute_error,
    nan_pinball_loss,
    nan_r2_score,
    nan_root_mean_squared_error,
)
from skqos.metrics._scorers import WinklerScorer, make_choice_scorer

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

# The documentation reads these comments in the module where the names are public.
#: Scorer of `nan_mean_absolute_error`, negated: higher is better.
neg_nan_mae_scorer = make_scorer(nan_mean_absolute_error, greater_is_better=False)
#: Scorer of `nan_root_mean_squared_error`, negated: higher is better.
neg_nan_rmse_scorer = make_scorer(nan_root_mean_squared_error, greater_is_better=False)
#: Scorer of `nan_normalized_mean_absolute_error`, negated: higher is better.
neg_nan_nmae_scorer = make_scorer(nan_normalized_mean_absolute_error, greater_is_better=False)
#: Scorer of `nan_r2_score`: higher is better.
nan_r2_scorer = make_scorer(nan_r2_score)
#: Scorer of `choice_regret` of low values, negated: higher is better. Users are column 0 of X.
neg_choice_regret_scorer = make_choice_scorer(choice_regret, greater_is_better=False)
#: Scorer of `near_best_share` of low values: higher is better. Users are column 0 of X.
near_best_scorer = make_choice_scorer(near_best_share)
#: Scorer of `winkler_score` of 90 % intervals, negated: higher is better. The estimator's `predict`
#: must accept ``quantiles=[0.05, 0.95]``.
neg_winkler_scorer = WinklerScorer(0.9)
