"""Batch objectives in two processes give the results of a single one."""

import pathlib

import objective_ranks_b as ranks_b
import pytest
import torch
from tiny import torchrun

from speechbrain_ssl.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return the results of the two processes."""
    folder = tmp_path_factory.mktemp("objective_ranks_b")
    script = pathlib.Path(__file__).with_name("objective_ranks_b.py")
    status, stderr = torchrun(script, folder)
    assert status == 0, stderr
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]


@pytest.mark.parametrize("name", list(ranks_b.CASES))
def test_two_processes_are_one(ranks, name):
    """Losses, averaged gradients, scalars and state agree for three steps."""
    wanted = ranks_b.run(name)
    assert any(g.abs().max() > 1e-3 for g in wanted["grads"][-1])
    for rank in ranks:
        found = rank[name]
        for step, loss in enumerate(wanted["loss"]):
            close(found["loss"][step], loss, f"loss of step {step}")
            close_all(found["grads"][step], wanted["grads"][step], step)
        for mine, others in zip(
            found["scalars"], wanted["scalars"], strict=True
        ):
            assert mine.keys() == others.keys()
            for key in mine:
                close(mine[key], others[key], key)
        assert found["state"].keys() == wanted["state"].keys()
        for key, value in wanted["state"].items():
            close(found["state"][key], value, key)


def test_halves_alone_would_differ(monkeypatch):
    """The test above could fail: half a batch has another loss."""
    whole = {name: ranks_b.run(name)["loss"][0] for name in ranks_b.CASES}
    inputs = ranks_b.inputs
    monkeypatch.setattr(ranks_b, "STEPS", [ranks_b.STEPS[0][:4]])
    monkeypatch.setattr(ranks_b, "inputs", lambda s, c: inputs(s, c)[:4])
    for name, loss in whole.items():
        if name == "wmse":
            with pytest.raises(ConfigError, match="a batch has 4"):
                ranks_b.run(name)
            continue
        half = ranks_b.run(name)["loss"][0]
        assert abs(float(half - loss)) > 1e-3, name


def test_transposed_gradients_arrive_in_order(ranks):
    """torch's own gathering silently scrambles such gradients."""
    # Both processes have the same loss: twice the weights of one's rows.
    weights = 2 * torch.arange(12.0).view(3, 4).T
    for number, rank in enumerate(ranks):
        own = weights[2 * number : 2 * number + 2]
        assert torch.equal(rank["gradient"], own)
        assert not torch.equal(rank["stock gradient"], own)
        # Stock torch gives the same numbers in other places.
        mixed = rank["stock gradient"].flatten().sort().values
        assert torch.equal(mixed, own.flatten().sort().values)


def close(found, wanted, what):
    """Assert that two values are equal up to rounding."""
    torch.testing.assert_close(
        found,
        wanted,
        rtol=1e-3,
        atol=1e-5,
        msg=lambda text: f"{what}: {text}",
    )


def close_all(found, wanted, step):
    """Assert that gradients are equal, relative to the longest of them."""
    longest = max(float(g.norm()) for g in wanted)
    for number, (mine, other) in enumerate(zip(found, wanted, strict=True)):
        error = float((mine - other).norm())
        assert error <= 1e-4 * longest, (step, number, error, longest)
