"""Check every self-supervised configuration at full size, without weights.

Other tests run a few steps with smaller sizes. Here torch's meta device, which
allocates no memory, shows whether the published sizes fit each other.
"""

import re

import pytest
import tiny
import torch
from build_keys import without_pretrained_weights

from speechbrain_ssl.config import load_config
from speechbrain_ssl.config_base import merge, read_plain
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.given_clusters import GivenClusters
from speechbrain_ssl.positives.ssps import SSPS

PATHS = sorted((tiny.ROOT / "recipes").glob("*/SSL/hparams/*.yaml"))
PRETRAINED = [path for path in PATHS if "wavlm" in path.stem]

#: Utterances in VoxCeleb2's training part, and a minimum for the others.
UTTERANCES = {"VoxCeleb": 1_092_009, "MiniVox": 1_200, "UnlabeledFolder": 2_000}


def name_of(path):
    return f"{path.parts[-4]}-{path.stem}"


def header_of(path):
    """Return the comment above the first key."""
    return path.read_text(encoding="utf-8").split("\nbase:")[0]


@pytest.fixture
def load(train, tmp_path, monkeypatch):
    """Return ``load(path, *flags)`` -> hyper-parameters with empty tensors."""
    original = LogMel.__init__

    def with_content(*args, **kwargs):
        # Its filters are computed, not random.
        with torch.device("cpu"):
            original(*args, **kwargs)

    monkeypatch.setattr(LogMel, "__init__", with_content)
    # A checkpointer creates its folder, relative to the current one.
    monkeypatch.chdir(tmp_path)

    def load(path, *flags):
        options = [f"--data_folder={tmp_path}", "--device=cpu", *flags]
        with torch.device("meta"):
            return load_config([str(path), *options], train.KEYS)[-1]

    return load


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_values_fit_each_other(path, load, train, monkeypatch):
    """Check schedules, sizes, batches, crops and positives."""
    if path in PRETRAINED:
        pytest.importorskip("transformers", reason="needs the extra hf")
        without_pretrained_weights(monkeypatch)
    hparams = load(path)
    objective, plan = hparams["objective"], hparams["crops"]
    train.check_values(hparams)
    hparams["features"].check_encoder(hparams["encoder"])
    wanted = {"lr", "weight_decay", *objective.scheduled}
    if objective.momentum:
        wanted.add("momentum")
    assert set(hparams["schedules"]) == wanted
    epochs, batch = hparams["number_of_epochs"], hparams["batch_size"]
    for schedule in hparams["schedules"].values():
        assert schedule(epochs, 3).shape == (3 * epochs,)
    # Prototypes are frozen if the objective has any, but for SDPN's authors.
    freezes = hparams["freeze_last_layer_epochs"] > 0
    if path.stem == "sdpn_ecapa":
        assert not freezes
    else:
        assert freezes == bool(objective.prototype_parameters())
    size = hparams["encoder"].arguments["lin_neurons"]
    layers = [m for m in objective.head.modules() if hasattr(m, "in_features")]
    if layers:
        assert layers[0].in_features == size
    if objective.needs_frames:
        assert not plan.local_crops
        channels = hparams["encoder"].arguments["channels"][-1]
        assert objective.context.input_size == channels
    if hasattr(objective, "whitening_size"):
        assert batch % objective.whitening_size == 0
    utterances = UTTERANCES[path.parts[-4]] - hparams["valid_utterances"]
    with torch.device("meta"):
        if not hasattr(objective, "clusters"):
            objective.set_up(utterances, seed=1)
        else:
            assert max(objective.clusters) < utterances / 5
        positives = hparams["positives"]
        if isinstance(positives, SSPS):
            vector = layers[-1].out_features if layers else size
            crops = plan.global_crops
            positives.set_up(
                objective, utterances, size, crops, vector, batch, seed=1
            )
        if isinstance(positives, ClusterAware):
            assert max(positives.counts) < utterances
    if isinstance(positives, GivenClusters):
        assert positives.start_epoch == 1
    elif positives is not None:
        assert 1 < positives.start_epoch < epochs


VOXCELEB = [p for p in PATHS if "VoxCeleb" in p.parts and p not in PRETRAINED]


@pytest.mark.parametrize("encoder", ["resnet34", "fast_resnet34"])
@pytest.mark.parametrize("path", VOXCELEB, ids=name_of)
def test_encoders_are_exchanged_by_one_line(
    path, load, tmp_path, monkeypatch, encoder
):
    """The head fits the other encoder, whatever its embedding size."""
    text, count = re.subn(
        r"(encoder_block: !include:.*/encoders/)\w+",
        rf"\g<1>{encoder}",
        merge(path).text,
    )
    assert count == 1
    # Includes are relative to the file.
    blocks = (path.parent / "../../../../hparams").resolve()
    other = tmp_path / "hparams" / path.name
    other.parent.mkdir()
    other.write_text(text.replace("../../../../hparams", str(blocks)))
    monkeypatch.syspath_prepend(path.parents[2])
    hparams = load(other)
    objective, arguments = hparams["objective"], hparams["encoder"].arguments
    layers = [m for m in objective.head.modules() if hasattr(m, "in_features")]
    for layer in layers[:1]:
        assert layer.in_features == arguments["lin_neurons"]
    hparams["features"].check_encoder(hparams["encoder"])


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_header_says_whose_figures_it_quotes(path):
    """Quoted figures are marked "not our"; the folder has the file's name."""
    header = " ".join(header_of(path).replace("#", " ").split())
    assert header.count("Model: ") == 1
    if "% EER" in header and "VoxCeleb" in path.parts:
        assert "not our" in header
    assert f"results/{path.stem}" in read_plain(path)["output_folder"]


SSPS_PATHS = [p for p in VOXCELEB if "_ssps_" in p.stem]


@pytest.mark.parametrize("path", SSPS_PATHS, ids=name_of)
def test_flags_go_on_where_the_baseline_stops(path, load):
    """The flags of a header continue the baseline up to the full run."""
    header = " ".join(header_of(path).split("#")[1:])
    flags = re.findall(r"--[a-z_]+=[\w.]*\w", header)
    # The last flag of a header may show how to train the baseline.
    first = next(i for i, f in enumerate(flags) if "number_of_epochs" in f)
    flags = [
        flag
        for i, flag in enumerate(flags)
        if "initial_checkpoint" not in flag
        and not (i > first + 1 and "ssps_start_epoch=102" in flag)
    ]
    assert any(f.startswith("--lr=") for f in flags)
    one, two = load(path), load(path, *flags)
    start = one["positives"].start_epoch
    epochs, left = one["number_of_epochs"], two["number_of_epochs"]
    # One epoch fills the queue; as many epochs with SSPS follow.
    assert two["positives"].start_epoch == 2
    assert left - 1 == epochs - start + 1
    assert two["freeze_last_layer_epochs"] == 0
    assert two.get("queue_start_epoch", 1) == 1
    for name, schedule in one["schedules"].items():
        wanted = schedule(epochs, 10)[10 * (start - 1) :]
        found = two["schedules"][name](left, 10)[10:]
        near = 0.15
        if name == "momentum":
            # The slow end of a cosine, and a whole cosine.
            wanted, found, near = 1 - wanted, 1 - found, 1.0
        # At the start, in between, and at the end.
        for place in (0, len(wanted) // 2, -1):
            assert found[place] == pytest.approx(
                wanted[place], rel=near, abs=1e-5
            ), (name, place)
