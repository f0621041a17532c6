"""Predicted probabilities of meeting a limit beside how often it was met."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skqos._errors import check_same_length
from skqos._pipelines import last_step, transform_input
from skqos.inspection._common import (
    COLORS,
    binomial_range,
    check_matplotlib,
    check_option,
    check_options,
    prepare_axes,
    style,
    take_target,
)
from skqos.metrics._intervals import band_rows

STRATEGIES = ("uniform", "quantile")


class ProbabilityCalibrationDisplay:
    """How often a limit was met, where it was predicted to be met with some probability.

    A point for each bin of the probability P(y <= limit), the diagonal of perfect calibration, and
    behind each point the range in which 95 % of such shares lie by chance. Use `from_estimator` or
    `from_predictions` to count rows and draw.

    Parameters
    ----------
    calibration : DataFrame of shape (n_bins, 3)
        Columns: ``probability``, the mean of the predicted ones, ``share``, how often the limit was
        met, and ``n_rows``, the observed rows.

    limit : float
        In the unit of y.

    Attributes
    ----------
    calibration : DataFrame
        As given.

    limit : float
        As given.

    ax_ : Axes
        Where it is drawn.

    figure_ : Figure
        Its figure.

    line_ : Line2D
        The points.

    diagonal_ : Line2D
        Perfect calibration.

    bars_ : BarContainer
        The ranges.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : Of classifiers.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skqos.inspection import ProbabilityCalibrationDisplay
    >>> display = ProbabilityCalibrationDisplay.from_predictions(
    ...     [0.1, 0.3, 0.7, 0.9], [0.9, 0.8, 0.8, 0.1], limit=0.5, n_bins=2
    ... )
    >>> display.calibration.round(3).to_numpy().tolist()
    [[0.1, 0.0, 1.0], [0.833, 0.667, 3.0]]
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, calibration: pd.DataFrame, limit: float) -> None:
        self.calibration = calibration
        self.limit = limit

    @classmethod
    @check_options
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        limit: float,
        n_bins: int = 10,
        strategy: Literal["uniform", "quantile"] = "uniform",
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the calibration of a fitted regressor on given rows.

        Parameters
        ----------
        estimator : regressor or Pipeline
            Fitted; it has a method ``predict_probability(X, limit)``.
        X : array-like or DataFrame of shape (n_samples, n_columns)
            Rows, as in the estimator's `fit`, that training did not see.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            What was measured there; NaN where nothing was.
        limit, n_bins, strategy, target
            As in `from_predictions`.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError, NotFittedError, TypeError
            Without matplotlib; if the estimator is not fitted, or predicts no probabilities.
        ValueError
            As in `from_predictions`.
        """
        caller = f"{cls.__name__}.from_estimator"
        check_matplotlib(caller)
        final = last_step(estimator)
        if not hasattr(final, "predict_probability"):
            raise TypeError(
                f"{caller} needs a fitted regressor with a method predict_probability; got "
                f"{type(final).__name__}."
            )
        return cls.from_predictions(
            y,
            final.predict_probability(transform_input(estimator, X), limit),
            limit=limit,
            n_bins=n_bins,
            strategy=strategy,
            target=target,
            ax=ax,
            line_kw=line_kw,
            bar_kw=bar_kw,
        )

    @classmethod
    @check_options
    def from_predictions(
        cls,
        y_true: ArrayLike,
        probability: ArrayLike,
        *,
        limit: float,
        n_bins: int = 10,
        strategy: Literal["uniform", "quantile"] = "uniform",
        target: int | None = None,
        ax: Any = None,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the calibration of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,) or (n_samples, n_targets)
            Observed values in any unit; NaN where nothing was observed.
        probability : array-like of the shape of `y_true`
            Predicted probabilities, in [0, 1], that y is at most `limit`.
        limit : float
            In the unit of `y_true`.
        n_bins : int, default=10
            Number of bins of the probability. Those without an observed row are left out.
        strategy : {"uniform", "quantile"}, default="uniform"
            Whether bins are of the same width, or hold about as many rows each.
        target : int, default=None
            The column of `y_true` and `probability`, where they have several.
        ax, line_kw, bar_kw
            As in `plot`.

        Returns
        -------
        ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If a probability is outside of [0, 1], lengths differ, nothing was observed, there are
            several targets and no `target`, a parameter is out of its range, or `ax` is no Axes.
        """
        check_matplotlib(f"{cls.__name__}.from_predictions")
        check_option("strategy", strategy, STRATEGIES)
        y = take_target(y_true, "y_true", target)
        probability = _take_probability(probability, target)
        check_same_length(y_true=y, probability=probability)
        calibration = _calibrate(y, probability, limit, n_bins, strategy)
        display = cls(calibration=calibration, limit=limit)
        return display.plot(ax, line_kw=line_kw, bar_kw=bar_kw)

    @check_options
    def plot(
        self,
        ax: Any = None,
        *,
        line_kw: dict[str, Any] | None = None,
        bar_kw: dict[str, Any] | None = None,
    ) -> Self:
        """Draw how often the limit was met over the predicted probability.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw. A new figure by default.
        line_kw, bar_kw : dict, default=None
            Keywords for the points (``Axes.plot``) and the ranges (``Axes.bar``).

        Returns
        -------
        self : ProbabilityCalibrationDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If `ax` is no Axes.
        """
        check_matplotlib(f"{type(self).__name__}.plot")
        from matplotlib.lines import Line2D
        from matplotlib.patches import Rectangle

        (self.ax_,) = prepare_axes(ax, 1, (4.5, 4.5))
        self.figure_ = self.ax_.figure
        predicted = self.calibration["probability"].to_numpy()
        low, high = binomial_range(predicted, self.calibration["n_rows"].to_numpy())
        options = {"color": "0.88", "label": "95 % by chance", "width": 0.04}
        self.bars_ = self.ax_.bar(
            predicted, high - low, bottom=low, **style(Rectangle, options, bar_kw)
        )
        (self.diagonal_,) = self.ax_.plot(
            [0, 1], [0, 1], color="0.3", linestyle="--", label="perfectly calibrated"
        )
        options = {"color": COLORS[0], "marker": "o", "label": "observed"}
        (self.line_,) = self.ax_.plot(
            predicted, self.calibration["share"], **style(Line2D, options, line_kw)
        )
        self.ax_.set(
            xlabel=f"predicted probability of y ≤ {self.limit:g}",
            ylabel=f"observed share of y ≤ {self.limit:g}",
        )
        self.ax_.legend(frameon=False)
        return self


def _take_probability(probability: Any, target: int | None) -> np.ndarray:
    values = take_target(probability, "probability", target)
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"probability: row {row} is {values[row]}; give values from 0 to 1.")
    return values


def _calibrate(
    y: np.ndarray, probability: np.ndarray, limit: float, n_bins: int, strategy: str
) -> pd.DataFrame:
    """Return the mean probability, how often the limit was met, and the rows of each bin."""
    observed = ~np.isnan(y)
    if not observed.any():
        raise ValueError("y_true is NaN in every row: there is nothing to compare with.")
    y, probability = y[observed], probability[observed]
    if strategy == "uniform":
        codes = np.minimum((probability * n_bins).astype(np.int64), n_bins - 1)
    else:
        codes, _ = band_rows(probability, n_bins)
    rows = pd.DataFrame({"probability": probability, "share": y <= limit})
    table = rows.groupby(codes).mean()
    table["n_rows"] = np.bincount(codes)[table.index]
    return table.reset_index(drop=True)
