"""numpy scalars as parameters: every int, float and bool parameter of every estimator."""

import functools
import inspect
import re
from ast import literal_eval
from fractions import Fraction
from numbers import Integral, Real

import numpy as np
import pandas as pd
import pytest

from skqos import TPMCFRegressor
from skqos._parameters import (
    SwitchedOff,
    check_items,
    check_numbers,
    parameter_names,
    plain_value,
    warn_of_unused_parameters,
    with_plain_parameters,
)
from skqos._sklearn_compat import Interval
from skqos.baselines import MedianRegressor, PMFRegressor, UIPCCRegressor
from skqos.exceptions import UnusedParameterWarning
from skqos.model_selection import DensitySplit, SlotSplit
from tests.common import CONTRACTS

# The smallest, which overflow or round most, and the largest.
INTEGERS = [np.int8, np.int64, np.uint8, np.uint64]
FLOATS = [np.float16, np.float32, np.longdouble]
BASELINES = [UIPCCRegressor, PMFRegressor, MedianRegressor]


def estimators():
    return [contract.estimator_class for contract in CONTRACTS] + BASELINES


def small(estimator_class):
    """Return an estimator that fits in a fraction of a second."""
    for contract in CONTRACTS:
        if contract.estimator_class is estimator_class:
            return contract.make()
    params = {"random_state": 0} if estimator_class is PMFRegressor else {}
    return estimator_class(**params)


def scalar_types(constraints):
    """Return the numpy types that a parameter's constraints allow, by what they name."""
    types = []
    for constraint in constraints:
        if constraint == "boolean":
            types.append(np.bool_)
        elif constraint in ("random_state", "verbose"):
            types.extend(INTEGERS)
        elif isinstance(constraint, Interval):
            types.extend({Integral: INTEGERS, Real: FLOATS}[constraint.type])
    return types


def parameters_without_a_number():
    """Return the parameters that may be a number, and are none in small estimators."""
    return [
        pytest.param(cls, name, id=f"{cls.__name__}-{name}")
        for cls in estimators()
        for name, constraints in cls._parameter_constraints.items()
        if scalar_types(constraints) and not isinstance(small(cls).get_params()[name], int | float)
    ]


def data_for(estimator_class):
    for contract in CONTRACTS:
        if contract.estimator_class is estimator_class:
            return contract.make_data(12, 15, density=0.6)
    return CONTRACTS[0].make_data(12, 15, density=0.6)


@pytest.mark.filterwarnings("ignore::skqos.exceptions.UnusedColumnsWarning")
# A default that was rounded to 16 bits counts as set.
@pytest.mark.filterwarnings("ignore::skqos.exceptions.UnusedParameterWarning")
@pytest.mark.parametrize(("estimator_class", "name"), parameters_without_a_number())
def test_every_parameter_takes_numpy_scalars(estimator_class, name):
    kind = scalar_types(estimator_class._parameter_constraints[name])[0]
    value = {np.bool_: True, np.int8: 100, np.float16: 0.5}[kind]
    check_numpy_scalars(estimator_class, {name: kind(value)})


@pytest.mark.parametrize("estimator_class", estimators())
@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS, np.bool_], ids=lambda kind: kind.__name__)
def test_all_parameters_of_a_numpy_type_at_once(estimator_class, kind):
    model = small(estimator_class)
    given = {}
    for name, value in model.get_params().items():
        allowed = kind in scalar_types(estimator_class._parameter_constraints[name])
        if allowed and isinstance(value, int | float):
            given[name] = kind(min(value, 100))
    check_numpy_scalars(estimator_class, given)


def check_numpy_scalars(estimator_class, given):
    """Numpy's scalars do what Python's do, in updates too, and stay as they were given."""
    model, found = learn(estimator_class, given)
    assert all(model.get_params()[name] is value for name, value in given.items())
    assert np.isfinite(found).all()
    plain = {name: plain_value(value) for name, value in given.items()}
    np.testing.assert_array_equal(found, learn_once(estimator_class, tuple(plain.items())))


def learn(estimator_class, given):
    """Return the estimator after an update, and its predictions."""
    data = data_for(estimator_class)
    model = small(estimator_class).set_params(**given).fit(data.X, data.y)
    if hasattr(model, "partial_fit"):
        model.partial_fit(data.X[:5], data.y[:5])
    return model, model.predict(data.X)


@functools.cache
def learn_once(estimator_class, given):
    """Return the predictions with values of Python, which are equal for all types of integers."""
    return learn(estimator_class, dict(given))[1]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.estimator_class.__name__)
@pytest.mark.parametrize("convert", [np.array, lambda value: [*map(np.int64, value)]])
def test_sequences_of_numpy_integers(contract, convert):
    model, data = contract.make(), contract.make_data(12, 15, density=0.6)
    names = [
        name
        for name, value in model.get_params().items()
        if isinstance(value, tuple) and value and isinstance(value[0], int)
    ]
    params = {name: convert(model.get_params()[name]) for name in names}
    twin = contract.make().fit(data.X, data.y)
    model.set_params(**params).fit(data.X, data.y)
    np.testing.assert_array_equal(model.predict(data.X), twin.predict(data.X))


