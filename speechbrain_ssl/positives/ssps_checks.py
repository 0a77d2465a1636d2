"""Checks of SSPS: its settings, the run that uses it, and its memory."""

from speechbrain_ssl.checks import check_bool, check_int, check_number
from speechbrain_ssl.clustering.replicated import check_merge_from
from speechbrain_ssl.errors import ConfigError


def check_values(ssps):
    """Reject settings that are invalid in any run.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        The sampling rule, with all values set.

    Raises
    ------
    ConfigError
        If a value is out of range.
    ClusteringError
        If the merging would exceed its memory limit.
    """
    clusters, neighbours = ssps.clusters, ssps.neighbours
    check_int("SSPS", "clusters", clusters, least=1)
    check_int("SSPS", "queue", ssps.queue_size, least=1)
    check_int("SSPS", "neighbours", neighbours, least=0)
    check_int("SSPS", "iterations", ssps.iterations, least=0)
    check_int(
        "SSPS",
        "start_epoch",
        ssps.start_epoch,
        least=2,
        remedy="the epoch before it fills memory and queue; to begin from a "
        "trained model, name its run as initial_checkpoint and start at 2",
    )
    check_number("SSPS", "reference_seconds", ssps.reference_seconds, above=0)
    if ssps.speaker_count is not None:
        check_int(
            "SSPS",
            "speaker_count",
            ssps.speaker_count,
            least=2,
            remedy="null starts SSPS without asking the start rule",
        )
    check_bool("SSPS", "choose_clusters", ssps.choose_clusters)
    if ssps.choose_clusters and ssps.speaker_count is None:
        raise ConfigError(
            "SSPS's choose_clusters uses the start rule, which needs a guess "
            "of the number of speakers: give a `speaker_count`, or set "
            "`choose_clusters` to False"
        )
    check_merge_from("SSPS's merge_from", ssps.merge_from, clusters)
    if neighbours >= clusters:
        raise ConfigError(
            f"SSPS cannot draw among {neighbours} neighbours of a cluster: "
            f"there are only {clusters} clusters in all; lower `neighbours` "
            "or raise `clusters`"
        )


def check_run(ssps, objective, utterances, batch):
    """Reject an objective, a batch or a training set that SSPS cannot use.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        The sampling rule, before its buffers are created.
    objective : speechbrain_ssl.objectives.base.Objective
        The objective whose target branch receives pseudo-positives.
    utterances : int
        Length of the training manifest.
    batch : int
        Number of utterances in a step, over all processes.

    Raises
    ------
    ConfigError
        If the objective is not supported, the queue is too short, or there are
        too many clusters.
    """
    if not objective.supports_positive_sampling:
        raise ConfigError(
            "SSPS replaces positives in the target branch, which "
            f"{type(objective).__name__} does not have; take another "
            "objective, or leave SSPS out (`positives: null`)"
        )
    if ssps.queue_size < batch:
        raise ConfigError(
            f"SSPS's queue of {ssps.queue_size} cannot hold a batch of "
            f"{batch} (over all processes and accumulated steps); raise "
            "`positive_queue` (`queue` of the block): 25 000 in the paper, "
            "ten batches or more in any case"
        )
    made = ssps.merge_from or ssps.clusters
    # Number of utterances in the epoch that fills the memory.
    seen = utterances // batch * batch
    if made > seen:
        raise ConfigError(
            f"SSPS cannot make {made} clusters of {seen} utterances, the part "
            f"of {utterances} that the complete steps of an epoch see; "
            "lower `merge_from`, or `clusters` (the paper has one for every "
            "44 utterances)"
        )


def check_memory(ssps, epoch, known):
    """Reject a memory with too few reference embeddings to cluster.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        The sampling rule that is about to start.
    epoch : int
        Counted from 1.
    known : int
        Number of reference embeddings in the memory.

    Raises
    ------
    ConfigError
        If there are fewer references than clusters.
    """
    least = ssps.merge_from or ssps.clusters
    if known < least:
        raise ConfigError(
            f"SSPS is to begin in epoch {epoch}, but its memory holds "
            f"references of {known} utterances, and needs at least "
            f"{least}. The epoch before fills the memory: train that one first "
            "(`ssps_start_epoch`), or lower `clusters` (`merge_from`)"
        )
