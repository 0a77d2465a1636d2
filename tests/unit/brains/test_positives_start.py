"""SSPS in the Brain: its references, and when it starts."""

import copy

import numpy as np
import pytest
import tiny
import torch
from positives_noise import Referenced, Rest, write_voices

from speechbrain_ssl.brains import embedded_halves, training_brain
from speechbrain_ssl.brains import positives as brain_positives
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.halves import HalvesDataset, ReadableHalves
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.deepcluster import DeepCluster
from speechbrain_ssl.objectives.simclr import SimCLR
from speechbrain_ssl.positives.cluster_aware import ClusterAware
from speechbrain_ssl.positives.ssps import SSPS
from speechbrain_ssl.positives.start_rule import Advice
from speechbrain_ssl.schedules import Constant

#: Batches of 4 in an epoch.
STEPS = 8
UTTERANCES = 4 * STEPS


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return files of four voices that any encoder tells apart."""
    return write_voices(tmp_path_factory.mktemp("good"), UTTERANCES, hum=0.3)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Return files that no encoder can tell apart."""
    return write_voices(tmp_path_factory.mktemp("weak"), UTTERANCES, hum=0.0)


@pytest.fixture
def make(make_brain, manifest, noise):
    """Return ``make(encoder, epochs, **options of SSPS)`` -> Brain and loader.

    Whether the encoder is ``"good"`` or ``"weak"`` depends on the audio.
    """

    def build(
        encoder="good", epochs=3, checkpoints=False, accumulated=1, **options
    ):
        options = {"start_epoch": 2, "speaker_count": 4, **options}
        positives = SSPS(
            **{"clusters": 4, "queue": 16, "neighbours": 0, **options}
        )
        brain = make_brain.brain(
            STEPS,
            epochs,
            checkpoints=checkpoints,
            positives=positives,
            features=LogMel(n_mels=20, normalize="none"),
            valid_seconds=0.3,
            num_workers=0,
            run_opts={
                "grad_accumulation_factor": accumulated,
                **({"ckpt_interval_steps": 2} if checkpoints else {}),
            },
        )
        # The encoder is not trained, so it stays as good or weak as it is.
        brain.hparams.schedules["lr"] = Constant(1e-6)
        brain.train_manifest = manifest if encoder == "good" else noise
        batches = Referenced(make_brain.loader(STEPS).dataset)
        loader = torch.utils.data.DataLoader(
            batches, batch_size=None, sampler=Rest(brain.train_sampler)
        )
        return brain, loader

    return build


def fit(brain, loader):
    # Without validation an epoch is not finished.
    some = torch.utils.data.Subset(loader.dataset, range(2))
    valid = torch.utils.data.DataLoader(some, batch_size=None)
    brain.fit(brain.hparams.epoch_counter, loader, valid)


def with_positives(brain, rule):
    """Give a Brain other positives than it was made with."""
    brain.hparams.positives = rule
    brain.positives = brain_positives.make_positives(brain)


def spoiled(manifest, folder, bad):
    """Return the manifest with some files that hold no audio."""
    copy = manifest.select(np.arange(len(manifest)))
    path = copy.path

    def path_of(index):
        if index not in bad:
            return path(index)
        broken = folder / f"{index}.wav"
        broken.write_bytes(b"no audio")
        return str(broken)

    copy.path = path_of
    return copy


# -- the start rule ------------------------------------------------------------


def test_begins_with_a_good_encoder(make, caplog):
    """SSPS starts in the configured epoch; the log has the reason."""
    brain, loader = make("good")
    caplog.set_level("INFO")
    fit(brain, loader)
    assert (
        brain.positives.rule.start_epoch
        == brain.positives.first_active_epoch
        == 2
    )
    assert "epoch 1: SSPS may start: with K = 4 and M = 0" in caplog.text
    # Candidates around the configured numbers are only logged.
    assert "(K = 2, M = 0: " in caplog.text
    assert "; K = 8, M = 0: " in caplog.text
    assert "leaves out" not in caplog.text


def asked(caplog):
    """Return the epochs in which the rule said that it is too early."""
    return [e for e in range(1, 9) if f"epoch {e}: too early" in caplog.text]


def test_is_put_off_with_a_weak_encoder(make, caplog):
    """Each epoch postpones it; in the last one the rule is not asked."""
    brain, loader = make("weak", epochs=4)
    fit(brain, loader)
    assert asked(caplog) == [1, 2, 3]
    assert (
        brain.positives.rule.start_epoch == 5
        and brain.positives.first_active_epoch is None
    )


