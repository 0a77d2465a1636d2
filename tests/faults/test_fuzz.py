"""Whatever a file or a setting contains, an error is one that a user can mend.

``FUZZ_EXAMPLES`` sets the number of examples for each test: 25 in the ordinary
suite, which takes the same ones each time, and as many as there is time for
elsewhere.
"""

import contextlib
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speechbrain.utils.importutils import LazyModule

from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.config import load_config
from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.manifest import Manifest, write_manifest
from speechbrain_ssl.embedding.store import EmbeddingStore
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import UserError
from speechbrain_ssl.minivox.corpus import write_corpus
from speechbrain_ssl.positives.queue import PositiveQueue
from speechbrain_ssl.pseudo_labels.labels import read_labels
from speechbrain_ssl.pseudo_labels.loss_mixture import fit_threshold
from speechbrain_ssl.publishing.calibration_file import read_calibration
from speechbrain_ssl.publishing.description import build, describe
from speechbrain_ssl.publishing.export import load_encoder
from speechbrain_ssl.publishing.record import read_record
from speechbrain_ssl.schedules import StepDecay, WarmupCosine
from speechbrain_ssl.verification.trials import read_trials

# Hypothesis asks every module for its file. SpeechBrain's lazy ones would be
# imported by that, and some of them need packages that are not there.
for module in list(sys.modules.values()):
    if isinstance(module, LazyModule):
        vars(module).setdefault("__file__", None)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 25))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: Values that JSON can represent, NaN and long numbers included.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
CELLS = st.text(alphabet="a1./\"',\t\r\n\0 é-$", max_size=12)


def tables(*columns):
    """Strategy of bytes that are nearly a CSV file with some columns."""
    lines = st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6)
    text = lines.map(
        lambda rows: "\n".join([",".join(columns), *map(",".join, rows)])
    )
    return text.map(str.encode) | st.binary(max_size=80)


@contextlib.contextmanager
def only_user_errors():
    """Let the errors pass that name what to mend."""
    with contextlib.suppress(UserError):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def manifest(folder):
    """A manifest of three utterances."""
    rows = {"ID": ["a", "b", "c"], "duration": 1.0, "wav": ["a", "b", "c"]}
    write_manifest(folder / "three.csv", pd.DataFrame(rows))
    return Manifest.read(folder / "three.csv")


@fuzzed
@given(tables("ID", "duration", "wav"))
def test_manifests(folder, content):
    (folder / "m.csv").write_bytes(content)
    with only_user_errors():
        found = Manifest.read(folder / "m.csv", "/root")
        assert len(found) and np.isfinite(found.durations).all()


@fuzzed
@given(tables("ID", "label"))
def test_labels(folder, manifest, content):
    (folder / "l.csv").write_bytes(content)
    with only_user_errors():
        labels, names = read_labels(folder / "l.csv", manifest)
        assert len(labels) == 3 and labels.max() < len(names)


@fuzzed
@given(
    st.lists(
        st.lists(st.sampled_from(["0", "1", "a", "b/c", "target", '"', "é"])),
        max_size=6,
    ).map(lambda rows: "\n".join(map(" ".join, rows)).encode())
    | st.binary(max_size=80)
)
def test_trial_lists(folder, content):
    (folder / "t.txt").write_bytes(content)
    with only_user_errors():
        assert set(read_trials(folder / "t.txt").labels) == {False, True}


@pytest.fixture(scope="module")
def recording(folder):
    """The bytes of a wav file."""
    write_corpus(folder / "corpus", **tiny.SIZES)
    return next((folder / "corpus").rglob("*.wav")).read_bytes()


@fuzzed
@given(st.data())
def test_audio(folder, recording, data):
    """Bytes of a wav file, of which some are others or missing."""
    content = bytearray(recording)
    for _ in range(data.draw(st.integers(0, 8))):
        # Most are in the header.
        place = data.draw(st.integers(0, 60) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    (folder / "a.wav").write_bytes(content)
    with only_user_errors(), AudioFile(folder / "a.wav", 16000) as audio:
        wave = audio.read(0, min(audio.num_samples, 16000))
        assert np.isfinite(wave).all()


@fuzzed
@given(st.data())
def test_model_descriptions(data):
    about = describe(FastECAPA(80, channels=[8] * 5), LogMel())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(
            st.sampled_from(
                [about, *(v for v in about.values() if isinstance(v, dict))]
            )
        )
        place[data.draw(st.sampled_from([*place, "more"]))] = data.draw(JSON)
    with only_user_errors():
        build(about, "here")


@fuzzed
@given(JSON | st.fixed_dictionaries({"scale": JSON, "offset": JSON}))
def test_calibrations(folder, value):
    (folder / "calibration.json").write_text(json.dumps(value))
    with only_user_errors():
        assert np.isfinite(read_calibration(folder / "calibration.json")(0.5))


@fuzzed
@given(
    JSON
    | st.fixed_dictionaries(
        {"evaluations": JSON | st.lists(JSON, max_size=2), "eer": JSON}
    )
)
def test_records(folder, value):
    (folder / "results.json").write_text(json.dumps(value))
    with only_user_errors():
        read_record(folder / "results.json")


@fuzzed
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_model_folders_of_yaml(folder, content):
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "hyperparams.yaml").write_bytes(content)
    with only_user_errors():
        load_encoder(model)


