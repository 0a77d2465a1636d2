"""Training on pseudo-labels: the loss, the gate, and what must not change."""

import copy
import json
import logging
import math

import numpy as np
import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_ssl.brains import training_brain
from speechbrain_ssl.brains.collapse import CollapseAlarm
from speechbrain_ssl.brains.pseudo_label_brain import (
    PseudoLabelBrain,
    load_classifier,
)
from speechbrain_ssl.data.crops import CropPlan
from speechbrain_ssl.data.dataset import CropBatch
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.objectives.margin import AAMSoftmax
from speechbrain_ssl.pseudo_labels import loss_mixture
from speechbrain_ssl.pseudo_labels.label_correction import LabelCorrection
from speechbrain_ssl.pseudo_labels.loss_gate import (
    DynamicLossGate,
    FixedLossGate,
    NoGate,
)
from speechbrain_ssl.report.gate import loss_histogram, read_epochs
from speechbrain_ssl.report.logbook import read_metrics
from speechbrain_ssl.schedules import Constant

BATCH, STEPS, CLASSES = 6, 3, 4
COUNT = BATCH * STEPS


class Louder(torch.nn.Module):
    """An augmentation that adds a tone, always the same one."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def load(self):
        """Nothing."""

    def begin_epoch(self, epoch):
        """Nothing."""

    def forward(self, crops, address, first_crop=0):
        self.calls += 1
        tone = 0.3 * torch.sin(torch.arange(crops.shape[-1]) / 5)
        return crops + tone


class Batches(torch.utils.data.Dataset):
    """Crops of noise; ``poison`` names batches with a NaN."""

    def __init__(self, crops=1, poison=()):
        generator = torch.Generator().manual_seed(3)
        shape = (STEPS, BATCH, crops, 4000)
        self.waves = 0.1 * torch.randn(shape, generator=generator)
        # Each utterance has its own tone and loudness.
        tones = torch.rand(2, STEPS, BATCH, 1, 1, generator=generator)
        angles = torch.arange(4000) * (0.1 + 2 * tones[0])
        self.waves += 2 * tones[1] * torch.sin(angles)
        for number in poison:
            self.waves[number, 2] = float("nan")

    def __len__(self):
        return STEPS

    def __getitem__(self, number):
        index = torch.arange(number * BATCH, (number + 1) * BATCH)
        return CropBatch(
            crops=[self.waves[number].clone()],
            index=index,
            keys=index.numpy().astype(np.uint64),
            epoch=1,
            bad=[],
        )


def loader(**options):
    """Return a loader of such batches."""
    return torch.utils.data.DataLoader(Batches(**options), batch_size=None)


@pytest.fixture
def make(tmp_path):
    """Return ``make(epochs, **hparams)`` -> Brain with labels 0, 1, 2, 3, 0, ..."""

    def made(epochs=1, folder="run", labels=None, sub_centers=1, **hparams):
        torch.manual_seed(0)
        values = {
            "features": LogMel(n_mels=20, sample_rate=16000),
            "augmentation": Louder(),
            "schedules": {
                "lr": Constant(0.01),
                "weight_decay": Constant(0.1),
                "margin": Constant(0.3),
            },
            "crops": CropPlan(1, 0.25),
            "loss_gate": NoGate(),
            "label_correction": None,
            "label_correction_epoch": 1,
            "loss_reduction": "mean",
            "frozen_encoder_epochs": 0,
            "initial_classifier": None,
            "labels_seen": "none",
            "lr_reference_batch": BATCH,
            "decay_vectors": False,
            "clip_per_tensor": 3.0,
            "average_last": 2,
            "initial_model": None,
            "collapse_alarm": CollapseAlarm(patience=99),
            "on_divergence": "stop",
            "log_every": 1,
            "train_logger": None,
            "seed": 1,
            "number_of_epochs": epochs,
            "batch_size": BATCH,
            "epoch_counter": EpochCounter(epochs),
            "output_folder": str(tmp_path / folder),
            "trials": None,
            "trials_every": 0,
            **hparams,
        }
        brain = PseudoLabelBrain(
            modules={
                "encoder": FastECAPA(
                    20,
                    channels=[8, 8, 8, 8, 24],
                    lin_neurons=10,
                    attention_channels=8,
                    res2net_scale=2,
                    se_channels=8,
                ),
                "classifier": AAMSoftmax(
                    10, CLASSES, scale=8.0, sub_centers=sub_centers
                ),
            },
            opt_class=torch.optim.AdamW,
            hparams=values,
            run_opts={"device": "cpu", "noprogressbar": True},
        )
        # Classes with which every case of the tests below occurs.
        generator = torch.Generator().manual_seed(1)
        torch.nn.init.normal_(brain.classifier.weight, generator=generator)
        brain.train_sampler = EpochBatchSampler(COUNT, BATCH, 1)
        if labels is None:
            labels = torch.arange(COUNT) % CLASSES
        brain.set_labels(labels.numpy())
        return brain

    return made


def started(brain, epoch=1):
    """Return the Brain before the first step of an epoch."""
    brain.on_fit_start()
    brain.epoch = epoch
    brain.gate.prepare_epoch(epoch, brain.losses.previous)
    brain.modules.train()
    return brain


def one_batch(number=0, **options):
    """Return a single batch."""
    return Batches(**options)[number]


# -- the loss against its equation ---------------------------------------------


def margin_logits(cosines, label, margin, scale=8.0):
    """Return the logits z of one sample, in float64."""
    logits = [scale * c for c in cosines]
    logits[label] = scale * math.cos(math.acos(cosines[label]) + margin)
    return logits


def log_softmax(logits):
    """Return the log-softmax of a list."""
    total = math.log(sum(math.exp(z) for z in logits))
    return [z - total for z in logits]


def by_hand(brain, batch, tau, target, reduction, temperature, least):
    """Compute L_DLG + L_LC in plain loops.

    Also return which utterances were dropped and which corrected.
    """
    encoder = copy.deepcopy(brain.encoder)
    features = brain.features
    waves = batch.crops[0][:, 0]
    with torch.no_grad():
        noisy = encoder.train()(features(Louder()(waves, None)))[:, 0]
        clean = encoder.eval()(features(waves))[:, 0]
    centers = torch.nn.functional.normalize(
        brain.classifier.weight.detach().double(), dim=1
    )
    cosines, clean_cosines = (
        (torch.nn.functional.normalize(x.double(), dim=1) @ centers.T).tolist()
        for x in (noisy, clean)
    )
    kept, corrected, dropped, moved = [], [], 0, 0
    for row, index in enumerate(batch.index.tolist()):
        label = int(brain.labels[index])
        loss = -log_softmax(margin_logits(cosines[row], label, 0.3))[label]
        if loss < tau:
            kept.append(loss)
            continue
        dropped += 1
        sharpened = [8.0 * c / temperature for c in clean_cosines[row]]
        p = [math.exp(z) for z in log_softmax(sharpened)]
        best = max(range(CLASSES), key=lambda k: p[k])
        if p[best] <= least:
            continue
        moved += best != label
        # The margin is on the corrected label.
        q = log_softmax(margin_logits(cosines[row], best, 0.3))
        if target == "hard":
            corrected.append(-q[best])
        else:
            corrected.append(-sum(p[k] * q[k] for k in range(CLASSES)))
    sizes = {
        "sum": (1, 1),
        "mean": (BATCH, BATCH),
        "kept": (max(len(kept), 1), max(len(corrected), 1)),
    }[reduction]
    total = sum(kept) / sizes[0] + sum(corrected) / sizes[1]
    return total, len(kept), dropped, len(corrected), moved


@pytest.mark.parametrize("reduction", ["mean", "sum", "kept"])
@pytest.mark.parametrize("target", ["soft", "hard"])
def test_the_loss_is_that_of_the_equation(make, target, reduction):
    """Some are kept, some corrected, some dropped for good."""
    temperature, tau = 2.0, 5.0
    batch = one_batch()
    # A threshold with which every case occurs, and a label changes.
    for least in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        brain = started(
            make(
                loss_gate=FixedLossGate(tau),
                label_correction=LabelCorrection(temperature, least, target),
                loss_reduction=reduction,
            )
        )
        wanted, kept, dropped, corrected, moved = by_hand(
            brain, batch, tau, target, reduction, temperature, least
        )
        if corrected < dropped:
            break
    assert kept and corrected and dropped > corrected and moved
    predictions = brain.compute_forward(batch, None)
    loss = brain.compute_objectives(predictions, batch, None)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)
    means = brain.log.epoch_means()
    assert means["kept"] == pytest.approx(kept / BATCH)


def test_no_correction_before_its_epoch(make):
    """The clean view is not even encoded."""
    brain = started(
        make(
            loss_gate=FixedLossGate(1e-6),
            label_correction=LabelCorrection(0.1, 0.0),
            label_correction_epoch=2,
        )
    )
    brain._encode_clean = None
    batch = one_batch()
    predictions = brain.compute_forward(batch, None)
    loss = brain.compute_objectives(predictions, batch, None)
    assert float(loss.detach()) == 0.0
    brain.epoch = 2
    with pytest.raises(TypeError):
        brain.compute_objectives(predictions, batch, None)


def test_a_scheduled_margin(make):
    """The margin is that of the optimiser step, not the classifier's own."""
    brain = make()
    brain.hparams.schedules["margin"] = lambda *_: np.array([0.0, 0.2, 0.4])
    brain = started(brain)
    batch = one_batch()
    predictions = brain.compute_forward(batch, None)
    for step, margin in enumerate((0.0, 0.2, 0.4)):
        brain.optimizer_step = step
        loss = brain.compute_objectives(predictions, batch, None)
        labels = brain.labels[batch.index]
        wanted = brain.classifier(predictions, labels, margin).mean()
        # A masked sum that is divided may round differently from a mean.
        torch.testing.assert_close(loss, wanted)


