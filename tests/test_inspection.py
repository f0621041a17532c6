"""The Displays: what they hold, what they draw, and what they refuse."""

import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skqos import R2SLRegressor, SAMoERegressor, SharpQoSRegressor, TPMCFRegressor
from skqos.baselines import MedianRegressor
from skqos.datasets import make_qos
from skqos.inspection import (
    AttentionDisplay,
    ExpertShareDisplay,
    GateProbabilityDisplay,
    GroupErrorDisplay,
    IntervalCoverageDisplay,
    LatentStateDisplay,
    PredictionIntervalDisplay,
    ProbabilityCalibrationDisplay,
    TrainingHistoryDisplay,
    group_errors,
)
from skqos.intervals import IntervalRegressor
from skqos.preprocessing import ContextJoiner
from skqos.r2sl.latent_states import RegionalLatentStates
from tests.common import CONTRACTS

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")

MAKE = {contract.estimator_class: contract.make for contract in CONTRACTS}
NAMES = ["response time", "throughput"]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def static():
    return make_qos(15, 25, density=0.5, n_regions=4, n_as=6, random_state=0)


@pytest.fixture(scope="module")
def temporal():
    return make_qos(10, 15, density=0.5, n_time_steps=5, random_state=0)


def with_context(data, model):
    return make_pipeline(ContextJoiner(data.users, data.services), model)


@pytest.fixture(scope="module")
def experts(static):
    model = MAKE[SAMoERegressor](early_stopping="monitor")
    return with_context(static, model).fit(static.X, static.y)


@pytest.fixture(scope="module")
def regional(static):
    return with_context(static, MAKE[R2SLRegressor]()).fit(static.X, static.y)


@pytest.fixture(scope="module")
def joint_data():
    return make_qos(15, 25, density=0.5, n_qos=2, random_state=0)


@pytest.fixture(scope="module")
def joint(joint_data):
    model = MAKE[SharpQoSRegressor](n_cross_blocks=3)
    return with_context(joint_data, model).fit(joint_data.X, joint_data.y)


@pytest.fixture(scope="module")
def attentive(temporal):
    return MAKE[TPMCFRegressor](n_blocks=2).fit(temporal.X, temporal.y)


class ResidualQuantiles(RegressorMixin, BaseEstimator):
    """The medians of services; quantiles and probabilities from the residuals of all rows."""

    def fit(self, X, y):
        self.median_ = MedianRegressor().fit(X, y)
        self.residuals_ = np.sort(y - self.median_.predict(X))
        return self

    def predict(self, X, quantiles=None):
        check_is_fitted(self)
        point = self.median_.predict(X)
        return point if quantiles is None else np.add.outer(point, self._quantile(quantiles))

    def predict_probability(self, X, limit):
        room = limit - self.median_.predict(X)
        return np.searchsorted(self.residuals_, room, side="right") / len(self.residuals_)

    def _quantile(self, quantiles):
        return np.quantile(self.residuals_, quantiles)


class TwoTargets(RegressorMixin, BaseEstimator):
    """The same for each column of y."""

    def fit(self, X, y):
        self.models_ = [ResidualQuantiles().fit(X, column) for column in np.transpose(y)]
        return self

    def predict(self, X, **options):
        return np.stack([model.predict(X, **options) for model in self.models_], axis=1)

    def predict_probability(self, X, limit):
        return np.stack([model.predict_probability(X, limit) for model in self.models_], axis=1)


@pytest.fixture(scope="module")
def uncertain(static):
    return with_context(static, ResidualQuantiles()).fit(static.X, static.y)


@pytest.fixture
def displays(static, temporal, experts, regional, joint, attentive, uncertain):
    """Ways to make each Display, and how many axes it draws on."""
    rows = static.X, static.y
    groups = {"user_groups": "user_region", "service_groups": "service_region"}
    return {
        "history": (partial(TrainingHistoryDisplay.from_estimator, experts), 1),
        "gates": (partial(GateProbabilityDisplay.from_estimator, joint), 2),
        "experts": (partial(ExpertShareDisplay.from_estimator, experts, *rows), 1),
        "states": (partial(LatentStateDisplay.from_estimator, regional), 2),
        "attention": (partial(AttentionDisplay.from_estimator, attentive, temporal.X), 1),
        "errors": (partial(GroupErrorDisplay.from_estimator, experts, *rows, **groups), 1),
        "coverage": (partial(IntervalCoverageDisplay.from_estimator, uncertain, *rows), 1),
        "intervals": (partial(PredictionIntervalDisplay.from_estimator, uncertain, *rows), 1),
        "probability": (
            partial(ProbabilityCalibrationDisplay.from_estimator, uncertain, *rows, limit=1.0),
            1,
        ),
    }


DISPLAYS = pytest.mark.parametrize(
    "name",
    [
        *("history", "gates", "experts", "states", "attention", "errors"),
        *("coverage", "intervals", "probability"),
    ],
)


# --- What all have in common --------------------------------------------------------------------


@DISPLAYS
def test_a_new_figure_is_made_and_drawn_on(displays, name):
    make, n_axes = displays[name]
    display = make()
    assert plt.get_fignums() == [display.figure_.number]
    axes = axes_of(display)
    assert len(axes) == n_axes
    assert all(one.figure is display.figure_ for one in axes)
    display.figure_.canvas.draw()


def axes_of(display):
    return display.axes_ if hasattr(display, "axes_") else [display.ax_]


@DISPLAYS
def test_given_axes_are_drawn_on_and_nothing_else_changes(displays, name):
    make, n_axes = displays[name]
    figure, axes = plt.subplots(1, n_axes + 1)
    untouched = axes[-1]
    plt.sca(untouched)
    given = axes[:n_axes] if n_axes > 1 else axes[0]
    display = make(ax=given)
    assert display.figure_ is figure
    assert list(axes_of(display)) == list(axes[:n_axes])
    assert plt.get_fignums() == [figure.number]
    assert plt.gca() is untouched
    assert not untouched.has_data()


