"""Types of choice parameters name what the checks of parameters accept."""

import importlib
import pkgutil
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from sklearn.base import BaseEstimator

import skqos
from skqos._sklearn_compat import StrOptions


def _estimator_classes():
    for module in pkgutil.walk_packages(skqos.__path__, "skqos."):
        for value in vars(importlib.import_module(module.name)).values():
            is_class = isinstance(value, type) and issubclass(value, BaseEstimator)
            if is_class and value.__module__ == module.name and "__init__" in vars(value):
                yield value


def _literals(hint):
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    return set().union(*map(_literals, get_args(hint)))


def _choices():
    for kind in _estimator_classes():
        for name, constraints in getattr(kind, "_parameter_constraints", {}).items():
            options = [one.options for one in constraints if isinstance(one, StrOptions)]
            if options:
                yield pytest.param(kind, name, options[0], id=f"{kind.__name__}-{name}")


@pytest.mark.parametrize(("kind", "name", "options"), list(_choices()))
def test_the_type_of_a_choice_lists_its_options(kind, name, options):
    assert _literals(get_type_hints(kind.__init__)[name]) == options
