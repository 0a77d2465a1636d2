"""The projector against a plain chain of its layers."""

import pytest
import torch

from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.objectives.projector import Projector


def by_hand(projector, x, batch_norm, last):
    """Linear maps, standardised and cut off at 0, one after the other."""

    def standardised(x):
        return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()

    maps = [m for m in projector.layers if isinstance(m, torch.nn.Linear)]
    for layer in maps[:-1]:
        x = x @ layer.weight.T
        x = standardised(x) if batch_norm else x + layer.bias
        x = x * (x > 0)
    x = x @ maps[-1].weight.T
    return standardised(x) if last else x + maps[-1].bias


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_is_a_chain_of_layers(layers, batch_norm, last):
    torch.manual_seed(0)
    projector = Projector(5, 7, 4, layers, batch_norm, last)
    x = torch.randn(9, 5)
    wanted = by_hand(projector, x, batch_norm, last)
    torch.testing.assert_close(projector(x), wanted, rtol=1e-4, atol=1e-5)
    maps = [m for m in projector.layers if isinstance(m, torch.nn.Linear)]
    assert len(maps) == layers


def test_equal_and_zero_rows_stay_finite():
    projector = Projector(5, 7, 4, last_batch_norm=True)
    for x in (torch.zeros(3, 5), torch.ones(3, 5)):
        y = projector(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in projector.parameters())


@pytest.mark.parametrize(
    "key, value",
    [("hidden", 0), ("output_size", -1), ("layers", 0), ("layers", 1.5)],
)
def test_sizes_that_cannot_be(key, value):
    sizes = {"embedding_size": 5, "hidden": 7, "output_size": 4, key: value}
    with pytest.raises(ConfigError, match=f"projector's {key} .* got {value}"):
        Projector(**sizes)