@DISPLAYS
def test_plot_returns_the_display_and_can_be_repeated(displays, name):
    display = displays[name][0]()
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first


@DISPLAYS
def test_axes_that_do_not_fit_are_refused(displays, name):
    make, n_axes = displays[name]
    _, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match=f"for each of the {n_axes} panels; got 3 of type Axes"):
        make(ax=axes)
    with pytest.raises(ValueError, match=f"for each of the {n_axes} panels; got 1 of type str"):
        make(ax="left")


@DISPLAYS
def test_without_matplotlib_the_error_says_what_to_install(displays, name, monkeypatch):
    display = displays[name][0]()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"requires matplotlib\. You can install it with `pip install 'skqos\[plot\]'`"
    with pytest.raises(ImportError, match=rf"{type(display).__name__}\.plot {message}"):
        display.plot()
    with pytest.raises(ImportError, match=rf"{type(display).__name__}\.from_estimator {message}"):
        displays[name][0]()


OF_ONE_KIND = {
    "history": (TrainingHistoryDisplay, (), SAMoERegressor, "BaseQoSRegressor"),
    "gates": (GateProbabilityDisplay, (), SharpQoSRegressor, "SharpQoSRegressor"),
    "experts": (ExpertShareDisplay, ([[0, 1]], [1.0]), SAMoERegressor, "SAMoERegressor"),
    "states": (LatentStateDisplay, (), R2SLRegressor, "R2SLRegressor or RegionalLatentStates"),
    "attention": (AttentionDisplay, ([[0, 1, 2]],), TPMCFRegressor, "TPMCFRegressor"),
}


@pytest.mark.parametrize("name", OF_ONE_KIND)
def test_other_estimators_are_refused(name):
    display, data, _, needed = OF_ONE_KIND[name]
    with pytest.raises(TypeError, match=f"needs a fitted {needed}, or a Pipeline .* got Linear"):
        display.from_estimator(LinearRegression(), *data)
    with pytest.raises(TypeError, match="got a Pipeline that ends in LinearRegression"):
        display.from_estimator(make_pipeline(FunctionTransformer(), LinearRegression()), *data)


@pytest.mark.parametrize("name", OF_ONE_KIND)
def test_unfitted_estimators_are_refused(name):
    display, data, kind, _ = OF_ONE_KIND[name]
    for estimator in (kind(), make_pipeline(ContextJoiner(), kind())):
        with pytest.raises(NotFittedError):
            display.from_estimator(estimator, *data)
    assert not plt.get_fignums()


# --- Training history ---------------------------------------------------------------------------


def test_stages_stand_one_after_the_other(experts):
    display = TrainingHistoryDisplay.from_estimator(experts)
    history = experts[-1].history_
    first, final = (history[history["stage"] == name] for name in ("first", "final"))
    columns = ("train_loss", "valid_loss")
    assert set(display.lines_) == {(s, c) for s in ("first", "final") for c in columns}
    for column in columns:
        line = display.lines_["final", column]
        assert_array_equal(line.get_xdata(), len(first) + np.arange(1, len(final) + 1))
        assert_array_equal(line.get_ydata(), final[column])
        assert_array_equal(display.lines_["first", column].get_ydata(), first[column])
        assert line.get_color() == display.lines_["first", column].get_color()
    (ax,) = display.axes_
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert [text.get_text() for text in ax.texts] == ["first", "final"]


def test_stages_stand_side_by_side(experts):
    display = TrainingHistoryDisplay.from_estimator(experts, stages="separate")
    assert [ax.get_title() for ax in display.axes_] == ["stage first", "stage final"]
    for ax, stage in zip(display.axes_, ("first", "final"), strict=True):
        line = display.lines_[stage, "train_loss"]
        assert line.axes is ax
        assert line.get_xdata()[0] == 1


def test_without_validation_rows_there_is_no_validation_loss(regional):
    display = TrainingHistoryDisplay.from_estimator(regional, line_kw={"lw": 4, "c": "k"})
    assert list(display.lines_) == [("final", "train_loss")]
    line = display.lines_["final", "train_loss"]
    assert (line.get_linewidth(), line.get_color()) == (4, "k")
    assert not display.axes_[0].texts


@pytest.mark.parametrize(
    ("kind", "column"), [("task_loss", "train_loss"), ("task_weight", "task_weight")]
)
def test_targets_of_joint_training(joint, kind, column):
    display = TrainingHistoryDisplay.from_estimator(joint, kind=kind, target_names=NAMES)
    assert list(display.lines_) == [("final", f"{column}_{k}") for k in range(2)]
    for k, line in enumerate(display.lines_.values()):
        assert line.get_label() == NAMES[k]
        assert_array_equal(line.get_ydata(), joint[-1].history_[f"{column}_{k}"])
    unnamed = TrainingHistoryDisplay.from_estimator(joint, kind=kind)
    assert unnamed.lines_["final", f"{column}_1"].get_label() == "target 1"


def test_updates_follow_one_another(qos):
    model = MAKE[R2SLRegressor](max_epochs=3, partial_fit_epochs=2).fit(qos.X, qos.y)
    for _ in range(2):
        model.partial_fit(qos.X[:20], qos.y[:20])
    display = TrainingHistoryDisplay.from_estimator(model)
    assert display.lines_["partial", "train_loss"].get_xdata().tolist() == [4, 5, 6, 7]


def test_history_refuses_what_is_not_there(experts, joint):
    make = TrainingHistoryDisplay.from_estimator
    with pytest.raises(ValueError, match="needs the columns 'task_weight_0' and so on, which Shar"):
        make(experts, kind="task_weight")
    with pytest.raises(ValueError, match=r"kind must be one of .*; got 'losses'"):
        make(experts, kind="losses")
    with pytest.raises(ValueError, match="stages must be one of"):
        make(experts, stages="both")
    with pytest.raises(ValueError, match="for each of the 2 targets; got 1"):
        make(joint, kind="task_loss", target_names=["rt"])
    assert not plt.get_fignums()


