"""Warnings name the line of the user's code, at any depth below it."""

import warnings

import pytest

from skqos._warnings import warn_user

INSIDE = {"__name__": "skqos.somewhere", "warn_user": warn_user}
exec("def deep(n):\n    deep(n - 1) if n else warn_user('odd')", INSIDE)


@pytest.mark.parametrize("depth", [0, 3])
def test_the_line_is_that_of_the_first_frame_outside(depth):
    with pytest.warns(UserWarning, match="odd") as caught:
        INSIDE["deep"](depth)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("names", [{}, {"__name__": "skqos_user"}])
def test_code_without_a_name_is_the_users(names):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("deep(1)", "cell", "exec"), {**names, "deep": INSIDE["deep"]})
    assert [one.filename for one in caught] == ["cell"]
