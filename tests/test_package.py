"""The top of the package: what it names is imported at its first use."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import skqos

ROOT = Path(__file__).resolve().parents[1]
BLOB = "https://github.com/skqos/skqos/blob/main/"


def test_importing_the_package_imports_no_other():
    code = "import sys, skqos; assert not {'torch', 'sklearn', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


WITHOUT_NETWORKS = """
import sys
import skqos.benchmarks, skqos.inspection
from skqos.baselines import *
X = [[0, 0], [0, 1], [1, 0]]
for model in (UIPCCRegressor(), PMFRegressor(), MedianRegressor(by="pair"), AMFRegressor()):
    model.fit(X, [1.0, 2.0, 3.0]).predict(X)
print(*{"torch", "skorch", "lightgbm", "catboost", "matplotlib"} & set(sys.modules))
"""


def test_benchmarks_displays_and_baselines_need_neither_torch_nor_matplotlib():
    command = [sys.executable, "-c", WITHOUT_NETWORKS]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_names_are_imported_at_their_first_use():
    names = ["metrics", "SAMoERegressor"]
    code = f"import skqos; assert all(getattr(skqos, n).__name__.endswith(n) for n in {names})"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [*skqos.__all__, *skqos._SUBMODULES])
def test_every_name_leads_to_what_it_names(name):
    assert name in dir(skqos)
    assert getattr(skqos, name).__name__.endswith(name)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'skqos' has no attribute 'fit'"):
        skqos.fit()


def test_links_of_the_readme_work_on_pypi_and_name_files_of_the_repository():
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert all(link.startswith("https://") for link in links)
    paths = [link.removeprefix(BLOB).split("#")[0] for link in links if link.startswith(BLOB)]
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).is_file()] == []


def test_the_readme_installs_torch_for_the_cpu_ahead_of_all_else():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    first = next(command for command in commands if "pip install" in command)
    assert "torch --index-url https://download.pytorch.org/whl/cpu" in first


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {skqos.__version__}\n" in citation