# --- Gates and experts --------------------------------------------------------------------------


def test_gates_are_drawn_as_they_are(joint):
    gates = joint[-1].gate_probabilities_
    display = GateProbabilityDisplay.from_estimator(joint, target_names=NAMES)
    assert list(display.images_) == ["snr", "cross_snr"]
    assert_array_equal(display.images_["snr"].get_array(), gates["snr"])
    cross = [gates["cross_snr"][0, 1], gates["cross_snr"][1, 0]]
    assert_array_equal(display.images_["cross_snr"].get_array(), cross)
    assert display.tables["cross_snr"].index.tolist() == [tuple(NAMES), tuple(NAMES[::-1])]
    labels = [label.get_text() for label in display.axes_[1].get_yticklabels()]
    assert labels == ["response time\nfrom throughput", "throughput\nfrom response time"]
    assert display.text_["snr"][1, 0].get_text() == f"{gates['snr'][1, 0]:.2f}"
    assert display.images_["snr"].get_clim() == (0, 1)


def test_cross_gates_of_three_targets_by_loops():
    cross = np.random.default_rng(0).random((3, 3, 2))
    table = GateProbabilityDisplay(
        gate_probabilities={"cross_snr": cross}, target_names=list("abc")
    ).tables["cross_snr"]
    assert len(table) == 6
    for i, target in enumerate("abc"):
        for j, source in enumerate("abc"):
            if i != j:
                assert_array_equal(table.loc[(target, source)], cross[i, j])


def test_text_is_light_on_dark_and_dark_on_light():
    display = GateProbabilityDisplay(gate_probabilities={"snr": np.array([[0.0, 1.0]])}).plot()
    assert [text.get_color() for text in display.text_["snr"][0]] == ["white", "black"]
    display.plot(include_values=False, im_kw={"cmap": "Blues"})
    assert display.text_["snr"] is None
    assert display.images_["snr"].get_cmap().name == "Blues"


def test_without_gates_there_is_nothing_to_draw(joint_data):
    model = MAKE[SharpQoSRegressor](
        routing=False, cross_routing=False, n_blocks=4, n_cross_blocks=4
    )
    model.fit(joint_data.X, joint_data.y)
    with pytest.raises(ValueError, match=r"has no gates: .*routing=False .* cross_routing=False"):
        GateProbabilityDisplay.from_estimator(model)
    with pytest.raises(ValueError, match="gate_probabilities is empty"):
        GateProbabilityDisplay(gate_probabilities={})


def test_one_routing_takes_one_panel(joint_data):
    model = MAKE[SharpQoSRegressor](cross_routing=False, n_cross_blocks=4).fit(
        with_context(joint_data, None)[0].fit_transform(joint_data.X), joint_data.y
    )
    _, ax = plt.subplots()
    display = GateProbabilityDisplay.from_estimator(model, ax=ax)
    assert list(display.images_) == ["snr"]


def test_bars_are_the_shares_of_the_experts(experts, static):
    display = ExpertShareDisplay.from_estimator(experts, static.X, static.y)
    shares = experts[-1].expert_shares(experts[:-1].transform(static.X), static.y)
    pd.testing.assert_frame_equal(display.shares, shares)
    for column, bars in display.bars_.items():
        assert_array_equal([bar.get_height() for bar in bars], shares[column])
    ticks = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert ticks == shares.index.tolist()
    written = {text.get_text() for text in display.ax_.texts}
    assert {f"{share:.2f}" for share in shares["best_share"]} <= written
    thin = ExpertShareDisplay(shares=shares).plot(include_values=False, bar_kw={"lw": 3})
    assert not thin.ax_.texts
    assert thin.bars_["best_share"][0].get_linewidth() == 3


# --- Latent states ------------------------------------------------------------------------------


def sorted_slowly(table):
    """Return the rows by state, then by falling probability."""
    keys = [(row.argmax(), -row.max()) for row in table.to_numpy()]
    return table.iloc[sorted(range(len(table)), key=keys.__getitem__)]


@pytest.mark.parametrize("kind", [None, "as"])
def test_states_are_sorted(regional, kind):
    display = LatentStateDisplay.from_estimator(regional, kind=kind)
    model = regional[-1]
    expected = model.latent_states_[kind or model.region_features_[0]]
    for side, ax in zip(("user", "service"), display.axes_, strict=True):
        rows = sorted_slowly(expected.loc[side])
        assert_array_equal(display.images_[side].get_array(), rows)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == ["unknown" if pd.isna(name) else name for name in rows.index]


def test_regions_count_their_entities(regional, static):
    display = LatentStateDisplay.from_estimator(regional, kind="as")
    for side, table, column in (("user", static.users, 0), ("service", static.services, 1)):
        of_entity = table.loc[np.unique(static.X[:, column]), "as"]
        for region, n in display.n_entities.loc[side].items():
            is_there = of_entity.isna() if pd.isna(region) else of_entity == region
            assert n == is_there.sum() > 0


def test_the_largest_regions_are_drawn(regional):
    display = LatentStateDisplay.from_estimator(regional, kind="as", n_regions=2)
    for side in ("user", "service"):
        sizes = display.n_entities.loc[side]
        shown = display.shown_[side].index
        assert len(shown) == 2
        assert sizes[sizes.index.isin(shown)].min() >= sizes[~sizes.index.isin(shown)].max()
    assert len(display.plot(n_regions=None).shown_["user"]) == len(display.states.loc["user"])
    with pytest.raises(ValueError, match="n_regions must be 1 or more"):
        display.plot(n_regions=0)


def test_states_without_an_estimator(static):
    regions = [
        table["as"].astype(object).to_numpy()[static.X[:, k]]
        for k, table in enumerate((static.users, static.services))
    ]
    model = RegionalLatentStates(2, random_state=0).fit(*regions, static.y)
    display = LatentStateDisplay.from_estimator(model, kind="AS", n_regions=3)
    assert display.n_entities is None
    assert set(display.shown_["user"].index) == set(model.user_regions_[:3])
    assert display.axes_[0].get_title() == "AS of users"


