"""The page on which a person hears the worst errors of an evaluation."""

import re
import urllib.parse

import browser
import numpy as np
import pytest
import soundfile

from speechbrain_ssl.report.hardest_pairs import (
    hardest_pairs,
    write_hardest_pairs,
)
from speechbrain_ssl.verification.trials import Trials


def test_only_errors_count_the_furthest_first():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=200), rng.random(200) < 0.4
    alarms, misses = hardest_pairs(scores, labels, 0.1, 7)
    wanted = sorted((s for s in scores[~labels] if s >= 0.1), reverse=True)
    assert scores[alarms].tolist() == wanted[:7]
    assert (
        scores[misses].tolist() == sorted(scores[labels & (scores < 0.1)])[:7]
    )
    assert not labels[alarms].any() and labels[misses].all()


def test_a_score_at_the_threshold_is_accepted():
    scores, labels = np.array([0.5, 0.5]), np.array([True, False])
    alarms, misses = hardest_pairs(scores, labels, 0.5, 9)
    assert alarms.tolist() == [1] and misses.tolist() == []


def write(folder, scores, names=("a b.wav", "<c>.wav", "d.wav"), models=None):
    """Write a page on the trials a-c (two speakers) and a-d (one)."""
    trials = Trials([0, 1], [0, 0], [1, 2], list(names), enrolment=models)
    files = [str(folder / f"ü {name}") for name in trials.recordings]
    page = folder / "hardest_pairs.html"
    write_hardest_pairs(
        page, "Pairs", {"O": (trials, files, np.array(scores), 0.25)}, 50
    )
    return page, files


def test_each_pair_has_its_files_and_score(tmp_path):
    page, files = write(tmp_path, [0.75, -0.5])
    text = page.read_text(encoding="utf-8")
    cards = re.findall('<div class="card">(.*?)</div>', text)
    assert "score 0.750, threshold 0.250" in cards[0]
    assert "a b.wav" in cards[0] and "&lt;c&gt;.wav" in cards[0]
    assert "score -0.500" in cards[1] and "d.wav" in cards[1]
    sources = re.search(r'"sources": \[(.*?)\]', text)[1].split(", ")
    found = [tmp_path / urllib.parse.unquote(s.strip('"')) for s in sources]
    assert found == [tmp_path / files[i].split("/")[-1] for i in (0, 1, 0, 2)]
    assert "http" not in text and "<c>" not in text


def test_no_error_and_a_model_of_two_recordings(tmp_path):
    page, _ = write(tmp_path, [0.0, 0.5])
    assert page.read_text().count("There is no such error") == 2
    models = {"m": ("a.wav", "b.wav")}
    page, _ = write(tmp_path, [0.75, 0.5], ("m", "c.wav", "d.wav"), models)
    buttons = re.findall(r'data-file="(\d)">▶ (.*?)<', page.read_text())
    assert buttons == [("0", "a.wav"), ("1", "b.wav"), ("2", "c.wav")]


DRIVE = """
  const heard = [];
  const player = document.querySelector("audio");
  for (const button of document.querySelectorAll("button[data-file]")) {
    button.click();
    await until(() => player.duration > 0);
    heard.push(player.duration);
    player.removeAttribute("src");
    await wait(20);
  }
  return {heard, said: document.getElementById("said").textContent};
"""


def test_in_a_browser(tmp_path):
    """Every recording of every pair can be heard."""
    names = ["a.wav", "a_very_" * 12 + "long_name.wav", "d.wav"]
    page, files = write(tmp_path, [0.75, -0.5], names)
    for seconds, path in zip((0.5, 0.25, 1.0), files, strict=True):
        soundfile.write(path, np.zeros(round(16000 * seconds)), 16000)
    for found in browser.drive(page, DRIVE):
        assert found["heard"] == pytest.approx([0.5, 0.25, 0.5, 1.0])
        assert found["said"] == "d.wav" and found["overflow"] <= 0