# -- the gate ------------------------------------------------------------------


def test_a_batch_that_is_gated_out(make, caplog, tmp_path):
    """Loss and gradient are 0, there is one warning, training continues."""
    brain = started(make(loss_gate=FixedLossGate(1e-6)))
    batch = one_batch()
    with caplog.at_level(logging.WARNING):
        predictions = brain.compute_forward(batch, None)
        loss = brain.compute_objectives(predictions, batch, None)
        loss.backward()
    assert float(loss.detach()) == 0.0
    for parameter in brain.modules.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) == 0.0
    assert caplog.text.count("keeps none of a batch of 6") == 1
    caplog.clear()
    brain = make(2, loss_gate=FixedLossGate(1e-6))
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    assert brain.optimizer_step == 2 * STEPS
    # Once an epoch, not once a batch; and once at the end of it.
    assert caplog.text.count("keeps none of a batch") == 2
    assert caplog.text.count("has kept 0 % of 18 utterances") == 2
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    trained = [line for line in lines if line["stage"] == "train"]
    assert [line["loss"] for line in trained] == [0.0] * 2 * STEPS
    assert all(line["label_loss"] > 0 for line in trained)
    for parameter in brain.modules.parameters():
        assert torch.isfinite(parameter).all()


def test_a_gate_that_keeps_everything_warns(make, caplog):
    """It warns if it has a threshold; without a gate this is intended."""
    brain = make(loss_gate=FixedLossGate(1e6))
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    assert "has kept all of 18 utterances" in caplog.text
    assert brain.trusted().all()
    caplog.clear()
    brain = make(folder="other")
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    assert "has kept" not in caplog.text