def test_without_regions_there_are_no_states(static, regional):
    model = MAKE[R2SLRegressor]().fit(static.X, static.y)
    with pytest.raises(ValueError, match=r"has no latent states, .* without regions"):
        LatentStateDisplay.from_estimator(model)
    with pytest.raises(ValueError, match=r"kind must be one of .*'as'.*; got 'city'"):
        LatentStateDisplay.from_estimator(regional, kind="city")


# --- Attention ----------------------------------------------------------------------------------


def test_windows_by_loops(attentive, temporal):
    times = np.unique(temporal.X[:, 2])
    X = np.array([[0, 1, 0], [0, 1, 1], [3, 2, 4], [3, 2, 9], [777, 2, 3]])
    expected = []
    for time in X[:, 2]:
        end = max([t for t in times if t <= time], default=times[0])
        window = range(end - attentive.window + 1, end + 1)
        expected.append([t if t in times else np.nan for t in window])
    before = attentive.predict(X)
    found = attentive.window_times(X)
    assert_array_equal(found, expected)
    assert_array_equal(np.isnan(found), attentive.attention_weights(X).sum(axis=(1, 2, 3)) == 0)
    assert_array_equal(attentive.predict(X), before)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_windows_of_time_stamps(temporal, zone):
    X = pd.DataFrame(temporal.X, columns=["user", "service", "time"])
    start = pd.Timestamp("2026-05-01", tz=zone)
    X = X.assign(time=start + pd.to_timedelta(X["time"], unit="h"))
    model = MAKE[TPMCFRegressor](time_step="1h").fit(X, temporal.y)
    numbered = MAKE[TPMCFRegressor]().fit(temporal.X, temporal.y).window_times(temporal.X)
    found = model.window_times(X)
    assert_array_equal(pd.isna(found), np.isnan(numbered))
    hours = pd.to_timedelta(numbered[~np.isnan(numbered)], unit="h")
    assert_array_equal(pd.DatetimeIndex(found[~pd.isna(found)]), start + hours)
    full = X[~pd.isna(found).any(axis=1)].iloc[[0]]
    for kind in ("matrix", "received"):
        display = AttentionDisplay.from_estimator(model, full, kind=kind)
        assert display.attention_.index[-1] == full["time"].iloc[0]
    display.figure_.canvas.draw()


def test_windows_need_sequences(temporal):
    model = MAKE[TPMCFRegressor](modules="gcmf").fit(temporal.X, temporal.y)
    with pytest.raises(AttributeError, match="has no windows; window_times needs"):
        model.window_times(temporal.X)
    with pytest.raises(AttributeError, match="has no attention"):
        AttentionDisplay.from_estimator(model, temporal.X)
    with pytest.raises(NotFittedError):
        TPMCFRegressor().window_times(temporal.X)


def averaged_slowly(weights, times, heads):
    """Return the mean over heads and those rows whose window has the attending step."""
    window = times.shape[1]
    result = np.full((window, window), np.nan)
    for i in range(window):
        rows = [k for k in range(len(times)) if not np.isnan(times[k, i])]
        if rows:
            result[i] = np.mean([weights[k, h, i] for k in rows for h in heads], axis=0)
    return result


@pytest.mark.parametrize(("block", "head"), [(-1, None), (0, 1)])
def test_attention_is_averaged_over_rows(attentive, temporal, block, head):
    display = AttentionDisplay.from_estimator(attentive, temporal.X, block=block, head=head)
    weights = attentive.attention_weights(temporal.X)[:, block]
    heads = range(attentive.n_heads) if head is None else [head]
    expected = averaged_slowly(weights, attentive.window_times(temporal.X), heads)
    assert_allclose(display.attention_, expected)
    assert_allclose(display.attention_.sum(axis=1), 1)
    assert_array_equal(display.image_.get_array(), display.attention_)
    assert display.attention_.index.tolist() == [-2, -1, 0]
    assert display.lines_ is None


def test_rows_of_one_window_show_its_times(attentive, temporal):
    display = AttentionDisplay.from_estimator(attentive, temporal.X[temporal.X[:, 2] == 4])
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == ["2", "3", "4"]
    assert display.ax_.get_ylabel() == "of time step"


def test_steps_that_no_row_has_are_blank(attentive):
    display = AttentionDisplay.from_estimator(attentive, [[0, 1, 0]])
    assert_array_equal(display.image_.get_array().mask[:, 0], [True, True, False])
    assert display.attention_.loc[0].tolist() == [0, 0, 1]


def test_attention_received(attentive, temporal):
    display = AttentionDisplay.from_estimator(attentive, temporal.X, kind="received")
    weights = attentive.attention_weights(temporal.X)[:, -1]
    times = attentive.window_times(temporal.X)
    assert len(display.lines_) == attentive.n_heads
    for head, line in enumerate(display.lines_):
        expected = np.nanmean(averaged_slowly(weights, times, [head]), axis=0)
        assert_allclose(line.get_ydata(), expected)
        assert line.get_label() == f"head {head}"
    assert display.image_ is None
    single = display.plot(kind="received", head=1, line_kw={"ls": ":"})
    assert [line.get_label() for line in single.lines_] == ["head 1"]
    assert single.lines_[0].get_linestyle() == ":"


def test_uniform_attention_lies_on_the_line_of_reference():
    times = np.array([[np.nan, 0, 1], [0, 1, 2]])
    uniform = np.array([[0, 0.5, 0.5], [1 / 3] * 3])
    weights = np.broadcast_to(uniform[:, None, None, None], (2, 1, 1, 3, 3))
    display = AttentionDisplay(weights=weights, window_times=times).plot(kind="received")
    reference = next(line for line in display.ax_.lines if line.get_label() == "uniform")
    assert_allclose(reference.get_ydata(), display.lines_[0].get_ydata())


