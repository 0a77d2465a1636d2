"""Compare rules that group recordings by speaker, the number unknown or given.

Argument: a folder with a folder for each model, and in it ``NAME.npz`` of each
corpus, as ``speechbrain-ssl embed`` writes it, and ``NAME.spk``, one speaker a
line in the order of the embeddings. Speakers only draw the subsets and grade the
rules.
"""

import csv
import pathlib
import sys
import warnings

import networkx as nx
import numpy as np
import torch
from scipy.cluster import hierarchy
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, SpectralClustering
from sklearn.metrics import adjusted_rand_score

from speechbrain_ssl.clustering.quality import silhouette
from speechbrain_ssl.clustering.speakers import (
    candidates,
    find_speakers,
    half_whiten,
)

NEIGHBOURS = 5


def ward(rows):
    """Ward's tree, cut where the silhouette of cosines is best."""
    return best_cut(rows, hierarchy.linkage(rows, "ward"))


def average(rows):
    """The tree of average linkage of cosines, cut in the same way."""
    return best_cut(rows, hierarchy.linkage(rows, "average", "cosine"))


def best_cut(rows, tree):
    cuts = [
        hierarchy.fcluster(tree, k, "maxclust") - 1
        for k in candidates(len(rows))
    ]
    cuts = [cut for cut in cuts if cut.max() > 0]
    points = torch.from_numpy(rows).float()
    return max(cuts, key=lambda cut: silhouette(points, cut))


def density(rows):
    """HDBSCAN; what it calls noise are speakers of one file each."""
    labels = HDBSCAN(min_cluster_size=3, copy=True).fit_predict(rows)
    noise = labels < 0
    labels[noise] = labels.max() + 1 + np.arange(noise.sum())
    return labels


def graph(rows):
    """Each file and its nearest neighbours, as a symmetric matrix of cosines."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, 0)
    nearest = np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]
    keep = np.zeros(cosines.shape, bool)
    np.put_along_axis(keep, nearest, True, axis=1)
    return np.where(keep | keep.T, cosines.clip(min=0), 0)


def spectral(rows):
    """Spectral clustering; the number is at the largest gap of eigenvalues."""
    weights = graph(rows)
    degrees = weights.sum(axis=1) + 1e-9
    normal = weights / np.sqrt(degrees[:, None] * degrees)
    values = np.linalg.eigvalsh(normal)[::-1][: len(rows) // 2 + 1]
    number = int(np.argmax(values[1:-1] - values[2:])) + 2
    return SpectralClustering(
        number,
        affinity="precomputed",
        random_state=0,
        assign_labels="cluster_qr",
    ).fit_predict(weights)


def communities(find):
    """Make a rule of a function that finds communities in a graph."""

    def rule(rows):
        labels = np.zeros(len(rows), int)
        for number, members in enumerate(find(nx.Graph(graph(rows)))):
            labels[list(members)] = number
        return labels

    return rule


RULES = {
    "Ward": ward,
    "average linkage": average,
    "spectral": spectral,
    "Louvain": communities(
        lambda g: nx.community.louvain_communities(g, seed=0)
    ),
    "label propagation": communities(
        lambda g: nx.community.asyn_lpa_communities(g, "weight", seed=0)
    ),
    "HDBSCAN": density,
}


def draw(names, number, balanced):
    """Positions of the files of some speakers: up to 20 of each, or 3 to 60."""
    rng = np.random.default_rng(number)
    found = []
    for speaker in rng.choice(np.unique(names), number, replace=False):
        files = rng.permutation(np.flatnonzero(names == speaker))
        share = max(3, int(len(files) * rng.random() ** 2))
        found.extend(files[: 20 if balanced else min(share, 60)])
    return np.array(found)


def main():
    """Print the table as CSV."""
    warnings.filterwarnings("ignore", message="Graph is not fully connected")
    write = csv.writer(sys.stdout, lineterminator="\n").writerow
    write("model corpus speakers files sizes input rule found ari".split())
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*/*.npz")):
        rows = np.load(path)["embeddings"].astype(float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        names = np.array(path.with_suffix(".spk").read_text().split())
        every = len(np.unique(names))
        for number in sorted({5, min(20, every), every}):
            for balanced in (True, False):
                part = draw(names, number, balanced)
                inputs = {
                    "as they are": rows[part],
                    "half whitened": half_whiten(
                        torch.from_numpy(rows[part])
                    ).numpy(),
                }
                for kind, points in inputs.items():
                    found = {name: rule(points) for name, rule in RULES.items()}
                    if kind == "half whitened":
                        found["Ward, above chance"] = find_speakers(rows[part])
                    for linkage in ("ward", "average"):
                        found[f"{linkage}, number given"] = (
                            AgglomerativeClustering(
                                number,
                                linkage=linkage,
                                metric="euclidean"
                                if linkage == "ward"
                                else "cosine",
                            ).fit_predict(points)
                        )
                    for name, labels in found.items():
                        score = adjusted_rand_score(names[part], labels)
                        write(
                            [
                                path.parent.name,
                                path.stem,
                                number,
                                len(part),
                                "equal" if balanced else "unequal",
                                kind,
                                name,
                                len(np.unique(labels)),
                                f"{score:.3f}",
                            ]
                        )


if __name__ == "__main__":
    main()
