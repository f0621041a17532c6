"""Warnings of skqos, which can be filtered by category."""

from skqos._warnings import warn_user

__all__ = [
    "EarlyTimeWarning",
    "InconsistentVersionWarning",
    "NoServiceWarning",
    "SparseStepsWarning",
    "UnusedColumnsWarning",
    "UnusedParameterWarning",
]


class UnusedColumnsWarning(UserWarning):
    """X has columns that the estimator does not use.

    The first columns of X are ids. A further column is context only if its name starts with
    ``user_`` or ``service_``, or if a parameter selects it. Other columns, for example extra
    columns of an array, are ignored with this warning.

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
    """Predictions are requested for times before all measurements.

    No measurement exists for these times. The predictions are those for the first time step of the
    training rows.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import EarlyTimeWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=EarlyTimeWarning)
    """


class SparseStepsWarning(UserWarning):
    """The numbers of time steps are so far apart that most steps are empty.

    For example, all numbers are multiples of 900, because they are seconds of measurements that
    were taken every 15 minutes. A window of a few steps then contains no other step.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import SparseStepsWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", category=SparseStepsWarning)
    """


class InconsistentVersionWarning(UserWarning):
    """A loaded model was saved by another version of skqos.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import InconsistentVersionWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=InconsistentVersionWarning)
    """


class NoServiceWarning(UserWarning):
    """No service of a user meets the limits with the required probability.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import NoServiceWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=NoServiceWarning)
    """


def warn_of_other_version(what: str, saved: str) -> None:
    """Warn that a file was saved by another version of skqos.

    Parameters
    ----------
    what : str
        Name of the loaded class.
    saved : str
        Version that saved it.
    """
    from skqos import __version__

    warn_user(
        f"{what} was saved by skqos {saved} and is loaded by {__version__}: it may fail or predict "
        "wrongly. Fit it again, or load it with the version that saved it.",
        InconsistentVersionWarning,
    )