@pytest.mark.parametrize(
    ("splitter", "own"),
    [(DensitySplit, {"n_time_steps": 4, "test_size": 7}), (SlotSplit, {"window": 2})],
)
@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS], ids=lambda kind: kind.__name__)
def test_splitters_take_numpy_scalars(splitter, own, kind):
    X = np.array([[u, s, t] for u in range(10) for s in range(20) for t in range(4)])
    plain = {"n_splits": 2, "n_users": 10, "n_services": 20, "random_state": 3, "density": 0.0625}
    plain |= own
    is_meant = int if np.issubdtype(kind, np.integer) else float
    given = {k: kind(v) if isinstance(v, is_meant) else v for k, v in plain.items()}
    made, expected = splitter(**given), splitter(**plain)
    assert type(made.get_n_splits()) is int
    for rows, same in zip(made.split(X), expected.split(X), strict=True):
        np.testing.assert_array_equal(rows[0], same[0])
        np.testing.assert_array_equal(rows[1], same[1])


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int8(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("adam"), "adam"),
        (np.array([64, 32]), [64, 32]),
        ((np.int64(64), "a"), (64, "a")),
        ("adam", "adam"),
        (None, None),
    ],
)
def test_plain_value(value, plain):
    made = plain_value(value)
    assert made == plain
    assert type(made) is type(plain)


def test_the_copy_leaves_the_original():
    splitter = DensitySplit(np.int8(2), random_state=np.random.RandomState(0))
    copy = with_plain_parameters(splitter)
    assert type(copy.n_splits) is int
    assert type(splitter.n_splits) is np.int8
    assert copy.random_state is splitter.random_state


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400, (8, 2**64), np.uint64(2**64 - 1)])
def test_integers_beyond_64_bits_are_refused_by_name(value):
    with pytest.raises(ValueError, match="'n_factors' parameter must hold integers of at most 64"):
        check_numbers({"n_factors": value})


@pytest.mark.parametrize("value", [Fraction(1, 2), [0.5, Fraction(1, 2)]])
def test_numbers_that_are_no_int_or_float_are_refused_by_name(value):
    with pytest.raises(TypeError, match="'user_weight' parameter must hold integers and floats"):
        check_numbers({"user_weight": value})


@pytest.mark.parametrize("value", [3, np.array(3), [[1], [2]], np.eye(2), [{}]])
def test_lists_of_no_items_are_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^features: "):
        check_items("features", value)


def test_true_is_the_integer_1_where_no_bool_is_meant():
    plain = with_plain_parameters(PMFRegressor(n_factors=True, max_iter=np.bool_(True)))
    assert (type(plain.n_factors), type(plain.max_iter)) == (int, int)
    plain = with_plain_parameters(UIPCCRegressor(significance_weighting=True))
    assert plain.significance_weighting is True


def documented_default(estimator_class, name):
    """Return what the docstring gives as the default of a parameter."""
    text = inspect.getdoc(estimator_class).split("\nParameters\n")[1].split("\nAttributes\n")[0]
    entry = rf"^(?:\w+, )*{name}(?:, \w+)* : (.*(?:\\\n.*)?)$"
    found = re.search(entry, text, flags=re.MULTILINE)
    assert found, f"{name} is not documented"
    default = found[1].split("default=")[1]
    # A fraction is no literal.
    return float(Fraction(default)) if "/" in default else literal_eval(default)


@pytest.mark.parametrize("estimator_class", estimators())
def test_documented_defaults_are_those_of_the_signature(estimator_class):
    for name, parameter in inspect.signature(estimator_class).parameters.items():
        assert documented_default(estimator_class, name) == parameter.default, name


class Switched:
    """An estimator to be, two of whose parameters depend on others."""

    _switched_off = (
        SwitchedOff(("depth", "width"), by={"graph": (False, None), "kind": ("flat",)}),
    )

    def __init__(self, graph=False, kind="flat", depth=2, width=(3, 4)):
        self.graph = graph
        self.kind = kind
        self.depth = depth
        self.width = width


@pytest.mark.parametrize("depth", [3, np.int64(3)])
def test_a_parameter_that_others_switch_off_warns_where_it_was_set(depth):
    with pytest.warns(UnusedParameterWarning) as caught:
        warn_of_unused_parameters(Switched(depth=depth))
    assert [str(one.message) for one in caught] == [
        "depth=3 has no effect with graph=False and kind='flat'."
    ]
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"depth": np.int8(2)},
        {"depth": 3, "graph": True},
        {"depth": 3, "kind": "deep"},
        {"graph": None, "width": (3, 4)},
    ],
)
def test_a_parameter_that_acts_or_was_not_set_does_not_warn(params):
    warn_of_unused_parameters(Switched(**params))


@pytest.mark.parametrize("estimator_class", estimators())
def test_rules_of_unused_parameters_name_parameters_and_spare_the_defaults(estimator_class):
    for rule in getattr(estimator_class, "_switched_off", ()):
        assert {*rule.parameters, *rule.by} <= set(parameter_names(estimator_class))
    if hasattr(estimator_class, "_switched_off"):
        warn_of_unused_parameters(estimator_class())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"validation_fraction": 0.3}, "validation_fraction=0.3 has no effect with early_stopping"),
        (
            {"early_stopping": "monitor", "n_iter_no_change": 2},
            "n_iter_no_change=2 has no effect with early_stopping='monitor'",
        ),
    ],
)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.estimator_class.__name__)
def test_fit_warns_of_parameters_without_effect(contract, params, message):
    data = data_for(contract.estimator_class)
    with pytest.warns(UnusedParameterWarning, match=message) as caught:
        contract.make(**params).fit(data.X, data.y)
    assert caught[0].filename == __file__


def test_a_list_that_equals_the_default_is_not_set_in_vain():
    model = TPMCFRegressor(modules="gcmf", hidden_sizes=[256, 128], target_steps=pd.Index([1, 2]))
    with pytest.warns(UnusedParameterWarning) as told:
        warn_of_unused_parameters(model)
    assert {str(one.message).partition("=")[0] for one in told} == {"target_steps"}
