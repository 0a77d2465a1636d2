"""Distillation against its equation; and in a run, with a teacher on disk."""

import pytest
import tiny
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.distillation import Distillation


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(vector):
    return vector / vector.square().sum().sqrt()


def run(objective, embeddings, index):
    rows, crops = embeddings.shape[:2]
    projections = objective.head(embeddings.flatten(0, 1))
    branch = Branch(
        embeddings,
        projections.unflatten(0, (rows, crops)),
        objective.head,
        torch.tensor(index),
    )
    return objective(branch, branch)


@pytest.mark.parametrize("size", [6, 4], ids=["linear", "equal sizes"])
def test_it_is_its_equation(size):
    objective = Distillation("x", size, teacher_size=4, relation_weight=0.5)
    objective.set_targets(3 * vectors(9, 4, seed=1))
    embeddings, index = vectors(3, 2, size), [7, 0, 4]
    loss, scalars = run(objective, embeddings, index)
    teacher = [unit(3 * vectors(9, 4, seed=1)[i]) for i in index]
    copied, related = [], []
    for crop in range(2):
        for i in range(3):
            copy = unit(objective.head(embeddings[i, crop]))
            copied.append(1 - copy @ teacher[i])
            for j in range(3):
                if i != j:
                    student = unit(embeddings[i, crop]) @ unit(
                        embeddings[j, crop]
                    )
                    related.append((student - teacher[i] @ teacher[j]) ** 2)
    copied, related = torch.stack(copied).mean(), torch.stack(related).mean()
    torch.testing.assert_close(loss, copied + 0.5 * related)
    torch.testing.assert_close(scalars["embedding_loss"], copied)
    torch.testing.assert_close(scalars["relation_loss"], related)


def test_a_copy_is_perfect_and_gradients_lead_to_it():
    objective = Distillation("x", 4, teacher_size=4)
    objective.set_targets(vectors(5, 4))
    assert run(objective, 2 * vectors(5, 1, 4), range(5))[0] < 1e-6
    student = vectors(5, 1, 4, seed=2).requires_grad_()
    before, _ = run(objective, student, range(5))
    before.backward()
    after, _ = run(objective, student - student.grad, range(5))
    assert after < before and torch.isfinite(student.grad).all()


def test_degenerate_input():
    """A single utterance has no relations; zeros give finite gradients."""
    objective = Distillation("x", 4, teacher_size=4)
    objective.set_targets(vectors(5, 4))
    for student in (vectors(1, 2, 4), torch.zeros(1, 2, 4)):
        student.requires_grad_()
        loss, scalars = run(objective, student, [3])
        loss.backward()
        assert torch.isfinite(student.grad).all()
        assert scalars["relation_loss"] < (1e-6 if student.any() else 1.1)
    with pytest.raises(ConfigError, match="have 7 numbers; set `teacher_size`"):
        objective.set_targets(vectors(5, 7))
    with pytest.raises(ConfigError, match="relation_weight must be"):
        Distillation("x", relation_weight=-1)


@pytest.mark.slow
def test_it_learns_a_teacher(tmp_path):
    """Whole runs of the recipe; the second start embeds nothing again."""
    from speechbrain_ssl.brains import finish
    from speechbrain_ssl.encoders.ecapa import FastECAPA
    from speechbrain_ssl.encoders.features import LogMel
    from speechbrain_ssl.publishing.export import export_encoder

    corpus = tiny.Corpus(tmp_path)
    channels = [16, 16, 16, 16, 48]
    teacher = FastECAPA(80, channels=channels, lin_neurons=192)
    export_encoder(tmp_path / "teacher", teacher, LogMel())
    recipe = tiny.ROOT / "recipes/UnlabeledFolder/SSL"
    argv = [
        str(recipe / "hparams/distillation_ecapa_mini.yaml"),
        f"--data_folder={corpus.audio}",
        "--prepare=null",
        f"--train_manifest={corpus.train_csv}",
        f"--noise_csv={corpus.noise_csv}",
        f"--rirs_csv={corpus.rirs_csv}",
        f"--output_folder={tmp_path / 'run'}",
        *"""--number_of_epochs=3 --warmup_epochs=0.5 --batch_size=8 --channels=16
        --lr=0.01 --lr_reference_batch=8
        --pooled_channels=48 --valid_utterances=8 --valid_seconds=0.4
        --global_seconds=0.5 --log_every=1 --device=cpu --average_last=1
        --trials=null --precision=fp32 --noprogressbar""".split(),
    ]
    train = tiny.load_train(recipe / "train.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "build_report", lambda *_, **__: None)
        with pytest.raises(ConfigError, match="there is no `teacher`"):
            train.main(argv)
        train.main([*argv, f"--teacher={tmp_path / 'teacher'}"])
        cache = tmp_path / "run" / "teacher.npz"
        written = cache.stat().st_mtime_ns
        train.main([*argv, f"--teacher={tmp_path / 'teacher'}"])
    losses = [line["embedding_loss"] for line in tiny.lines(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.1
    assert cache.stat().st_mtime_ns == written
    # Two processes begin with the loss of one, after one of them has embedded.
    two = tmp_path / "two"
    changed = ("--output_folder", "--batch_size", "--number_of_epochs")
    status, stderr = tiny.torchrun(
        recipe / "train.py",
        *(flag for flag in argv if not flag.startswith(changed)),
        f"--teacher={tmp_path / 'teacher'}",
        f"--output_folder={two}",
        *("--batch_size=4", "--number_of_epochs=1"),
        "--distributed_backend=gloo",
    )
    assert status == 0, stderr
    ours, theirs = (tiny.lines(folder)[0] for folder in (two, tmp_path / "run"))
    for name in ("loss", "embedding_loss", "relation_loss"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
