"""Transforming targets: from the unit of y to the scale on which a network learns."""

from __future__ import annotations

import numpy as np

from skqos._weighted import weighted_median

TRANSFORMS = ("auto", "sqrt", "log", "max", "standard")
# "auto": the median's distance from the minimum, in mean absolute deviations from the median. It is
# 1 for exponential values; a lowest value that is far from all others would leave the root of their
# distances from it next to no spread.
MAX_DISTANCE = 2.0
# Of the deviations, what an offset a million times as large makes of a mean of 0.
ROUNDING = 1e-6
# Networks learn in float32, with losses that may square: values beyond are infinite or 0 there.
MAX_TRANSFORMED = 1e18
MIN_TRANSFORMED = 1e-18
# exp(700) is near the largest float64: a wild prediction stays finite.
MAX_EXPONENT = 700.0


class TargetTransform:
    """One invertible, increasing map per target, learnt from the training targets alone.

    Parameters
    ----------
    kind : {"auto", "sqrt", "log", "max", "standard"} or None
        - "sqrt": ``sign(y) sqrt(abs(y) / m)`` with m the mean of abs(y). Differences between large
          values count for less than between small ones, but for more than under "log".
        - "log": ``log(1 + y / m)`` with m the mean of y; for targets that are never negative.
          Dividing by the mean makes the result independent of the unit: seconds and
          milliseconds are learnt alike.
        - "max": y divided by the largest absolute value.
        - "standard": y minus its mean, divided by its standard deviation.
        - None: y as it is.
        - "auto": "sqrt" of y minus its minimum for a target with a heavy right tail, else
          "standard". A tail is heavy if the mean is above the median, and the median lies no
          further above the minimum than twice the mean absolute deviation from the median.
          Neither the unit nor an offset of y matters.

    Attributes
    ----------
    kinds_ : list
        What was chosen for each target.
    shift_, scale_ : ndarray of shape (n_targets,)
        Subtracted from y, then divided by.
    """

    def __init__(self, kind: str | None) -> None:
        self.kind = kind

    def fit(self, y: np.ndarray, weights: np.ndarray | None = None) -> TargetTransform:
        """Learn from measured targets.

        Parameters
        ----------
        y : ndarray of float64 of shape (n,) or (n, n_targets)
            NaN is not observed.
        weights : ndarray of float64 of shape (n,), default=None
            Positive weights of the rows; None is 1 for all.

        Raises
        ------
        ValueError
            If "log" was asked for and a target has a negative value, or what is transformed is too
            large or too small for the network.
        """
        columns = y.reshape(len(y), -1)
        weights = np.ones(len(y)) if weights is None else weights
        seen = ~np.isnan(columns.T)
        observed = [
            (column[rows], weights[rows]) for column, rows in zip(columns.T, seen, strict=True)
        ]
        self.kinds_ = [self._choose(*target) for target in observed]
        pairs = [
            self._shift_and_scale(kind, *target)
            for kind, target in zip(self.kinds_, observed, strict=True)
        ]
        self.shift_, self.scale_ = np.array(pairs, dtype=np.float64).T
        self._is_log = np.array([kind == "log" for kind in self.kinds_])
        self._is_sqrt = np.array([kind == "sqrt" for kind in self.kinds_])
        self._check_size(columns)
        self._check_not_lost(columns)
        return self

    def check(self, y: np.ndarray) -> None:
        """Raise ValueError if further values of y cannot be transformed as the first were."""
        columns = y.reshape(len(y), -1)
        negative = (columns < 0) & self._is_log
        if negative.any():
            row, target = np.argwhere(negative)[0]
            raise ValueError(
                f"y holds {columns[row, target]} (row {row}, target {target}), but the transform "
                f"'log', that fit took by target_transform={self.kind!r}, needs y >= 0. Fit again "
                "with target_transform='auto' or 'standard'."
            )
        self._check_size(columns)

    def transform(self, y: np.ndarray) -> np.ndarray:
        """Map y to the scale of the network; the shape stays, NaN stays NaN."""
        # Later values may be of another order than those of training.
        with np.errstate(over="ignore"):
            z = (y.reshape(len(y), -1) - self.shift_) / self.scale_
        # Validation targets may lie below what training has seen; log1p needs more than -1.
        z[:, self._is_log] = np.log1p(np.maximum(z[:, self._is_log], 0.0))
        roots = z[:, self._is_sqrt]
        z[:, self._is_sqrt] = np.copysign(np.sqrt(np.abs(roots)), roots)
        return z.reshape(y.shape)

    def inverse_transform(self, z: np.ndarray) -> np.ndarray:
        """Map predictions back to the unit of y; always finite for finite z."""
        y = z.reshape(len(z), -1).astype(np.float64)
        y[:, self._is_log] = np.expm1(np.minimum(y[:, self._is_log], MAX_EXPONENT))
        limit = np.finfo(np.float64).max
        with np.errstate(over="ignore"):
            y[:, self._is_sqrt] *= np.abs(y[:, self._is_sqrt])
            y = np.clip(y * self.scale_ + self.shift_, -limit, limit)
        return y.reshape(z.shape)

    def _check_size(self, columns: np.ndarray) -> None:
        """Raise ValueError if the square of a transformed value is beyond float32."""
        too_large = np.abs(self.transform(columns)) > MAX_TRANSFORMED
        if too_large.any():
            row, target = np.argwhere(too_large)[0]
            raise ValueError(
                f"y holds {columns[row, target]} (row {row}, target {target}), which "
                f"target_transform={self.kind!r} leaves too large for the network. Fit with "
                "target_transform='auto' or 'standard', or leave such values out."
            )

    def _check_not_lost(self, columns: np.ndarray) -> None:
        """Raise ValueError if a target that is not 0 would be 0 to the network."""
        largest = np.nanmax(np.abs(self.transform(columns)), axis=0)
        lost = (largest < MIN_TRANSFORMED) & (np.nanmax(np.abs(columns), axis=0) > 0)
        # Constants are shifted to 0.
        lost &= self.shift_ == 0
        if lost.any():
            raise ValueError(
                f"y, target {lost.argmax()}, holds values of at most {largest[lost.argmax()]}, "
                f"which target_transform={self.kind!r} leaves too small for the network. Fit with "
                "target_transform='auto' or 'standard', or give y in another unit."
            )

    def _choose(self, values: np.ndarray, weights: np.ndarray) -> str | None:
        if self.kind == "log" and values.min() < 0:
            raise ValueError(
                f"target_transform='log' needs y >= 0; found {values.min()}. Use 'auto' or "
                "'standard'."
            )
        if self.kind != "auto":
            return self.kind
        return "sqrt" if _has_heavy_right_tail(values, weights) else "standard"

    def _shift_and_scale(
        self, kind: str | None, values: np.ndarray, weights: np.ndarray
    ) -> tuple[float, float]:
        if kind is None:
            return 0.0, 1.0
        # Sums and squares of the values themselves may overflow or underflow.
        largest = np.abs(values).max() or 1.0
        if kind == "max":
            return 0.0, largest
        if kind == "standard":
            return _mean(values, weights), _positive(_deviation(values, weights), largest)
        shift = values.min() if self.kind == "auto" else 0.0
        return shift, _positive(_mean(np.abs(values - shift), weights), largest)


def _has_heavy_right_tail(values: np.ndarray, weights: np.ndarray) -> bool:
    """Tell by statistics that neither the unit nor an offset of the values changes."""
    above = values - values.min()
    median = weighted_median(above, weights)
    deviation = above - median
    spread = _mean(np.abs(deviation), weights)
    is_skewed = _mean(deviation, weights) > ROUNDING * spread
    return bool(is_skewed and median <= MAX_DISTANCE * spread)


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    largest = np.abs(values).max() or 1.0
    return largest * np.average(values / largest, weights=weights)


def _deviation(values: np.ndarray, weights: np.ndarray) -> float:
    largest = np.abs(values).max() or 1.0
    scaled = values / largest
    distance = scaled - np.average(scaled, weights=weights)
    return largest * np.sqrt(np.average(distance * distance, weights=weights))


def _positive(scale: float, largest: float) -> float:
    """Take a scale that can be divided by; a constant is measured in itself, at most in 1."""
    return scale or min(largest, 1.0)
