"""The top of the package: what it names is imported at its first use."""

import subprocess
import sys

import pytest

import skqos


def test_importing_the_package_imports_no_other():
    code = "import sys, skqos; assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["SAMoERegressor", "metrics"])
def test_names_are_imported_at_their_first_use(name):
    code = f"import skqos; assert skqos.{name}.__name__.endswith('{name}')"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [*skqos.__all__, *skqos._SUBMODULES])
def test_every_name_leads_to_what_it_names(name):
    assert name in dir(skqos)
    assert getattr(skqos, name).__name__.endswith(name)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'skqos' has no attribute 'fit'"):
        skqos.fit()
