"""What only a GPU shows. Skipped without one; ``make test-gpu`` runs it.

``SPEECHBRAIN_SSL_TEST_DEVICE=cpu make test-gpu`` rehearses the tests on a CPU,
but for those of what a CPU does not have.
"""

import copy
import os
import warnings

import numpy as np
import pytest
import tiny
import tiny_objectives
import torch

from speechbrain_ssl.brains import finish
from speechbrain_ssl.brains import rounds as rounds_module
from speechbrain_ssl.brains.ssl_brain import SSLBrain
from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.encoders.ecapa import FastECAPA
from speechbrain_ssl.encoders.features import LogMel
from speechbrain_ssl.objectives.base import Branch
from speechbrain_ssl.objectives.dino import DINO
from speechbrain_ssl.objectives.dino_head import DINOHead

DEVICE = os.environ.get("SPEECHBRAIN_SSL_TEST_DEVICE", "cuda")

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU"
)
cuda_only = pytest.mark.skipif(DEVICE != "cuda", reason="not on a CPU")

RUNS = [(name, None) for name in tiny_objectives.CASES] + [
    ("dino", "ssps"),
    ("simclr", "ssps"),
    ("dino", "cluster_aware"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the tiny corpus."""
    return tiny.Corpus(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def quick_and_exact(monkeypatch):
    """Leave out the reports; multiply in full fp32."""
    monkeypatch.setattr(finish, "build_report", lambda *_, **__: None)
    monkeypatch.setattr(rounds_module, "build_rounds_report", lambda *_: None)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def train(corpus, output, name="dino", positives=None, **options):
    """Run the tiny configuration; return its training losses."""
    path = tiny_objectives.configuration(corpus, name, positives)
    argv = tiny_objectives.argv(corpus, path, output, device=DEVICE, **options)
    tiny.load_train().main(argv)
    return [line["loss"] for line in tiny.lines(output)]


# -- whole runs ------------------------------------------------------------------


@pytest.mark.parametrize("name, positives", RUNS)
def test_every_objective_in_bf16(corpus, tmp_path, name, positives):
    """Two epochs, the second with pseudo-positives; evaluation and export."""
    losses = train(corpus, tmp_path, name, positives, precision="bf16")
    assert len(losses) == 2 * tiny_objectives.STEPS
    assert np.isfinite(losses).all()
    assert (tmp_path / "model" / "embedding_model.ckpt").is_file()


def test_a_round_of_pseudo_labels(corpus, tmp_path):
    train(corpus, tmp_path / "ssl", number_of_epochs=1)
    argv = corpus.rounds_argv(
        tmp_path / "rounds", tmp_path / "ssl", device=DEVICE, rounds=1
    )
    tiny.load_train(tiny.ROUNDS).main(argv)
    assert (tmp_path / "rounds" / "results.json").is_file()


def test_a_cut_run_goes_on(corpus, tmp_path):
    """To the same weights, up to the rounding of sums in another order."""
    path = tiny_objectives.configuration(corpus, "dino")
    for name in ("whole", "cut"):
        argv = tiny_objectives.argv(
            corpus, path, tmp_path / name, device=DEVICE, ckpt_interval_steps=2
        )
        if name == "cut":
            tiny.run_until(tiny.load_train(), argv, 5)
        tiny.load_train().main(argv)
    tiny.assert_close(
        *(tiny.final_tensors(tmp_path / name) for name in ("whole", "cut"))
    )


@cuda_only
def test_a_poisoned_step_in_fp16(corpus, tmp_path, monkeypatch):
    """It is skipped, and leaves no NaN behind."""
    compute = SSLBrain.compute_objectives

    def poisoned(brain, *args):
        loss = compute(brain, *args)
        return loss * float("nan") if brain.optimizer_step == 2 else loss

    monkeypatch.setattr(SSLBrain, "compute_objectives", poisoned)
    train(corpus, tmp_path, precision="fp16")
    for tensor in tiny.final_tensors(tmp_path).values():
        assert not tensor.is_floating_point() or tensor.isfinite().all()


@cuda_only
def test_the_host_waits_once_a_step(corpus, tmp_path, monkeypatch):
    """For the norm of the gradient; the log is written at the end."""
    seen, fit = [], SSLBrain.fit_batch

    def watched(brain, batch):
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = fit(brain, batch)
        torch.cuda.set_sync_debug_mode("default")
        seen.append(
            [
                f"{warning.filename}:{warning.lineno}"
                for warning in caught
                if "synchronizing" in str(warning.message)
            ]
        )
        return loss

    monkeypatch.setattr(SSLBrain, "fit_batch", watched)
    train(corpus, tmp_path, "dino", "ssps", precision="bf16", log_every=50)
    # The first step fills caches.
    for places in seen[1:]:
        assert len(places) <= 1, places
        assert all("optimisation.py" in place for place in places)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_ranks_over_nccl(corpus, tmp_path):
    """The same losses as in one process with both halves of a batch."""
    losses = train(corpus, tmp_path / "one", batch_size=16)
    path = tiny_objectives.configuration(corpus, "dino")
    argv = tiny_objectives.argv(
        corpus, path, tmp_path / "two", device=DEVICE, batch_size=8
    )
    status, stderr = tiny.torchrun(tiny.TRAIN, *argv)
    assert status == 0, stderr
    two = [line["loss"] for line in tiny.lines(tmp_path / "two")]
    assert np.allclose(losses[:3], two[:3], rtol=1e-3)


# -- parts against a CPU ---------------------------------------------------------


class Step(torch.nn.Module):
    """Features, encoder, head and loss of DINO."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = LogMel(80)
        self.encoder = FastECAPA(80, channels=[64] * 4 + [192], lin_neurons=32)
        self.objective = DINO(DINOHead(32, prototypes=64, hidden=48))

    def forward(self, waves):
        rows = self.encoder(self.features(waves.flatten(0, 1))).squeeze(1)
        rows = rows.unflatten(0, waves.shape[:2]).float()
        head = self.objective.head
        branch = Branch(
            rows, head(rows.flatten(0, 1)).view(*rows.shape[:2], -1), head
        )
        loss, _ = self.objective(
            branch,
            Branch(
                branch.embeddings.detach(), branch.projections.detach(), head
            ),
            teacher_temperature=0.04,
            cosine_weight=0.1,
        )
        return rows, loss


def outputs(module, device, precision=torch.float32):
    """Return embeddings, loss and the gradients of the encoder, on the CPU."""
    module = copy.deepcopy(module).to(device)
    waves = torch.randn(8, 2, 16000, generator=torch.Generator().manual_seed(1))
    on = precision != torch.float32
    with torch.autocast(device, dtype=precision, enabled=on):
        rows, loss = module((0.1 * waves).to(device))
    loss.backward()
    gradient = torch.cat(
        [p.grad.flatten() for p in module.encoder.parameters()]
    )
    return rows.detach().cpu(), loss.detach().cpu(), gradient.cpu()


def test_a_step_is_that_of_a_cpu(monkeypatch):
    """In fp32 up to rounding, in bf16 by direction."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    module = Step()
    rows, loss, gradient = outputs(module, "cpu")
    found = outputs(module, DEVICE)
    torch.testing.assert_close(found[0], rows, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1], loss, rtol=1e-4, atol=1e-5)
    assert (found[2] - gradient).norm() < 1e-3 * gradient.norm()
    coarse = outputs(module, DEVICE, torch.bfloat16)
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(coarse[0], rows, dim=-1).min() > 0.99
    assert cosine(coarse[2], gradient, dim=0) > 0.9


def test_kmeans_is_that_of_a_cpu():
    """The same clusters, with TF32 switched on outside; no rise of inertia."""
    torch.backends.cuda.matmul.allow_tf32 = True
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(40, 64, generator=generator)
    rows = centers.repeat(50, 1)
    rows = rows + 0.3 * torch.randn(2000, 64, generator=generator)
    wanted, found = (
        spherical_kmeans(rows, 40, init="k-means++", device=device)
        for device in ("cpu", DEVICE)
    )
    assert torch.equal(found.assignments.cpu(), wanted.assignments)
    assert (np.diff(found.inertia) <= 1e-6 * len(rows)).all()
    assert torch.backends.cuda.matmul.allow_tf32


@cuda_only
def test_compiled_is_eager():
    """The encoder, in place as ``--compile`` does it."""
    module = Step()
    wanted = outputs(module, DEVICE)
    module.encoder.compile()
    found = outputs(module, DEVICE)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-3, atol=1e-4)
    assert (found[2] - wanted[2]).norm() < 1e-3 * wanted[2].norm()
