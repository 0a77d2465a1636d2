"""Objectives in two processes give the results of one with the same batch."""

import pathlib

import objective_ranks_a as script
import pytest
import torch
from tiny import torchrun

pytestmark = pytest.mark.slow

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Return the results of the two processes of ``objective_ranks_a.py``."""
    folder = tmp_path_factory.mktemp("ranks")
    status, stderr = torchrun(pathlib.Path(script.__file__), folder)
    assert status == 0, stderr
    return [
        torch.load(folder / f"rank{r}.pt", weights_only=True) for r in (0, 1)
    ]


@pytest.fixture(scope="module", params=script.CASES)
def case(request):
    """Return a name, and the results of one process for the whole batch."""
    crops = script.CASES[request.param][1]
    return request.param, script.run(request.param, script.inputs(crops))


def test_loss_is_that_of_the_whole_batch(ranks, case):
    """Loss and scalars are equal at every step."""
    name, whole = case
    for found in ranks:
        close(found[name]["losses"], whole["losses"], rtol=1e-4, atol=1e-5)
        close(found[name]["scalars"], whole["scalars"], rtol=1e-4, atol=1e-5)


def test_gradient_is_that_of_the_whole_batch(ranks, case):
    """Gradients of encoder and objective are equal."""
    name, whole = case
    for step, wanted in enumerate(whole["grads"]):
        largest = max(float(grad.abs().max()) for grad in wanted.values())
        # MoCo has no gradient before there are keys in its queue.
        assert largest > 1e-3 or (name, step) == ("moco", 0)
        for found in ranks:
            close(found[name]["grads"][step], wanted, rtol=1e-3, atol=1e-5)


def test_state_is_that_of_the_whole_batch(ranks, case):
    """Queue and batch norms are equal, also after a skipped step."""
    name, whole = case
    for found in ranks:
        close(found[name]["state"], whole["state"], rtol=1e-4, atol=1e-5)
    if name == "moco":
        # Three steps of eight keys were taken.
        assert int(whole["state"]["filled"]) == 20
        assert int(whole["state"]["place"]) == 4


def test_halves_alone_would_be_something_else(ranks, case):
    """The tests above could fail: the loss is not a mean over utterances."""
    name, whole = case
    halves = script.inputs(script.CASES[name][1]).chunk(2)
    alone = [script.run(name, half)["losses"][-1] for half in halves]
    mean = torch.stack(alone).mean()
    if name != "lim bce":
        assert abs(float(mean - whole["losses"][-1])) > 1e-3
    # Averaging was needed: the two processes differ.
    left, right = (found[name]["local"][-1] for found in ranks)
    assert abs(float(left - right)) > 1e-3
