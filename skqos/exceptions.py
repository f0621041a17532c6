"""Warnings of this package."""


class UnusedColumnsWarning(UserWarning):
    """X has columns that are neither ids nor context, so that nothing uses them."""
