"""Figures draw what they are given, however little that is."""

import io
import re

import numpy as np
import pytest

from speechbrain_ssl.report import figures
from speechbrain_ssl.report.embedding_map import embedding_map
from speechbrain_ssl.report.style import MAX_DRAWN
from speechbrain_ssl.report.trial_figures import det_curves, score_histogram
from speechbrain_ssl.verification import metrics


def draw(figure):
    """Draws, which is where most of what can go wrong goes wrong."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg")
    return figure.axes[0].get_title(loc="left")


def lines(values, stage="train"):
    return [
        {"stage": stage, "epoch": 1 + i // 100, "step": i + 1, "loss": value}
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [2.0, 2.0, 2.0],
        [None],
        [1.0, None, 0.5],
        [0.0] * 500,
        [None] * 500,
        list(np.linspace(9, 1, 5000)),
        [1e30, -1e30],
        [],
    ],
)
@pytest.mark.parametrize("x", ["step", "epoch"])
def test_curves(values, x):
    figure = figures.curves(
        lines(values),
        ["loss"],
        x=x,
        from_zero=True,
        references={"ln K": 8.3},
    )
    title, ax = draw(figure), figure.axes[0]
    finite = [value for value in values if value is not None]
    broken = len(values) - len(finite)
    _, labels = ax.get_legend_handles_labels()
    wanted = ["loss"] * bool(finite)
    wanted += [f"not finite ({broken})"] * bool(broken)
    assert labels == wanted
    assert title.startswith("loss: ") if finite else title == "loss"
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["no finite value"] * (not finite) + ["ln K"]
    low, high = ax.get_ylim()
    least = min(finite, default=0)
    assert low == 0 if least > 0 else low <= least
    assert high > 8.3


def test_curves_of_one_stage_only():
    metrics = lines([1.0], "train") + lines([5.0], "valid")
    assert draw(figures.curves(metrics, ["loss"], "valid")) == "loss: 5"


def test_gaps_are_told():
    figure = figures.curves(lines([3.0, None, 1.0]), ["loss"])
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert "not finite (1)" in labels


def test_smoothing_keeps_the_level():
    rng = np.random.default_rng(0)
    values = 5 + rng.standard_normal(4000)
    figure = figures.curves(lines(values.tolist()), ["loss"])
    drawn = figure.axes[0].lines[0].get_ydata()
    assert len(drawn) <= MAX_DRAWN
    assert np.abs(drawn - 5).max() < 0.6


def test_smoothing_does_not_hide_a_fall():
    """Three per cent of the run beside it, a fall has not begun, or is over."""
    values = np.where(np.arange(4000) < 2000, 9.0, 1.0)
    figure = figures.curves(lines(values.tolist()), ["loss"])
    steps, drawn = figure.axes[0].lines[0].get_data()
    assert (drawn[steps < 2000 - 120] == 9).all()
    assert (drawn[steps > 2000 + 120] == 1).all()
    assert draw(figure) == "loss: 9 at the start, 1 at the end"


@pytest.mark.parametrize(
    "array",
    [np.zeros(1), np.full(1000, 5e-5), np.zeros(1000), np.linspace(0, 1, 9)],
)
def test_schedules(array):
    figure = figures.schedules({"a": array, "b": array})
    draw(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b"]
    for ax in figure.axes:
        steps, drawn = ax.lines[0].get_data()
        assert (steps[0], steps[-1]) == (0, len(array) - 1)
        assert np.array_equal(drawn, array[steps])
        # All of it is in sight, and rounding does not fill the picture.
        low, high = ax.get_ylim()
        assert low < array.min() and array.max() < high
        assert high - low >= 0.5 * np.abs(array).max()


def test_det_eer():
    # Symmetrical: four trials of each kind, one of each on the wrong side.
    miss = np.array([0, 0, 0.25, 0.25, 1.0])
    alarm = np.array([1, 0.25, 0.25, 0.0, 0.0])
    figure = det_curves({"a": (miss, alarm), "b": (alarm, miss)})
    draw(figure)
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["a: EER 25.00 %", "b: EER 25.00 %"]


@pytest.mark.parametrize(
    ("miss", "alarm", "rate"),
    [
        ([0, 1], [1, 0], 50),
        ([0, 0, 1], [1, 0, 0], 0),
        ([0, 1, 1], [1, 1, 0], 100),
        ([0.5], [0.5], 50),
    ],
)
def test_det_degenerate(miss, alarm, rate):
    figure = det_curves({"a": (np.array(miss), np.array(alarm))})
    draw(figure)
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == [f"a: EER {rate}.00 %"]
    for line in figure.axes[0].lines:
        assert np.isfinite(line.get_xydata()).all()


def test_det_eer_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.4
    scores = np.round(rng.standard_normal(400) + labels, 1)
    rate, _ = metrics.eer(scores, labels)
    _, miss, alarm = metrics.det_points(scores, labels)
    figure = det_curves({"a": (miss, alarm)})
    _, texts = figure.axes[0].get_legend_handles_labels()
    assert texts == [f"a: EER {100 * rate:.2f} %"]


@pytest.mark.parametrize(
    ("scores", "labels", "kinds"),
    [
        ([], [], []),
        ([0.5], [True], ["same speaker (1)"]),
        (
            [0.5, 0.5],
            [True, False],
            ["different speakers (1)", "same speaker (1)"],
        ),
        ([np.nan, 0.1], [True, False], ["different speakers (1)"]),
        ([0.1, 0.2, 0.9], [False] * 3, ["different speakers (3)"]),
    ],
)
def test_score_histogram(scores, labels, kinds):
    figure = score_histogram(np.array(scores), np.array(labels), 0.4)
    wanted = "Scores of the trials"
    if len(kinds) == 2:
        wanted = "At the threshold 0.0 % missed, 100.0 % false alarms"
    assert draw(figure) == wanted
    (ax,) = figure.axes
    assert ax.get_legend_handles_labels()[1] == kinds
    # Area and outline of each kind; each holds all of its kind.
    assert len(ax.patches) == 2 * len(kinds)
    for patch in ax.patches:
        assert patch.get_data().values.sum() == pytest.approx(100)


def points(html):
    """Return the centre, the position and the text of each point."""
    found = re.findall(
        r'<circle cx="(\d+)" cy="(\d+)" r="8" data-file="(\d+)" fill="var'
        r'\(--(\w+)\)"><title>(.*?)</title>',
        html,
    )
    return [((int(x), int(y)), int(i), *rest) for x, y, i, *rest in found]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 30])
@pytest.mark.parametrize("grouped", [False, True])
def test_embedding_map(count, grouped):
    rng = np.random.default_rng(0)
    groups = np.arange(count) % 3 if grouped else None
    names = [f"<{i}>" for i in range(count)]
    rows = rng.standard_normal((count, 8))
    html = embedding_map(rows, names, groups)
    number = min(3, count)
    wanted = f"{count} embedding" + "s" * (count > 1)
    if grouped:
        wanted += f", {number} group" + "s" * (number != 1)
    assert f"<h3>{wanted}</h3>" in html
    places, order, colours, texts = zip(*points(html), strict=True)
    assert order == tuple(range(count)) and len(set(places)) == count
    group = "" if groups is None else ", group 0"
    assert texts[0] == f"&lt;0&gt;{group}"
    assert len(set(colours)) == (number if grouped else 1)
    height = int(re.search(r'viewBox="0 0 1000 (\d+)"', html)[1])
    assert 20 <= np.min(places) and np.max(places) <= 980
    assert max(y for _, y in places) == height - 20


def test_embedding_map_of_broken_and_of_one_dimension():
    names = list("abcdefghi")
    assert embedding_map(np.full((9, 3), np.nan), names) == ""
    line = np.linspace(-1, 1, 9)[:, None]
    line[4] = np.nan
    found = [i for _, i, *_ in points(embedding_map(line, names))]
    assert found == [0, 1, 2, 3, 5, 6, 7, 8]
    groups = np.array(["a", None] * 4 + ["b"])
    assert "8 embeddings, 3 speakers" in embedding_map(
        line, names, groups, "speaker"
    )
    same = embedding_map(np.ones((9, 3)), names)
    assert "All 9 embeddings are the same" in same
    assert len({place for place, *_ in points(same)}) == 1


def test_embedding_map_says_what_is_left_out(monkeypatch):
    monkeypatch.setattr("speechbrain_ssl.report.embedding_map.MAX_POINTS", 20)
    rows = np.random.default_rng(0).standard_normal((60, 8))
    names = [str(i) for i in range(60)]
    html = embedding_map(rows, names, np.arange(60) % 30, "speaker")
    assert "60 embeddings, 30 speakers" in html
    assert "20 of 60 are drawn" in html and "The 6 colours are shared" in html
    found = points(html)
    assert len(found) == 20
    for _, i, _, text in found:
        assert text == f"{i}, speaker {i % 30}"
    assert embedding_map(rows, names, np.arange(60) % 30, "speaker") == html
