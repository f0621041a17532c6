"""Warnings that skqos raises and a user may want to filter by name."""

import warnings

__all__ = [
    "EarlyTimeWarning",
    "InconsistentVersionWarning",
    "NoServiceWarning",
    "SparseStepsWarning",
    "UnusedColumnsWarning",
    "UnusedParameterWarning",
]


class UnusedColumnsWarning(UserWarning):
    """Columns of X were given that the estimator does not use.

    The first columns of X are ids; a further column is context only where its name says whose, or
    where a parameter names it. Unnamed extra columns of a plain array are left aside with this
    warning.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import UnusedColumnsWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", category=UnusedColumnsWarning)
    """


class UnusedParameterWarning(UserWarning):
    """A parameter was set that has no effect with the other parameters.

    A parameter counts as set if its value is not the default.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import UnusedParameterWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=UnusedParameterWarning)
    """


class EarlyTimeWarning(UserWarning):
    """Predictions are asked for times before all measurements.

    Nothing was known then: they are those of the first time step of the training rows.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import EarlyTimeWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=EarlyTimeWarning)
    """


class SparseStepsWarning(UserWarning):
    """Time steps are numbered so finely that most of them are empty.

    They all lie a multiple of some number apart, as seconds do that were taken every quarter of an
    hour. A window of a few steps then holds no other step.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import SparseStepsWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", category=SparseStepsWarning)
    """


class InconsistentVersionWarning(UserWarning):
    """A model is loaded that another version of skqos saved.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import InconsistentVersionWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=InconsistentVersionWarning)
    """


class NoServiceWarning(UserWarning):
    """No service of a user meets the limits with the probability that was asked for.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import NoServiceWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=NoServiceWarning)
    """


def warn_of_other_version(what: str, saved: str) -> None:
    """Warn the caller of the caller that another version of skqos saved what it loads.

    Parameters
    ----------
    what : str
        Name of the class.
    saved : str
        The version that saved it.
    """
    from skqos import __version__

    warnings.warn(
        f"{what} was saved by skqos {saved} and is loaded by {__version__}: it may fail or predict "
        "wrongly. Fit it again, or load it with the version that saved it.",
        InconsistentVersionWarning,
        stacklevel=3,
    )