def test_the_gate_reads_the_epoch_before(make, monkeypatch):
    """It is fitted to the losses of epoch 1 before epoch 2 starts."""
    monkeypatch.setattr(loss_mixture, "MIN_POINTS", 10)
    seen = []

    class Spy(DynamicLossGate):
        def _set_limit(self, epoch, previous):
            seen.append((epoch, previous.clone()))
            return super()._set_limit(epoch, previous)

    brain = make(3, loss_gate=Spy(start_epoch=2))
    recorded = []
    original = PseudoLabelBrain.after_epoch

    def noted(self):
        recorded.append(self.losses.losses.clone())
        return original(self)

    brain.after_epoch = noted.__get__(brain)
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert seen[0][1].isnan().all()
    for epoch in (0, 1):
        assert torch.equal(seen[epoch + 1][1], recorded[epoch])
        assert not recorded[epoch].isnan().any()
    assert not torch.equal(recorded[0], recorded[1])
    # Trusted are losses of the last epoch below the last threshold.
    wanted = recorded[2] < brain.gate.limit
    assert np.array_equal(brain.trusted(), wanted.numpy())


def test_the_record_of_an_epoch(make, tmp_path, monkeypatch):
    """It has histogram, mixture, threshold and shares, as the report needs."""
    monkeypatch.setattr(loss_mixture, "MIN_POINTS", 10)
    brain = make(2, loss_gate=DynamicLossGate(2))
    brain.truth = brain.labels.clone()
    brain.truth[::3] = (brain.truth[::3] + 1) % CLASSES
    brain.truth[1] = -1
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    first, second = read_epochs(tmp_path / "run" / "gate")
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert first["threshold"] is None and "mixture" not in first
    for record in (first, second):
        # Of one utterance the correct class is not known.
        assert sum(record["counts"]) == COUNT - 1
        assert sum(record["counts_right"]) == COUNT - 6 - 1
        assert len(record["edges"]) == len(record["counts"]) + 1
        loss_histogram(record)
    assert second["mixture"]["means"][0] < second["mixture"]["means"][1]
    found = second["scalars"]
    assert {"gate_kept", "gate_precision", "gate_recall"} <= found.keys()
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    last = [line for line in lines if line["stage"] == "valid"][-1]
    assert last["gate_kept"] == found["gate_kept"]
    json.loads((tmp_path / "run/gate/epoch_00002.json").read_text())


