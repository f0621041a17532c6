"""Warnings that skqos raises and a user may want to filter by name."""

__all__ = ["InconsistentVersionWarning", "UnusedColumnsWarning"]


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


class InconsistentVersionWarning(UserWarning):
    """A model is loaded that another version of skqos saved.

    Examples
    --------
    >>> import warnings
    >>> from skqos.exceptions import InconsistentVersionWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", category=InconsistentVersionWarning)
    """
