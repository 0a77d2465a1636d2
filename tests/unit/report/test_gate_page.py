"""What the gate did, and all rounds, on a page."""

import json
import math
import re

import browser
import numpy as np
import pytest
import torch

from speechbrain_ssl.pseudo_labels.loss_mixture import fit_threshold
from speechbrain_ssl.report import gate
from speechbrain_ssl.report.logbook import Logbook
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.rounds import build_rounds_report

EVIL = '<script>alert("x")</script>'


def record(epoch=3, mixture=False, threshold=None, truth=False):
    """An epoch's record, as the Brain leaves it."""
    draws = np.random.default_rng(epoch)
    losses = np.exp(
        np.concatenate([draws.normal(-3, 1, 700), draws.normal(2, 1, 300)])
    )
    counts, edges = np.histogram(np.log(losses), 60)
    made = {
        "epoch": epoch,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "threshold": threshold,
        "fallback": None,
        "scalars": {"gate_kept": 0.7},
    }
    if truth:
        made["counts_right"] = (counts // 2).tolist()
    if mixture:
        fit = fit_threshold(losses)
        made["mixture"] = {
            "weights": fit.weights,
            "means": fit.means,
            "variances": fit.variances,
        }
    # As it is read back: lists, no tuples.
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("threshold", [None, -0.5])
@pytest.mark.parametrize("truth", [False, True])
def test_the_histogram(mixture, threshold, truth):
    """A line for each component and for the threshold; a legend for truth."""
    figure = gate.loss_histogram(record(3, mixture, threshold, truth))
    (ax,) = figure.axes
    assert len(ax.lines) == 2 * mixture + (threshold is not None)
    assert (ax.get_legend() is not None) == truth
    title = ax.get_title(loc="left")
    wanted = "no threshold" if threshold is None else "70.0 % kept"
    assert title == f"Epoch 3: {wanted}"
    heights = [patch.get_data().values for patch in ax.patches[::2]]
    assert np.sum(heights) == pytest.approx(100)
    if threshold is not None:
        assert ax.lines[-1].get_xdata()[0] == threshold


def test_the_components_are_on_the_scale_of_the_histogram():
    """Their sum follows the bars: both are shares of all utterances."""
    made = record(mixture=True, threshold=-0.5)
    (ax,) = gate.loss_histogram(made).axes
    total = sum(line.get_ydata() for line in ax.lines[:2])
    x = ax.lines[0].get_xdata()
    centers = (np.array(made["edges"][:-1]) + made["edges"][1:]) / 2
    bars = np.array(made["counts"]) / 10
    assert np.abs(np.interp(centers, x, total) - bars).max() < 2.5
    assert np.corrcoef(np.interp(centers, x, total), bars)[0, 1] > 0.9


def test_wrong_and_right_labels_add_up():
    """Two bars for each, one above the other's share."""
    made = record(truth=True)
    (ax,) = gate.loss_histogram(made).axes
    wrong, _, right, _ = (p.get_data().values for p in ax.patches)
    assert np.allclose(wrong + right, np.array(made["counts"]) / 10)


def test_empty_epochs():
    """No loss was usable: an empty picture."""
    made = record()
    made |= {"counts": [0], "edges": [0, 1], "scalars": {}}
    (ax,) = gate.loss_histogram(made).axes
    assert ax.get_title(loc="left") == "Epoch 3: no threshold"
    assert [patch.get_data().values.tolist() for patch in ax.patches] == [
        [0],
        [0],
    ]


@pytest.mark.parametrize(
    ("losses", "counted"),
    [
        ([math.nan] * 4, 0),
        ([1.0] * 4, 4),
        ([0.0, math.inf, 2.0, math.nan], 1),
    ],
)
def test_losses_that_have_no_logarithm_are_not_counted(
    tmp_path, losses, counted
):
    gate.write_gate_epoch(
        tmp_path, 7, torch.tensor(losses), math.inf, None, {"gate_kept": 1.0}
    )
    (made,) = gate.read_epochs(tmp_path)
    assert made["epoch"] == 7 and sum(made["counts"]) == counted
    assert made["threshold"] is None and made["fallback"] is None
    assert made["scalars"] == {"gate_kept": 1.0}
    gate.loss_histogram(made)


def test_an_epoch_with_a_mixture_and_known_labels(tmp_path):
    """The histogram is then of the utterances whose label is known."""
    draws = np.random.default_rng(0)
    losses = np.exp(
        np.concatenate([draws.normal(-3, 1, 700), draws.normal(2, 1, 300)])
    )
    fit = fit_threshold(losses)
    known = torch.arange(1000) % 2 == 0
    correct = torch.arange(1000) < 700
    gate.write_gate_epoch(
        tmp_path, 2, torch.tensor(losses), -0.5, fit, {}, correct, known
    )
    (made,) = gate.read_epochs(tmp_path)
    assert sum(made["counts"]) == 500 and sum(made["counts_right"]) == 350
    assert made["threshold"] == -0.5
    assert made["mixture"]["means"] == pytest.approx(fit.means)


def write_run(folder, epochs=4, truth=True):
    """What a run with a gate leaves."""
    logbook = Logbook(folder)
    for epoch in range(1, epochs + 1):
        shares = {"gate_kept": 1 / epoch, "corrected": 0.1}
        if truth:
            shares |= {"gate_precision": 0.9, "gate_recall": 0.8}
            shares |= {"gate_noise_precision": 0.4, "gate_noise_recall": 0.7}
        logbook.log("train", epoch, epoch, loss=1.0)
        logbook.log("valid", epoch, epoch, pseudo_eer=9.0, **shares)
        path = folder / "gate" / f"epoch_{epoch:05d}.json"
        path.parent.mkdir(exist_ok=True)
        made = record(epoch, epoch > 1, -0.5 if epoch > 1 else None, truth)
        path.write_text(json.dumps(made))


@pytest.mark.parametrize("truth", [False, True])
def test_the_section_of_the_page(tmp_path, truth):
    write_run(tmp_path, truth=truth)
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "<h2>Loss gate</h2>" in text
    assert "Share kept, share corrected" in text
    for epoch in range(1, 5):
        assert f"<h3>Epoch {epoch}: " in text
    assert ("Was it right?" in text) == truth
    assert ("which are for the reader" in text) == truth
    for name in ("wrong among the dropped", "dropped among the wrong"):
        assert (name in text) == truth


def test_the_gates_of_faces(tmp_path):
    """Each gate of a joint run has its histograms and its own share."""
    write_run(tmp_path, epochs=2, truth=False)
    for name in ("gate_face", "gate_sum"):
        (tmp_path / name).mkdir()
        made = record(2, threshold=-0.5)
        made["scalars"]["face_gate_kept"] = 0.25
        path = tmp_path / name / "epoch_00002.json"
        path.write_text(json.dumps(made))
    shares = {"gate_kept": 0.7, "face_gate_kept": 0.25}
    metrics = [{"stage": "valid", "epoch": 2, **shares}]
    text = gate.body(tmp_path / "gate", metrics)
    titles = re.findall(r"<h3>(Epoch 2[^<]*)</h3>", text)
    assert [title.replace("\u00a0", " ") for title in titles] == [
        "Epoch 2: 70.0 % kept",
        "Epoch 2, faces: 25.0 % kept",
        "Epoch 2, voices and faces: 70.0 % kept",
    ]
    assert text.count("the sum of their logs") == 1
    assert "kept, by face" in text


def test_no_section_without_a_gate(tmp_path):
    Logbook(tmp_path).log("train", 1, 1, loss=1.0)
    text = build_report(tmp_path).read_text(encoding="utf-8")
    assert "Loss gate" not in text


def test_many_epochs_are_thinned(tmp_path):
    """The first and the last are among those that are drawn."""
    write_run(tmp_path, epochs=15, truth=False)
    text = build_report(tmp_path).read_text(encoding="utf-8")
    drawn = [int(n) for n in re.findall(r"<h3>Epoch (\d+): ", text)]
    assert len(drawn) == gate.MAX_EPOCHS
    assert drawn[0] == 1 and drawn[-1] == 15 and drawn == sorted(drawn)
    assert [r["epoch"] for r in gate.read_epochs(tmp_path / "gate")] == list(
        range(1, 16)
    )


def results(**changes):
    """What the rounds leave in ``results.json``."""
    stages = [
        {"round": 1, "stage": "embed", "minutes": 1.0, "utterances": 50},
        {
            "round": 1,
            "stage": "cluster",
            "minutes": 1.0,
            "clusters": 20,
            "silhouette": 0.1234,
            "labelled": 48,
            "monitor_nmi": 0.8,
        },
        {
            "round": 1,
            "stage": "train",
            "minutes": 2.0,
            "eer": 9.5,
            "eer_initial": 11.25,
        },
        {"round": 2, "stage": "embed", "minutes": 1.0, "utterances": 50},
        {
            "round": 2,
            "stage": "cluster",
            "minutes": 1.0,
            "clusters": 21,
            "silhouette": 0.2,
            "labelled": 49,
            "agreement_nmi": 0.91,
            "agreement_ari": 0.7,
            "monitor_nmi": 0.85,
        },
        # It began with the model of round 1, whose EER is 9.5.
        {
            "round": 2,
            "stage": "train",
            "minutes": 2.0,
            "eer": 8.75,
            "eer_initial": 9.5,
        },
    ]
    return {
        "rounds": 2,
        "stopped": "all rounds done",
        "model_from": "round_2",
        "why": "training of round 2: better",
        "labels_seen": "none",
        "minutes": 8.0,
        "command": "train.py x.yaml",
        "eer": 8.75,
        "eer_initial": 9.5,
        "stages": stages,
        **changes,
    }


def page(folder, found):
    """The page of some results."""
    (folder / "results.json").write_text(json.dumps(found))
    return build_rounds_report(folder).read_text(encoding="utf-8")


def test_the_rounds_page(tmp_path):
    """Every round a row, curves over the rounds, links to the pages."""
    for name in ("round_1", "round_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text("")
    text = page(tmp_path, results())
    assert f"<title>{tmp_path.parent.name}/{tmp_path.name}: rounds" in text
    table = text[text.index("<h2>Rounds") : text.index("<h2>Pages")]
    first, second = re.findall(r"<tr><td>(.*?)</tr>", table)
    # The minutes of all stages, and the figures of each.
    assert first.startswith("1</td><td>4</td><td>20</td><td>48</td>")
    assert second.startswith("2</td><td>4</td><td>21</td><td>49</td>")
    assert "<td>0.123</td>" in first and "<td>9.5</td>" in first
    assert "<td>0.91</td>" in second and "<td>8.75</td>" in second
    assert "NMI with speakers*" in table and "for the reader" in table
    assert "EER by stage of training" in text
    assert "Agreement of the labels" in text
    links = re.findall(r'<a href="([^"]+)">', text)
    assert links == ["round_1/report.html", "round_2/report.html"]
    assert "https://" not in text and "<script" not in text


def test_the_initial_model_is_that_of_the_first_round(tmp_path):
    """And not what the last stage began with."""
    text = page(tmp_path, results())
    row = re.search(r"EER of the initial model \(%\)</th><td>([\d.]+)", text)
    assert row[1] == "11.25"


def test_without_trials_and_without_speakers(tmp_path):
    """What is not known has no row, no column and no curve."""
    found = results()
    for key in ("eer", "eer_initial"):
        del found[key]
    for stage in found["stages"]:
        for key in ("eer", "eer_initial", "monitor_nmi"):
            stage.pop(key, None)
    text = page(tmp_path, found)
    assert "EER" not in text and "with speakers" not in text
    assert "Agreement of the labels" in text


def test_every_final_stage_has_a_row(tmp_path):
    """That of one round, and after more rounds another one."""
    found = results()
    tuned = {"stage": "fine_tune", "minutes": 3.0}
    found["stages"].insert(3, {**tuned, "round": 1, "eer": 9.25})
    for place, eer in ((1, 7.25), (2, 7.15)):
        found["stages"].append(
            {**tuned, "round": 2, "place": place, "eer": eer}
        )
    text = page(tmp_path, found)
    names = re.findall(r"<tr><td>([^<]*)</td>", text)
    last = [f"2, fine-tuning{place}" for place in ("", " 2")]
    assert names == ["1", "1, fine-tuning", "2", *last]
    for value in ("9.25", "7.25", "7.15"):
        assert f"<td>{value}</td>" in text


def test_one_round_has_no_curves(tmp_path):
    found = results(rounds=1)
    found["stages"] = [{"round": 1, "stage": "train", "minutes": 1.0}]
    text = page(tmp_path, found)
    assert "From round to round" not in text
    assert "Pages of the stages" not in text


def test_nothing_of_a_run_is_markup(tmp_path):
    """Neither in the command, nor in a reason, nor in a folder's name."""
    folder = tmp_path / "a&b<i>"
    folder.mkdir()
    (folder / "report.html").write_text("")
    found = results(command=EVIL, stopped=EVIL, labels_seen=EVIL)
    found["stages"][0]["round"] = EVIL
    text = page(tmp_path, found)
    assert "<script" not in text and "<i>" not in text
    assert text.count("&lt;script&gt;") == 4
    assert 'href="a&amp;b&lt;i&gt;/report.html"' in text


@pytest.mark.parametrize(
    "face, both, verdict, told",
    [
        ("worse", "better", "worse", "by face worse"),
        ("not distinguishable", "better", "better", "by voice and both better"),
        ("better", "better", "better", "better"),
    ],
)
def test_the_tile_of_a_joint_round_says_by_what(
    tmp_path, face, both, verdict, told
):
    """The figures of the tile are those of the voice, which has gained."""
    names = ("pseudo_eer", "lidar", "rankme")
    voice = {
        "verdict": "better",
        **dict.fromkeys(names, 15.0),
        **dict.fromkeys((f"start_{name}" for name in names), 19.0),
    }
    by = {"voice": voice}
    by |= {"face": {**voice, "verdict": face}}
    by |= {"both": {**voice, "verdict": both}}
    found = results()
    found["stages"][-1].update({**voice, "by": by, "verdict": verdict})
    assert f"was 19.00 %: {told}<" in page(tmp_path, found)


def test_the_rounds_page_in_a_browser(tmp_path):
    """Nothing is cut off, however long a name or a reason."""
    verdict = {
        "verdict": "not distinguishable",
        **dict.fromkeys(("pseudo_eer", "lidar", "rankme"), 9.5),
        **{f"start_{k}": 9.5 for k in ("pseudo_eer", "lidar", "rankme")},
    }
    found = results(stopped="no_space_" * 20)
    for record in found["stages"]:
        if record["stage"] == "train":
            record.update(verdict)
    text = page(tmp_path, found)
    assert text.count("was 9.50 %: not distinguishable") == 2
    assert "own validation" in text
    for seen in browser.drive(tmp_path / "report.html", "return {};"):
        assert seen["overflow"] <= 0 and seen["seen_dark"] == seen["dark"]
