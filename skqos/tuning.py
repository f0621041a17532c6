"""Tuning with Optuna: a search space for every estimator, and a callback that prunes trials."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

from skqos._parameters import plain_value
from skqos._warnings import warn_user
from skqos.baselines import (
    AMFRegressor,
    EmbeddingMLPRegressor,
    MedianRegressor,
    PMFRegressor,
    UIPCCRegressor,
)
from skqos.r2sl.estimator import R2SLRegressor
from skqos.sa_moe.estimator import SAMoERegressor
from skqos.sharp_qos.estimator import SharpQoSRegressor
from skqos.tpmcf.estimator import TPMCFRegressor

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from skqos.training import QoSNet

__all__ = ["SEARCH_SPACES", "Choice", "FloatRange", "IntRange", "OptunaPruning", "suggest_params"]


# Differences of bounds must be finite.
MAX_BOUND = 1e300


@dataclass(frozen=True)
class FloatRange:
    """Floats from `low` to `high`, drawn uniformly on a linear or logarithmic scale.

    Attributes
    ----------
    low, high : float
        Bounds; both are included.
    log : bool
        Whether to draw uniformly in the logarithm.

    Examples
    --------
    >>> from skqos.tuning import FloatRange
    >>> 0.003 in FloatRange(1e-4, 1e-2, log=True)
    True
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        _check_range(self, Real, "a finite number")

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Return a value drawn by a trial."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def __contains__(self, value: Any) -> bool:
        return _is_number(value, Real) and bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (", logarithmic" if self.log else "")