def test_partly_known_truth_is_judged_where_it_is_known(make):
    """The share kept is of all; precision and recall are of the known."""
    brain = started(make(loss_gate=FixedLossGate(1.0)))
    brain.truth = torch.full((COUNT,), -1)
    brain.truth[:4] = brain.labels[:4]
    brain.truth[3] = (brain.labels[3] + 1) % CLASSES
    losses = torch.full((COUNT,), 0.5)
    losses[[1, 10, 11]] = 5.0
    brain.losses.record(torch.arange(COUNT), losses)
    scalars = brain.after_epoch()
    assert scalars["gate_kept"] == pytest.approx(1 - 3 / COUNT)
    # Of the four known ones 0, 2, 3 are kept; 3 is wrong.
    assert scalars["gate_precision"] == pytest.approx(2 / 3)
    assert scalars["gate_recall"] == pytest.approx(2 / 3)
    assert scalars["gate_noise_recall"] == 0.0
    assert scalars["gate_noise_precision"] == 0.0


# -- what must not move ----------------------------------------------------------


def test_the_clean_view(make):
    """No gradient, no augmentation, no change of running statistics."""
    brain = started(
        make(
            loss_gate=FixedLossGate(1e-6),
            label_correction=LabelCorrection(0.5, 0.0),
        )
    )
    batch = one_batch()
    predictions = brain.compute_forward(batch, None)
    before = copy.deepcopy(brain.encoder.state_dict())
    calls = brain.augmentation.calls
    clean = brain._encode_clean(batch, torch.tensor([4, 1]))
    assert not clean.requires_grad
    assert brain.augmentation.calls == calls == 1
    for name, value in brain.encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(module.training for module in brain.encoder.modules())
    # With running statistics it does not depend on the other utterances.
    alone = brain._encode_clean(batch, torch.tensor([1]))
    torch.testing.assert_close(clean[1:], alone, rtol=1e-4, atol=1e-5)
    reference = copy.deepcopy(brain.encoder).eval()
    with torch.no_grad():
        wanted = reference(brain.features(batch.crops[0][:, 0]))[:, 0]
    torch.testing.assert_close(clean, wanted[[4, 1]], rtol=1e-4, atol=1e-5)
    # Only the augmented view has a gradient.
    loss = brain.compute_objectives(predictions, batch, None)
    (through,) = torch.autograd.grad(loss, predictions, retain_graph=True)
    assert float(through.abs().max()) > 0


def test_only_the_dropped_are_encoded_again(make):
    """A batch that is kept as a whole costs no second pass."""
    brain = started(
        make(
            loss_gate=FixedLossGate(5.0),
            label_correction=LabelCorrection(0.5, 0.0),
        )
    )
    chosen = []
    original = brain._encode_clean
    brain._encode_clean = lambda batch, rows: (
        chosen.append(rows) or original(batch, rows)
    )
    batch = one_batch()
    predictions = brain.compute_forward(batch, None)
    brain.compute_objectives(predictions, batch, None)
    losses = brain.classifier(predictions, brain.labels[batch.index], 0.3)
    wanted = (losses >= 5.0).nonzero()[:, 0]
    assert 0 < len(wanted) < BATCH
    assert torch.equal(chosen[0], wanted)
    brain.gate.limit.fill_(math.inf)
    brain.compute_objectives(predictions, batch, None)
    assert len(chosen) == 1


