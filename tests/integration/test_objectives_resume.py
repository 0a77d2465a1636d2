"""Every objective and both kinds of pseudo-positives resume bit for bit.

``test_resume.py`` tests with SIGKILL what a killed process leaves behind. Here
an exception ends the run and everything is built anew. That takes a second and
answers as well whether all state is in the checkpoint.
"""

import pytest
import tiny
import tiny_objectives
from tiny_objectives import CASES, STEPS

from speechbrain_ssl.data.banks import NoiseBank

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]


def check(corpus, train, folder, path, parts, epochs, cuts):
    """Assert that a run that was ended and resumed equals one that was not."""
    options = {"number_of_epochs": epochs, "ckpt_interval_steps": 1}
    whole = tiny_objectives.argv(corpus, path, folder / "whole", **options)
    train.main(whole)
    parted = tiny_objectives.argv(corpus, path, folder / "cut", **options)
    for step in cuts:
        # In the middle of an epoch the step is taken once more.
        assert (step - 1) % STEPS
        tiny.run_until(train, parted, step)
        assert tiny.newest_step(folder / "cut") == step - 1
    train.main(parted)
    tiny.assert_identical(folder / "whole", folder / "cut", parts)
    for stage, count in (("train", STEPS * epochs), ("valid", epochs)):
        ours = tiny.lines(folder / "cut", stage)
        assert len(ours) == count
        assert ours == tiny.lines(folder / "whole", stage)
    return tiny.lines(folder / "cut")


@pytest.mark.parametrize("name", CASES)
def test_an_objective_goes_on(corpus, train, tmp_path, name):
    """The run ends in the second epoch, when queues and clusters are in use."""
    path = tiny_objectives.configuration(corpus, name)
    check(corpus, train, tmp_path, path, CASES[name].parts, 2, [5])


@pytest.mark.parametrize(
    "name, changes",
    [
        ("moco", {}),
        ("dino", {}),
        ("swav", {"neighbours": 2}),
        ("simclr", {"neighbours": 0}),
        ("vicreg", {"neighbours": 0, "merge_from": 8}),
    ],
)
def test_ssps_goes_on(corpus, train, tmp_path, name, changes):
    """Memory, queue and clusters resume in both epochs that use SSPS."""
    path = tiny_objectives.configuration(corpus, name, "ssps", **changes)
    parts = (*CASES[name].parts, "positives")
    lines = check(corpus, train, tmp_path, path, parts, 3, [5, 8])
    assert ["coverage" in line for line in lines] == [False] * 3 + [True] * 6


def test_cluster_aware_sampling_goes_on(corpus, train, tmp_path):
    """The clusters of the interrupted epoch are kept, not made anew."""
    path = tiny_objectives.configuration(corpus, "dino", "cluster_aware")
    parts = (*CASES["dino"].parts, "positives")
    check(corpus, train, tmp_path, path, parts, 3, [5, 8])


def test_the_noises_of_an_epoch_go_on(corpus, train, tmp_path, monkeypatch):
    """Each epoch has other stretches of long noises, also when it resumes."""
    path = tiny_objectives.configuration(corpus, "simclr")
    text = path.read_text()
    key = "    noise: !ref <p_noise>\n"
    assert key in text
    path = path.with_name("short_noise.yaml")
    path.write_text(text.replace(key, key + "    noise_seconds: 0.3\n"))
    epochs, begin = [], NoiseBank.begin_epoch

    def noted(bank, epoch):
        before = bank.samples.clone()
        begin(bank, epoch)
        epochs.append((epoch, bool((bank.samples != before).any())))

    monkeypatch.setattr(NoiseBank, "begin_epoch", noted)
    check(corpus, train, tmp_path, path, CASES["simclr"].parts, 2, [5])
    # The whole run, the interrupted one, and its rest.
    assert [epoch for epoch, _ in epochs] == [1, 2, 1, 2, 2]
    assert all(changed for _, changed in epochs)
