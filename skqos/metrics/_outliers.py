"""The outlier protocol of the QoS literature."""

from numbers import Integral, Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skqos._arrays import power_of_two
from skqos._parameters import validated
from skqos._target_checks import as_target


@validated({"random_state": ["random_state"]})
def outlier_mask(
    y: ArrayLike,
    *,
    contamination: float = 0.1,
    max_samples: int | Literal["all", "auto"] = "all",
    random_state: int | np.random.RandomState | None = 42,
) -> NDArray[np.bool_]:
    """Mark values that the outlier protocol of the QoS literature removes from the test.

    An isolation forest flags a share `contamination` of the values. It uses only the values, not
    user, service or time. Published results "without outliers" [1]_ flag *all* observed values of
    the data set, in training and test, keep the flagged ones in training, and remove them from the
    test. The defaults are the settings of the public code of [1]_.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        QoS values in any unit; NaN where nothing was observed. Targets are processed separately.

    contamination : float, default=0.1
        Share of the observed values to flag, in (0, 0.5].

    max_samples : int, "all" or "auto", default="all"
        Number of values for each tree. "all" uses every observed value, "auto" at most 256, as
        `sklearn.ensemble.IsolationForest` does by default. The result depends strongly on this
        parameter.

    random_state : int, RandomState instance or None, default=42
        Controls the randomness of the forest.

    Returns
    -------
    mask : ndarray of the shape of `y`, dtype bool
        True for outliers. Values that were not observed are False.

    Raises
    ------
    ValueError
        If `y` contains infinity or has more than two dimensions, or a parameter is out of range.

    Notes
    -----
    Properties of this protocol:

    - **It uses the test labels**: whether a test pair counts depends on its true value. It cannot
      be applied in production, and it is not a preprocessing step for training.
    - **It does not remove extreme values only.** With "all", the trees are deep enough to isolate
      values in sparse regions, so sparse regions are removed and dense ones are kept. From the
      response times of WS-DREAM data set 1, nearly all values between 1.75 and 5.1 s and the
      smallest values are removed, but many values between 5.2 and 5.7 s are kept. In data set 2,
      many time-outs at 20 s are kept.
    - **It depends strongly on `max_samples`.** With 256, it removes all values above a bound.
    - It reduces errors: with a contamination of 0.1, the MAE of the constant median of these
      response times decreases from about 0.75 s to about 0.29 s.

    A result under this protocol should state the contamination, `max_samples`, the seed and the set
    of values on which outliers were flagged. It should be compared with the constant median and
    reported after the unfiltered result.

    References
    ----------
    .. [1] F. Ye, Z. Lin, C. Chen, Z. Zheng, H. Huang, "Outlier-Resilient Web Service QoS
       Prediction", The Web Conference, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skqos.metrics import outlier_mask
    >>> y = np.append(np.linspace(0.1, 0.3, 19), 20.0)
    >>> np.flatnonzero(outlier_mask(y, contamination=0.05))
    array([19])
    """
    _check_outlier_parameters(contamination, max_samples)
    y = as_target(y, "y", allow_nan=True)
    columns = y.reshape(len(y), -1)
    mask = np.zeros(columns.shape, dtype=bool)
    for target, values in enumerate(columns.T):
        observed = ~np.isnan(values)
        if observed.any():
            mask[observed, target] = _isolated(
                values[observed], contamination, max_samples, random_state
            )
    return mask.reshape(y.shape)


def _isolated(
    values: NDArray[np.float64],
    contamination: float,
    max_samples: int | str,
    random_state: int | np.random.RandomState | None,
) -> NDArray[np.bool_]:
    # Imported here, because it is rarely needed and slows down the start of every worker.
    from sklearn.ensemble import IsolationForest

    # The forest computes in float32, so values are scaled.
    values = values / power_of_two(values)
    forest = IsolationForest(
        max_samples=len(values) if max_samples == "all" else max_samples, random_state=random_state
    ).fit(values[:, None])
    # Equivalent to contamination; equal values have equal scores and are scored once.
    distinct, position = np.unique(values, return_inverse=True)
    scores = forest.score_samples(distinct[:, None])[position]
    return scores < np.percentile(scores, 100 * contamination)


def _check_outlier_parameters(contamination: float, max_samples: int | str) -> None:
    if not (isinstance(contamination, Real) and 0 < contamination <= 0.5):
        raise ValueError(f"contamination must be a float in (0, 0.5]; got {contamination!r}.")
    is_count = isinstance(max_samples, Integral) and 1 <= max_samples <= np.iinfo(np.int64).max
    is_named = isinstance(max_samples, str) and max_samples in ("all", "auto")
    if not (is_count or is_named):
        raise ValueError(f"max_samples must be 'all', 'auto' or an int >= 1; got {max_samples!r}.")
