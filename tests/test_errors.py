"""Errors name what is wrong, whoever finds it."""

import re
import warnings

import numpy as np
import pytest

from skqos._errors import about, check_same_length

RAISED = {
    "no name": (ValueError("wrong"), ValueError, "y: wrong"),
    "another word": (ValueError("by any"), ValueError, "y: by any"),
    "named": (ValueError("y is wrong"), ValueError, "y is wrong"),
    "of a type": (TypeError("no number"), TypeError, "y: no number"),
    "a key": (KeyError("a"), ValueError, "y: cannot be read (KeyError: 'a')."),
    "of memory": (MemoryError("full"), MemoryError, "full"),
    "a file": (FileNotFoundError("gone"), FileNotFoundError, "gone"),
    "a warning": (UserWarning("odd"), UserWarning, "odd"),
    "Ctrl-C": (KeyboardInterrupt(), KeyboardInterrupt, ""),
}


@pytest.mark.parametrize("case", RAISED)
def test_what_is_raised_names_what_is_read(case):
    raised, kind, message = RAISED[case]
    with pytest.raises(kind, match=f"^{re.escape(message)}$"), about("y"):
        raise raised


def test_lengths_are_told_by_name():
    check_same_length(X=np.zeros((3, 2)), y=[1, 2, 3], groups=None)
    with pytest.raises(ValueError, match="inconsistent numbers of samples: X has 3, y has 2;"):
        check_same_length(X=np.zeros((3, 2)), y=[1, 2])


def test_warnings_of_the_block_point_where_they_did():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with about("y"):
            warnings.warn("odd", stacklevel=1)
    assert caught[0].filename == __file__
