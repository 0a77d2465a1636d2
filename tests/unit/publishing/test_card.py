"""The model card: the hub understands its head, a reader the rest."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.encoders.resnet import ResNet34
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.card import About, make_card
from speechbrain_ssl.publishing.description import describe
from speechbrain_ssl.verification.label_free_threshold import RULE

EVALUATIONS = [
    {
        "list": "vox1_O",
        "scoring": "cosine",
        "eer_percent": 3.21,
        "ci_low": 2.9,
        "ci_high": 3.6,
        "min_dcf_0.01": 0.31,
        "min_dcf_0.05": 0.22,
        "trials": 37611,
        "speakers": 40,
    },
    {"list": "vox1_H", "scoring": "mean_subtracted", "eer_percent": 6.5},
]


def card(results=None, threshold=None, why=None, **about):
    about = {"name": "me/model", "data": "VoxCeleb2 dev.", **about}
    description = describe(ResNet34(channels=2), LogMel())
    return make_card(About(**about), description, results or {}, threshold, why)


def test_the_head_is_the_hubs(tmp_path):
    """Read again by the hub's own client."""
    text = card(
        {"evaluations": EVALUATIONS, "labels_seen": "none"},
        licence="cc-by-4.0",
        datasets=["ProgramComputer/voxceleb"],
        languages=["en"],
    )
    path = tmp_path / "README.md"
    path.write_text(text)
    data = ModelCard.load(path).data
    assert data.license == "cc-by-4.0"
    assert data.library_name == "speechbrain"
    assert data.datasets == ["ProgramComputer/voxceleb"]
    assert data.language == ["en"]
    assert {"speechbrain", "speaker-verification", "ResNet34"} <= set(data.tags)
    rates = [result.metric_value for result in data.eval_results]
    assert rates == [3.21, 6.5]
    assert "[2.90, 3.60]" in data.eval_results[0].metric_name
    assert data.eval_results[0].dataset_type == "vox1_O"


@pytest.mark.parametrize("normalize", ["mean", "mean_variance"])
def test_the_card_says_how_features_are_normalised(normalize):
    description = describe(ResNet34(channels=2), LogMel(normalize=normalize))
    about = About(name="me/model", data="VoxCeleb2 dev.")
    text = make_card(about, description, {}, None, None)
    assert "normalised to zero mean" in text
    assert ("unit variance" in text) == (normalize == "mean_variance")


def test_a_reader_finds_what_matters():
    text = card(
        {
            "evaluations": EVALUATIONS,
            "labels_seen": "none",
            "command": "python evaluate.py",
            "training": {"command": "python train.py", "seed": 3},
        },
        threshold=0.4321,
        why="equal error rate of vox1_O",
        papers=["2304.05754", "1234.56789"],
        name="A voice",
        hub_id="me/model",
    )
    for wanted in (
        "VoxCeleb2 dev.",
        "Speaker labels seen in training: **none**",
        "| vox1_O | cosine | 37611 | 40 | 3.21 [2.90, 3.60] | 0.310 | 0.220 |",
        "| vox1_H | mean subtracted |  |  | 6.50 |  |  |",
        "# A voice",
        'from_hparams("me/model")',
        "--model=hf:me/model",
        "The threshold is 0.4321 (equal error rate of vox1_O)",
        "Intended use and limits",
        "apache-2.0",
        "python train.py",
        "python evaluate.py",
        "Cluster-Aware-DINO",
        "https://arxiv.org/abs/1234.56789",
        "SpeechBrain: A General-Purpose Speech Toolkit",
    ):
        assert wanted in text, wanted


def test_what_calibrated_scores_cost():
    row = {**EVALUATIONS[0], "cllr": 0.25, "min_cllr": 0.125}
    text = card({"evaluations": [EVALUATIONS[1], row]})
    assert "| minDCF 0.05 | Cllr | least Cllr |" in text
    assert "| 0.310 | 0.220 | 0.250 | 0.125 |" in text
    assert "Cllr" not in card({"evaluations": EVALUATIONS})


def test_the_snippet_is_python():
    """With a threshold and without."""
    for threshold in (None, 0.3):
        text = card(threshold=threshold, why="of some trials")
        snippet = text.split("```python\n")[1].split("```")[0]
        compile(snippet, "card", "exec")
        assert ("verification_threshold" in snippet) is (threshold is not None)


def test_a_threshold_without_labels_comes_with_a_warning():
    """And one with labels does not."""
    warning = "On recordings unlike those of the training it can be far off"
    text = card(threshold=0.3, why=RULE)
    assert "0.3000 (made without labels" in text and warning in text
    assert warning not in card(threshold=0.3, why="of some trials")


def test_what_is_not_known_is_not_claimed():
    text = card()
    head = yaml.safe_load(text.split("---")[1])
    assert "model-index" not in head and "metrics" not in head
    assert "Not evaluated on labelled trials" in text
    assert "seen in training: **unknown**" in text
    assert "without speaker labels" not in text
    assert "comes without a threshold" in text
    assert 'from_hparams("path/to/this/folder")' in text


def test_the_trials_of_a_training_run():
    results = {
        "eer": 8.8,
        "ci_low": 5.43,
        "ci_high": 12.45,
        "min_dcf_0.01": 0.5,
        "min_dcf_0.05": 0.4,
        "trials": 100,
        "speakers": 9,
        "labels_seen": "none",
    }
    text = card(json.loads(json.dumps(results)))
    assert "8.80 [5.43, 12.45]" in text
    # A run without trials has nothing to show.
    assert "Not evaluated" in card({"eer": None, "labels_seen": "none"})


def test_data_must_be_told():
    with pytest.raises(ConfigError, match="what the model was trained on"):
        card(data="  ")


def test_markup_in_names_and_results_is_escaped():
    """A name or a record cannot add tags, images, headings or table cells."""
    evil = "x\n# Heading <script>alert(1)</script> ![i](http://a/b) | cell"
    row = {"list": evil, "scoring": "cosine", "eer_percent": 1.0}
    text = make_card(
        About(evil, data="Speech."),
        describe(ResNet34(channels=2), LogMel()),
        {"evaluations": [row], "command": "`x` " + evil, "labels_seen": "none"},
    )
    body = text.split("---\n", 2)[2]
    assert (
        "<script>" not in body.replace("`", "").split("## How it was made")[0]
    )
    assert "![i]" not in body.split("## How it was made")[0]
    assert "\n# Heading" not in body
    (line,) = [s for s in body.splitlines() if "cosine" in s and s[0] == "|"]
    (command,) = [s for s in body.splitlines() if s.startswith("* command")]
    assert command.count("`") == 2 and command.endswith("`")
    assert len(re.split(r"(?<!\\)\|", line)) == 9


def test_texts_of_a_stranger_are_escaped():
    """Wherever they come from: a list, a calibration, what was seen."""
    bad = "<script>x</script> ![a](http://b) | `c`"
    row = {"list": bad, "scoring": bad, "eer_percent": 1.0}
    text = card(
        {"evaluations": [row], "labels_seen": bad, "command": bad},
        threshold=0.3,
        why=f"calibrated on {bad}",
        name=bad,
    )
    body = text.split("---\n", 2)[2]
    code = "* command: `<script>x</script> ![a](http://b) | 'c'`"
    assert code in body
    rest = body.replace(code, "")
    assert "<script>" not in rest and "![a]" not in rest and "`c`" not in rest
    assert rest.count("&lt;script&gt;") == 5