def test_without_a_guess_nobody_is_asked(make, caplog):
    """Without `speaker_count` SSPS starts as configured, with a warning."""
    brain, loader = make("weak", epochs=2, speaker_count=None)
    fit(brain, loader)
    assert asked(caplog) == [] and brain.positives.first_active_epoch == 2
    assert "epoch 2 without a check" in caplog.text


def test_the_rule_sets_the_numbers(make, caplog):
    """It chooses from 2 to 16 clusters for four voices, and logs them."""
    brain, loader = make("good", clusters=8, neighbours=1, choose_clusters=True)
    caplog.set_level("INFO")
    fit(brain, loader)
    ssps = brain.positives.rule
    assert "without a check" not in caplog.text
    said = f"takes K = {ssps.clusters} and M = {ssps.neighbours}"
    assert said in caplog.text
    # Eight clusters and a neighbour are more than four voices need.
    assert (ssps.clusters, ssps.neighbours) != (8, 1)
    assert ssps.assignments.unique().tolist() == list(range(ssps.clusters))
    assert brain.positives.first_active_epoch == 2


def test_numbers_that_the_rule_has_set_come_with_a_checkpoint(
    make, monkeypatch
):
    """The clusters made with them are restored, too."""
    options = {"clusters": 8, "choose_clusters": True, "checkpoints": True}
    brain, loader = make("good", **options)
    monkeypatch.setattr(
        brain_positives,
        "judge",
        lambda *_, **__: Advice(16, 0, 1.0, True, "so it is", []),
    )
    fit(brain, loader)
    assert brain.positives.rule.clusters == 16
    again, loader = make("good", **options)
    again.on_fit_start()
    assert (
        again.positives.rule.clusters == 16
        and again.positives.rule.start_epoch == 2
    )
    assert torch.equal(
        again.positives.rule.centroids, brain.positives.rule.centroids
    )
    assert again.positives.rule.assignments.max() == 15


class Stop(Exception):
    """Raised to end a run in the middle of an epoch."""


def test_a_resumed_run_keeps_the_postponed_start(make, caplog, monkeypatch):
    """The rule is not asked again in the epoch that resumes."""
    brain, loader = make("weak", checkpoints=True)
    end = brain.on_fit_batch_end

    def stop(*args):
        end(*args)
        if brain.optimizer_step == 5:
            raise Stop

    monkeypatch.setattr(brain, "on_fit_batch_end", stop)
    with pytest.raises(Stop):
        fit(brain, loader)
    assert asked(caplog) == [1]
    caplog.clear()
    again, loader = make("weak", checkpoints=True)
    again.on_fit_start()
    assert (again.optimizer_step, again.positives.rule.start_epoch) == (4, 3)
    again, loader = make("weak", checkpoints=True)
    fit(again, loader)
    assert asked(caplog) == [2]
    assert (
        again.positives.rule.start_epoch == 4
        and again.optimizer_step == 3 * STEPS
    )


@pytest.mark.parametrize("bad", [{3}, {0, 1, 2, 3, 17}, set(range(32))])
def test_broken_files_are_left_out(make, manifest, tmp_path, caplog, bad):
    """A few broken files change nothing; if all are, there is no verdict."""
    brain, loader = make("good", epochs=2)
    brain.train_manifest = spoiled(manifest, tmp_path, bad)
    fit(brain, loader)
    assert f"leaves out {len(bad)} of 32 utterances" in caplog.text
    begun = len(bad) < UTTERANCES
    assert brain.positives.first_active_epoch == (2 if begun else None)
    assert ("of 32 utterances only 0 have" in caplog.text) is not begun


def test_embeddings_without_direction_are_left_out(make, caplog, monkeypatch):
    """If one half is zero or not finite, both are left out."""
    brain, loader = make("good", epochs=2)
    encode, seen = embedded_halves.encode, []

    def poisoned(encoder, inputs):
        found = encode(encoder, inputs)
        # In evaluation mode, both by the rule and for the references.
        if not encoder.training and len(found) > 1:
            found = found.clone()
            found[0, 0], found[1, -1] = 0, float("nan")
        return found

    def judge(ssps, first, second, **options):
        seen.append((first, second))
        return original(ssps, first, second, **options)

    original = brain_positives.judge
    monkeypatch.setattr(embedded_halves, "encode", poisoned)
    monkeypatch.setattr(brain_positives, "judge", judge)
    fit(brain, loader)
    assert "leaves out 2 of 32 utterances" in caplog.text
    [(first, second)] = seen
    assert len(first) == len(second) == 30
    # The rows are still halves of the same utterance.
    near = torch.nn.functional.cosine_similarity(first, second)
    assert near.min() > 0.9
    assert brain.positives.first_active_epoch == 2


