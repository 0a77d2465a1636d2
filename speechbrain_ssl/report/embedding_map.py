"""Draw a map of embeddings in the plane, coloured by group."""

import numpy as np

from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.report.style import (
    BLUE,
    INK,
    MUTED,
    SERIES,
    SQUARE,
    label,
    legend,
    literal,
    new_figure,
    note,
)

# Seven colours in three shapes; more groups cannot be told apart by eye.
MARKERS = ("o", "^", "s")
MAX_GROUPS = 20
MAX_POINTS = 1500


def embedding_map(embeddings, groups=None, group_name="group", seed=0):
    """Draw embeddings of length one in the plane by t-SNE.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, D]``; of more than 1 500 a random part is shown.
    groups : numpy.ndarray, optional
        ``[N]``, the groups to colour by. The 20 largest get a colour and a
        shape; the others are grey, and the title says so.
    group_name : str
        Name of a group, in the singular.
    seed : int
        Seed of the random part and of t-SNE.

    Returns
    -------
    matplotlib.figure.Figure

    Example
    -------
    >>> figure = embedding_map(np.ones((8, 4)))
    >>> figure.axes[0].get_title(loc="left")
    'All 8 embeddings are the same'
    """
    embeddings = np.asarray(embeddings, dtype=float)
    groups = None if groups is None else np.asarray(groups).astype(str)
    finite = np.isfinite(embeddings).all(axis=1)
    chosen = np.flatnonzero(finite)
    if len(chosen) > MAX_POINTS:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(chosen, MAX_POINTS, replace=False))
    embeddings = embeddings[chosen]
    groups = None if groups is None else groups[chosen]
    places, same = lay_out(embeddings, seed)

    figure, ax = new_figure(SQUARE)
    if same and len(places) > 1:
        title = f"All {len(places)} embeddings are the same"
    else:
        title = f"{len(places)} embeddings, t-SNE"
    if groups is None:
        ax.scatter(*places.T, s=9, color=BLUE, alpha=0.65, linewidths=0)
    else:
        title = _scatter_groups(ax, places, groups, group_name, title)
    if not len(places):
        note(ax, "no finite embedding")
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    label(ax, title, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)")
    return figure


def lay_out(embeddings, seed):
    """Lay out finite embeddings in the plane, by t-SNE if there are five.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, D]``.
    seed : int
        Seed of t-SNE.

    Returns
    -------
    tuple
        Places ``[N, 2]``, and whether all embeddings are the same.
    """
    count = len(embeddings)
    if count == 0:
        return np.zeros((0, 2)), True
    unit = unit_or_zero(embeddings)
    if count == 1 or np.ptp(unit, axis=0).max() < 1e-9:
        return np.zeros((count, 2)), True
    if count < 5:
        # Too few for t-SNE: use the plane of largest variance.
        centered = unit - unit.mean(axis=0)
        left, scale, _ = np.linalg.svd(centered, full_matrices=False)
        places = np.zeros((count, 2))
        used = min(2, left.shape[1])
        places[:, :used] = left[:, :used] * scale[:used]
        return places, False
    # Imported here, because it takes a second and only this needs it.
    from sklearn.manifold import TSNE

    tsne = TSNE(
        perplexity=min(30.0, (count - 1) / 3),
        init="pca" if unit.shape[1] >= 2 else "random",
        random_state=seed,
    )
    return tsne.fit_transform(unit), False


def _scatter_groups(ax, places, groups, group_name, title):
    """Draw the groups; return the title, which explains the colours."""
    names, counts = np.unique(groups, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    shown = names[:MAX_GROUPS]
    rest = ~np.isin(groups, shown)
    ax.scatter(*places[rest].T, s=7, color=MUTED, alpha=0.3, linewidths=0)
    palette = (*SERIES, INK)
    for i, name in enumerate(shown):
        ax.scatter(
            *places[groups == name].T,
            s=15,
            color=palette[i % len(palette)],
            marker=MARKERS[i // len(palette)],
            alpha=0.85,
            linewidths=0,
            label=literal(name),
        )
    plural = f"{group_name}s" if len(names) != 1 else group_name
    if len(names) > MAX_GROUPS:
        return f"{title}; {MAX_GROUPS} of {len(names)} {plural} coloured"
    if 0 < len(names) <= 6:
        legend(ax)
    return f"{title}; {len(names)} {plural}"
