"""Noise and rooms: the physics, and that no two crops share a corruption."""

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.processing.signal_processing import reverberate

from speechbrain_ssl.data.audio import AudioFile
from speechbrain_ssl.data.augmentation import Augmentation
from speechbrain_ssl.data.banks import NoiseBank, ResponseBank
from speechbrain_ssl.errors import AudioError, ConfigError, ManifestError

LENGTH = 8000
KEYS = np.random.default_rng(9).integers(0, 2**64, 400, dtype=np.uint64)


def write_corpus(folder, name, waves):
    """Files and their manifest; returns the path of the manifest."""
    lines = ["ID,duration,wav"]
    for i, wave in enumerate(waves):
        path = folder / f"{name}{i}.wav"
        soundfile.write(path, wave, 16000, subtype="FLOAT")
        lines.append(f"{name}{i},{len(wave) / 16000},{path}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Six noises (one shorter than a crop), five voices, seven rooms."""
    folder = tmp_path_factory.mktemp("banks")
    rng = np.random.default_rng(0)
    noises = [rng.normal(0, 0.1, 12000 + 100 * i) for i in range(5)]
    noises.append(rng.normal(0, 0.1, 3000))
    voices = [rng.normal(0, 0.1, 16000) for _ in range(5)]
    rooms = []
    for i in range(7):
        tail = rng.normal(0, 0.2, 2000) * np.exp(-np.arange(2000) / 400)
        rooms.append(np.concatenate([np.zeros(10 * i), [1.0], tail]))
    return {
        "noise": write_corpus(folder, "noise", noises),
        "speech": write_corpus(folder, "speech", voices),
        "rooms": write_corpus(folder, "room", rooms),
        "waves": {"noise": noises, "room": rooms},
    }


def make(corpora, snr=(0, 15), speech_snr=(13, 20), **probabilities):
    augmentation = Augmentation(
        probabilities,
        {
            "noise": NoiseBank(corpora["noise"], snr),
            "speech": NoiseBank(corpora["speech"], speech_snr, voices=(3, 5)),
            "music": NoiseBank(None, snr),
        },
        ResponseBank(corpora["rooms"]),
    )
    augmentation.load()
    return augmentation


def crops(count=400, views=1, length=LENGTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(count, views, 1, generator=generator) + 0.01
    return torch.randn(count, views, length, generator=generator) * level


def test_clean_crops_are_untouched(corpora):
    """Bit by bit; and no bank is read for it."""
    augmentation = Augmentation(
        {"clean": 1.0}, {"noise": NoiseBank("/no/such.csv", (0, 15))}
    )
    augmentation.load()
    x = crops()
    assert torch.equal(augmentation(x, (1, 1, KEYS)), x)
    # The others in a mixed batch are not touched either, nor is the input.
    before = x.clone()
    mixed = make(corpora, clean=0.5, both=0.5)(x, (1, 1, KEYS))
    untouched = (mixed == x).all(2).float().mean()
    assert torch.equal(x, before)
    assert 0.4 < untouched < 0.6


def test_first_crops_of_a_sample_stay_clean(corpora):
    """Of every sample, in whichever group they are; the others do not change."""
    x = crops(views=3)
    plain = make(corpora, both=1.0)
    clean = make(corpora, both=1.0)
    clean.clean_first_crops = 2
    everything, some = (each(x, (1, 1, KEYS)) for each in (plain, clean))
    assert torch.equal(some[:, :2], x[:, :2])
    assert (everything[:, :2] != x[:, :2]).any(2).all()
    torch.testing.assert_close(some[:, 2], everything[:, 2])
    # The first of a second group is the third crop of its sample.
    again = clean(x[:, 1:], (1, 1, KEYS), first_crop=1)
    assert torch.equal(again[:, 0], x[:, 1])
    assert (again[:, 1] != x[:, 2]).any(1).all()


def test_a_number_of_clean_crops_that_is_none():
    for wrong in (-1, 1.0, True):
        with pytest.raises(ConfigError, match="clean_first_crops"):
            Augmentation({"clean": 1.0}, clean_first_crops=wrong)
    assert Augmentation({"clean": 1.0}, clean_first_crops=3)


def snr_of(x, y):
    noise = (y - x).double().square().mean(2)
    return 10 * torch.log10(x.double().square().mean(2) / noise)


def test_the_snr_is_met_exactly(corpora):
    """7 dB asked is 7 dB got, for each crop, loud or faint, one voice or 5."""
    x = crops(views=2)
    bank = make(corpora, (7, 7), (7, 7), noise=1.0)
    assert snr_of(x, bank(x, (1, 1, KEYS))) == pytest.approx(7.0, abs=1e-3)


def test_the_snr_covers_its_range(corpora):
    """Uniform between the limits of the kind that was drawn."""
    x = crops(views=2)
    levels = snr_of(
        x, make(corpora, (0, 8), (13, 20), noise=1.0)(x, (1, 1, KEYS))
    )
    levels = levels.ravel().numpy()
    assert levels.min() > -1e-3 and levels.max() < 20.001
    noise, speech = levels[levels < 10], levels[levels > 10]
    assert speech.min() > 12.999
    # Both kinds are as likely.
    assert len(noise) / len(levels) == pytest.approx(1 / 2, abs=0.06)
    for found, low, high in ((noise, 0, 8), (speech, 13, 20)):
        share = (np.sort(found) - low) / (high - low)
        wanted = (np.arange(len(found)) + 0.5) / len(found)
        assert np.abs(share - wanted).max() < 0.12


def cases(x, y):
    """Clean, reverberant or noisy, told apart by the first sample.

    A crop that is zero but for one sample stays zero before it, unless there
    is noise.
    """
    # What rounding in the Fourier transform leaves is no noise.
    noisy = y[..., :100].abs().amax(2) > 1e-6
    changed = (y != x).any(2)
    return noisy, changed & ~noisy


def test_one_of_reverberation_and_noise(corpora):
    """WeSpeaker's rule: one of the two, half of the time each, never both."""
    x = torch.zeros(len(KEYS), 2, LENGTH)
    x[..., 4000] = 1.0
    y = make(corpora, reverb=0.5, noise=0.5)(x, (1, 1, KEYS))
    noisy, reverberant = cases(x, y)
    assert (noisy ^ reverberant).all()
    # Four standard deviations of 800 tosses.
    assert float(noisy.float().mean()) == pytest.approx(0.5, abs=0.071)
    # In a noisy crop the click has no echo: the noise knows nothing of it.
    assert (y[noisy][:, 4000] > 0.5).all()


def test_frequencies_of_the_four_cases(corpora):
    x = torch.zeros(len(KEYS), 2, LENGTH)
    x[..., 4000] = 1.0
    shares = {"clean": 0.4, "reverb": 0.3, "noise": 0.2, "both": 0.1}
    # At 60 dB the echoes of "both" stand out of the noise.
    augmentation = make(corpora, (60, 60), (60, 60), **shares)
    y = augmentation(x, (1, 1, KEYS))
    noisy, reverberant = cases(x, y)
    echo = y[..., 4001:4200].abs().amax(2) > 0.05
    found = {
        "clean": ~noisy & ~reverberant,
        "reverb": reverberant,
        "noise": noisy & ~echo,
        "both": noisy & echo,
    }
    for case, share in shares.items():
        got = float(found[case].float().mean())
        assert got == pytest.approx(share, abs=0.07), case


def direct(room):
    """A response from its direct path on."""
    return room[np.abs(room).argmax() :]


def test_reverberation_is_the_linear_convolution(corpora):
    """Equals numpy's, from the direct path, at the power of the input."""
    x = crops(40)
    y = make(corpora, reverb=1.0)(x, (1, 1, KEYS[:40]))
    used = []
    for wave, wet in zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True):
        errors = []
        for room in corpora["waves"]["room"]:
            full = np.convolve(wave, direct(room))[:LENGTH]
            full *= np.linalg.norm(wave) / np.linalg.norm(full)
            errors.append(np.abs(full - wet).max() / np.abs(wet).max())
        used.append(int(np.argmin(errors)))
        # What 16 bits of the bank leave.
        assert min(errors) < 2e-3
    # One response per crop: all seven rooms occur in one batch.
    assert set(used) == set(range(7))


def test_reverberation_does_not_wrap_around(corpora):
    """A click at the end must not be heard at the beginning.

    SpeechBrain's ``reverberate``, behind its AddReverb, convolves in a circle,
    and gives the whole batch the same room.
    """
    x = torch.zeros(5, 1, LENGTH)
    x[..., LENGTH - 10] = 1.0
    room = torch.from_numpy(corpora["waves"]["room"][0]).float()
    stock = reverberate(x[:, 0], room)
    front = stock[:, : LENGTH // 2].square().sum(1) / stock.square().sum(1)
    assert (front > 0.1).all()
    # Rows of one batch may round differently: their alignment differs.
    torch.testing.assert_close(stock[0], stock[1])
    ours = make(corpora, reverb=1.0)(x, (1, 1, KEYS[:5]))[:, 0]
    front = ours[:, : LENGTH - 20].square().sum(1) / ours.square().sum(1)
    assert (front < 1e-8).all()
    assert len({float(wave[-3] / wave[-10]) for wave in ours}) > 1


@pytest.mark.parametrize("case", ["reverb", "noise", "both"])
def test_a_crop_does_not_depend_on_its_batch(corpora, case):
    """Composition, order, rank and resume give a crop the same corruption."""
    augmentation = make(corpora, **{case: 1.0})
    x = crops(32, views=3)
    together = augmentation(x, (1, 2, KEYS[:32]))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    shuffled = augmentation(x[order], (1, 2, KEYS[:32][order.numpy()]))
    parts = [augmentation(x[r::2], (1, 2, KEYS[:32][r::2])) for r in range(2)]
    # Sums in another order differ in the last bits.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(shuffled, together[order], **tolerance)
    for r in range(2):
        torch.testing.assert_close(parts[r], together[r::2], **tolerance)
    # Views one by one, by their number among all crops of the sample.
    for view in range(3):
        alone = augmentation(
            x[:, view : view + 1], (1, 2, KEYS[:32]), first_crop=view
        )
        torch.testing.assert_close(alone[:, 0], together[:, view], **tolerance)


@pytest.mark.parametrize("case", ["reverb", "noise"])
def test_no_two_crops_share_their_corruption(corpora, case):
    """Views of one utterance that shared it would be recognised by it."""
    augmentation = make(corpora, **{case: 1.0})
    x = crops(1).expand(100, 4, LENGTH)

    def left(seed, epoch):
        return augmentation(x, (seed, epoch, KEYS[:100])) - x

    first = left(1, 1)
    flat = first.reshape(400, -1)
    flat = flat / flat.norm(dim=1, keepdim=True)
    alike = (flat @ flat.T > 0.999).float().mean()
    # Seven rooms coincide by chance; file, start and SNR of noises do not.
    assert alike < (0.2 if case == "reverb" else 0.02)
    for other in (left(1, 2), left(2, 1)):
        same = (other - first).abs().amax(2) < 1e-6
        assert same.float().mean() < 0.2
    # A group with other crop numbers draws anew.
    again = augmentation(x, (1, 1, KEYS[:100]), first_crop=4) - x
    assert ((again - first).abs().amax(2) < 1e-6).float().mean() < 0.2


def test_babble_is_several_voices_of_equal_power(corpora, tmp_path):
    """Each voice a tone of its own: count the tones and weigh them."""
    time = np.arange(16000) / 16000
    levels = [1.0, 0.1, 0.01, 0.3, 0.05, 0.5, 0.02, 0.9]
    tones = [
        level * np.sin(2 * np.pi * 500 * (i + 1) * time)
        for i, level in enumerate(levels)
    ]
    manifest = write_corpus(tmp_path, "tone", tones)
    augmentation = Augmentation(
        {"noise": 1.0}, {"speech": NoiseBank(manifest, (0, 0), (3, 6))}
    )
    augmentation.load()
    x = crops(200)
    noise = (augmentation(x, (1, 1, KEYS[:200])) - x)[:, 0]
    power = torch.fft.rfft(noise).abs().square()[:, 250:2001:250]
    power = power / power.sum(1, keepdim=True)
    assert snr_of(x, x + noise[:, None]) == pytest.approx(0.0, abs=1e-3)
    # A voice drawn twice adds up by its phases; all others are equal.
    voices = []
    for row in power:
        heard = row[row > 1e-3]
        voices.append(len(heard))
        if len(heard) >= 5:
            equal = (heard / heard.median() - 1).abs() < 0.05
            assert equal.sum() >= len(heard) - 1
    assert min(voices) >= 1 and max(voices) == 6
    assert np.mean(voices) > 3


def test_a_short_noise_is_repeated(corpora):
    bank = NoiseBank(corpora["noise"], (0, 0))
    bank.load()
    half = torch.full((1,), 0.5)
    waves = bank.gather(torch.arange(6) / 6 + 0.01, half.expand(6), LENGTH)
    assert waves.square().mean(1) == pytest.approx(1.0, abs=1e-3)
    short = corpora["waves"]["noise"][5]
    wanted = np.tile(short, 3)[:LENGTH]
    wanted = wanted / np.sqrt(np.mean(wanted**2))
    errors = [np.abs(wave.numpy() - wanted).max() for wave in waves]
    assert min(errors) < 1e-3


def test_the_greatest_draw_is_the_last_entry(corpora):
    """In fp32 a draw just below 1 is 1.

    Once in 2^25 draws, about once an epoch on VoxCeleb2, it would index behind
    the end of the bank and end the run.
    """
    one = torch.tensor([1 - 2.0**-53], dtype=torch.float64).float()
    bank = NoiseBank(corpora["noise"], (0, 0))
    bank.load()
    below = torch.tensor([0.99])
    assert torch.isfinite(bank.gather(one, one, LENGTH)).all()
    assert torch.equal(
        bank.gather(one, below, LENGTH), bank.gather(below, below, LENGTH)
    )
    rooms = ResponseBank(corpora["rooms"])
    rooms.load()
    x = crops(1)[:, 0]
    assert torch.equal(rooms.apply(x, one), rooms.apply(x, below))


def test_probabilities_that_do_not_quite_add_up(corpora, monkeypatch):
    """Rounding must not open a fifth case above the last limit."""
    rooms = ResponseBank(corpora["rooms"])
    augmentation = Augmentation(
        {"clean": 0.5, "reverb": 0.5 - 9e-7}, responses=rooms
    )
    augmentation.load()

    def greatest(*address, size=None):
        shape = (4, 1) if size is None else (4, 1, size)
        return np.full(shape, 1 - 2.0**-53)

    module = "speechbrain_ssl.data.augmentation"
    monkeypatch.setattr(f"{module}.uniform", greatest)
    x = crops(4)
    y = augmentation(x, (1, 1, KEYS[:4]))
    # The last case that has a probability.
    assert (y != x).any(2).all()


@pytest.mark.parametrize("case", ["reverb", "noise", "both"])
def test_silence_stays_finite(corpora, tmp_path, case):
    """A silent crop, and a stretch of noise that is silent, divide by zero."""
    half = np.concatenate([np.zeros(40000), np.full(10, 0.1)])
    quiet = {**corpora, "noise": write_corpus(tmp_path, "half", [half])}
    x = crops(50)
    x[::2] = 0
    y = make(quiet, **{case: 1.0})(x, (1, 1, KEYS[:50]))
    assert torch.isfinite(y).all()
    assert (y[::2] == 0).all() and (y[1::2] != 0).any(2).all()


def test_banks_read_a_stretch_and_are_no_state(corpora):
    """A checkpoint must not carry a corpus of noise."""
    augmentation = make(corpora, both=1.0)
    assert augmentation.state_dict() == {}
    bank = NoiseBank(corpora["noise"], (0, 0), seconds=0.1)
    bank.load()
    assert bank.offsets.diff().tolist() == [1600] * 6
    assert bank.samples.dtype == torch.int16
    before = bank.samples
    bank.load()
    assert bank.samples is before
    rooms = ResponseBank(corpora["rooms"], seconds=0.01, most=3)
    rooms.load()
    assert rooms.responses.shape == (3, 160)
    rooms = ResponseBank(corpora["rooms"], most=None)
    rooms.load()
    assert len(rooms.responses) == 7


def test_each_epoch_reads_another_stretch(tmp_path):
    """Of files that are longer than what is kept, by file and epoch."""
    long = np.arange(1, 8001) / 8000
    manifest = write_corpus(tmp_path, "noise", [long, long[::-1], long[:300]])

    def kept(*epochs):
        bank = NoiseBank(manifest, (0, 0), seconds=0.05)
        bank.load()
        for epoch in epochs:
            bank.begin_epoch(epoch)
        return bank.samples.clone()

    first, second = kept(1), kept(2)
    for samples in (first, second):
        # Rising as in the file, and at full scale, as far as 16 bits go.
        rising, falling = samples[:800].float(), samples[800:1600].float()
        for part in (rising, -falling):
            assert (part.diff() >= 0).all() and part.abs().max() == 32767
    # The slope tells where a stretch lay.
    assert (first[:800] != second[:800]).any()
    assert (first[800:1600] != second[800:1600]).any()
    # A short file is kept as a whole.
    assert torch.equal(first[1600:], kept()[1600:]) and len(first) == 1900
    # A resumed run begins in the middle.
    assert torch.equal(kept(1, 2), second)
    assert torch.equal(kept(2, 1), first)


def test_a_silent_stretch_is_drawn_again(tmp_path, caplog):
    """Else a noise would be dropped, or add nothing for an epoch."""
    sound = np.random.default_rng(0).normal(0, 0.1, 8000)
    third, click = sound.copy(), np.zeros(8000)
    third[2700:], click[4000:4010] = 0, 0.1
    waves = [third] * 12 + [click] * 24 + [sound * 0]
    manifest = write_corpus(tmp_path, "noise", waves)

    def kept(*epochs):
        bank = NoiseBank(manifest, (0, 0), seconds=0.02)
        bank.load()
        for epoch in epochs:
            bank.begin_epoch(epoch)
        return [key for _, key, *_ in bank.files], bank.samples.view(-1, 320)

    files, _ = kept()
    # A click is heard in one of 25 stretches, so that some files are left out.
    assert 12 < len(files) < 36
    assert f"{37 - len(files)} of 37 noises" in caplog.text
    assert "left out; the first is" in caplog.text
    for epoch in (1, 2, 3):
        assert kept(epoch)[1].any(1).all()
    assert torch.equal(kept(2, 3)[1], kept(3)[1])
    assert (kept(2)[1] != kept(3)[1]).any()


def test_a_bank_may_keep_everything(corpora):
    bank = NoiseBank(corpora["noise"], (0, 0), seconds=float("inf"))
    bank.load()
    lengths = [len(wave) for wave in corpora["waves"]["noise"]]
    assert bank.offsets.diff().tolist() == lengths
    before = bank.samples.clone()
    bank.begin_epoch(1)
    assert torch.equal(bank.samples, before)


@pytest.mark.parametrize("kinds", ["equal", "files"])
def test_shares_of_the_kinds(tmp_path, kinds):
    """One of all files, as in WeSpeaker, or one of the kinds, as elsewhere."""
    rng = np.random.default_rng(0)
    counts = {"noise": 9, "music": 7, "speech": 4}
    banks = {}
    for number, (kind, count) in enumerate(counts.items()):
        folder = tmp_path / kind
        folder.mkdir()
        waves = [rng.normal(0, 0.1, 400) for _ in range(count)]
        # The SNR tells which kind was drawn.
        snr = (20 * number, 20 * number)
        banks[kind] = NoiseBank(write_corpus(folder, kind, waves), snr)
    augmentation = Augmentation({"noise": 1.0}, banks, kinds=kinds)
    augmentation.load()
    x = crops(views=5, length=400)
    found = snr_of(x, augmentation(x, (1, 1, KEYS))).div(20).round()
    for number, (kind, count) in enumerate(counts.items()):
        wanted = count / 20 if kinds == "files" else 1 / 3
        share = float((found == number).float().mean())
        # Four standard deviations of 2000 draws.
        assert share == pytest.approx(wanted, abs=0.043), kind


def test_one_voice_is_one_file(corpora):
    """WeSpeaker's and sslsv's "speech" is a single recording."""
    bank = NoiseBank(corpora["noise"], (0, 0))
    augmentation = Augmentation({"noise": 1.0}, {"speech": bank})
    augmentation.load()
    x = crops(20)
    added = (augmentation(x, (1, 1, KEYS[:20])) - x)[:, 0]
    for noise in added.double().numpy():
        best = 0
        for wave in corpora["waves"]["noise"][:5]:
            # Looked for everywhere in the file.
            match = np.correlate(wave, noise, "valid")
            energy = np.convolve(wave**2, np.ones(LENGTH), "valid")
            match = match / np.sqrt(energy * np.sum(noise**2))
            best = max(best, match.max())
        short = np.tile(corpora["waves"]["noise"][5], 3)[:LENGTH]
        short = short @ noise / np.sqrt(short @ short * (noise @ noise))
        assert max(best, short) > 0.999


def test_no_global_random_number_is_drawn(corpora):
    """Or a resumed run would differ from one that was never interrupted."""
    augmentation = make(corpora, reverb=0.25, noise=0.25, both=0.5)
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    augmentation(crops(50), (1, 1, KEYS[:50]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_banks_that_cannot_be(corpora):
    for wrong, word in (
        ({"seconds": 0}, "seconds"),
        ({"voices": (3, 2)}, "second number of voices"),
        ({"voices": (0, 2)}, "first number of voices"),
    ):
        with pytest.raises(ConfigError, match=word):
            NoiseBank(corpora["noise"], (0, 15), **wrong)
    for wrong, word in (({"seconds": 0}, "seconds"), ({"most": 0}, "most")):
        with pytest.raises(ConfigError, match=word):
            ResponseBank(corpora["rooms"], **wrong)
    with pytest.raises(ConfigError, match="`equal` or `files`"):
        Augmentation({"clean": 1.0}, kinds="speech")


def test_what_cannot_be_is_refused(corpora, tmp_path):
    noise = {"noise": NoiseBank(corpora["noise"], (0, 15))}
    rooms = ResponseBank(corpora["rooms"])
    for wrong in (
        {"clean": 0.5},
        {"clean": 0.5, "reverb": 0.6},
        {"clean": 1.5, "noise": -0.5},
        {"clean": 0.5, "echo": 0.5},
    ):
        with pytest.raises(ConfigError, match="add up to 1"):
            Augmentation(wrong, noise, rooms)
    nothing = {"noise": NoiseBank(None, (0, 15))}
    for case in ("noise", "both"):
        with pytest.raises(ConfigError, match="noise_csv.*or set the prob"):
            Augmentation({case: 1.0}, nothing, rooms)
    for without in (None, ResponseBank(None)):
        with pytest.raises(ConfigError, match="rirs_csv.*or set the prob"):
            Augmentation({"reverb": 1.0}, noise, without)
    silent = write_corpus(tmp_path, "silent", [np.zeros(1000)])
    with pytest.raises(ManifestError, match=r"silent\.csv are silent"):
        NoiseBank(silent, (0, 15)).load()
    with pytest.raises(AudioError, match=r"silent0\.wav is silent"):
        ResponseBank(silent).load()


@pytest.mark.parametrize(
    "bank, keys",
    [
        (
            lambda path: NoiseBank(path, (0, 15)),
            ["--noise_folder", "--noise_csv=null", "--noise=0", "--both=0"],
        ),
        (ResponseBank, ["--rirs_folder", "--rirs_csv=null", "--reverb=0"]),
    ],
    ids=["noise", "rooms"],
)
def test_a_missing_manifest_says_what_to_do(corpora, tmp_path, bank, keys):
    """It is the first thing that whoever has no MUSAN meets."""
    absent = str(tmp_path / "none.csv")
    for paths in (absent, [corpora["noise"], absent]):
        with pytest.raises(ConfigError) as caught:
            bank(paths).load()
        message = str(caught.value)
        assert f"no manifest {absent}: name a folder" in message
        assert all(key in message for key in [*keys, "--clean"])


def test_a_lossy_noise_that_ends_early(tmp_path, monkeypatch):
    """Its header promised some samples more: the stretch is filled up."""
    rng = np.random.default_rng(0)
    manifest = write_corpus(tmp_path, "noise", [rng.normal(0, 0.1, 8000)])
    bank = NoiseBank(manifest, (0, 0), seconds=0.4)
    bank.load()
    read = AudioFile.read
    monkeypatch.setattr(AudioFile, "read", lambda *a: read(*a)[:-100])
    bank.begin_epoch(1)
    assert len(bank.samples) == 6400
    assert torch.equal(bank.samples[6300:], bank.samples[:100])


def test_a_noise_that_was_cut_is_named(tmp_path):
    manifest = write_corpus(tmp_path, "noise", [np.ones(32000) / 2])
    soundfile.write(tmp_path / "noise0.wav", np.ones(8000) / 2, 16000)
    for bank in (NoiseBank(manifest, (0, 0)), ResponseBank(manifest)):
        with pytest.raises(AudioError, match="noise0.wav has 0.50 s"):
            bank.load()


def test_a_noise_that_is_cut_during_training_is_named(tmp_path):
    manifest = write_corpus(tmp_path, "noise", [np.ones(32000) / 2])
    bank = NoiseBank(manifest, (0, 0), seconds=1.0)
    bank.load()
    soundfile.write(tmp_path / "noise0.wav", np.ones(8000) / 2, 16000)
    with pytest.raises(AudioError, match="noise0.wav has 0.50 s.*restore it"):
        bank.begin_epoch(1)