def with_lengths(manifest, seconds):
    """Return the manifest with other durations."""
    copy = manifest.select(np.arange(len(manifest)))
    copy.durations = np.asarray(seconds, dtype=np.float32)
    return copy


def test_a_small_part_that_is_long_enough(make, manifest, caplog):
    """Of 4 clusters one would be left for 9 of 32 utterances, and M is 2."""
    caplog.set_level("INFO")
    brain, loader = make("good", epochs=2, neighbours=2)
    seconds = [0.7] * 9 + [0.5] * 23
    brain.train_manifest = with_lengths(manifest, seconds)
    fit(brain, loader)
    assert "epoch 1: " in caplog.text and "K = 4 and M = 2" in caplog.text


@pytest.mark.parametrize(("neighbours", "long"), [(0, 0), (0, 2), (2, 3)])
def test_utterances_that_are_too_short_are_refused(
    make, manifest, neighbours, long
):
    """The error comes before the first step, with a remedy."""
    brain, _ = make("good", neighbours=neighbours)
    seconds = [0.7] * long + [0.5] * (32 - long)
    brain.train_manifest = with_lengths(manifest, seconds)
    message = f"of 32 training utterances {long} are.*lower `valid_seconds`"
    with pytest.raises(ConfigError, match=message):
        brain.on_fit_start()
    brain, _ = make("good", neighbours=neighbours, speaker_count=None)
    brain.train_manifest = with_lengths(manifest, seconds)
    brain.on_fit_start()


def test_halves_that_can_be_read(manifest, tmp_path):
    """Crops are the same as in validation; unreadable files are named."""
    bad = spoiled(manifest, tmp_path, {1, 2})
    halves = ReadableHalves(bad, 0.3, crops_per_half=1)
    batch = halves.collate([halves[i] for i in range(4)])
    strict = HalvesDataset(manifest, 0.3, crops_per_half=1)
    wanted = strict.collate([strict[0], strict[3]])
    assert torch.equal(batch.crops[0], wanted.crops[0])
    assert batch.index.tolist() == [0, 3]
    assert np.array_equal(batch.keys, wanted.keys)
    assert [path for path, _ in batch.bad] == [bad.path(1), bad.path(2)]
    assert all("cannot use" in reason for _, reason in batch.bad)
    nothing = halves.collate([halves[1], halves[2]])
    assert nothing.crops[0].shape == (0, 2, 4800) and len(nothing.bad) == 2
    assert len(nothing.index) == len(nothing.keys) == 0


# -- references ----------------------------------------------------------------


class Own(brain_positives.SampledPositives):
    """Records the target branch of each utterance before SSPS."""

    def replace(self, batch, target):
        for index, vectors in zip(batch.index, target.projections, strict=True):
            self.own[int(index)] = vectors.detach().clone()
        return super().replace(batch, target)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_queue_holds_vectors_of_its_utterances(make, accumulated):
    """It holds vectors from before any replacement, as in the paper.

    Tested in an epoch that replaces most vectors, for all accumulated batches.
    """
    brain, loader = make(
        epochs=2, speaker_count=None, queue=UTTERANCES, accumulated=accumulated
    )
    brain.positives.__class__, own = Own, {}
    brain.positives.own = own
    brain.hparams.schedules["lr"] = Constant(0.01)
    covered = []
    brain.objective.register_forward_pre_hook(
        lambda _, branches: covered.append(
            torch.stack([own[int(i)] for i in branches[1].index])
            .ne(branches[1].projections)
            .flatten(1)
            .any(1)
        )
    )
    fit(brain, loader)
    assert not torch.stack(covered[:STEPS]).any()
    assert torch.stack(covered[STEPS:]).float().mean() > 0.5
    ids = brain.positives.rule.queue.ids.tolist()
    assert sorted(ids) == list(range(UTTERANCES))
    wanted = torch.stack([own[i] for i in ids])
    assert torch.equal(brain.positives.rule.queue.vectors, wanted)
    assert brain.positives.rule.known.all()


def test_a_skipped_step_is_forgotten(make):
    """Its references and vectors do not appear in the next step."""
    brain, loader = make(epochs=1, speaker_count=None, queue=UTTERANCES)
    brain.objective.register_forward_hook(
        lambda _, branches, out: (
            (out[0] * float("nan"), out[1]) if 8 in branches[0].index else out
        )
    )
    fit(brain, loader)
    skipped = torch.zeros(UTTERANCES, dtype=torch.bool)
    skipped[8:12] = True
    assert torch.equal(~brain.positives.rule.known, skipped)
    assert sorted(brain.positives.rule.queue.ids.tolist()) == [-1] * 4 + [
        i for i in range(UTTERANCES) if not skipped[i]
    ]


