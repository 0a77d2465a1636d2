"""Classes that start from the embeddings of their members."""

import torch

from speechbrain_ssl.clustering.rows import unit_rows

# Length of what is added to a mean of length one.
_SPREAD = 0.14


def set_centers(classifier, embeddings, places, labels):
    """Initialise the weights of each class with its mean embedding.

    This is a default of ours and not part of the papers' methods. A classifier
    with random weights needs some thousand steps before the losses of correct
    and of wrong labels separate, which in a small corpus is the whole round.

    Arguments
    ---------
    classifier : speechbrain_ssl.objectives.margin.AAMSoftmax
        Changed in place.
    embeddings : numpy.ndarray
        ``[n, size]``, by the model that initialises the encoder.
    places : numpy.ndarray
        Positions of their utterances in the manifest, int64 ``[n]``.
    labels : numpy.ndarray
        Class of each utterance of the manifest, int64 ``[N]``; -1 for none.
    """
    here = labels[places]
    # Every process has all rows, so there is nothing to exchange.
    rows = unit_rows(embeddings[here >= 0], single_process=True)
    means = rows.new_zeros(classifier.classes, rows.shape[1])
    means.index_add_(0, torch.from_numpy(here[here >= 0]), rows)
    means = torch.nn.functional.normalize(means, dim=1)
    means = means.to(classifier.weight.device)
    weight = classifier.weight.data.unflatten(
        0, (classifier.classes, classifier.sub_centers)
    )
    # A little of the random weights is added to the mean, because sub-centres
    # that start equal stay equal. A class without any embedding keeps its random
    # weights.
    known = means.norm(dim=1) > 0.5
    draws = torch.nn.functional.normalize(weight[known], dim=-1)
    weight[known] = means[known, None] + _SPREAD * draws
