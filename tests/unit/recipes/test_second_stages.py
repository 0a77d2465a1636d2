"""Every configuration of pseudo-labels can begin with the model that it names."""

import re

import pytest
import reproduce_page
import tiny
import yaml
from build_keys import build_keys, without_pretrained_weights

from speechbrain_ssl.config_base import merge
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.publishing.export import export_encoder, initialise

PATHS = sorted(tiny.ROOT.glob("recipes/*/PseudoLabels/hparams/*.yaml"))
#: A pre-trained model takes only its labels from the first stage.
PRETRAINED = [p for p in PATHS if merge(p).plain()["start_from"] == "nothing"]
SECOND_STAGES = [p for p in PATHS if p not in PRETRAINED]


def first_stage(path):
    """Return the configuration of stage I that a header names."""
    header = path.read_text(encoding="utf-8").split("\nbase:")[0]
    (named,) = re.findall(r"^# Begins with (\S+\.yaml)\.$", header, re.M)
    return path.parent.parent / named


def built(path, **overrides):
    return build_keys(path, "encoder", "features", **overrides)


def name_of(path):
    return f"{path.parts[-4]}-{path.stem}"


@pytest.mark.parametrize("path", SECOND_STAGES, ids=name_of)
def test_it_begins_with_the_model_its_header_names(path):
    """The same weights, from the same features."""
    first, theirs = built(first_stage(path))
    second, ours = built(path)
    second.load_state_dict(first.state_dict(), strict=True)
    assert first.arguments == second.arguments
    assert ours.settings == theirs.settings


def test_pretrained_models_name_where_their_labels_are_from():
    assert len(PRETRAINED) == 4
    for path in PRETRAINED:
        header = path.read_text(encoding="utf-8").split("\nbase:")[0]
        (named,) = re.findall(r" are from (\S+\.yaml);?\.?", header)
        assert (path.parent.parent / named).is_file()
        assert "speechbrain-ssl[hf]" in header


@pytest.mark.parametrize("path", PRETRAINED, ids=name_of)
def test_pretrained_models_fit_what_is_around_them(path, monkeypatch):
    """At full size, but for a front end of one layer with random weights."""
    pytest.importorskip("transformers", reason="needs the extra hf")
    used = without_pretrained_weights(monkeypatch)
    encoder, features, classifier = build_keys(
        path, "encoder", "features", "classifier"
    )
    features.check_encoder(encoder)
    assert encoder.arguments["lin_neurons"] == classifier.weight.shape[-1]
    assert str(used.get("source", "hf:")).startswith("hf:")
    # The fine-tuning stage can be built with the changes it makes.
    plain = merge(path).plain()
    stages = plain["final_stage"]
    for changes in stages if isinstance(stages, list) else [stages]:
        assert set(changes) <= set(plain)


def test_papers_begin_where_they_say():
    """DLG-LC with cluster-aware DINO, Cho et al. with their own DINO."""
    named = {path.stem: first_stage(path).name for path in SECOND_STAGES}
    assert named["dlg_lc_ecapa_512"] == "ca_dino_ecapa.yaml"
    assert named["cho_resnet34"] == "dino_cho_resnet34.yaml"


def test_an_encoder_of_another_shape_is_refused(tmp_path):
    """The error names the keys of the encoder block, and both values."""
    folder = SECOND_STAGES[0].parents[3] / "VoxCeleb/PseudoLabels/hparams"
    encoder, features = built(
        folder / "cho_resnet34.yaml", channels=2, embedding_size=8
    )
    export_encoder(tmp_path, encoder, features)
    same, _ = built(folder / "cho_resnet34.yaml", channels=2, embedding_size=8)
    initialise(same, tmp_path, features)
    other, _ = built(folder / "cho_resnet34.yaml", channels=4, embedding_size=6)
    with pytest.raises(
        ConfigError,
        match=r"does not fit.*channels \(2 there, 4 here\), "
        r"embedding_size \(8 there, 6 here\).*`encoder_block`",
    ):
        initialise(other, tmp_path, features)
    plain = type(encoder)(
        input_size=80, lin_neurons=8, channels=2, embedding_batch_norm=False
    )
    with pytest.raises(
        ConfigError, match=r"embedding_batch_norm \(true there, .* here\)"
    ):
        initialise(plain, tmp_path, features)


NUMBER = re.compile(r"\d+(?:\.\d+)?")


def test_the_page_has_the_settings_of_the_configuration():
    """docs/large_encoders.md, beside the source of each value."""
    text = (tiny.ROOT / "docs" / "large_encoders.md").read_text("utf-8")
    rows = reproduce_page.rows(text)
    (path,) = {row.yaml for row in rows}
    plain, written = merge(tiny.ROOT / path).plain(), 0
    for row in rows:
        numbers = set(map(float, NUMBER.findall(row.source)))
        for key, value in row.values:
            found = plain
            for name in key.split("."):
                found = found[name]
            assert found == yaml.safe_load(value), key
            if row.remark == "same":
                assert set(map(float, NUMBER.findall(value))) <= numbers | {0.0}
            written += 1
    assert written > 20