@dataclass(frozen=True)
class IntRange:
    """Integers from `low` to `high`, drawn uniformly on a linear or logarithmic scale.

    Attributes
    ----------
    low, high : int
        Bounds; both are included.
    log : bool
        Whether to draw uniformly in the logarithm.

    Examples
    --------
    >>> from skqos.tuning import IntRange
    >>> str(IntRange(1, 3))
    '1 to 3'
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        _check_range(self, Integral, "an int")

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Return a value drawn by a trial."""
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def __contains__(self, value: Any) -> bool:
        return _is_number(value, Integral) and bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (", logarithmic" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """A choice among a few values.

    Attributes
    ----------
    values : tuple
        Values to choose from: None, bool, int, float or str.

    Examples
    --------
    >>> from skqos.tuning import Choice
    >>> str(Choice((64, 128, 256)))
    '64, 128, 256'
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Check that there are values, and that Optuna accepts them."""
        values = self.values
        if not isinstance(values, tuple) or not values:
            raise TypeError(f"values must be a tuple of one or more values; got {values!r:.60}.")
        for value in values:
            if not isinstance(value, bool | int | float | str | None):
                raise TypeError(
                    f"values must contain only None, bool, int, float or str; got {value!r:.60}."
                )

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Return a value chosen by a trial."""
        return trial.suggest_categorical(name, self.values)

    def __contains__(self, value: object) -> bool:
        # Comparison with an array has an array as result.
        return isinstance(value, bool | int | float | str | np.generic | None) and (
            plain_value(value) in self.values
        )

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


def _check_range(bounds: FloatRange | IntRange, kind: type, what: str) -> None:
    for name in ("low", "high"):
        value = plain_value(getattr(bounds, name))
        if not _is_number(value, kind):
            raise TypeError(f"{name} must be {what}; got {value!r:.60}.")
        if not -MAX_BOUND <= value <= MAX_BOUND:
            raise ValueError(f"{name} must be finite and at most {MAX_BOUND:g}; got {value!r:.60}.")
    if bounds.low > bounds.high:
        raise ValueError(f"low={bounds.low!r} must be at most high={bounds.high!r}.")
    if not isinstance(bounds.log, bool | np.bool_):
        raise TypeError(f"log must be True or False; got {bounds.log!r:.60}.")
    if bounds.log and bounds.low <= 0:
        raise ValueError(f"low={bounds.low!r} must be above 0 where log=True.")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


SearchSpace = Mapping[str, FloatRange | IntRange | Choice]

# Training parameters of all estimators.
_TRAINING: SearchSpace = {
    "learning_rate": FloatRange(3e-4, 2e-2, log=True),
    "weight_decay": FloatRange(1e-3, 0.5, log=True),
}
_BATCHES: SearchSpace = {"batch_size": Choice((128, 256, 512, 1024))}
_AUTO_BATCHES: SearchSpace = {"batch_size": Choice(("auto", 64, 128, 256, 512))}

# Losses and target transforms are not searched, because they change the unit of the validation loss
# by which trials are compared. The number of epochs is the budget, to which the one-cycle schedule
# adapts. Switches of parts of a method, such as `messages` and `factor_folds`, are not searched.
#: The search space of each estimator class: a range or a choice for each parameter by name.
SEARCH_SPACES: dict[type[BaseEstimator], SearchSpace] = {
    SAMoERegressor: {
        **_TRAINING,
        **_AUTO_BATCHES,
        "n_members": IntRange(1, 4),
        "embedding_dim": IntRange(16, 64, log=True),
        "tower_dim": Choice((64, 128, 256)),
        "input_dropout": FloatRange(0.1, 0.6),
        "attention_dropout": FloatRange(0.0, 0.6),
        "pseudo_label_ratio": FloatRange(0.25, 3.0),
        "pseudo_label_weight": FloatRange(0.2, 1.0),
    },
    EmbeddingMLPRegressor: {
        **_TRAINING,
        **_AUTO_BATCHES,
        "n_members": IntRange(1, 8),
        "embedding_dim": IntRange(16, 64, log=True),
        "input_dropout": FloatRange(0.1, 0.6),
    },
    R2SLRegressor: {
        **_TRAINING,
        **_BATCHES,
        "n_states": IntRange(2, 5),
        "concentration": FloatRange(1.0, 10.0, log=True),
        "slow_quantile": FloatRange(0.8, 0.98),
        "embedding_dim": IntRange(16, 64, log=True),
        "input_dropout": FloatRange(0.1, 0.6),
        "n_filters": IntRange(1, 16, log=True),
        "hidden_size": Choice((128, 256, 512)),
    },
    SharpQoSRegressor: {
        **_TRAINING,
        "n_members": IntRange(1, 4),
        "n_factors": IntRange(8, 64, log=True),
        "context_dim": IntRange(8, 64, log=True),
        "hidden_dim": IntRange(16, 64, log=True),
        "n_context_layers": IntRange(1, 2),
        "n_blocks": IntRange(2, 8),
        "n_cross_blocks": IntRange(2, 8),
        "l0_penalty": FloatRange(1e-5, 1e-2, log=True),
        "routed_dim": IntRange(32, 128, log=True),
        "output_dim": IntRange(64, 256, log=True),
        "feature_dropout": FloatRange(0.1, 0.6),
        "context_dropout": FloatRange(0.1, 0.6),
        "newcomer_share": FloatRange(0.0, 0.2),
    },
    TPMCFRegressor: {
        **_TRAINING,
        "n_members": IntRange(1, 4),
        "batch_size": Choice((256, 512, 1024, 2048)),
        "n_folds": IntRange(5, 20),
        "entity_dim": IntRange(16, 64, log=True),
        "window": IntRange(2, 16, log=True),
        "token_dim": Choice((16, 32, 64)),
        "n_blocks": IntRange(1, 3),
        "n_heads": IntRange(1, 4),
        "head_dim": Choice((8, 16, 32)),
        "n_filters": IntRange(16, 128, log=True),
        "pooling": Choice(("max", "mean", "last")),
        "entity_dropout": FloatRange(0.0, 0.3),
        "newcomer_share": FloatRange(0.0, 0.2),
        "forecast_share": FloatRange(0.0, 0.8),
    },
    UIPCCRegressor: {
        "n_neighbors": IntRange(3, 50, log=True),
        "user_weight": FloatRange(0.0, 1.0),
        "significance_weighting": Choice((False, True)),
        "confidence_weighting": Choice((False, True)),
    },
    PMFRegressor: {
        "n_factors": IntRange(5, 50, log=True),
        "regularization": FloatRange(1.0, 100.0, log=True),
    },
    AMFRegressor: {
        "n_factors": IntRange(5, 50, log=True),
        "step_size": FloatRange(0.1, 2.0, log=True),
        "regularization": FloatRange(1e-5, 1e-2, log=True),
        "error_rate": FloatRange(0.05, 0.5),
    },
    MedianRegressor: {"by": Choice(("constant", "user", "service", "pair"))},
}


def suggest_params(
    estimator: BaseEstimator, trial: BaseTrial, *, prefix: str = ""
) -> dict[str, Any]:
    """Return parameters drawn by a trial for an estimator of this package.

    Parameters
    ----------
    estimator : estimator or Pipeline
        Estimator of this package, or a Pipeline whose last step is one.
    trial : optuna.trial.BaseTrial
        Trial that draws the parameters. Each has its full name, so that ``study.best_params`` has
        the same names.
    prefix : str, default=""
        Prefix of every name, for example ``"estimator__"`` for an estimator inside another one.

    Returns
    -------
    dict of str to object
        Arguments for ``estimator.set_params`` or, with `prefix`, for the outer estimator's
        ``set_params``. In a Pipeline, the names start with the name of the step.

    Raises
    ------
    TypeError
        If there is no search space for the estimator, `trial` is not a trial, or `prefix` is not a
        str.
    ValueError
        If a Pipeline has no steps.

    Notes
    -----
    The search spaces are in `SEARCH_SPACES`. They assume default values of all other parameters.
    For example, `attention_dropout` has no effect with ``experts=("mlp",)``.

    Examples
    --------
    >>> import optuna
    >>> from sklearn.pipeline import make_pipeline
    >>> from skqos import R2SLRegressor
    >>> from skqos.preprocessing import ContextJoiner
    >>> from skqos.tuning import suggest_params
    >>> pipeline = make_pipeline(ContextJoiner(), R2SLRegressor())
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study()
    >>> study.enqueue_trial({"r2slregressor__n_states": 4})
    >>> params = suggest_params(pipeline, study.ask())
    >>> pipeline.set_params(**params)["r2slregressor"].n_states
    4
    """
    if not hasattr(trial, "suggest_float"):
        raise TypeError(f"trial must be an Optuna trial; got {trial!r:.60}.")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str; got {prefix!r}.")
    if isinstance(estimator, Pipeline):
        name, last = _last_step(estimator)
        return suggest_params(last, trial, prefix=f"{prefix}{name}__")
    return {
        f"{prefix}{name}": values.suggest(trial, f"{prefix}{name}")
        for name, values in _search_space(estimator).items()
    }


def _last_step(pipeline: Pipeline) -> tuple[str, Any]:
    steps = pipeline.steps
    if not isinstance(steps, list | tuple) or not steps:
        raise ValueError(
            f"estimator is a Pipeline without steps; its last step must be one of {_known()}."
        )
    if not isinstance(steps[-1], list | tuple) or len(steps[-1]) != 2:
        raise TypeError(
            f"estimator is a Pipeline whose last step, {steps[-1]!r:.60}, is not a pair of a name "
            "and an estimator."
        )
    name, estimator = steps[-1]
    return name, estimator


def _search_space(estimator: BaseEstimator) -> SearchSpace:
    for kind in type(estimator).__mro__:
        if kind in SEARCH_SPACES:
            return SEARCH_SPACES[kind]
    raise TypeError(
        f"estimator must be one of {_known()}, or a Pipeline that ends with one; got {estimator!r}."
    )


def _known() -> str:
    return ", ".join(kind.__name__ for kind in SEARCH_SPACES)


class OptunaPruning(Callback):
    """Report the loss of each epoch to an Optuna trial, and prune the trial if it should be pruned.

    Pass it in `callbacks` of an estimator. Only losses of the final training stage are reported,
    because those of earlier stages belong to another network. Pruning raises ``optuna.TrialPruned``
    in `fit`, and the estimator remains unchanged.

    Parameters
    ----------
    trial : optuna.trial.Trial or None
        Running trial. With None, nothing is reported, and `fit` warns of it.

    monitor : str, default="valid_loss"
        Entry of the history to report. "valid_loss" needs an estimator with
        ``early_stopping="monitor"`` or ``early_stopping=True``.

    Notes
    -----
    Pass ``error_score="raise"`` to `cross_validate` and similar functions. Otherwise they treat
    ``optuna.TrialPruned`` as a failed fit, and the trial is not pruned.

    Clones report to the same trial. The k-th fit reports its epoch e, both counted from 0, at
    step ``k * max_epochs + e``, so that a step is the same fold and epoch in every trial.

    A trial cannot be sent to another process, so a pickle does not contain it. Fits in other
    processes, for example with ``n_jobs=2``, are not pruned, with a warning. Run several workers on
    one study instead.

    Examples
    --------
    >>> import optuna
    >>> from skqos import SAMoERegressor
    >>> from skqos.datasets import make_qos
    >>> from skqos.tuning import OptunaPruning
    >>> data = make_qos(20, 30, density=0.3, random_state=0)
    >>> model = SAMoERegressor(
    ...     max_epochs=2, first_stage_epochs=1, early_stopping="monitor", random_state=0
    ... )
    >>> def objective(trial):
    ...     model.set_params(callbacks=[OptunaPruning(trial)]).fit(data.X, data.y)
    ...     return model.history_["valid_loss"].iloc[-1]
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study()
    >>> study.optimize(objective, n_trials=1)
    >>> sorted(study.trials[0].intermediate_values)
    [0, 1]
    """

    def __init__(self, trial: BaseTrial | None, monitor: str = "valid_loss") -> None:
        self.trial = trial
        self.monitor = monitor
        # skorch treats attributes without a trailing underscore as parameters.
        self.fits_ = itertools.count()

    def on_train_begin(self, net: QoSNet, *_: Any, **__: Any) -> None:
        """Count the fits of the trial, or warn that there is no trial."""
        if net.stage != "final":
            return
        if not isinstance(self.monitor, str):
            raise TypeError(f"monitor of OptunaPruning must be a str; got {self.monitor!r:.60}.")
        if self.trial is None:
            warn_user(
                "OptunaPruning has no trial in this process, so this fit will not be pruned. Fit "
                "in the process of the trial, with n_jobs=1.",
            )
            return
        if not hasattr(self.trial, "should_prune"):
            raise TypeError(
                f"The trial of OptunaPruning must be an Optuna trial or None; got {self.trial!r}."
            )
        self.first_step_ = next(self.fits_) * net.max_epochs

    def on_epoch_end(self, net: QoSNet, **_: Any) -> None:
        """Report the loss, and prune the trial."""
        if net.stage != "final" or self.trial is None:
            return
        step = self.first_step_ + len(net.history) - 1
        self.trial.report(self._value(net), step)
        if self.trial.should_prune():
            from optuna import TrialPruned

            raise TrialPruned(f"Pruned at step {step}, epoch {len(net.history)}.")

    def _value(self, net: QoSNet) -> float:
        last = net.history[-1]
        if self.monitor not in last:
            found = sorted(name for name, value in last.items() if isinstance(value, float))
            raise ValueError(
                f"monitor={self.monitor!r} is not in the history, which has {found}. "
                "'valid_loss' needs an estimator with early_stopping='monitor' or True."
            )
        return last[self.monitor]

    def __sklearn_clone__(self) -> Self:
        # A default copy would copy the trial and report to a copy that is unknown to the study.
        clone = type(self)(self.trial, self.monitor)
        clone.fits_ = self.fits_
        return clone

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "trial": None, "fits_": None}
