"""Add noise and reverberation to batches of crops, on the training device.

Every crop has its own room, noise file, start, SNR and telephone codec. If crops of one
utterance shared any of these, the encoder could match the crops by it. (Stock
SpeechBrain draws one response for the whole batch.) All draws are addressed by seed, epoch,
utterance and crop.
"""

import numpy as np
import torch

from speechbrain_ssl.checks import check_int
from speechbrain_ssl.data.draws import uniform
from speechbrain_ssl.errors import ConfigError
from speechbrain_ssl.upload import upload

#: What can be done to a crop; ``both`` is reverberation, then noise.
CASES = ("clean", "reverb", "noise", "both")


class Augmentation(torch.nn.Module):
    """Adds reverberation and noise to crops.

    Arguments
    ---------
    probabilities : dict
        Probability of each of ``clean``, ``reverb``, ``noise`` and ``both``
        (reverberation, then noise). They must add up to 1. WeSpeaker's DINO
        has 0.5 for reverb and for noise, the code of SSPS 0.25 for each case.
    noises : dict
        Name -> ``NoiseBank``; a bank whose manifest is None is left out.
    responses : ResponseBank, optional
        Room responses; left out as well if the manifest is None.
    kinds : str
        How a kind of noise is drawn: ``equal``, all with the same probability
        (sslsv, 3D-Speaker, hyperion), or ``files``, in proportion to the number
        of its files (WeSpeaker draws one of all files; of MUSAN 46 % noise,
        33 % music and 21 % speech).
    clean_first_crops : int
        How many of the first crops of a sample are not augmented. The global
        crops come first: with the number of global crops, the teacher sees
        clean crops and the student's local crops are augmented, as in SDPN.
        This also applies to the crops of label-free validation.
    telephone : speechbrain_ssl.data.telephone.Telephone, optional
        A telephone channel, which its share of the crops passes after room and
        noise, clean ones as well.

    Raises
    ------
    ConfigError
        If the probabilities are not valid or need a bank that is missing, if
        ``kinds`` is unknown, or if ``clean_first_crops`` is not a whole number
        from 0.
    """

    def __init__(
        self,
        probabilities,
        noises=None,
        responses=None,
        kinds="equal",
        clean_first_crops=0,
        telephone=None,
    ):
        super().__init__()
        check_int(
            "the augmentation", "clean_first_crops", clean_first_crops, least=0
        )
        self.clean_first_crops = clean_first_crops
        unknown = set(probabilities) - set(CASES)
        values = [float(probabilities.get(case, 0.0)) for case in CASES]
        if unknown or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
            raise ConfigError(
                f"augmentation probabilities must be given for {CASES} and add "
                f"up to 1; got {dict(probabilities)}"
            )
        _, reverb, noise, both = values
        # Leave out banks without a manifest, and banks that no case needs, so
        # that they are not read.
        banks = {k: v for k, v in (noises or {}).items() if v.manifest}
        if noise + both == 0:
            banks = {}
        if reverb + both == 0:
            responses = None
        if responses is not None and not responses.manifest:
            responses = None
        if noise + both > 0 and not banks:
            raise ConfigError(
                "the augmentation adds noise but no noise manifest is given; "
                "name one (`noise_csv`, `music_csv` or `speech_csv`), or set "
                "the probabilities of `noise` and `both` to 0"
            )
        if reverb + both > 0 and responses is None:
            raise ConfigError(
                "the augmentation adds reverberation but no manifest of room "
                "responses is given; name one (`rirs_csv`), or set the "
                "probabilities of `reverb` and `both` to 0"
            )
        # Divide so that the last limit is exactly 1: a draw above it would
        # select a case that does not exist.
        self.limits = np.cumsum(values) / np.cumsum(values)[-1]
        self.banks = torch.nn.ModuleDict(banks)
        self.responses = responses
        self.telephone = telephone
        if kinds not in ("equal", "files"):
            raise ConfigError(
                "the augmentation's kinds must be `equal` or `files`, got "
                f"{kinds!r}"
            )
        self.kinds = kinds

    def load(self):
        """Read all banks; call it once, before moving to the device."""
        for bank in self.banks.values():
            bank.load()
        if self.responses is not None:
            self.responses.load()
        sizes = [
            len(bank.files) if self.kinds == "files" else 1
            for bank in self.banks.values()
        ]
        self.kind_limits = np.cumsum(sizes) / max(sum(sizes), 1)

    def begin_epoch(self, epoch):
        """Read other stretches of the noises that are not kept as a whole.

        Arguments
        ---------
        epoch : int
            Counted from 1.
        """
        for bank in self.banks.values():
            bank.begin_epoch(epoch)

    @torch.no_grad()
    def forward(self, crops, address, first_crop=0):
        """Augment the crops of a batch.

        Arguments
        ---------
        crops : torch.Tensor
            Waveforms ``[batch, crops, samples]``.
        address : tuple
            (seed, epoch, keys) with keys uint64 ``[batch]``.
        first_crop : int
            Number of the first of these crops among all crops of a sample, so
            that each group of crops has draws of its own.

        Returns
        -------
        torch.Tensor
            ``[batch, crops, samples]``.
        """
        batch, count, length = crops.shape
        seed, epoch, keys = address
        number = np.arange(first_crop, first_crop + count, dtype=np.uint64)
        where = (seed, epoch, np.asarray(keys)[:, None], number[None, :])

        def draw(purpose, size=None):
            values = uniform(*where, purpose, size=size)
            return values.reshape((batch * count,) + values.shape[2:])

        case = np.searchsorted(self.limits, draw("case"), side="right")
        untouched = np.tile(number < self.clean_first_crops, batch)
        case[untouched] = 0
        waves = crops.reshape(batch * count, length).clone()

        rows = np.flatnonzero((case == 1) | (case == 3))
        if len(rows):
            index = _to(rows, waves)
            which = _to(draw("response")[rows], waves)
            waves[index] = self.responses.apply(waves[index], which)

        noisy = case >= 2
        if noisy.any():
            kind = np.searchsorted(self.kind_limits, draw("kind"), side="right")
            level, voices = draw("snr"), draw("voices")
            for number_of_kind, bank in enumerate(self.banks.values()):
                rows = np.flatnonzero(noisy & (kind == number_of_kind))
                if len(rows):
                    self._add_noise(
                        waves, rows, bank, level[rows], voices[rows], draw
                    )

        if self.telephone is not None and self.telephone.probability > 0:
            called = draw("telephone") < self.telephone.probability
            rows = np.flatnonzero(called & ~untouched)
            if len(rows):
                index = _to(rows, waves)
                waves[index] = self.telephone(waves[index], draw("codec")[rows])
        return waves.view(batch, count, length)

    @staticmethod
    def _add_noise(waves, rows, bank, level, voices, draw):
        """Add noise of one kind to some rows, in place."""
        least, most = bank.voices
        counts = least + np.floor(voices * (most - least + 1)).astype(np.int64)
        files = draw("file", most)[rows]
        starts = draw("start", most)[rows]
        # One entry for each voice of each row.
        used = np.arange(most)[None, :] < counts[:, None]
        owner = _to(np.nonzero(used)[0], waves)
        sources = bank.gather(
            _to(files[used], waves), _to(starts[used], waves), waves.shape[1]
        )
        noise = torch.zeros(
            len(rows), waves.shape[1], device=waves.device
        ).index_add_(0, owner, sources)
        index = _to(rows, waves)
        speech = waves[index]
        low, high = bank.snr
        ratio = _to(10 ** ((low + level * (high - low)) / 10), waves)
        wanted = speech.square().mean(1, keepdim=True) / ratio[:, None]
        power = noise.square().mean(1, keepdim=True).clamp(min=1e-9)
        waves[index] = speech + noise * (wanted / power).sqrt()


def _to(array, like):
    """Move a numpy array to the device of ``like``; floats become fp32."""
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    return upload(array, like.device)