@pytest.mark.parametrize("objective", ["dino", "simclr"])
def test_clusters_are_those_of_the_encoder_that_counts(
    make, monkeypatch, objective
):
    """The teacher's embeddings are clustered if it is evaluated."""
    brain, loader = make(epochs=2)
    with_positives(brain, ClusterAware(clusters=4, start_epoch=2))
    if objective == "simclr":
        loader = with_simclr(brain, loader)
    asked = []
    original = brain_positives.embed_files

    def embed(encoder, *args, **kwargs):
        asked.append(encoder)
        return original(encoder, *args, **kwargs)

    monkeypatch.setattr(brain_positives, "embed_files", embed)
    fit(brain, loader)
    assert len(asked) == 1 and asked[0] is brain.evaluated_encoder
    assert (asked[0] is brain.encoder) == (objective == "simclr")


class Unchanged(brain_positives.SampledPositives):
    """Records what the reference pass does to the encoders."""

    def replace(self, batch, target):
        counted = copy.deepcopy(self.brain.evaluated_encoder).eval()
        before = self.look()
        replaced = super().replace(batch, target)
        after = self.look()
        assert before.keys() == after.keys()
        self.moved += [
            k for k in before if not torch.equal(before[k], after[k])
        ]
        with torch.no_grad():
            features = self.brain.features(batch.reference)
            rows = counted(features).squeeze(1)
        self.wanted[batch.index] = torch.nn.functional.normalize(rows, dim=1)
        return replaced

    def look(self):
        """Return buffers and modes of student and teacher."""
        found = {}
        brain = self.brain
        for part in (brain.encoder, brain.evaluated_encoder, brain.teacher):
            for name, module in part.named_modules() if part else ():
                key = f"{id(part)} {name}"
                found[key] = torch.tensor(module.training)
                for kind, buffer in module.named_buffers(recurse=False):
                    found[f"{key} {kind}"] = buffer.clone()
        return found


@pytest.mark.parametrize("objective", ["dino", "simclr"])
def test_references_are_those_of_evaluation(make, objective):
    """They come from the evaluated encoder, in evaluation mode.

    In training mode they would depend on the batch, and batch norms would learn
    from clean crops of another length. The student does not encode them, since
    they are not local crops.
    """
    brain, loader = make("good", epochs=2, speaker_count=None)
    if objective == "simclr":
        loader = with_simclr(brain, loader)
    brain.hparams.schedules["lr"] = Constant(0.01)
    watched = brain.positives
    watched.__class__ = Unchanged
    watched.moved, watched.wanted = [], torch.zeros(UTTERANCES, 10)
    crops = []
    brain.objective.register_forward_pre_hook(
        lambda _, branches: crops.append(branches[0].embeddings.shape[1])
    )
    fit(brain, loader)
    assert watched.moved == []
    # One for each step, with or without SSPS.
    assert crops == [brain.hparams.crops.num_crops] * 2 * STEPS
    assert brain.positives.rule.known.all()
    torch.testing.assert_close(brain.positives.rule.memory, watched.wanted)
    # The encoders have moved, so the checks above mean something.
    counts = [
        int(m.num_batches_tracked)
        for m in brain.encoder.modules()
        if isinstance(m, torch.nn.BatchNorm1d)
    ]
    assert counts and min(counts) >= 2 * STEPS


def with_simclr(brain, loader):
    """Give a Brain SimCLR instead of DINO, and suitable batches."""
    brain.modules["objective"] = SimCLR()
    brain.hparams.schedules = {
        name: brain.hparams.schedules[name] for name in ("lr", "weight_decay")
    }
    brain.hparams.crops = CropPlan(2, 0.25)
    return torch.utils.data.DataLoader(Global(loader.dataset), batch_size=None)


