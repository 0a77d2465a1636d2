"""Stop a run whose representation has collapsed, and say what to change.

The loss of a collapsed run is finite and often small, so it does not give the
collapse away. The metrics checked here do, and none of them needs a label: the
entropy of the teacher's targets, the entropy of the prototypes in use, and the
pseudo-EER.

The pseudo-EER of n held-out utterances has a standard error of up to 50 / sqrt(n)
points. From a hundred on, 45 % is two of them above 35 %, which a good run may
show when it begins slowly. With fewer the pseudo-EER alone says nothing: the
embeddings must lie in nearly one direction, and 45 % less one standard error is
enough then. These bounds are ours: of the good
runs in ``results/`` none has a mean cosine above 0.7 or a RankMe below 14.
"""

from speechbrain_ssl.errors import CollapseError

_REMEDIES = {
    "uniform": (
        "the teacher's targets are uniform: their mean entropy is {entropy:.4f} "
        "nats and ln K is {log_k:.4f}. The student has nothing to learn from. "
        "Lower `teacher_temperature` (0.04 or less at the start) or "
        "`center_momentum`, or lengthen the warm-up of the temperature"
    ),
    "single": (
        "one prototype takes nearly every utterance: the entropy of the "
        "prototypes in use is {usage:.4f} of at most {log_k:.4f} nats. Make the centre adapt "
        "faster (lower `center_momentum`), raise `teacher_temperature` a "
        "little, or lower the learning rate"
    ),
    "constant": (
        "the embeddings no longer tell utterances apart: two halves of one "
        "utterance against two utterances gives an EER of {pseudo_eer:.1f} % "
        "(50 % is chance). Lower the learning rate, lengthen its warm-up, or "
        "use a larger batch"
    ),
}


# Utterances from which the pseudo-EER alone tells, and what fewer must show.
_ENOUGH, _MEAN_COSINE, _RANKME = 100, 0.9, 3.0


class CollapseAlarm:
    """Stops a run after several consecutive epochs with a sign of collapse.

    Arguments
    ---------
    patience : int
        Number of consecutive epochs that must show the same sign.
    grace_epochs : int
        Number of epochs at the beginning that are not checked.

    Example
    -------
    >>> alarm = CollapseAlarm(patience=1, grace_epochs=0)
    >>> counts = alarm.check(1, {"pseudo_eer": 12.0, "utterances": 1000}, {})
    >>> counts
    {}
    """

    def __init__(self, patience=3, grace_epochs=1):
        self.patience = patience
        self.grace_epochs = grace_epochs

    def signs(self, scalars):
        """Return the signs of collapse that the scalars show.

        Arguments
        ---------
        scalars : dict
            Any of ``teacher_entropy``, ``usage_entropy``, ``log_prototypes``
            and ``pseudo_eer``; with the last one ``utterances`` (how many are
            held out), ``mean_cosine`` and ``rankme``.

        Returns
        -------
        list of str
            Any of ``"uniform"`` (the teacher's targets are uniform),
            ``"single"`` (one prototype is used) and ``"constant"`` (the
            embeddings do not tell utterances apart).
        """
        signs = []
        log_k = scalars.get("log_prototypes")
        if log_k and "teacher_entropy" in scalars:
            if scalars["teacher_entropy"] > 0.999 * log_k:
                signs.append("uniform")
            if scalars["usage_entropy"] < 0.02 * log_k:
                signs.append("single")
        if "pseudo_eer" in scalars:
            most, narrow = 45.0, True
            if scalars["utterances"] < _ENOUGH:
                most -= 50 / scalars["utterances"] ** 0.5
                narrow = (
                    scalars["mean_cosine"] > _MEAN_COSINE
                    or scalars["rankme"] < _RANKME
                )
            if narrow and scalars["pseudo_eer"] > most:
                signs.append("constant")
        return signs

    def check(self, epoch, scalars, counts):
        """Check the metrics of an epoch.

        Arguments
        ---------
        epoch : int
            Number of the epoch, from 1.
        scalars : dict
            Label-free metrics of the epoch; see ``signs``.
        counts : dict
            What the previous call returned. Save it in the checkpoint, so
            that a resumed run keeps counting.

        Returns
        -------
        dict
            Sign -> number of consecutive epochs that showed it.

        Raises
        ------
        CollapseError
            If a sign has been present for ``patience`` epochs.
        """
        if epoch <= self.grace_epochs:
            return {}
        counts = {s: counts.get(s, 0) + 1 for s in self.signs(scalars)}
        for sign, count in counts.items():
            if count >= self.patience:
                text = _REMEDIES[sign].format(
                    entropy=scalars.get("teacher_entropy", 0.0),
                    usage=scalars.get("usage_entropy", 0.0),
                    log_k=scalars.get("log_prototypes", 0.0),
                    pseudo_eer=scalars.get("pseudo_eer", 0.0),
                )
                raise CollapseError(
                    f"training has collapsed (seen for {count} epochs, now "
                    f"epoch {epoch}): {text}"
                )
        return counts
