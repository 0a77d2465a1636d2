"""Scores of voice, face and both, with pairs that lack a face."""

import numpy as np
import pytest

from speechbrain_ssl.clustering.views import join_views
from speechbrain_ssl.errors import TrialError
from speechbrain_ssl.verification.audio_visual import (
    AudioVisualCalibration,
    concatenated_scores,
    face_scores,
)
from speechbrain_ssl.verification.calibration import Calibration, cllr
from speechbrain_ssl.verification.metrics import eer
from speechbrain_ssl.verification.scoring import cosine_scores
from speechbrain_ssl.verification.trials import Trials

SPEAKERS, EACH = 20, 4


@pytest.fixture
def scored():
    """Trials, both embeddings, and who has a face."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(SPEAKERS), EACH)
    names = [f"s{s}/{i}" for i, s in enumerate(who)]
    left, right = np.triu_indices(len(who), 1)
    trials = Trials(who[left] == who[right], left, right, names)
    noise = rng.normal(size=(2, len(who), 16))
    voices = rng.normal(size=(SPEAKERS, 16))[who] + noise[0]
    faces = rng.normal(size=(SPEAKERS, 16))[who] + noise[1]
    there = np.arange(len(who)) % 3 > 0
    faces[~there] = 0
    return trials, voices, faces, there


def test_a_pair_has_a_face_score_if_both_sides_have_a_face(scored):
    trials, _, faces, there = scored
    found = face_scores(faces, there, trials)
    for t in range(len(trials)):
        a, b = trials.left[t], trials.right[t]
        if there[a] and there[b]:
            lengths = np.linalg.norm(faces[a]) * np.linalg.norm(faces[b])
            wanted = faces[a] @ faces[b] / lengths
            assert found[t] == pytest.approx(wanted, abs=1e-6)
        else:
            assert np.isnan(found[t])


def test_the_concatenation_is_the_cosine_of_joined_views(scored):
    trials, voices, faces, there = scored
    audio = cosine_scores(voices, trials)
    found = concatenated_scores(audio, face_scores(faces, there, trials))
    joined = join_views(
        {"voice": voices, "face": faces}, there={"face": there}
    ).numpy()
    pairs = there[trials.left] & there[trials.right]
    wanted = cosine_scores(joined, trials)
    np.testing.assert_allclose(found[pairs], wanted[pairs], atol=1e-6)
    assert (found[~pairs] == audio[~pairs]).all()


def test_calibrated_ratios_are_added(scored):
    trials, voices, faces, there = scored
    audio = cosine_scores(voices, trials)
    face = face_scores(faces, there, trials)
    pairs = ~np.isnan(face)
    found = AudioVisualCalibration().fit(audio, face, trials.labels)
    of_voice = Calibration().fit(audio, trials.labels)(audio)
    of_face = Calibration().fit(face[pairs], trials.labels[pairs])(face[pairs])
    ratios = found(audio, face)
    np.testing.assert_allclose(ratios[pairs], of_voice[pairs] + of_face)
    assert (ratios[~pairs] == of_voice[~pairs]).all()


def test_both_are_better_than_either_and_stay_calibrated(scored):
    trials, voices, faces, there = scored
    audio = cosine_scores(voices, trials)
    face = face_scores(faces, there, trials)
    both = AudioVisualCalibration().fit(audio, face, trials.labels)
    ratios = both(audio, face)
    assert eer(ratios, trials.labels)[0] < eer(audio, trials.labels)[0]
    assert cllr(ratios, trials.labels) < cllr(both.audio(audio), trials.labels)


def test_no_pair_of_faces_is_an_error_with_a_remedy(scored):
    trials, _, faces, there = scored
    with pytest.raises(TrialError, match="face manifest is that of the trials"):
        face_scores(faces, np.zeros_like(there), trials)
