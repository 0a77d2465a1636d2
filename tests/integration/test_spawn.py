"""Loader workers that are spawned, as on Windows and macOS.

A spawned process knows only what was pickled for it when it was started.
"""

import contextlib
import multiprocessing

import pytest
import tiny
import tiny_objectives

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]


@contextlib.contextmanager
def spawning():
    """Spawn the processes that are started meanwhile."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("positives", ["cluster_aware", "ssps"])
def test_spawned_workers_change_nothing(corpus, train, tmp_path, positives):
    """Weights are equal bit for bit to those of a run without workers.

    Clusters are made anew in epochs 2 and 3; SSPS has more crops cut from some
    epoch on.
    """
    path = tiny_objectives.configuration(corpus, "dino", positives)

    def run(output, **options):
        options["number_of_epochs"] = 3
        train.main(tiny_objectives.argv(corpus, path, output, **options))
        return output

    alone = run(tmp_path / "alone", num_workers=0)
    with spawning():
        spawned = run(tmp_path / "spawned", num_workers=1)
    parts = (*tiny_objectives.CASES["dino"].parts, "positives")
    tiny.assert_identical(alone, spawned, parts)
    for stage in ("train", "valid"):
        assert tiny.lines(alone, stage) == tiny.lines(spawned, stage)
