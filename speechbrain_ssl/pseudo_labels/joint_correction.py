"""Label correction by a voice and a face together.

Han, Chen and Qian (2023, arXiv 2304.05754) extend label correction to several
modalities; how is not public. This is our reading. With the sharpened
predictions p^_m of the modalities m that utterance i has (see
``label_correction``),

    p^_i = mean over m of  p^_m,i

is the target of every modality, wherever the gate has dropped it and
max(p^_i) > tau_2. An utterance without a face is corrected by its voice alone.
"""

import torch

from speechbrain_ssl.pseudo_labels.label_correction import LabelCorrection


class JointLabelCorrection(LabelCorrection):
    """Compute the loss on the confident joint prediction of all modalities.

    Arguments are those of ``LabelCorrection``.

    Example
    -------
    >>> from speechbrain_ssl.objectives.margin import AAMSoftmax
    >>> classifiers = {"audio": AAMSoftmax(8, 5), "face": AAMSoftmax(6, 5)}
    >>> clean = {
    ...     "audio": classifiers["audio"].logits(torch.randn(4, 8)),
    ...     "face": classifiers["face"].logits(torch.randn(4, 6)),
    ... }
    >>> there = {
    ...     "audio": torch.ones(4, dtype=torch.bool),
    ...     "face": torch.tensor([True, True, True, False]),
    ... }
    >>> correct = JointLabelCorrection()
    >>> correct.predict(clean, there).shape
    torch.Size([4, 5])
    """

    @torch.no_grad()
    def predict(self, logits, there):
        """Average the sharpened predictions of the modalities.

        Arguments
        ---------
        logits : dict
            Logits of the clean view by modality, without margin, ``[n,
            classes]``.
        there : dict
            bool ``[n]`` by modality: whether an utterance has it. Every
            utterance has at least one.

        Returns
        -------
        torch.Tensor
            fp32 ``[n, classes]``, without gradient.
        """
        total, count = 0, 0
        for modality, values in logits.items():
            here = there[modality][:, None]
            # Select instead of multiplying: 0 times NaN is NaN.
            total += torch.where(here, super().predict(values), 0.0)
            count += here.float()
        return total / count

    def forward(self, classifiers, cosines, clean_logits, keep, there, margin):
        """Compute the losses of each modality on the joint prediction.

        Arguments
        ---------
        classifiers : dict
            ``AAMSoftmax`` by modality.
        cosines : dict
            Cosines of the augmented view, with gradient, ``[n, classes]`` by
            modality.
        clean_logits : dict
            Logits of the clean view, ``[n, classes]`` by modality.
        keep : dict
            bool ``[n]`` by modality: the gate's masks.
        there : dict
            bool ``[n]`` by modality: whether an utterance has it.
        margin : float or None
            m in radians, as in ``LabelCorrection.forward``.

        Returns
        -------
        dict
            A ``Correction`` for each modality. Nothing is accepted where the
            modality is missing; labels and confidence are the same in all.
        """
        prediction = self.predict(clean_logits, there)
        return {
            m: self.towards(
                prediction,
                classifiers[m],
                cosines[m],
                keep[m] | ~there[m],
                margin,
            )
            for m in cosines
        }
