"""Sinkhorn-Knopp against its matrix form, in double precision."""

import pytest
import torch

from speechbrain_ssl.objectives.sinkhorn import sinkhorn


def by_the_matrix(logarithms, iterations):
    """Rows of prototypes and columns of samples, as SwAV writes it."""
    q = logarithms.double().exp().T
    prototypes, samples = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] = q[k] / q[k].sum() / prototypes
        for b in range(samples):
            q[:, b] = q[:, b] / q[:, b].sum() / samples
    return (q * samples).T.float()


@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_equals_the_matrix_form(scale, iterations):
    torch.manual_seed(0)
    scores = scale * (2 * torch.rand(12, 5) - 1)
    found = sinkhorn(scores, iterations)
    torch.testing.assert_close(
        found, by_the_matrix(scores, iterations), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(found.sum(1), torch.ones(12))


def test_many_iterations_use_all_prototypes_evenly():
    torch.manual_seed(0)
    scores = 3 * torch.randn(12, 4)
    shares = sinkhorn(scores, 500).sum(0)
    torch.testing.assert_close(shares, torch.full((4,), 3.0))
    # What it is for: a softmax does not.
    assert (scores.softmax(1).sum(0) - 3).abs().max() > 0.5


def test_what_does_not_count():
    """The order of samples and prototypes, and what all scores share."""
    torch.manual_seed(0)
    scores = 5 * torch.randn(8, 6)
    found = sinkhorn(scores)
    rows, columns = torch.randperm(8), torch.randperm(6)
    torch.testing.assert_close(
        sinkhorn(scores[rows][:, columns]), found[rows][:, columns]
    )
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(sinkhorn(scores + 7), found, **close)
    # A prototype that is nearer to all gets no more for it.
    shifted = scores + 4 * torch.randn(6)
    torch.testing.assert_close(sinkhorn(shifted), found, **close)


def test_large_scores_keep_their_digits():
    """exp(400) is no float32, its logarithm is."""
    scores = torch.tensor([[400.0, 0.0], [399.0, 0.0], [0.0, 0.0]])
    found = sinkhorn(scores, 3)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(
        found, by_the_matrix(scores, 3), rtol=1e-3, atol=1e-6
    )


def test_degenerate_input():
    torch.testing.assert_close(
        sinkhorn(torch.zeros(3, 4)), torch.full((3, 4), 0.25)
    )
    torch.testing.assert_close(
        sinkhorn(torch.randn(1, 4)), torch.full((1, 4), 0.25)
    )
    scores = torch.zeros(3, 4)
    scores[0, 0] = float("nan")
    assert torch.isnan(sinkhorn(scores)).all()
    with pytest.raises(ValueError, match="iterations"):
        sinkhorn(scores, 0)


def test_no_gradient_and_full_precision():
    scores = torch.randn(4, 3, requires_grad=True)
    assert not sinkhorn(scores).requires_grad
    assert sinkhorn(scores.bfloat16()).dtype == torch.float32
    before = scores.detach().clone()
    sinkhorn(scores)
    assert torch.equal(before, scores)
