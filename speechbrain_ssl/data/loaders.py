"""Make the data loaders of a training run."""

import logging

import torch

from speechbrain_ssl import distributed, interruption
from speechbrain_ssl.data.sampling import EpochBatchSampler
from speechbrain_ssl.errors import ManifestError
from speechbrain_ssl.shared_memory import check_space

#: Utterances per batch of the validation loader.
VALID_BATCH = 32

#: Where more than the first part of the utterances would be held out for
#: validation, the second part is.
MOST_HELD_OUT, HELD_OUT = 0.5, 0.2

logger = logging.getLogger(__name__)


def fit_to_corpus(hparams, manifest, batches=1):
    """Lower ``valid_utterances`` and ``batch_size`` to what a corpus has.

    Arguments
    ---------
    hparams : dict
        ``valid_utterances``, ``valid_seconds`` and ``batch_size``; the first
        and the last are changed where the corpus is too small for them.
    manifest : speechbrain_ssl.data.manifest.Manifest
        All utterances.
    batches : int
        Batches per optimiser step, over all processes.

    Raises
    ------
    ManifestError
        If fewer than two utterances are long enough for validation.
    """
    shortest = 2 * hparams["valid_seconds"]
    long_enough = int((manifest.durations >= shortest).sum())
    if long_enough < 2:
        raise ManifestError(
            f"of {len(manifest)} utterances {long_enough} have the {shortest:g} "
            "s that validation needs, and two or more must: cut long "
            "recordings into utterances, or lower `valid_seconds`, which is "
            "half of it"
        )
    total = len(manifest)
    if hparams["valid_utterances"] > min(MOST_HELD_OUT * total, long_enough):
        most = min(max(2, int(HELD_OUT * total)), long_enough)
        _lower(hparams, "valid_utterances", most, total)
    rest = total - hparams["valid_utterances"]
    _lower(hparams, "batch_size", max(1, rest // batches), total)


def _lower(hparams, key, most, utterances):
    """Lower a hyper-parameter, and log it."""
    asked = hparams[key]
    if asked > most:
        hparams[key] = most
        logger.warning(
            "%s is lowered from %d to %d, since there are only %d utterances",
            key,
            asked,
            most,
            utterances,
        )


def make_loaders(
    manifest,
    plan,
    seed,
    batch_size,
    num_workers=0,
    valid_utterances=1000,
    valid_seconds=2.0,
    grad_accumulation_factor=1,
    pseudo_positives=None,
    reference_seconds=None,
    reference_from=1,
    pin_memory=False,
):
    """Split off validation, and make the loaders of both parts.

    Loader workers are started once and not in every epoch: on Windows and macOS,
    where processes are spawned, each of them imports torch.

    Arguments
    ---------
    manifest : speechbrain_ssl.data.manifest.Manifest
        All utterances.
    plan : speechbrain_ssl.data.crops.CropPlan
        How crops are cut, and by which data sets; for pictures a
        ``speechbrain_ssl.data.face_dataset.FaceViews``.
    seed : int
        Seed of the order and of all draws.
    batch_size : int
        Samples per batch and process.
    num_workers : int
        Loader processes, for each of the two loaders.
    valid_utterances : int
        Utterances held out of training, for label-free validation.
    valid_seconds : float
        Length of the crops that are compared in validation.
    grad_accumulation_factor : int
        Batches per optimiser step.
    pseudo_positives : callable, optional
        Chooses the utterance each crop is cut from:
        ``pseudo_positives(epoch, index, key, crops, global_crops)`` -> positions
        in the training manifest, int64 ``[crops]``, as
        ``positives.cluster_aware.ClusterAware.pseudo_positives``. By default all
        crops come from the utterance at ``index``.
    reference_seconds, reference_from
        See ``speechbrain_ssl.data.dataset.CropDataset``.
    pin_memory : bool
        Whether batches are put into memory that a GPU copies from by itself.

    Returns
    -------
    tuple
        Training loader, its sampler, validation loader. The manifest of the
        training part is ``loader.dataset.manifest``.

    Raises
    ------
    ManifestError, ConfigError
        If there are too few utterances for either part, or too little shared
        memory for the workers.
    """
    manifest = plan.select(manifest)
    candidates = plan.valid_set(manifest, valid_seconds)

    def usable(index):
        # Rank 0 reads and decides for all: a file that fails on one machine
        # only must not make the ranks train on different lists.
        yes = distributed.rank() == 0 and candidates.usable(index)
        return bool(distributed.from_rank_0([yes])[0])

    train, valid = manifest.hold_out(
        valid_utterances, 2 * valid_seconds, usable
    )
    train_set = plan.train_set(train, seed, reference_seconds, reference_from)

    def sources(epoch, index):
        return pseudo_positives(
            epoch, index, train.keys[index], plan.num_crops, plan.global_crops
        )

    sampler = EpochBatchSampler(
        len(train),
        batch_size,
        seed,
        distributed.rank(),
        distributed.world_size(),
        grad_accumulation_factor,
        sources if pseudo_positives else None,
    )
    valid_set = plan.valid_set(valid, valid_seconds)
    valid_batch = min(VALID_BATCH, len(valid))
    some = [(reference_from, index) for index in _spread(len(train))]
    check_space(train_set, some, batch_size, num_workers)
    check_space(valid_set, _spread(len(valid)), valid_batch, num_workers)
    options = {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        # Its own generator: the loader must not draw from the global one.
        "generator": torch.Generator().manual_seed(seed),
        "worker_init_fn": interruption.init_loader_worker,
    }
    train_loader = torch.utils.data.DataLoader(
        train_set,
        batch_sampler=sampler,
        collate_fn=train_set.collate,
        **options,
    )
    valid_loader = torch.utils.data.DataLoader(
        valid_set,
        batch_size=VALID_BATCH,
        collate_fn=valid_set.collate,
        **options,
    )
    return train_loader, sampler, valid_loader


def _spread(total, most=8):
    """Return a few indices, spread over a list."""
    return range(0, total, -(-total // most))