@fuzzed
@given(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_indices_of_embeddings(folder, manifest, content):
    store = EmbeddingStore(folder, manifest)
    (folder / "index.json").write_bytes(content)
    with only_user_errors():
        store.read()


KEYS = ["lr", "batch_size", "encoder", "crops", "schedules", "precision", "x"]


@pytest.fixture(scope="module")
def configuration(folder):
    """The text of the tiny configuration of training, and its keys."""
    path = folder / "recipe" / "hparams" / "fuzzed.yaml"
    path.parent.mkdir(parents=True)
    return path, tiny._YAML.format(root=tiny.ROOT), tiny.load_train().KEYS


@fuzzed
@given(st.data())
def test_configurations(configuration, data):
    """A line of the YAML is replaced, and some keys are set."""
    path, text, known = configuration
    lines = text.splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    values = st.sampled_from(
        ["", "null", "- 1", "a: b: c", "'", "lr: !ref <nowhere>", "x: &x *x"]
    ) | st.text(max_size=12)
    lines[place] = data.draw(st.sampled_from([lines[place]]) | values)
    path.write_bytes("\n".join(lines).encode(errors="replace"))
    argv = [str(path), f"--output_folder={path.parent / 'run'}"]
    argv += ["--train_manifest=none.csv", "--device=cpu"]
    for key in data.draw(st.lists(st.sampled_from(KEYS), max_size=2)):
        value = data.draw(st.text("0-1.e[]{}:!'a", max_size=8))
        argv.append(f"--{key}={value}")
    # SpeechBrain's own parser of the command line exits.
    with only_user_errors(), contextlib.suppress(SystemExit):
        load_config(argv, known)


@fuzzed
@given(st.lists(st.floats(), max_size=300), st.integers(1, 40))
def test_gates(losses, repeats):
    fit = fit_threshold(np.array(losses * repeats, np.float64))
    assert not np.isnan(fit.threshold)


@fuzzed
@given(
    st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), max_size=9),
    st.integers(-1, 10),
    st.sampled_from(["keep", "reseed"]),
)
def test_kmeans(rows, clusters, empty):
    rows = np.array(rows, np.float32).reshape(-1, 2)
    with only_user_errors():
        found = spherical_kmeans(rows, clusters, empty=empty)
        assert 0 <= found.assignments.min() <= found.assignments.max()
        assert found.assignments.max() < clusters
        assert torch.isfinite(found.centroids).all()


@fuzzed
@given(
    st.integers(1, 6),
    st.lists(st.lists(st.integers(-1, 4), max_size=8), max_size=6),
)
def test_queues(size, pushes):
    """The last rows are kept, and of each utterance the newest is found."""
    queue = PositiveQueue(size, utterances=5, crops=1, vector_size=1)
    pushed = []
    for ids in pushes:
        numbers = len(pushed) + torch.arange(len(ids)).view(-1, 1, 1)
        queue.push(torch.tensor(ids, dtype=torch.int64), numbers.float())
        pushed += ids
    newest = {i: n for n, i in enumerate(pushed) if n >= len(pushed) - size}
    newest.pop(-1, None)
    keys, slots = queue.sorted_by(torch.zeros(5, dtype=torch.int64))
    kept = keys < torch.iinfo(torch.int64).max
    found = queue.vectors[slots[kept]].flatten().tolist()
    assert dict(zip(keys[kept].tolist(), found, strict=True)) == newest


NUMBERS = st.floats(0, 1e3) | st.sampled_from([-1.0, float("inf")])


@fuzzed
@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 6), st.integers(0, 4))
def test_schedules(peak, end, warmup, epochs, steps):
    for schedule in (
        lambda: WarmupCosine(peak, end, warmup),
        lambda: StepDecay(peak, 0.5, 1 + int(min(warmup, 9))),
    ):
        with only_user_errors():
            values = schedule()(epochs, steps)
            assert values.shape == (epochs * steps,)
            if np.isfinite([peak, end]).all():
                assert np.isfinite(values).all()
