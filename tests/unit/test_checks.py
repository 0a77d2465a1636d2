"""The checks of single values: what passes, and what the message says."""

import math

import numpy as np
import pytest

from speechbrain_ssl.checks import (
    check_bool,
    check_choice,
    check_int,
    check_number,
)
from speechbrain_ssl.errors import ConfigError


@pytest.mark.parametrize("value", [3, 4, 10**12, np.int64(3)])
def test_whole_numbers_pass(value):
    check_int("X", "key", value, least=3)


@pytest.mark.parametrize("value", [2, -1, 3.0, True, "3", None, math.nan])
def test_other_than_whole_numbers_are_refused(value):
    with pytest.raises(ConfigError) as error:
        check_int("X", "key", value, least=3, remedy="set it to 4")
    assert str(error.value) == (
        f"X's key must be a whole number from 3, got {value!r}; set it to 4"
    )


def test_a_bool_is_no_number():
    """Not even where 0 and 1 are allowed."""
    with pytest.raises(ConfigError, match="whole number from 0, got True"):
        check_int("X", "key", True, least=0)
    with pytest.raises(ConfigError, match="of at least 0, got False"):
        check_number("X", "key", False, least=0)
    with pytest.raises(ConfigError, match="key must be True or False, got 1"):
        check_bool("X", "key", 1)
    check_bool("X", "key", True)
    check_bool("X", "key", False)


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "words"),
    [
        ({"above": 0}, [1e-9, 7], [0, -1.0], "a number above 0"),
        ({"least": 0}, [0, 7.5], [-1e-9], "a number of at least 0"),
        (
            {"least": 0, "below": 1},
            [0.0, 0.999],
            [1, -0.1],
            "a number of at least 0 and below 1",
        ),
        (
            {"above": 0, "most": 1},
            [0.1, 1],
            [0, 1.5],
            "a number above 0 and of at most 1",
        ),
        ({}, [-5, 0.0, 1e300], [], "a number"),
    ],
)
def test_numbers_within_bounds(bounds, inside, outside, words):
    for value in inside:
        check_number("X", "key", value, **bounds)
    for value in [*outside, math.nan, math.inf, -math.inf, "1", None, True]:
        with pytest.raises(ConfigError) as error:
            check_number("X", "key", value, **bounds)
        assert str(error.value) == f"X's key must be {words}, got {value!r}"


def test_choices():
    check_choice("X", "key", "b", ("a", "b"))
    check_choice("X", "key", "b", {"a": 1, "b": 2})
    for value in ("c", "", None, ["a"], 1):
        with pytest.raises(ConfigError) as error:
            check_choice("X", "key", value, {"a": 1, "b": 2})
        assert str(error.value) == (
            f"X's key must be one of a, b; got {value!r}"
        )