def test_frozen_epochs(make):
    """Only last affine layer and classes move, then everything.

    Frozen are parameters and running statistics, also after the clean view of
    label correction.
    """
    brain = make(
        2,
        frozen_encoder_epochs=1,
        loss_gate=FixedLossGate(1e-6),
        label_correction=LabelCorrection(0.5, 0.0),
    )
    before = copy.deepcopy(brain.modules.state_dict())
    moved, with_gradient = [], []
    original = PseudoLabelBrain.after_epoch

    def noted(self):
        moved.append(
            {
                name
                for name, value in self.modules.state_dict().items()
                if not torch.equal(value, before[name])
            }
        )
        return original(self)

    def watched(self, *args):
        loss = objectives(self, *args)
        loss.backward(retain_graph=True)
        with_gradient.append(
            {
                n
                for n, p in self.modules.named_parameters()
                if p.grad is not None
            }
        )
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    objectives = PseudoLabelBrain.compute_objectives
    brain.after_epoch = noted.__get__(brain)
    brain.compute_objectives = watched.__get__(brain)
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    every = {name for name, _ in brain.modules.named_parameters()}
    last = {name for name in every if name.startswith("encoder.fc.")}
    assert len(last) == 2
    assert moved[0] == last | {"classifier.weight"}
    # No gradient is even computed for what is frozen.
    assert with_gradient[:STEPS] == [moved[0]] * STEPS
    assert with_gradient[STEPS] == every
    assert len(moved[1] & every) > 0.9 * len(every) > len(moved[0])
    statistics = {n for n in moved[1] if n.endswith("running_mean")}
    assert len(statistics) > 10


def test_a_resumed_epoch_is_frozen_as_it_was(make):
    """``before_epoch`` decides it, which a resumed run calls, too."""
    brain = started(make(frozen_encoder_epochs=2))
    for epoch, frozen in ((1, True), (2, True), (3, False)):
        brain.epoch = epoch
        brain.before_epoch(epoch)
        needs = {p.requires_grad for p in brain.encoder.asp.parameters()}
        assert needs == {not frozen}
        brain.modules.train()
        brain.compute_forward(one_batch(), None)
        assert brain.encoder.asp.training == (not frozen)
        assert brain.encoder.fc.training and brain.encoder.fc.conv.training


def test_the_classes_are_averaged_like_the_encoder(make, tmp_path, monkeypatch):
    """The exported encoder and classes are means over the same epochs."""
    monkeypatch.setattr(training_brain, "conclude", lambda _: {"eer": 1.0})
    brain = make(3, average_last=2)
    seen = []
    original = PseudoLabelBrain.after_epoch

    def noted(self):
        seen.append(copy.deepcopy(self.modules.state_dict()))
        return original(self)

    brain.after_epoch = noted.__get__(brain)
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    brain.finish()
    for name in ("classifier.weight", "encoder.fc.conv.weight"):
        first, second, third = (state[name] for state in seen)
        mean = (second.double() + third.double()) / 2
        found = brain.modules.state_dict()[name]
        torch.testing.assert_close(found, mean.float(), rtol=0, atol=0)
        assert not torch.equal(found, third)
    saved = torch.load(
        tmp_path / "run" / "save" / "classifier.pt", weights_only=True
    )
    assert torch.equal(saved["weight"], brain.classifier.weight)


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_which_parameters_decay(make, decay_vectors):
    """All, as in an optimiser over a plain list; or matrices only."""
    brain = started(make(decay_vectors=decay_vectors))
    decayed = {
        id(p)
        for group in brain.optimizer.param_groups
        for p in group["params"]
        if group["decay"]
    }
    for name, p in brain.modules.named_parameters():
        assert (id(p) in decayed) == (decay_vectors or p.dim() > 1), name