def test_attention_without_times_takes_all_windows_as_full():
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 1, 2, 3))
    display = AttentionDisplay(weights=weights).plot()
    assert_allclose(display.attention_, weights.mean(axis=(0, 1, 2)))


def test_steps_after_that_of_the_row_have_positive_labels(temporal):
    model = MAKE[TPMCFRegressor](window=4, window_side="both").fit(temporal.X, temporal.y)
    rows = [[0, 1, 1], [0, 1, 2]]
    assert model.window_times(rows).tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    display = AttentionDisplay.from_estimator(model, rows)
    assert display.attention_.index.tolist() == [-1, 0, 1, 2]


def test_attention_refuses_blocks_and_heads_that_are_not_there(attentive, temporal):
    display = AttentionDisplay(weights=attentive.attention_weights(temporal.X[:3]))
    with pytest.raises(ValueError, match="block=2 does not exist; it must be from 0 to 1"):
        display.plot(block=2)
    with pytest.raises(ValueError, match="head=-3 does not exist"):
        display.plot(head=-3)
    with pytest.raises(ValueError, match="kind must be one of"):
        display.plot(kind="lines")


# --- Errors by group ----------------------------------------------------------------------------


def errors_slowly(y, prediction, users, services):
    """Return the mean and the number of the errors of each pair of groups."""
    found = {}
    for value, guess, user, service in zip(y, prediction, users, services, strict=True):
        if not np.isnan(value):
            found.setdefault((user, service), []).append(abs(value - guess))
    return {key: (np.mean(errors), len(errors)) for key, errors in found.items()}


@pytest.fixture
def grouped():
    rng = np.random.default_rng(0)
    y = rng.exponential(size=60)
    y[::7] = np.nan
    users, services = rng.choice(list("abc"), 60), rng.choice(list("uvwx"), 60)
    return y, rng.exponential(size=60), users, services


def test_errors_of_pairs_of_groups_by_loops(grouped):
    y, prediction, users, services = grouped
    errors = group_errors(y, prediction, user_groups=users, service_groups=services, min_rows=1)
    expected = errors_slowly(*grouped)
    assert set(errors.index) == set(expected)
    for key, (mean, n_rows) in expected.items():
        assert errors.loc[key, "mean_absolute_error"] == pytest.approx(mean)
        assert errors.loc[key, "n_rows"] == n_rows


def test_groups_stand_in_order_of_their_error(grouped):
    y, prediction, users, services = grouped
    both = group_errors(y, prediction, user_groups=users, service_groups=services, min_rows=1)
    of_services = group_errors(y, prediction, service_groups=services, min_rows=1)
    assert of_services["mean_absolute_error"].is_monotonic_decreasing
    of_users = group_errors(y, prediction, user_groups=users, min_rows=1)
    order = [(u, s) for u in of_users.index for s in of_services.index if (u, s) in both.index]
    assert both.index.tolist() == order


def test_small_groups_are_merged():
    groups = ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + [None] * 4 + ["d"]
    y = np.arange(17.0)
    prediction = np.zeros(17)
    by_size = group_errors(y, prediction, user_groups=groups, min_rows=4, max_groups=None)
    assert by_size["n_rows"].to_dict() == {"unknown": 4, "b": 4, "a": 5, "other": 4}
    assert by_size.loc["other", "mean_absolute_error"] == pytest.approx(np.mean([9, 10, 11, 16]))
    by_number = group_errors(y, prediction, user_groups=groups, min_rows=1, max_groups=1)
    assert by_number["n_rows"].to_dict() == {"a": 5, "other": 12}
    y[:2] = np.nan
    assert "a" not in group_errors(y, prediction, user_groups=groups, min_rows=4).index


def test_group_errors_of_one_target(joint_data):
    y = joint_data.y
    prediction = np.zeros_like(y)
    users = joint_data.X[:, 0] % 3
    with pytest.raises(ValueError, match="y_true has 2 columns; select one with `target`"):
        group_errors(y, prediction, user_groups=users)
    errors = group_errors(y, prediction, user_groups=users, target=1)
    for group in range(3):
        expected = np.nanmean(np.abs(y[users == group, 1]))
        assert errors.loc[str(group), "mean_absolute_error"] == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"target=2 does not exist in y_true, which has 2 column"):
        group_errors(y, prediction, user_groups=users, target=2)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Give user_groups, service_groups, or both"),
        ({"user_groups": ["a"]}, "user_groups has 1 labels for 2 rows"),
        ({"user_groups": ["a", "b"], "min_rows": 0}, "min_rows must be 1 or more; got 0"),
        ({"user_groups": ["a", "b"], "max_groups": 0}, "max_groups must be 1 or more"),
    ],
)
def test_group_errors_refuse_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        group_errors([1.0, 2.0], [1.0, 2.0], **params)


