"""The pages have the tables of the stored results."""

import re
import shutil
from pathlib import Path

import pytest

from skqos.benchmarks import __main__ as command
from skqos.benchmarks.pages import find_pages, make_all_tables, write_pages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    return make_all_tables()


def test_the_command_changes_no_page(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    for page in find_pages(ROOT):
        shutil.copy(page, tmp_path / page.relative_to(ROOT))
    monkeypatch.chdir(tmp_path)
    command.main(["tables"])
    for page in find_pages(tmp_path):
        original = ROOT / page.relative_to(tmp_path)
        assert page.read_text() == original.read_text(), f"run docs/write_results.py for {original}"


def test_each_table_is_on_a_page(tables):
    text = "".join(path.read_text() for path in find_pages(ROOT))
    assert {name for name in tables if f"<!-- {name}: begin -->" not in text} == {"filtered"}


def test_tables_have_rows_of_the_same_length(tables):
    for name, text in tables.items():
        for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
            lines = block.splitlines()
            assert len(lines) > 2, name
            assert len({line.count("|") for line in lines}) == 1, name


def test_the_best_numbers_are_bold(tables):
    """In every table of models, unless bold stands for something else."""
    for name, text in tables.items():
        if not re.search("published|ablations|baselines|differences", name):
            assert re.search(r"\*\*\d", text), name


def test_marks_without_a_table_are_named(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- wrong: begin -->\n<!-- wrong: end -->\n")
    with pytest.raises(ValueError, match=r"no table of these marks: \['wrong'\]; there are"):
        write_pages([page])


def test_a_folder_without_pages_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        command.main(["tables"])
    assert "has no README.md or docs/*.md with marks of tables" in capsys.readouterr().err
