"""Embeddings of both halves of utterances, for the start rule of SSPS.

``positives`` asks for them; the rule itself is in
``speechbrain_ssl.positives.start_rule``.
"""

import logging

import numpy as np
import torch
from speechbrain.utils.distributed import if_main_process

from speechbrain_ssl import distributed
from speechbrain_ssl.brains.encoding import crop_features, encode
from speechbrain_ssl.data.halves import ReadableHalves
from speechbrain_ssl.interruption import init_loader_worker
from speechbrain_ssl.progress import open_bar

logger = logging.getLogger(__name__)


class EmbeddedHalves:
    """Embeds both halves of utterances, without augmentation.

    Each process embeds its share of the utterances.

    Arguments
    ---------
    brain : speechbrain_ssl.brains.ssl_brain.SSLBrain
        The Brain whose encoder and training set are used.
    chosen : numpy.ndarray
        Positions in the training manifest, the same in every process.
    """

    def __init__(self, brain, chosen):
        self.brain, self.chosen = brain, chosen

    @torch.no_grad()
    def embed(self, epoch, size):
        """Return the embeddings of all halves.

        Arguments
        ---------
        epoch : int
            The current epoch, named in the log.
        size : int
            Size of an embedding.

        Returns
        -------
        torch.Tensor
            ``[utterances, 2, size]``, the same in every process. Utterances
            that cannot be read, or whose embedding is zero or not finite, are
            left out.
        """
        brain, chosen = self.brain, self.chosen
        rows = torch.zeros(len(chosen), 2, size, device=brain.device)
        encoder = brain.evaluated_encoder.eval()
        for batch in self._batches():
            if len(batch.index):
                crops = batch.to(brain.device).crops[0]
                places = np.searchsorted(chosen, batch.index.numpy())
                with brain.evaluation_ctx:
                    found = encode(
                        encoder, [crop_features(brain.features, crops)]
                    )
                places = torch.from_numpy(places).to(rows.device)
                rows[places] = found.float()
        rows = distributed.sum_over_ranks(rows)
        lengths = rows.norm(dim=2)
        usable = (lengths.isfinite() & (lengths > 0)).all(1)
        # Indexing copies the tensor, which can take gigabytes; avoid it if all
        # rows are usable.
        rows = rows if usable.all() else rows[usable]
        if len(rows) < len(chosen) and if_main_process():
            logger.warning(
                "epoch %d: the start rule leaves out %d of %d utterances, which "
                "cannot be read, or whose embedding is zero or not finite",
                epoch,
                len(chosen) - len(rows),
                len(chosen),
            )
        return rows

    def _batches(self):
        """Return an iterator over the batches of this process's share."""
        brain = self.brain
        halves = ReadableHalves(
            brain.train_manifest,
            brain.hparams.valid_seconds,
            crops_per_half=1,
            sample_rate=brain.features.sample_rate,
        )
        mine = self.chosen[distributed.rank() :: distributed.world_size()]
        loader = torch.utils.data.DataLoader(
            torch.utils.data.Subset(halves, mine.tolist()),
            batch_size=32,
            collate_fn=halves.collate,
            num_workers=brain.hparams.num_workers,
            generator=torch.Generator(),
            worker_init_fn=init_loader_worker,
        )
        return open_bar(
            loader,
            desc="start rule",
            unit=" batches",
            disable=brain.noprogressbar or not if_main_process(),
        )
