"""The docstrings of the estimators: what they document, and one wording for what they share.

The description of a parameter, an attribute or a method's parameter begins with a paragraph that is
the same in all estimators that have one of that name. What holds for one estimator only follows in
further paragraphs.
"""

import inspect
import re
from dataclasses import dataclass

import pytest

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.baselines import (
    AMFRegressor,
    EmbeddingMLPRegressor,
    MedianRegressor,
    PMFRegressor,
    UIPCCRegressor,
)
from skqos.r2sl.latent_states import RegionalLatentStates

NETWORKS = [
    SAMoERegressor,
    SharpQoSRegressor,
    R2SLRegressor,
    TPMCFRegressor,
    EmbeddingMLPRegressor,
]
ESTIMATORS = [*NETWORKS, UIPCCRegressor, PMFRegressor, MedianRegressor, AMFRegressor]
METHODS = (
    "fit",
    "partial_fit",
    "predict",
    "predict_interval",
    "predict_probability",
    "score",
    "is_known",
)
# The only default that is written as a quotient.
QUOTIENTS = {"2/3": 2 / 3}


@dataclass(frozen=True)
class Entry:
    """An entry of a section of a docstring, such as a parameter."""

    name: str
    kind: str
    paragraphs: tuple[str, ...]


def entries(documented, section):
    """Return the entries of a section of a numpydoc docstring, which may be missing."""
    text = inspect.getdoc(documented)
    found = re.search(rf"^{section}\n-+\n(.*?)(?=\n\n\S[^\n]*\n-{{3,}}\n|\Z)", text, re.M | re.S)
    if found is None:
        return []
    parts = re.split(r"^(?=\S)", found[1], flags=re.M)
    return [entry for part in parts if part.strip() for entry in _entry(part)]


def _entry(text):
    """Read an entry, which may document several names at once."""
    header, _, description = text.partition("\n")
    names, _, kind = header.partition(" : ")
    paragraphs = tuple(
        " ".join(paragraph.split()) for paragraph in description.split("\n\n") if paragraph.strip()
    )
    return [Entry(name, kind, paragraphs) for name in names.split(", ")]


def stated_default(entry):
    """Return the default value that the type of a parameter ends with."""
    text = entry.kind.partition("default=")[2]
    assert text, f"{entry.name} states no default"
    return QUOTIENTS[text] if text in QUOTIENTS else eval(text, {"__builtins__": {}})


def check_parameters(documented, signature):
    """Assert that a docstring documents all parameters, in order, with their defaults."""
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    documented_entries = entries(documented, "Parameters")
    assert [entry.name for entry in documented_entries] == [p.name for p in parameters]
    for entry, parameter in zip(documented_entries, parameters, strict=True):
        if parameter.default is not inspect.Parameter.empty:
            assert stated_default(entry) == parameter.default, entry.name
        assert entry.paragraphs, f"{entry.name} has no description"


def first_paragraphs(documented_by_owner, section):
    """Return, by name, the first paragraphs of the entries of all owners."""
    found = {}
    for documented in documented_by_owner:
        for entry in entries(documented, section):
            found.setdefault(entry.name, set()).add(entry.paragraphs[0])
    return found


def methods_of(estimator_class):
    """Return the documented methods of an estimator, by name."""
    members = {name: getattr(estimator_class, name, None) for name in METHODS}
    return {name: method for name, method in members.items() if method is not None}


@pytest.mark.parametrize("estimator_class", [*ESTIMATORS, RegionalLatentStates])
def test_every_parameter_is_documented_in_order_with_its_default(estimator_class):
    check_parameters(estimator_class, inspect.signature(estimator_class.__init__))


@pytest.mark.parametrize("estimator_class", ESTIMATORS)
def test_every_parameter_of_a_method_is_documented_in_order_with_its_default(estimator_class):
    for method in methods_of(estimator_class).values():
        check_parameters(method, inspect.signature(method))


@pytest.mark.parametrize("section", ["Parameters", "Attributes"])
def test_what_estimators_share_has_one_wording(section):
    found = first_paragraphs([*ESTIMATORS, RegionalLatentStates], section)
    different = {name: texts for name, texts in found.items() if len(texts) > 1}
    assert not different


@pytest.mark.parametrize("method", METHODS)
def test_what_methods_share_has_one_wording(method):
    owners = [methods_of(kind)[method] for kind in ESTIMATORS if method in methods_of(kind)]
    found = first_paragraphs(owners, "Parameters")
    different = {name: texts for name, texts in found.items() if len(texts) > 1}
    assert not different


@pytest.mark.parametrize("estimator_class", NETWORKS)
def test_the_attributes_that_all_networks_have_are_documented(estimator_class):
    documented = {entry.name for entry in entries(estimator_class, "Attributes")}
    shared = {"module_", "net_", "stage_nets_", "history_", "n_iter_", "users_", "services_"}
    assert shared <= documented
    assert ("PAPER_PARAMS" in documented) == hasattr(estimator_class, "PAPER_PARAMS")


def test_a_different_wording_a_missing_default_and_another_order_are_noticed():
    class Documented:
        """One line.

        Parameters
        ----------
        first, second : int, default=1
            Shared.

            Of one estimator.

        Returns
        -------
        int
        """

        def __init__(self, first=1, second=2):
            pass

    class Other:
        """One line.

        Parameters
        ----------
        second : int
            Not shared.
        """

        def __init__(self, second=2):
            pass

    found = first_paragraphs([Documented, Other], "Parameters")
    assert found == {"first": {"Shared."}, "second": {"Shared.", "Not shared."}}
    with pytest.raises(AssertionError, match="second"):
        check_parameters(Documented, inspect.signature(Documented.__init__))
    with pytest.raises(AssertionError, match="states no default"):
        check_parameters(Other, inspect.signature(Other.__init__))
    with pytest.raises(AssertionError):
        check_parameters(Other, inspect.signature(Documented.__init__))
