"""Draw a map of embeddings in the plane: each point says what it is."""

import numpy as np

from speechbrain_ssl.embedding.rows import unit_or_zero
from speechbrain_ssl.errors import counted
from speechbrain_ssl.report.blocks import escape

#: Of more embeddings a random part is drawn.
MAX_POINTS = 1500
_COLOURS = ("blue", "red", "green", "purple", "orange", "sky")


def embedding_map(
    embeddings, names, groups=None, group_name="group", caption=""
):
    """Draw embeddings of length one in the plane by t-SNE.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, D]``; those that are not finite are left out.
    names : sequence of str
        ``N`` names, shown where the mouse rests on a point.
    groups : numpy.ndarray, optional
        ``[N]``, the groups to colour by, named beside the name.
    group_name : str
        Name of a group, in the singular.
    caption : str
        What to look for.

    Returns
    -------
    str
        HTML, empty if no embedding is finite. A point is a ``circle`` with the
        attribute ``data-file``, the position of its embedding.

    Example
    -------
    >>> html = embedding_map(np.ones((2, 4)), ["a.wav", "b.wav"], [1, 1])
    >>> "2 embeddings, 1 group" in html, "<title>a.wav, group 1" in html
    (True, True)
    """
    embeddings = np.asarray(embeddings, dtype=float)
    finite = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    if not len(finite):
        return ""
    chosen = finite
    if len(chosen) > MAX_POINTS:
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(chosen, MAX_POINTS, replace=False))
    places, same = lay_out(embeddings[chosen])
    if same and len(chosen) > 1:
        caption = f"All {len(chosen)} embeddings are the same. {caption}"
    if len(chosen) < len(finite):
        caption += f" {len(chosen)} of {len(finite)} are drawn, at random."
    title, labels = counted(len(finite), "embedding"), names
    colours = np.zeros(len(embeddings), dtype=int)
    if groups is not None:
        # Names of speakers may be missing.
        kinds, colours = np.unique(
            np.asarray(groups).astype(str), return_inverse=True
        )
        title += f", {counted(len(kinds), group_name)}"
        labels = [
            f"{name}, {group_name} {group}"
            for name, group in zip(names, groups, strict=True)
        ]
        if len(kinds) > len(_COLOURS):
            caption += f" The {len(_COLOURS)} colours are shared by all groups."
    span = max(float(np.ptp(places, axis=0).max()), 1e-9)
    places = 20 + 960 * (places - places.min(axis=0)) / span
    points = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="8" data-file="{i}" '
        f'fill="var(--{_COLOURS[colours[i] % len(_COLOURS)]})">'
        f"<title>{escape(labels[i])}</title></circle>"
        for i, (x, y) in zip(chosen, places, strict=True)
    )
    height = 20 + places[:, 1].max()
    return (
        f"<figure><h3>{escape(title)}</h3>"
        f'<svg viewBox="0 0 1000 {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{points}</svg>'
        "<figcaption>Neighbours in the plane have similar embeddings (t-SNE); "
        f"distances between islands mean nothing. {escape(caption)}"
        "</figcaption></figure>"
    )


def lay_out(embeddings):
    """Lay out finite embeddings in the plane, by t-SNE if there are five.

    Arguments
    ---------
    embeddings : numpy.ndarray
        ``[N, D]``.

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
        random_state=0,
    )
    return tsne.fit_transform(unit), False
