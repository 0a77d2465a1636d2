"""The page: whole, self-contained, and safe to open."""

import html.parser
import json
import re

import browser
import numpy as np
import pytest

from speechbrain_ssl.config_base import read_plain
from speechbrain_ssl.report.blocks import section
from speechbrain_ssl.report.embedding_map import MAX_POINTS
from speechbrain_ssl.report.logbook import Logbook, read_metrics
from speechbrain_ssl.report.page import build_report
from speechbrain_ssl.report.results import write_results

VOID = {"meta", "br", "hr", "img", "link", "input"}
EVIL = '<script>alert("x")</script> $\\frac{$'


class Checker(html.parser.HTMLParser):
    """Balanced tags, no outside references, and unique names."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object", "base")
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)
            assert not name.startswith("on")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def check(path):
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    used = checker.links + re.findall(r"url\((.*?)\)", text)
    for link in used:
        assert link.startswith("#") and link[1:] in checker.ids
    assert "http://" not in text and "https://" not in text
    assert "@import" not in text
    # An empty section would be a heading with nothing after it.
    assert not re.search(r"</h2>\s*</section>", text)
    return text, checker.headings


def fill_metrics(folder, epochs=3, value=None):
    logbook = Logbook(folder)
    for epoch in range(1, epochs + 1):
        for step in range(20 * epoch - 19, 20 * epoch + 1):
            logbook.log(
                "train",
                epoch,
                step,
                loss=8 / step if value is None else value,
                teacher_entropy=4.0,
                kl=0.5,
                log_prototypes=np.log(4096),
            )
        logbook.log(
            "valid", epoch, step, pseudo_eer=9.0, lidar=30.0, rankme=50.0
        )
        logbook.log("trials", epoch, step, eer_percent=12.0 - epoch)


def trials(count=400):
    rng = np.random.default_rng(0)
    labels = rng.random(count) < 0.4
    return {
        "scores": rng.standard_normal(count) + 2 * labels,
        "labels": labels,
        "threshold": 1.0,
    }


def prepare(folder, rejected):
    """Write what a preparation leaves, and the configuration that names it."""
    manifests = folder / "manifests"
    manifests.mkdir()
    summary = {"utterances": 900, "hours": 1.5, "hours_found": 1.75}
    summary["rejected"] = {"silent": rejected - 1, "too short": 1}
    text = json.dumps({"summary": summary})
    (manifests / "prepare.json").write_text(text)
    rows = "".join(f"r{i}.wav,silent,\n" for i in range(rejected))
    (manifests / "rejected.csv").write_text("wav,reason,detail\n" + rows)
    (folder / "hyperparams.yaml").write_text(
        f"seed: !new:a.Seed\ntrain_manifest: {manifests}/train.csv\n"
    )


def held_out(count=40, size=8):
    """Return utterances of four voices, whose halves differ a little."""
    rng = np.random.default_rng(1)
    voices = rng.standard_normal((4, size))[np.arange(count) % 4]
    halves = voices[:, None] + 0.1 * rng.standard_normal((count, 2, size))
    names = [f"h{i}" for i in range(count)]
    return {"names": names, "halves": halves, "threshold": 0.5}


def test_tiles_say_what_was_used_and_whether_it_helped(tmp_path):
    prepare(tmp_path, rejected=3)
    logbook = Logbook(tmp_path)
    logbook.log("start", 0, 0, pseudo_eer=41.5)
    logbook.log("valid", 1, 9, pseudo_eer=20.0, minutes=1.5)
    logbook.log("valid", 2, 18, pseudo_eer=14.25, minutes=3.0)

    def tiles():
        text, _ = check(build_report(tmp_path))
        found = re.findall('<div class="tile">(.*?)</div>', text)
        return [re.sub("<.*?>", "|", tile) for tile in found]

    first = [
        "|Pseudo-EER||14.25 %||before training 41.50 %; lower is better|",
        "|Audio used||1.50 h||of 1.75 h found|",
        "|Files rejected||3||of 903: 2 silent, 1 too short|",
    ]
    assert tiles() == [*first, "|Wall time so far||3.0 min|"]
    write_results(tmp_path, {"eer": 9.5}, seed=1, seconds=240)
    assert tiles()[:3] == first
    assert tiles()[3:] == [
        "|EER (%)||9.50|",
        "|Wall time||4.0 min|",
        "|Labels seen||none|",
    ]


def test_held_out_utterances(tmp_path):
    """The threshold lies between the kinds, and the map has the voices."""
    text, headings = check(build_report(tmp_path, held_out=held_out()))
    assert headings == ["Held-out utterances"]
    assert "40 embeddings, 4 groups" in text
    groups = dict(re.findall(r"<title>h(\d+), group (\d)</title>", text))
    assert len(groups) == 40 and len(set(groups.values())) == 4
    assert all(groups[str(i)] == groups[str(i % 4)] for i in range(40))
    # 180 of the 780 pairs are of one voice, whose halves are far above.
    assert "0.0\u00a0% of the files" in text and "23.1\u00a0% of the" in text


def test_what_to_expect_lies_behind_the_curve(tmp_path):
    """Only where the run has as many epochs, and so the same schedule."""
    fill_metrics(tmp_path, epochs=3)
    path = tmp_path / "hyperparams.yaml"
    for epochs in (3, 4):
        path.write_text(
            f"number_of_epochs: {epochs}\nexpected_pseudo_eer:\n"
            "    low: [8.0, 7.0, 6.0]\n    high: [9.0, 8.0, 7.0]\n"
            "    runs: three seeds\n"
        )
        text, _ = check(build_report(tmp_path))
        assert ("Grey: three seeds" in text) == (epochs == 3)
        start = text.index("Pseudo-EER: 9")
        figure = text[start : text.index("</svg>", start)]
        assert ("fill-opacity: 0.25" in figure) == (epochs == 3)


def test_the_band_is_that_of_the_study(repository):
    """The configuration has what the runs in results/ have logged."""
    folder = repository / "results" / "mini_speechocean762" / "runs"
    runs = [
        [
            line["pseudo_eer"]
            for line in read_metrics(folder / f"simclr_{seed}/metrics.jsonl")
            if line["stage"] == "valid"
        ]
        for seed in (1, 2, 3)
    ]
    task = repository / "recipes" / "UnlabeledFolder" / "SSL"
    plain = read_plain(task / "hparams" / "simclr_ecapa_mini.yaml")
    band = plain["expected_pseudo_eer"]
    assert plain["number_of_epochs"] == len(band["low"]) == len(runs[0])
    assert band["low"] == [
        round(min(eers), 1) for eers in zip(*runs, strict=True)
    ]
    assert band["high"] == [
        round(max(eers), 1) for eers in zip(*runs, strict=True)
    ]


def test_a_page_has_the_name_of_its_run(tmp_path):
    run = tmp_path / "simclr" / "1"
    run.mkdir(parents=True)
    text, _ = check(build_report(run))
    assert "<title>simclr/1: speaker" in text


def test_all_parts(tmp_path):
    fill_metrics(tmp_path)
    write_results(
        tmp_path,
        {
            "eer_percent": 6.41,
            "ci_low": 5.72,
            "ci_high": 7.15,
            "min_dcf_0.01": 0.512,
            "eer_untrained": 31.25,
        },
        seed=1986,
        seconds=120,
        command="train.py a.yaml",
    )
    rows = "".join(f"u{i},/a/{i}.wav,empty\n" for i in range(73))
    (tmp_path / "bad_audio.csv").write_text("ID,wav,reason\n" + rows)
    prepare(tmp_path, rejected=51)
    (tmp_path / "env.log").write_text("numpy==1.0\n")
    rng = np.random.default_rng(0)
    path = build_report(
        tmp_path,
        schedules={"learning rate": np.linspace(1, 0, 60)},
        trials={"MiniVox": trials()},
        embeddings={
            "embeddings": rng.standard_normal((60, 8)),
            "names": [f"t{i}.wav" for i in range(60)],
            "groups": np.arange(60) % 4,
            "group_name": "speaker",
        },
        held_out=held_out(),
    )
    text, headings = check(path)
    assert headings == [
        "Results",
        "Training",
        "Validation without labels",
        "Held-out utterances",
        "Verification trials",
        "Embeddings",
        "Schedules",
        "Files rejected",
        "Bad audio files",
        "Configuration",
        "Environment",
    ]
    assert "6.41 [5.72, 7.15]" in text
    assert "minDCF (0.01)" in text
    assert "for the reader; decides nothing" in text
    assert "ln K" in text
    assert "73 files" in text and "u49" in text and "u50" not in text
    assert "51 files were rejected" in text and "rejected.csv has all" in text
    assert "r49.wav" in text and "r50.wav" not in text
    assert "<title>t7.wav, speaker 3</title>" in text
    assert "prefers-color-scheme:dark" in text
    assert path.stat().st_size < 3e6


def test_metrics_alone(tmp_path):
    fill_metrics(tmp_path, epochs=1)
    _, headings = check(build_report(tmp_path))
    assert headings == [
        "Training",
        "Validation without labels",
        "Verification trials",
    ]


def test_loss_alone_and_nothing_at_all(tmp_path):
    _, headings = check(build_report(tmp_path))
    assert headings == []
    Logbook(tmp_path).log("train", 1, 1, loss=9.0)
    _, headings = check(build_report(tmp_path))
    assert headings == ["Training"]


def test_a_run_that_diverged(tmp_path):
    fill_metrics(tmp_path, value=float("nan"))
    text, _ = check(build_report(tmp_path))
    assert "The loss was not finite in 60 of 60 logs" in text


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.99, "as good as uniform"),
        (0.97, None),
        (0.5, None),
        (0.03, None),
        (0.01, "a single prototype"),
    ],
)
def test_collapse_is_told(tmp_path, share, told):
    """Within two per cent of either end, and no sooner."""
    logbook = Logbook(tmp_path)
    # The end counts: every teacher begins uniform.
    logbook.log("train", 1, 1, teacher_entropy=8.3, log_prototypes=8.3)
    entropy = 8.3 * share
    logbook.log("train", 1, 2, teacher_entropy=entropy, log_prototypes=8.3)
    text, _ = check(build_report(tmp_path))
    for warning in ("as good as uniform", "a single prototype"):
        assert (warning in text) == (warning == told)


def test_what_a_user_wrote_is_escaped(tmp_path):
    fill_metrics(tmp_path, epochs=1)
    write_results(
        tmp_path,
        {"eer": 5.0, EVIL: 1.0},
        seed=1,
        seconds=1,
        command=EVIL,
        labels_seen=EVIL,
        gpu=EVIL,
    )
    (tmp_path / "bad_audio.csv").write_text(f"{EVIL},b\n1,{EVIL}\n")
    (tmp_path / "hyperparams.yaml").write_text(f"a: {EVIL}\n")
    (tmp_path / "env.log").write_text(EVIL)
    path = build_report(
        tmp_path,
        title=EVIL,
        schedules={EVIL: np.arange(5)},
        trials={EVIL: trials()},
        embeddings={
            "embeddings": np.eye(8),
            "names": [EVIL] * 8,
            "groups": [EVIL, "b"] * 4,
            "group_name": EVIL,
        },
    )
    # The checker refuses any script tag.
    text, _ = check(path)
    assert "&lt;script&gt;" in text


def test_extra_sections_come_after_the_figures(tmp_path):
    fill_metrics(tmp_path)
    write_results(tmp_path, {"eer": 6.4}, seed=1, seconds=9)
    extra = [section("One", "<p>a</p>"), "", section("Two", "<p>b</p>")]
    _, headings = check(build_report(tmp_path, extra_sections=extra))
    assert headings[:4] == ["Results", "One", "Two", "Training"]


def test_only_a_short_answer_on_labels_is_a_tile(tmp_path):
    def tiles(**keys):
        write_results(tmp_path, {}, seed=1, seconds=9, **keys)
        page = build_report(tmp_path).read_text()
        return page[: page.index("<h2>")], page

    assert "Labels seen" in tiles()[0]
    above, page = tiles(labels_seen="emotion, by the classifier")
    assert "Labels seen" not in above and "by the classifier" in page


@pytest.mark.parametrize("label", [True, False])
def test_trials_of_one_kind_only(tmp_path, label):
    one = {"scores": np.arange(5.0), "labels": np.full(5, label)}
    text, headings = check(build_report(tmp_path, trials={"odd": one}))
    assert headings == ["Verification trials"]
    assert "odd has no error rates" in text


def test_the_same_numbers_give_the_same_page(tmp_path):
    fill_metrics(tmp_path)
    first = build_report(tmp_path).read_bytes()
    assert build_report(tmp_path).read_bytes() == first


DRIVE = """
  const hover = [];
  for (const svg of document.querySelectorAll("svg:has(circle)")) {
    const point = svg.querySelector("circle");
    point.scrollIntoView();
    const box = point.getBoundingClientRect();
    const hit = document.elementFromPoint(
      box.x + box.width / 2, box.y + box.height / 2);
    hover.push(hit.querySelector("title").textContent);
  }
  return {hover};
