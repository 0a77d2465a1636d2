"""Checks of SSPS: its values, the run around it, and its memory."""

from speechbrain_ssl.checks import check_bool, check_int, check_number
from speechbrain_ssl.clustering.replicated import check_merge_from
from speechbrain_ssl.errors import ConfigError


def check_values(ssps):
    """Refuse values that make no sense whatever the run.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        With all values set.

    Raises
    ------
    ConfigError
        If a value makes no sense.
    ClusteringError
        If the merging would take more memory than it may.
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
            remedy="null starts without being asked",
        )
    check_bool("SSPS", "choose_clusters", ssps.choose_clusters)
    if ssps.choose_clusters and ssps.speaker_count is None:
        raise ConfigError(
            "SSPS's choose_clusters asks the start rule, which needs a guess "
            "of the number of speakers: give a `speaker_count`, or set "
            "`choose_clusters` to False"
        )
    check_merge_from("SSPS's merge_from", ssps.merge_from, clusters)
    if neighbours >= clusters:
        raise ConfigError(
            f"SSPS cannot draw among {neighbours} neighbours of a cluster "
            f"where there are {clusters} clusters in all; lower `neighbours` "
            "or raise `clusters`"
        )


def check_run(ssps, objective, utterances, batch):
    """Refuse an objective, a batch or a training set that does not fit.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        Before its buffers are made.
    objective : speechbrain_ssl.objectives.base.Objective
        Whose target branch is to get other positives.
    utterances : int
        Length of the training manifest.
    batch : int
        Utterances in a step, over all processes.

    Raises
    ------
    ConfigError
        If the objective, the queue or the clusters do not fit.
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
    # What the epoch that fills the memory sees.
    seen = utterances // batch * batch
    if made > seen:
        raise ConfigError(
            f"SSPS cannot make {made} clusters of {seen} utterances, which "
            f"is what the whole steps of an epoch see of {utterances}; "
            "lower `merge_from`, or `clusters` (the paper has one for every "
            "44 utterances)"
        )


def check_memory(ssps, epoch, known):
    """Refuse to cluster a memory that holds too few references.

    Arguments
    ---------
    ssps : speechbrain_ssl.positives.ssps.SSPS
        Which is to begin.
    epoch : int
        Counted from 1.
    known : int
        References in the memory.

    Raises
    ------
    ConfigError
        If there are fewer references than clusters.
    """
    least = ssps.merge_from or ssps.clusters
    if known < least:
        raise ConfigError(
            f"SSPS is to begin in epoch {epoch}, but its memory holds "
            f"references of {known} utterances, of {least} at least; "
            "the epoch before has to fill it: train that one first "
            "(`ssps_start_epoch`), or lower `clusters` (`merge_from`)"
        )
