"""A paper's setting beside its published figures."""

import functools

import numpy as np
import pytest

from skqos import SAMoERegressor
from skqos.benchmarks import _reproduce, _run, load_published_results, load_split, reproduce
from skqos.benchmarks._models import make_model
from skqos.benchmarks._papers import PAPERS
from skqos.benchmarks._reproduce import find_figures, find_paper, write_comparison
from skqos.benchmarks._splits import RECIPES

SPLIT = "wsdream1-rt-0.025"
TINY = {"first_stage_epochs": 1, "max_epochs": 1, "tower_dim": 4, "embedding_dim": 4}

published_results = functools.cache(load_published_results)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)], ids=["one seed", "two seeds"])
def test_ours_stand_beside_the_published_figures(wsdream_folder, tmp_path, monkeypatch, seeds):
    monkeypatch.setattr(_run, "in_own_process", lambda function, *args: function(*args))
    settings = {**SAMoERegressor.PAPER_PARAMS, **TINY, "n_factors": 4, "n_heads": 1}
    monkeypatch.setattr(SAMoERegressor, "PAPER_PARAMS", settings)
    out = tmp_path / "out.csv"
    table = reproduce("SAMoE", 2026, SPLIT, wsdream_folder, out, seeds=seeds)
    table = table.set_index("metric")
    assert table["published"].to_dict() == {"mae": 0.2918, "rmse": 1.1538}
    np.testing.assert_allclose(table["ratio"], table["ours"] / table["published"])
    assert table["std"].isna().all() == (len(seeds) == 1)
    assert not table["comparable"].any()
    text = write_comparison(table.reset_index())
    assert "Not comparable: as good at 2.5 %" in text
    assert "SA-MoE paper (arXiv:2601.11036), table 1" in text
    assert f"ours, {len(seeds)} seeds" in text


def test_spelling_does_not_count_but_for_the_last_hyphen():
    for name in ("SA-MoE", "SAMoE", "sa moe"):
        assert find_paper(name, 2026).method == "SA-MoE"
    assert find_paper("SAMoE-", 2026).method == "SA-MoE-"


def test_unknown_names_are_refused_with_those_that_exist(tmp_path):
    with pytest.raises(ValueError, match=r"no paper 'SHARP-QoS 2025'; there are SA-MoE 2026, "):
        reproduce("SHARP-QoS", 2025, SPLIT, tmp_path, tmp_path / "o.csv")
    with pytest.raises(ValueError, match="no split 'rt'; there are"):
        reproduce("SA-MoE", 2026, "rt", tmp_path, tmp_path / "o.csv")
    with pytest.raises(ValueError, match=r"no published figure .*; it has .* wsdream1-rt-0\.025, "):
        reproduce("SA-MoE", 2026, "wsdream1-rt-0.01", tmp_path, tmp_path / "o.csv")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.method)
def test_each_paper_has_figures_of_its_own(paper, monkeypatch):
    monkeypatch.setattr(_reproduce, "load_published_results", published_results)
    names = [name for name in RECIPES if not find_figures(paper, name).empty]
    assert names
    published = published_results().query(f"method == {paper.method!r}")
    for name in names:
        found = find_figures(paper, name)
        assert not found.duplicated("metric").any()
        assert set(found["source"]) <= set(published["source"])
        assert paper.filtered == (found["protocol"] == "filtered").all()


def test_papers_are_made_with_their_settings(wsdream_folder):
    split = load_split(SPLIT, wsdream_folder)
    made = {p.method: make_model(p.model, split, 3) for p in PAPERS if p.method != "TPMCF"}
    for method, model in made.items():
        assert model[-1].random_state == 3, method
        paper_params = dict(type(model[-1]).PAPER_PARAMS)
        if method == "SA-MoE-":
            paper_params["pseudo_label_ratio"] = 0
        if method == "MF-MoE":
            paper_params |= {"refill_ratio": 0, "pseudo_label_ratio": 0, "max_epochs": 100}
        assert paper_params.items() <= model[-1].get_params().items()
    assert set(made["SA-MoE"][0].users) == {"country", "as"}
    assert set(made["R2SL"][0].services) == {"as", "city", "latitude", "longitude"}
    tpmcf = make_model(find_paper("TPMCF", 2024).model, split, 3)
    assert type(tpmcf).PAPER_PARAMS.items() <= tpmcf.get_params().items()
