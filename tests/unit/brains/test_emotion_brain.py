"""Fine-tuning in two steps: what is trained when, and exact resuming."""

import copy
import signal

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ssl import interruption
from speechbrain_ssl.brains import emotion_brain
from speechbrain_ssl.brains.checkpointing import AtomicCheckpointer
from speechbrain_ssl.brains.emotion_brain import EmotionBrain, make_classifier
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.downstream.finetune import FineTuning
from speechbrain_ssl.downstream.folds import SpeakerFolds
from speechbrain_ssl.downstream.task import read_task
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel, Waveform
from speechbrain_ssl.encoders.mhfa import WeightedECAPA
from speechbrain_ssl.encoders.pretrained import PretrainedFrontEnd
from speechbrain_ssl.errors import CheckpointError, ConfigError
from speechbrain_ssl.publishing.systems import System, load_system

SETTINGS = {
    "affine_epochs": 1,
    "affine_lr": 0.01,
    "epochs": 2,
    "lr": 0.01,
    "batch_size": 6,
    "chunk_seconds": 0.4,
    "weight_decay": 0.01,
}
#: Training utterances of a fold; with a batch of 6 they make 4 steps.
TRAIN, STEPS = 24, 4


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Create speakers who hum or hiss, each at a pitch of their own."""
    folder = tmp_path_factory.mktemp("task")
    rng = np.random.default_rng(0)
    lines = ["ID,duration,wav,spk_id,emotion"]
    for speaker in range(12):
        for number in range(4):
            seconds = 0.6 + 0.1 * number
            t = np.arange(round(16000 * seconds)) / 16000
            hum = np.sin(2 * np.pi * (120 + 20 * speaker) * t)
            wave = 0.02 * rng.normal(size=len(t)) + 0.1 * hum * (number % 2)
            name = f"s{speaker}u{number}"
            soundfile.write(folder / f"{name}.wav", wave, 16000)
            kind = ("hiss", "hum")[number % 2]
            lines.append(f"{name},{seconds},{name}.wav,s{speaker},{kind}")
    (folder / "labelled.csv").write_text("\n".join(lines) + "\n")
    return read_task(folder / "labelled.csv", "emotion")


@pytest.fixture(scope="module")
def folds(task):
    return SpeakerFolds(2, inner_folds=2)(task)


@pytest.fixture(scope="module")
def system():
    torch.manual_seed(1)
    encoder = FastECAPA(
        80,
        channels=[16, 16, 16, 16, 48],
        lin_neurons=8,
        attention_channels=8,
        se_channels=8,
    )
    return System(encoder, LogMel(), "untrained", 1)


@pytest.fixture
def tune(task, folds, system, tmp_path, monkeypatch):
    """Return ``tune(...)`` -> (predictions, facts, brains) of all folds."""
    brains = []
    made = EmotionBrain.__init__

    def noted(self, *args, **kwargs):
        brains.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(EmotionBrain, "__init__", noted)

    def tune(
        folder="run", seed=3, used=folds, options=None, model=system, **settings
    ):
        brains.clear()
        method = FineTuning(
            **{**SETTINGS, **settings},
            augmentation=Augmentation({"clean": 1.0}),
        )
        hparams = {
            "output_folder": tmp_path / folder,
            "seed": seed,
            "batch_seconds": 10,
            "num_workers": 0,
            "precision": "fp32",
        }
        run_opts = RunOptions.from_dictionary(
            {"device": "cpu", "noprogressbar": True, **(options or {})}
        )
        found = list(method(task, used, model, hparams, run_opts))
        return [p for p, _ in found], [f for _, f in found], list(brains)

    return tune


def state(brain):
    return copy.deepcopy(brain.modules.state_dict())


def test_it_learns_and_leaves_the_encoder_given_alone(
    tune, task, folds, system
):
    before = copy.deepcopy(system.encoder.state_dict())
    (predicted,), (facts,), _ = tune(affine_epochs=2, epochs=10, used=folds[:1])
    assert (predicted == task.labels[folds[0].test]).mean() > 0.75
    assert 0 < facts["train_loss"] < np.log(2)
    after = system.encoder.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_first_step_moves_the_last_affine_layers_alone(tune, folds, system):
    _, _, (brain,) = tune(affine_epochs=2, epochs=0, used=folds[:1])
    before, after = system.encoder.state_dict(), brain.modules.encoder
    for name, tensor in after.state_dict().items():
        # Batch norms keep their running statistics, too.
        moved = not torch.equal(tensor, before[name])
        assert moved == name.startswith("fc."), name


@pytest.mark.parametrize("affine_epochs, epochs", [(1, 1), (0, 1)])
def test_second_step_moves_everything(
    tune, folds, system, affine_epochs, epochs
):
    _, _, (brain,) = tune(
        affine_epochs=affine_epochs, epochs=epochs, used=folds[:1]
    )
    before = system.encoder.state_dict()
    for name, parameter in brain.modules.encoder.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert not torch.equal(
        before["blocks.0.norm.norm.running_mean"],
        brain.modules.encoder.state_dict()["blocks.0.norm.norm.running_mean"],
    )


@pytest.mark.parametrize("affine_epochs, epochs", [(1, 0), (0, 1)])
def test_a_pretrained_encoder(tune, folds, tmp_path, affine_epochs, epochs):
    """Its back end's last layer alone, then all, with the layers below."""
    pytest.importorskip("transformers", reason="needs the extra hf")
    from pretrained_models import write_pretrained

    front_end = PretrainedFrontEnd.load(
        write_pretrained("wavlm", tmp_path / "wavlm")
    )
    encoder = WeightedECAPA(front_end, 8, channels=[8] * 4 + [24])
    model = System(encoder, Waveform(), "wavlm", 1)
    _, _, (brain,) = tune(
        model=model, affine_epochs=affine_epochs, epochs=epochs, used=folds[:1]
    )
    before = encoder.state_dict()
    moved = {
        name
        for name, parameter in brain.modules.encoder.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    last = {name for name in before if name.startswith("ecapa.fc.")}
    if not epochs:
        assert moved == last
    else:
        assert moved > last
        assert any("layers.0.attention.q_proj" in name for name in moved)


def test_learning_rate_of_every_step(tune, folds, monkeypatch):
    seen = []
    step = EmotionBrain.optimizers_step

    def noted(self):
        seen.append({g["lr"] for g in self.optimizer.param_groups})
        step(self)

    monkeypatch.setattr(EmotionBrain, "optimizers_step", noted)
    tune(used=folds[:1], affine_lr=0.02, lr=0.005)
    assert len(seen) == 3 * STEPS
    rates = [rate for (rate,) in seen]
    assert rates[0] == 0.02 and rates[STEPS - 1] == 0
    assert rates[STEPS] == 0.005 and rates[-1] == 0
    assert np.diff(rates[:STEPS]).max() < 0


def test_loss_is_the_cross_entropy_of_the_labels(tune, folds, task):
    _, _, (brain,) = tune(used=folds[:1])
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    batch = type("Batch", (), {"index": torch.tensor([5, 0, 9])})
    found = brain.compute_objectives(logits, batch, None)
    truth = task.labels[folds[0].train][[5, 0, 9]]
    shares = logits.double().exp().numpy()
    shares /= shares.sum(1, keepdims=True)
    expected = -np.mean([np.log(shares[i, c]) for i, c in enumerate(truth)])
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_chunks_have_the_length_asked_for(tune, folds, monkeypatch):
    lengths = set()
    forward = Augmentation.forward

    def noted(self, crops, address, first_crop=0):
        lengths.add(tuple(crops.shape[1:]))
        return forward(self, crops, address, first_crop)

    monkeypatch.setattr(Augmentation, "forward", noted)
    tune("short", used=folds[:1], epochs=0)
    # Longer than any utterance: they are repeated.
    tune("long", used=folds[:1], epochs=0, chunk_seconds=1.5)
    assert lengths == {(1, 6400), (1, 24000)}


def test_accumulated_batches_have_the_whole_schedule(tune, folds, monkeypatch):
    seen = []
    step = EmotionBrain.optimizers_step

    def noted(self):
        seen.append(self.optimizer.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(EmotionBrain, "optimizers_step", noted)
    tune(used=folds[:1], options={"grad_accumulation_factor": 2})
    assert len(seen) == 3 * STEPS // 2 and seen[-1] == 0


def test_every_checkpoint_is_of_a_whole_epoch(tune, folds, monkeypatch):
    saved, brains = [], []
    save = AtomicCheckpointer.save_checkpoint
    begin = EmotionBrain.on_fit_start

    def noted_begin(self):
        brains.append(self)
        begin(self)

    def noted_save(self, *args, **kwargs):
        saved.append(brains[-1].optimizer_step)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(EmotionBrain, "on_fit_start", noted_begin)
    monkeypatch.setattr(AtomicCheckpointer, "save_checkpoint", noted_save)
    first, _, _ = tune(used=folds[:1], options={"ckpt_interval_steps": 1})
    assert saved == [STEPS, 2 * STEPS, 3 * STEPS]
    # Nothing that is left over affects the next call.
    second, _, _ = tune(used=folds[:1])
    assert saved == [STEPS, 2 * STEPS, 3 * STEPS]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("last", [1, 2])
def test_resume_is_exact(tune, monkeypatch, last):
    """The run stops after one epoch of the first fold, or of the second."""
    predictions, facts, (one, two) = tune("whole")
    end = EmotionBrain.on_stage_end

    def stop(self, stage, loss, epoch=None):
        end(self, stage, loss, epoch)
        if epoch == last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EmotionBrain, "on_stage_end", stop)
        with pytest.raises(KeyboardInterrupt):
            tune("torn")
    again, facts_again, (first, second) = tune("torn")
    for left, right in ((one, first), (two, second)):
        left, right = state(left), state(right)
        assert all(torch.equal(left[k], right[k]) for k in left)
    assert facts == facts_again
    # A finished run is evaluated again, not trained.
    monkeypatch.setattr(EmotionBrain, "fit_batch", None)
    third, facts_third, _ = tune("torn")
    for a, b, c in zip(predictions, again, third, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert facts_third == facts


@pytest.mark.parametrize("last", [2, STEPS, STEPS + 1])
def test_a_signal_ends_the_step_and_nothing_is_lost(
    tune, folds, monkeypatch, last
):
    """In the middle of an epoch, in its last step, and of all weights."""
    used = folds[:1]
    predictions, facts, (whole,) = tune("whole", used=used)
    step = EmotionBrain.optimizers_step

    def signalled(self):
        step(self)
        if self.optimizer_step == last:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, interruption.handled():
        patch.setattr(EmotionBrain, "optimizers_step", signalled)
        with pytest.raises(interruption.Interrupted, match=f"after {last} st"):
            tune("torn", used=used)
    again, facts_again, (torn,) = tune("torn", used=used)
    assert facts == facts_again
    left, right = state(whole), state(torn)
    assert all(torch.equal(left[k], right[k]) for k in left)


def test_seed_decides_and_nothing_else(tune, folds):
    torch.manual_seed(5)
    _, _, (one,) = tune("a", used=folds[:1])
    torch.manual_seed(6)
    before = torch.get_rng_state()
    _, _, (two,) = tune("b", used=folds[:1])
    _, _, (other,) = tune("c", used=folds[:1], seed=4)
    weight = "classifier.1.weight"
    assert torch.equal(state(one)[weight], state(two)[weight])
    assert not torch.equal(state(one)[weight], state(other)[weight])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change, said", [({"lr": 0.02}, "lr"), ({"seed": 9}, "seed")]
)
def test_folder_of_another_run_is_refused(tune, folds, change, said):
    tune(used=folds[:1])
    with pytest.raises(
        CheckpointError, match=rf"another configuration: {said}"
    ):
        tune(used=folds[:1], **change)


def test_loss_that_is_not_finite_stops(tune, folds, monkeypatch):
    def broken(predictions, target):
        return predictions.sum() * float("nan")

    monkeypatch.setattr(emotion_brain.F, "cross_entropy", broken)
    with pytest.raises(ConfigError, match="epoch 1 is not finite; lower"):
        tune(used=folds[:1])


def test_what_cannot_be_tuned(tune, folds, task):
    with pytest.raises(ConfigError, match="at least one epoch"):
        tune(affine_epochs=0, epochs=0)
    with pytest.raises(ConfigError, match="lower `batch_size`"):
        tune(batch_size=TRAIN + 1)
    method = FineTuning(**SETTINGS, augmentation=Augmentation({"clean": 1.0}))
    statistics = load_system("statistics", None, LogMel(), 1)
    with pytest.raises(ConfigError, match="statistics has no weights"):
        next(method(task, folds, statistics, {}, {}))


def test_a_batch_of_one_is_refused_before_the_first_step(tune):
    """In evaluation mode the first step of training would not notice."""
    with pytest.raises(ConfigError, match="one crop: raise `batch_size`"):
        tune(batch_size=1)


def test_each_epoch_has_other_noises(tune, folds, monkeypatch):
    """A resumed run begins with those of its epoch."""
    epochs = []
    monkeypatch.setattr(
        Augmentation, "begin_epoch", lambda self, epoch: epochs.append(epoch)
    )
    tune(used=folds[:1])
    assert epochs == [1, 2, 3]


def test_classifier_standardises(system):
    classifier = make_classifier(8, 3, seed=1)
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        classifier(rows), classifier(1000 * rows + 5), atol=1e-3, rtol=1e-3
    )


def test_labels_seen_says_who_saw_what(system):
    method = FineTuning(**SETTINGS, augmentation=Augmentation({"clean": 1.0}))
    assert method.labels_seen("emotion", system) == (
        "emotion, by classifier and encoder; none by the encoder before"
    )