def test_group_errors_refuse_bad_values():
    with pytest.raises(ValueError, match="y_true is NaN in every row"):
        group_errors([np.nan, np.nan], [1.0, 2.0], user_groups=["a", "b"])
    with pytest.raises(ValueError, match="y_pred contains NaN"):
        group_errors([1.0, 2.0], [np.nan, 2.0], user_groups=["a", "b"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        group_errors([1.0, 2.0], [2.0], user_groups=["a", "b"])


def test_the_heat_map_holds_the_errors(grouped):
    y, prediction, users, services = grouped
    # A pair of groups without rows.
    y = np.where((users == "a") & (services == "u"), np.nan, y)
    display = GroupErrorDisplay.from_predictions(
        y, prediction, user_groups=users, service_groups=services, min_rows=1
    )
    expected = errors_slowly(y, prediction, users, services)
    rows, columns = (
        [label.get_text() for label in labels]
        for labels in (display.ax_.get_yticklabels(), display.ax_.get_xticklabels())
    )
    worst_first = partial(group_errors, y, prediction, min_rows=1)
    assert rows == worst_first(user_groups=users).index.tolist()
    assert columns == worst_first(service_groups=services).index.tolist()
    values = display.image_.get_array()
    for i, user in enumerate(rows):
        for j, service in enumerate(columns):
            if (user, service) == ("a", "u"):
                assert values.mask[i, j]
                assert display.text_[i, j] is None
                continue
            mean, n_rows = expected[user, service]
            assert values[i, j] == pytest.approx(mean)
            assert display.text_[i, j].get_text() == f"{mean:#.3g}\nn={n_rows}"
    assert display.mean_absolute_error == pytest.approx(np.nanmean(np.abs(y - prediction)))
    assert display.plot(include_values=False).text_ is None


def test_bars_are_the_errors_of_groups(experts, static):
    display = GroupErrorDisplay.from_estimator(
        experts, static.X, static.y, user_groups="user_as", min_rows=5, bar_kw={"color": "C3"}
    )
    error = np.abs(experts.predict(static.X) - static.y)
    groups = static.users["as"].astype(object).fillna("unknown").to_numpy()[static.X[:, 0]]
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    for label, bar, text in zip(labels, display.bars_, display.text_, strict=True):
        if label != "other":
            of_group = groups == label
            assert bar.get_width() == pytest.approx(error[of_group].mean())
            assert text.get_text().endswith(f"(n={of_group.sum()})")
    assert display.line_.get_xdata()[0] == pytest.approx(error.mean())
    assert display.ax_.get_ylabel() == "user_as"
    assert display.bars_[0].get_facecolor() == matplotlib.colors.to_rgba("C3")
    assert display.image_ is None


def test_errors_are_written_with_three_digits():
    y = np.array([0.5, 12, 0.04567, 12345.6, 99.4])
    display = GroupErrorDisplay.from_predictions(
        y, np.zeros(5), user_groups=list("abcde"), min_rows=1
    )
    written = [text.get_text().split()[0] for text in display.text_]
    assert written == ["12,346", "99.4", "12.0", "0.500", "0.0457"]


def test_groups_by_name_and_by_label_are_the_same(experts, static):
    labels = experts[:-1].transform(static.X)["service_region"]
    by_name, by_label = (
        GroupErrorDisplay.from_estimator(experts, static.X, static.y, service_groups=groups)
        for groups in ("service_region", labels)
    )
    pd.testing.assert_frame_equal(by_name.errors, by_label.errors)


def test_errors_of_any_regressor():
    X = pd.DataFrame({"user": [0, 0, 1, 1], "service": [0, 1, 0, 1], "user_as": list("aabb")})
    y = np.array([1.0, 2.0, 3.0, 5.0])
    take = FunctionTransformer(lambda frame: frame[["user", "service"]])
    model = make_pipeline(take, LinearRegression()).fit(X, y)
    display = GroupErrorDisplay.from_estimator(model, X, y, user_groups=X["user_as"], min_rows=1)
    assert set(display.errors.index) == {"a", "b"}
    with pytest.raises(
        ValueError, match=r"user_groups='user_as' is not a column .* \['user', 'serv"
    ):
        GroupErrorDisplay.from_estimator(model, X, y, user_groups="user_as")
    with pytest.raises(ValueError, match="which has no column names"):
        GroupErrorDisplay.from_estimator(
            LinearRegression().fit([[0]], [1]), [[0]], [1], user_groups="user_as"
        )
    with pytest.raises(NotFittedError):
        GroupErrorDisplay.from_estimator(LinearRegression(), [[0]], [1], user_groups=["a"])
    with pytest.raises(TypeError, match="needs a fitted regressor; got FunctionTransformer"):
        GroupErrorDisplay.from_estimator(take, X, y, user_groups=["a"] * 4)


# --- Intervals ----------------------------------------------------------------------------------


def coverage_slowly(y, intervals, rows):
    inside = [
        low <= value <= high
        for value, (low, high) in zip(y[rows], intervals[rows], strict=True)
        if not np.isnan(value)
    ]
    return np.mean(inside), len(inside)


@pytest.fixture
def intervals(static, uncertain):
    return uncertain.predict(static.X, quantiles=[0.05, 0.95])


def test_coverage_by_band_of_the_prediction(uncertain, static, intervals):
    display = IntervalCoverageDisplay.from_estimator(uncertain, static.X, static.y, n_bands=4)
    prediction = uncertain.predict(static.X)
    previous = -np.inf
    for band, (share, n_rows) in display.coverage.iterrows():
        rows = (prediction > previous) & (prediction <= band.right)
        assert (share, n_rows) == coverage_slowly(static.y, intervals, rows)
        previous = band.right
    assert display.coverage["n_rows"].sum() == len(static.y)
    assert_array_equal(display.line_.get_ydata(), display.coverage["coverage"])
    assert_array_equal(display.level_line_.get_ydata(), [0.9, 0.9])
    assert display.ax_.get_xlabel() == "prediction"
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == [f"{b.left:.3g} to {b.right:.3g}" for b in display.coverage.index]
    given = IntervalCoverageDisplay.from_predictions(
        static.y, intervals, by=pd.Series(prediction, name="prediction"), n_bands=4
    )
    pd.testing.assert_frame_equal(given.coverage, display.coverage)


def test_coverage_by_group(uncertain, static, intervals):
    y = np.where(np.arange(len(static.y)) % 5, static.y, np.nan)
    display = IntervalCoverageDisplay.from_estimator(
        uncertain, static.X, y, groups="user", line_kw={"marker": "s"}, bar_kw={"color": "C3"}
    )
    assert set(display.coverage.index) == set(static.X[:, 0])
    for user, (share, n_rows) in display.coverage.iterrows():
        assert (share, n_rows) == coverage_slowly(y, intervals, static.X[:, 0] == user)
    assert display.shown_["coverage"].is_monotonic_increasing
    assert_array_equal(display.line_.get_ydata(), display.shown_["coverage"])
    labels = [label.get_text() for label in display.ax_.get_xticklabels()]
    assert labels == display.shown_.index.map(str).tolist()
    assert display.ax_.get_xlabel() == "user"
    assert display.line_.get_marker() == "s"
    assert display.bars_[0].get_facecolor() == matplotlib.colors.to_rgba("C3")
    by_label = IntervalCoverageDisplay.from_predictions(
        y, intervals, groups=pd.Series(static.X[:, 0], name="user"), min_rows=10
    )
    kept = display.coverage[display.coverage["n_rows"] >= 10]
    assert 0 < len(kept) < len(display.coverage)
    pd.testing.assert_frame_equal(by_label.coverage, kept)


def test_the_ranges_hold_95_percent_of_chance():
    """Shares of draws as promised lie in the ranges, of few rows and of many."""
    rng = np.random.default_rng(0)
    coverage = pd.DataFrame({"coverage": [0.8, 0.8], "n_rows": [20, 2000]}, index=["few", "many"])
    display = IntervalCoverageDisplay(coverage=coverage, confidence_level=0.8).plot()
    for bar, n_rows in zip(display.bars_, coverage["n_rows"], strict=True):
        shares = rng.binomial(n_rows, 0.8, size=20_000) / n_rows
        low, high = bar.get_y() - 1e-9, bar.get_y() + bar.get_height() + 1e-9
        assert 0.945 < ((low <= shares) & (shares <= high)).mean() < 0.985


def test_many_groups_have_no_labels():
    y = np.arange(100.0)
    intervals = np.column_stack([y, y + 1])
    display = IntervalCoverageDisplay.from_predictions(y, intervals, groups=np.arange(100))
    assert len(display.ax_.get_xticks()) == 0
    assert display.ax_.get_xlabel() == "group (100)"


def test_rows_stand_in_the_order_of_the_prediction(uncertain, static, intervals):
    display = PredictionIntervalDisplay.from_estimator(
        uncertain, static.X, static.y, max_rows=50, line_kw={"ls": ":"}, scatter_kw={"s": 3}
    )
    prediction = uncertain.predict(static.X)
    rows = display.rows_
    assert len(set(rows)) == 50
    assert (np.diff(prediction[rows]) >= 0).all()
    assert prediction[rows[0]] == prediction.min()
    assert prediction[rows[-1]] == prediction.max()
    assert_array_equal(display.line_.get_ydata(), prediction[rows])
    assert display.line_.get_linestyle() == ":"
    inside = (intervals[rows, 0] <= static.y[rows]) & (static.y[rows] <= intervals[rows, 1])
    assert 0 < inside.sum() < 50
    for points, shown in ((display.covered_, inside), (display.missed_, ~inside)):
        expected = np.column_stack([np.arange(50), static.y[rows]])[shown]
        assert_array_equal(points.get_offsets(), expected)
        assert_array_equal(points.get_sizes(), [3])
    corners = display.fill_.get_paths()[0].vertices
    for position, row in enumerate(rows):
        assert set(intervals[row]) <= set(corners[corners[:, 0] == position, 1])


def test_unobserved_rows_are_not_drawn():
    y = [np.nan, 3.0, 1.0]
    display = PredictionIntervalDisplay.from_predictions(
        y, [[0.0, 9.0], [2.0, 4.0], [0.0, 2.0]], fill_kw={"alpha": 0.5}
    )
    assert display.y_true.tolist() == [3.0, 1.0]
    assert display.rows_.tolist() == [1, 0]
    assert display.line_ is None
    assert display.fill_.get_alpha() == 0.5
    assert len(display.plot(max_rows=1).rows_) == 1


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_probabilities_by_loops(uncertain, static, strategy):
    y = np.where(np.arange(len(static.y)) % 5, static.y, np.nan)
    display = ProbabilityCalibrationDisplay.from_estimator(
        uncertain, static.X, y, limit=0.8, n_bins=5, strategy=strategy
    )
    probability = uncertain[-1].predict_probability(uncertain[:-1].transform(static.X), 0.8)
    observed = ~np.isnan(y)
    edges = np.linspace(0, 1, 6)
    if strategy == "quantile":
        edges = np.quantile(probability[observed], edges, method="inverted_cdf")
    found = []
    for low, high in pairwise(edges):
        if strategy == "uniform":
            rows = (low <= probability) & ((probability < high) | (high == 1))
        else:
            rows = ((low < probability) | (low == edges[0])) & (probability <= high)
        rows &= observed
        if rows.any():
            found.append((probability[rows].mean(), (y[rows] <= 0.8).mean(), rows.sum()))
    assert len(found) > 2
    assert_allclose(display.calibration, found)
    assert_allclose(display.line_.get_xydata(), display.calibration.to_numpy()[:, :2])
    assert_array_equal(display.diagonal_.get_xydata(), [[0, 0], [1, 1]])
    assert display.ax_.get_xlabel() == "predicted probability of y ≤ 0.8"


def test_intervals_of_one_target(joint_data):
    X, y = joint_data.X, joint_data.y
    model = TwoTargets().fit(X, np.nan_to_num(y, nan=1.0))
    intervals = model.predict(X, quantiles=[0.1, 0.9])
    expected = IntervalCoverageDisplay.from_predictions(
        y[:, 1], intervals[:, 1], by=model.predict(X)[:, 1]
    )
    display = IntervalCoverageDisplay.from_estimator(model, X, y, target=1, confidence_level=0.8)
    assert_array_equal(display.coverage, expected.coverage)
    rows = PredictionIntervalDisplay.from_estimator(model, X, y, target=1)
    observed = ~np.isnan(y[:, 1])
    assert_array_equal(rows.y_true, y[observed, 1])
    assert_array_equal(rows.y_pred, model.predict(X)[observed, 1])
    met = ProbabilityCalibrationDisplay.from_estimator(model, X, y, limit=20.0, target=1)
    single = ProbabilityCalibrationDisplay.from_predictions(
        y[:, 1], model.predict_probability(X, 20.0)[:, 1], limit=20.0
    )
    pd.testing.assert_frame_equal(met.calibration, single.calibration)
    for make in (
        IntervalCoverageDisplay.from_estimator,
        PredictionIntervalDisplay.from_estimator,
        partial(ProbabilityCalibrationDisplay.from_estimator, limit=1.0),
    ):
        with pytest.raises(ValueError, match="has 2 columns; select one with `target`"):
            make(model, X, y)
        with pytest.raises(
            ValueError, match=r"target=2 does not exist in y_\w+, which has 2 column"
        ):
            make(model, X, y, target=2)


def test_displays_of_intervals_need_quantiles(static, uncertain):
    data = static.X, static.y
    for display in (IntervalCoverageDisplay, PredictionIntervalDisplay):
        with pytest.raises(
            TypeError, match="whose predict accepts quantiles; got LinearRegression"
        ):
            display.from_estimator(LinearRegression(), *data)
        with pytest.raises(TypeError, match="whose predict accepts quantiles; got ContextJoiner"):
            display.from_estimator(uncertain[:-1], *data)
        with pytest.raises(NotFittedError):
            display.from_estimator(ResidualQuantiles(), *data)
    with pytest.raises(TypeError, match="method predict_probability; got LinearRegression"):
        ProbabilityCalibrationDisplay.from_estimator(LinearRegression(), *data, limit=1.0)
    assert not plt.get_fignums()


Y, ENDS = [1.0, 2.0], [[0.0, 1.0], [1.0, 3.0]]
COVERAGE = partial(IntervalCoverageDisplay.from_predictions, Y, ENDS)
CALIBRATION = partial(ProbabilityCalibrationDisplay.from_predictions, Y)
REFUSED = {
    "neither": (COVERAGE, {}, "Give either groups or by"),
    "both": (COVERAGE, {"by": Y, "groups": Y}, "Give either groups or by"),
    "few rows": (COVERAGE, {"groups": Y, "min_rows": 2}, "no band or group has min_rows=2"),
    "no rows": (COVERAGE, {"groups": Y, "min_rows": 0}, "min_rows must be 1 or more; got 0"),
    "level": (COVERAGE, {"by": Y, "confidence_level": 90}, "'confidence_level' parameter"),
    "bands": (COVERAGE, {"by": Y, "n_bands": 0}, "'n_bands' parameter"),
    "lengths": (COVERAGE, {"by": [1.0]}, "y_true has 2, by has 1"),
    "rows": (
        partial(PredictionIntervalDisplay.from_predictions, Y, ENDS),
        {"max_rows": 0},
        "'max_rows' parameter",
    ),
    "predictions": (
        partial(PredictionIntervalDisplay.from_predictions, Y, ENDS),
        {"y_pred": [1.0]},
        "y_true has 2, y_pred has 1",
    ),
    "unobserved": (
        partial(PredictionIntervalDisplay.from_predictions, [np.nan] * 2, ENDS),
        {},
        "y_true is NaN in every row",
    ),
    "no probability": (
        CALIBRATION,
        {"probability": [0.5, 1.5], "limit": 1.0},
        r"probability: row 1 is 1\.5; give values from 0 to 1",
    ),
    "limit": (CALIBRATION, {"probability": [0.5, 1.0], "limit": np.nan}, "'limit' parameter"),
    "strategy": (
        CALIBRATION,
        {"probability": [0.5, 1.0], "limit": 1.0, "strategy": "kmeans"},
        "strategy must be one of",
    ),
    "nothing": (
        partial(ProbabilityCalibrationDisplay.from_predictions, [np.nan] * 2),
        {"probability": [0.5, 1.0], "limit": 1.0},
        "y_true is NaN in every row",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_displays_of_intervals_refuse_bad_values(case):
    make, params, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make(**params)
    assert not plt.get_fignums()


# --- Searches -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def search(static):
    """A fitted search over a pipeline, whose best estimator has intervals."""
    pipeline = with_context(static, IntervalRegressor(MedianRegressor(), random_state=0))
    grid = {"intervalregressor__estimator__by": ["service", "user"]}
    return GridSearchCV(pipeline, grid, cv=2).fit(static.X, static.y)


@pytest.mark.parametrize(
    ("display", "params"),
    [
        (GroupErrorDisplay, {"user_groups": "user_country", "min_rows": 1}),
        (IntervalCoverageDisplay, {"groups": "user"}),
        (PredictionIntervalDisplay, {}),
        (ProbabilityCalibrationDisplay, {"limit": 0.5}),
    ],
)
def test_of_a_search_the_best_estimator_is_drawn(display, params, search, static):
    drawn = display.from_estimator(search, static.X, static.y, **params)
    expected = display.from_estimator(search.best_estimator_, static.X, static.y, **params)
    for name, value in vars(expected).items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(getattr(drawn, name), value)


def test_of_a_search_the_best_training_is_drawn(static):
    model = MAKE[SAMoERegressor]()
    search = GridSearchCV(model, {"learning_rate": [1e-3]}, cv=2).fit(static.X, static.y)
    history = TrainingHistoryDisplay.from_estimator(search).history
    pd.testing.assert_frame_equal(history, search.best_estimator_.history_)
    with pytest.raises(TypeError, match=r"needs a fitted R2SLRegressor or .*; got SAMoERegressor"):
        LatentStateDisplay.from_estimator(search)


def test_a_search_without_refit_is_refused(static):
    model = IntervalRegressor(MedianRegressor(), random_state=0)
    grid = {"estimator__by": ["service", "user"]}
    search = GridSearchCV(model, grid, cv=2, refit=False).fit(static.X, static.y)
    message = r"GridSearchCV was fitted with refit=False .* Fit it with refit=True"
    with pytest.raises(ValueError, match=message):
        PredictionIntervalDisplay.from_estimator(search, static.X, static.y)
    with pytest.raises(ValueError, match=message):
        TrainingHistoryDisplay.from_estimator(search)