class Global(torch.utils.data.Dataset):
    """Batches without their local crops."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        batch = self.batches[number]
        batch.crops = batch.crops[:1]
        return batch


# -- positives that never start, or cannot -------------------------------------


@pytest.fixture
def concluded(monkeypatch):
    """Skip averaging, export and report."""
    monkeypatch.setattr(training_brain, "average_weights", lambda *_: None)
    monkeypatch.setattr(training_brain, "conclude", lambda _: {})


@pytest.mark.parametrize("kind", [SSPS, ClusterAware])
def test_a_start_behind_the_last_epoch(make, concluded, caplog, kind):
    """This is how a baseline is trained: a warning, not an error."""
    brain, _ = make("good", epochs=1)
    positives = {
        SSPS: SSPS(clusters=4, queue=16, start_epoch=9),
        ClusterAware: ClusterAware(clusters=4, start_epoch=9),
    }
    with_positives(brain, positives[kind])
    brain.on_fit_start()
    name = kind.__name__
    assert (
        f"{name} starts in epoch 9, but `number_of_epochs` is 1" in caplog.text
    )
    assert "never active" not in caplog.text
    assert "without a check" not in caplog.text
    brain, loader = make("good", epochs=1)
    with_positives(brain, positives[kind])
    fit(brain, loader)
    brain.finish()
    assert f"{name} was never active: it would have started in epoch 9" in (
        caplog.text
    )
    assert brain.extra_results() == {"positives_from_epoch": None} | (
        {"positives_coverage": None} if kind is SSPS else {}
    )


def test_a_start_that_was_put_off_to_the_end(make, concluded, caplog):
    """The warning comes at the end, since it was not known before."""
    brain, loader = make("weak", epochs=2)
    fit(brain, loader)
    assert "starts in epoch" not in caplog.text
    brain.finish()
    assert (
        "SSPS was never active: it would have started in epoch 3" in caplog.text
    )


def test_who_begins_says_nothing(make, make_brain, concluded, caplog):
    """There is no warning if SSPS starts, or without pseudo-positives."""
    brain, loader = make("good", epochs=2)
    fit(brain, loader)
    brain.finish()
    plain = make_brain.brain(STEPS)
    fit(plain, make_brain.loader(STEPS))
    plain.finish()
    found = brain.extra_results()
    assert found["positives_from_epoch"] == 2
    assert 0.5 < found["positives_coverage"] <= 1.0
    assert plain.extra_results() == {}
    assert "never active" not in caplog.text
    assert "starts in epoch" not in caplog.text


def test_low_coverage_is_warned_of_before_the_first_step(make, caplog):
    """With a remedy; the mean coverage is recorded, also after a resumption."""
    caplog.set_level("WARNING")
    options = {"clusters": 16, "queue": 4, "speaker_count": None}
    brain, loader = make("good", epochs=3, **options)
    seen = []
    original = brain.compute_forward

    def compute_forward(batch, stage):
        seen.append("a pseudo-positive for" in caplog.text)
        return original(batch, stage)

    brain.compute_forward = compute_forward
    fit(brain, loader)
    assert seen == [False] * STEPS + [True] * 2 * STEPS
    rule, means = brain.positives.rule, []
    assert "raise `positive_queue` (32 utter" in caplog.text.lower()
    assert "lower `clusters`" in caplog.text
    for epoch in (2, 3):
        lines = [
            line["coverage"]
            for line in tiny.lines(brain.hparams.output_folder)
            if line["epoch"] == epoch
        ]
        means.append(sum(lines) / len(lines))
        assert rule.coverage[epoch] == pytest.approx(means[-1])
        assert means[-1] < 0.5
    found = brain.extra_results()["positives_coverage"]
    assert found == pytest.approx(sum(means) / 2)
    again = SSPS(clusters=16, queue=4, start_epoch=2)
    again.set_extra_state(rule.get_extra_state())
    assert again.coverage == rule.coverage


def test_more_clusters_than_an_epoch_fills(make, make_brain):
    """The last utterances of an epoch are dropped: 12 of 14 remain."""
    brain, _ = make("good", clusters=13)
    brain.train_sampler = EpochBatchSampler(14, 4, seed=1)
    with pytest.raises(ConfigError, match="13 clusters of 12 utterances"):
        brain.on_fit_start()
    brain = make_brain.brain()
    brain.train_sampler = EpochBatchSampler(14, 4, seed=1)
    brain.modules["objective"] = DeepCluster(
        10, prototypes=[13], hidden=8, output_size=5
    )
    brain.hparams.schedules = {
        name: brain.hparams.schedules[name] for name in ("lr", "weight_decay")
    }
    with pytest.raises(ConfigError, match="13 clusters of 12 utterances"):
        brain.on_fit_start()


def test_who_cannot_be_read_has_no_cluster(make, manifest, tmp_path, caplog):
    """The log says how many utterances cannot be read."""
    brain, loader = make("good", epochs=2)
    sampling = ClusterAware(clusters=4, start_epoch=2)
    with_positives(brain, sampling)
    brain.train_manifest = spoiled(manifest, tmp_path, {3, 30})
    fit(brain, loader)
    assert "2 of 32 utterances cannot be read; they get no cl" in caplog.text
    nobody = (sampling.assignments < 0).nonzero().flatten()
    assert nobody.tolist() == [3, 30]
