"""Views that some utterances lack: what must not change, and who goes where."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
)

from speechbrain_ssl.clustering.kmeans import spherical_kmeans
from speechbrain_ssl.clustering.rows import ClusteringError
from speechbrain_ssl.clustering.views import join_views, reassign

POINTS = 160


def people(seed=0, hoarse=0.35):
    """Voices and faces of 8 people, 20 utterances each."""
    rng = np.random.default_rng(seed)
    who = np.arange(POINTS) // 20
    noise = rng.normal(size=(2, POINTS, 12))
    voice = rng.normal(size=(8, 12))[who] + hoarse * noise[0]
    face = rng.normal(size=(8, 12))[who] + 0.35 * noise[1]
    return who, voice, face


def join(voice, face, there):
    views = {"voice": voice, "face": np.where(there[:, None], face, 0.0)}
    return join_views(views, there={"face": there}).double()


def cluster(rows, count=8):
    return spherical_kmeans(
        rows, count, init="k-means++", empty="reseed", seed=1
    ).assignments.numpy()


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_of_utterances_with_and_without_a_face():
    """Each pair by the plain formula."""
    _, voice, face = people()
    there = np.arange(POINTS) % 3 > 0
    rows = join(voice, face, there)
    v, f = unit(voice), unit(face)
    for i, j in [(1, 2), (0, 3), (0, 1), (1, 3), (4, 5)]:
        voices, faces = v[i] @ v[j], f[i] @ f[j]
        wanted = {
            2: (voices + faces) / 2,
            1: voices / np.sqrt(2),
            0: voices,
        }[int(there[i]) + int(there[j])]
        assert float(rows[i] @ rows[j]) == pytest.approx(wanted, abs=1e-6)


def test_all_faces_there_is_as_if_nobody_had_asked():
    _, voice, face = people()
    views = {"voice": voice, "face": face}
    there = {"face": np.ones(POINTS, dtype=bool)}
    assert torch.equal(join_views(views, there=there), join_views(views))


def test_scale_and_rotation_of_a_view_do_not_matter():
    _, voice, face = people()
    there = np.arange(POINTS) % 5 > 0
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    lengths = np.random.default_rng(4).uniform(0.1, 90, (POINTS, 1))
    rows = join(voice, face, there)
    other = join(voice, lengths * face @ rotation, there)
    np.testing.assert_allclose(other @ other.T, rows @ rows.T, atol=1e-6)


def test_no_face_at_all_leaves_the_voices():
    _, voice, face = people()
    rows = join(voice, face, np.zeros(POINTS, dtype=bool))
    np.testing.assert_allclose(rows[:, :12], unit(voice), atol=1e-6)
    assert not rows[:, 12:].any()


def test_one_face_for_all_gives_the_clusters_of_the_voices():
    _, voice, _ = people()
    rows = join(voice, np.ones((POINTS, 12)), np.ones(POINTS, dtype=bool))
    assert adjusted_rand_score(cluster(rows), cluster(voice)) == 1


def test_a_row_that_should_be_there_is_named():
    _, voice, face = people()
    there = np.arange(POINTS) > 0
    face[7] = 0
    names = [f"u{i}" for i in range(POINTS)]
    views = {"voice": voice, "face": face}
    with pytest.raises(ClusteringError, match=r"'face'.*u7 \("):
        join_views(views, names, there={"face": there})


def test_reassign_moves_the_faceless_only_and_to_the_nearest_voice():
    """Against a loop."""
    _, voice, _ = people()
    rng = np.random.default_rng(5)
    labels = rng.integers(9, size=POINTS)
    lacking = rng.random(POINTS) < 0.3
    found = reassign(voice, labels, lacking)
    assert (found[~lacking] == labels[~lacking]).all()
    v = unit(voice)
    means = [v[labels == k].mean(axis=0) for k in range(9)]
    for i in np.flatnonzero(lacking):
        cosines = [v[i] @ m / np.linalg.norm(m) for m in means]
        assert found[i] == np.argmax(cosines)


def test_reassign_heals_speakers_split_by_missing_faces():
    """30 % of everybody's faces are missing."""
    who, voice, face = people(hoarse=0.8)
    lacking = np.random.default_rng(6).random(POINTS) < 0.3
    labels = cluster(join(voice, face, ~lacking), 12)
    healed = reassign(voice, labels, lacking)
    before, after = (
        normalized_mutual_info_score(who, found) for found in (labels, healed)
    )
    assert after > before + 0.01


def test_speakers_without_any_face_keep_clusters_of_their_own():
    who, voice, face = people()
    lacking = who >= 5
    labels = cluster(join(voice, face, ~lacking))
    found = reassign(voice, labels, lacking)
    assert adjusted_rand_score(who, found) == 1