@pytest.mark.parametrize("fault", ["audio", "gradient"])
def test_a_skipped_step_leaves_no_trace(make, fault):
    """It changes neither losses, corrections nor classes.

    This also holds if its losses are finite and only the gradient is not.
    """
    brain = make(
        loss_gate=FixedLossGate(1e-6),
        label_correction=LabelCorrection(0.5, 0.0),
    )
    stored = []
    original = PseudoLabelBrain.after_epoch

    def noted(self):
        stored.append(
            (self.losses.losses.clone(), self.corrections.labels.clone())
        )
        return original(self)

    brain.after_epoch = noted.__get__(brain)
    objectives = brain.compute_objectives

    def broken(predictions, batch, stage):
        loss = objectives(predictions, batch, stage)
        assert torch.isfinite(loss) or fault == "audio"
        return loss * float("nan") if int(batch.index[0]) == BATCH else loss

    if fault == "gradient":
        brain.compute_objectives = broken
    poison = [1] if fault == "audio" else []
    brain.fit(
        brain.hparams.epoch_counter, loader(poison=poison), loader(crops=2)
    )
    ((losses, labels),) = stored
    poisoned = torch.zeros(COUNT, dtype=torch.bool)
    poisoned[BATCH : 2 * BATCH] = True
    assert torch.equal(losses.isnan(), poisoned)
    assert torch.equal(labels == -1, poisoned)
    for name, value in brain.modules.state_dict().items():
        assert torch.isfinite(value).all(), name


def state_of(brain):
    """Return everything that training changes."""
    return {
        **brain.modules.state_dict(),
        "losses": brain.losses.previous,
        "limit": brain.gate.limit,
    }


def test_the_truth_changes_nothing(make, tmp_path):
    """With right, wrong or no truth the weights are the same bits."""
    options = {
        "loss_gate": FixedLossGate(2.0, start_epoch=2),
        "label_correction": LabelCorrection(1.0, 0.3),
    }
    states = []
    for kind in ("absent", "right", "random"):
        brain = make(2, folder=kind, **copy.deepcopy(options))
        if kind == "right":
            brain.truth = brain.labels.clone()
        elif kind == "random":
            draws = np.random.default_rng(0).integers(-1, CLASSES, COUNT)
            brain.truth = torch.from_numpy(draws)
        brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
        states.append(state_of(brain))
        lines = read_metrics(tmp_path / kind / "metrics.jsonl")
        last = [line for line in lines if line["stage"] == "valid"][-1]
        assert ("gate_precision" in last) == (kind != "absent")
        assert "gate_kept" in last and "corrected" in last
    for other in states[1:]:
        for name, value in states[0].items():
            assert torch.equal(value, other[name]), name


# -- labels and classes ------------------------------------------------------------


@pytest.mark.parametrize(
    "labels, message",
    [
        (torch.arange(COUNT - 1) % CLASSES, "17 labels up to 3 for 18"),
        (torch.arange(COUNT + 1) % CLASSES, "19 labels up to 3 for 18"),
        (torch.arange(COUNT) % 5, "up to 4 for 18 utterances and 4 classes"),
    ],
)
def test_labels_of_another_manifest_are_refused(make, labels, message):
    with pytest.raises(ConfigError, match=message):
        make(labels=labels).on_fit_start()


def test_labels_are_told_apart(make):
    """Other labels on the same utterances are another run."""
    found = set()
    plain = torch.arange(COUNT) % CLASSES
    swapped = plain.clone()
    swapped[[0, 1, 2]] = plain[[1, 2, 0]]
    # The same sum and the same sum of products with 1, 2, 3, ...
    balanced = plain.clone()
    balanced[5:9] = plain[5:9] + torch.tensor([1, -1, -1, 1])
    for labels in (plain, swapped, balanced):
        brain = make(labels=labels)
        found.add(json.dumps(brain.checkpoint_fingerprint()))
    assert len(found) == 3
    assert make().checkpoint_fingerprint() == make().checkpoint_fingerprint()


def test_classes_of_an_earlier_stage(make, tmp_path):
    """They are saved at the end and loaded next, if they fit."""
    brain = make()
    brain.fit(brain.hparams.epoch_counter, loader(), loader(crops=2))
    path = tmp_path / "classifier.pt"
    torch.save(brain.classifier.state_dict(), path)
    after = make(folder="next", initial_classifier=str(path))
    assert not torch.equal(after.classifier.weight, brain.classifier.weight)
    after.on_fit_start()
    assert torch.equal(after.classifier.weight, brain.classifier.weight)
    other = make(folder="other", initial_classifier=str(path), sub_centers=2)
    with pytest.raises(CheckpointError, match=r"classifier\.pt has other cla"):
        other.on_fit_start()
    with pytest.raises(CheckpointError, match=r"no file .*absent\.pt"):
        load_classifier(brain.classifier, str(tmp_path / "absent.pt"))


def test_schedules_are_checked(make):
    brain = make(schedules={"lr": Constant(0.1)})
    with pytest.raises(ConfigError, match="margin.*pseudo labels; got"):
        brain.on_fit_start()