"""


def test_in_a_browser(tmp_path):
    """Nothing is cut off on a phone, dark mode is dark, points have names."""
    fill_metrics(tmp_path)
    prepare(tmp_path, rejected=3)
    (tmp_path / "manifests" / "rejected.csv").write_text(
        f"wav,reason,detail\n/a/{'long_name_' * 12}.wav,silent,\n"
    )
    write_results(tmp_path, {"eer": 6.4}, seed=1, seconds=9, command="x" * 99)
    page = build_report(
        tmp_path,
        schedules={name: np.linspace(1, 0, 60) for name in "abcd"},
        trials={"MiniVox": trials()},
        embeddings={
            "embeddings": np.eye(30),
            "names": [f"t{i}.wav" for i in range(30)],
        },
        held_out=held_out(),
    )
    papers = set()
    for found in browser.drive(page, DRIVE):
        assert found["overflow"] <= 0
        # Another point may lie on the first.
        assert re.fullmatch(r"h\d+, group [1-4]", found["hover"][0])
        assert re.fullmatch(r"t\d+\.wav", found["hover"][1])
        assert found["seen_dark"] == found["dark"]
        papers.add((found["dark"], found["paper"]))
    assert papers == {(False, "rgb(255, 255, 255)"), (True, "rgb(18, 22, 28)")}


def test_the_page_of_a_large_run_is_small(tmp_path, monkeypatch):
    """Under 3 MB, with a long log, many files, and long names."""
    rng = np.random.default_rng(0)
    places = rng.random((MAX_POINTS, 2))
    monkeypatch.setattr(
        "speechbrain_ssl.report.embedding_map.lay_out",
        lambda *_, **__: (places, False),
    )
    monkeypatch.setattr(
        "speechbrain_ssl.report.held_out.find_speakers",
        lambda rows: np.arange(len(rows)) // 5,
    )
    lines = [
        {"stage": "train", "epoch": 1, "step": step, "loss": 1.0, "kl": 0.5}
        for step in range(1, 20001)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    prepare(tmp_path, rejected=5000)
    names = [f"folder/{'long_name_' * 10}{i}.wav" for i in range(4000)]
    page = build_report(
        tmp_path,
        embeddings={
            "embeddings": rng.standard_normal((4000, 8)),
            "names": names,
            "groups": np.arange(4000),
        },
        held_out={**held_out(2000), "names": names[:2000]},
    )
    text, _ = check(page)
    assert text.count("<circle") == 2 * MAX_POINTS
    assert len(text.encode()) < 3e6
