"""Recordings: what is read, held out and shown, and one clear message for each thing that is wrong."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from kd_lightning.data import AudioFolderDataModule, SpeechDigitsDataModule
from kd_lightning.data.audio import speech_digits
from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.audio.read import read
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError

soundfile = pytest.importorskip("soundfile")
CONF = Path(__file__).parents[2] / "conf" / "data"
RATE = 4000
TONES = {"high": 1500.0, "low": 300.0}
AUGMENT = {"views": 4, "shift": 0.1, "time_mask": 0.2, "band_mask": 4}


def tone(frequency: float, seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone in noise, float32 `[L]`."""
    noise = 0.02 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(len(noise)) / rate) + noise).astype(np.float32)


def write(path: Path, wave: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return path


def recordings(folder: Path, count: int, seed: int = 0) -> Path:
    """Fill a folder with `count` tones of each class."""
    for c, (name, frequency) in enumerate(TONES.items()):
        for i in range(count):
            seconds = 0.2 + 0.02 * (i % 10)
            write(
                folder / name / f"{i}.{('wav', 'flac')[i % 2]}",
                tone(frequency + 5 * i, seconds, seed=seed + 100 * c + i),
            )
    return folder


def make(root: Path, **values) -> AudioFolderDataModule:
    given = {"sample_rate": RATE, "seconds": 0.4, "bands": 16, "batch_size": 8, "augment": AUGMENT} | values
    return AudioFolderDataModule(root, **given)


def opened(root: Path, **values) -> AudioFolderDataModule:
    data = make(root, **values)
    data.prepare_data()
    data.setup()
    return data


def test_batches_and_held_out_splits(tmp_path, capsys):
    data = opened(recordings(tmp_path, 10))
    assert data.sizes == {"train": 16, "val": 2, "test": 2} and data.classes == ["high", "low"]
    assert "test: held out 2 of 20 training recordings" in capsys.readouterr().out
    batch = next(iter(data.train_dataloader()))
    assert batch.x.shape == (8, 1, 16, data.logmel.frames) and batch.x.dtype == torch.float32
    assert batch.view is not None and batch.view.max() < 4
    assert data.example(3).shape == (3, *batch.x.shape[1:])
    facts = data.model_kwargs()
    assert (facts["num_classes"], facts["bands"], facts["frames"]) == (2, 16, data.logmel.frames)
    assert data.fingerprint() == opened(tmp_path, seed=5, batch_size=4).fingerprint()
    assert data.fingerprint() != opened(tmp_path, bands=12).fingerprint()
    assert data.samples_fingerprint() == opened(tmp_path, bands=12).samples_fingerprint()


def test_folders_that_are_there_are_used(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        recordings(tmp_path / split, count)
    assert opened(tmp_path).sizes == {"train": 12, "val": 6, "test": 4}


def shown(data: AudioFolderDataModule, epoch: int, batch_size: int = 8) -> dict[int, torch.Tensor]:
    source = data.splits["train"]
    order = torch.arange(len(source)).flip(0)
    batches = source.batches(order, batch_size, data.seed, epoch, torch.device("cpu"))
    return {int(i): x for batch in batches for i, x in zip(batch.index, batch.x, strict=True)}


def test_augmentation_is_a_function_of_seed_epoch_and_index(tmp_path):
    data = opened(recordings(tmp_path, 10))
    first, again, later = shown(data, 3), shown(data, 3, batch_size=5), shown(data, 4)
    for i, x in first.items():
        torch.testing.assert_close(x, again[i], rtol=0, atol=1e-6)
    assert sum(not torch.equal(x, later[i]) for i, x in first.items()) > len(first) // 2
    source, plain = data.splits["train"], data.plain_train()
    index = torch.arange(len(source))
    for i, view in enumerate(data.epoch_views(3).tolist()):
        torch.testing.assert_close(
            source.render(index[i : i + 1], torch.tensor([view]))[0], first[i], rtol=0, atol=1e-6
        )
    views = torch.stack([source.render(index, torch.full_like(index, view)) for view in range(4)])
    assert all(not torch.equal(views[0, i], views[1, i]) for i in range(len(source)))
    unchanged = torch.cat([b.x for b in plain.batches(index, 8, 0, 3, torch.device("cpu"))])
    hidden = (views == 0).sum((2, 3, 4))  # masks are zero, which no tone in noise is
    assert hidden.max() > 0 and not (unchanged == 0).any()
    assert hidden.max() <= 4 * data.logmel.frames + 16 * round(0.2 / data.logmel.hop)


def test_a_shift_moves_the_waveform(tmp_path):
    data = opened(recordings(tmp_path, 10), augment={"views": 8, "shift": 0.05})
    source, plain, index = data.splits["train"], data.plain_train(), torch.arange(16)
    for view in range(8):
        shifts = data.augment.shifts(index, torch.full_like(index, view), RATE)
        assert shifts.abs().max() <= 200
        waves, still = source.waves(index, torch.full_like(index, view)), plain.waves(index, torch.zeros_like(index))
        for wave, before, by in zip(waves, still, shifts.tolist(), strict=True):
            expected = torch.zeros_like(before)
            expected[max(by, 0) : len(before) + min(by, 0)] = before[max(-by, 0) : len(before) - max(by, 0)]
            assert torch.equal(wave, expected)


def test_few_labels(tmp_path):
    data = opened(recordings(tmp_path, 10), label_fraction=0.25)
    labels = torch.cat([batch.y for batch in data.train_dataloader()])
    assert len(data.labelled) == 4 and (labels != UNLABELED).sum() == 4
    assert data.fingerprint() == opened(tmp_path).fingerprint()


# What is read


def test_16_bits_are_read_as_they_are_and_the_middle_is_kept(tmp_path):
    wave = np.arange(-500, 501, dtype=np.int16)
    write(tmp_path / "a.wav", wave)
    assert (read(tmp_path / "a.wav", RATE, 1001).wave == wave).all()
    middle = read(tmp_path / "a.wav", RATE, 11)
    assert middle.cut and (middle.wave == np.arange(-5, 6)).all()
    longer = read(tmp_path / "a.wav", RATE, 1011)
    assert not longer.cut and (longer.wave[5:-5] == wave).all() and not longer.wave[:5].any()


@pytest.mark.parametrize(("rate", "hop"), [(44_100, 0.01), (44_100, 0.02), (16_000, 0.03)])
def test_a_spectrogram_has_as_many_frames_as_it_says(rate, hop):
    """1,411 samples of a window, an odd number, were one frame too many."""
    front = LogMel(rate, 1.0, 0.032, hop, 16)
    assert front(torch.zeros(1, front.samples)).shape == (1, 1, 16, front.frames)


@pytest.mark.parametrize("rate", [8000, 44_100, 2000])
def test_another_rate_gives_the_same_tone(rate, tmp_path):
    write(tmp_path / "a.wav", tone(300, 0.5, rate), rate)
    found = read(tmp_path / "a.wav", RATE, 1600)
    assert found.rate == rate and found.cut
    spectrum = np.abs(np.fft.rfft(found.wave))
    assert abs(np.argmax(spectrum) * RATE / 1600 - 300) < 3
    assert np.abs(found.wave).max() / 32768 == pytest.approx(0.35, abs=0.06)


def test_what_is_done_to_files_is_said_once(tmp_path, capsys):
    root = recordings(tmp_path, 10)
    write(root / "low" / "stereo.wav", np.stack([tone(300, 0.3), np.zeros(1200, np.float32)], 1))
    for i in range(3):
        write(root / "low" / f"fast{i}.wav", tone(300 + i, 0.3, 8000), 8000)
    write(root / "low" / "long.flac", tone(300, 2.0))
    write(root / "low" / "silent.wav", np.zeros(1000, np.float32))
    write(root / "low" / "empty.wav", np.zeros(0, np.float32))
    soundfile.write(root / "low" / "loud.wav", 2 * tone(300, 0.3) / 0.3, RATE, subtype="FLOAT")
    os.rename(root / "low" / "fast2.wav", os.fsencode(root / "low") + b"/caf\xe9.wav")  # a name that is not UTF-8
    write(root / "high" / "silent too.wav", np.zeros(1000, np.float32))
    (root / "low" / "notes.txt").write_text("not a recording")
    data = opened(root)
    out = capsys.readouterr().out
    assert sum(data.sizes.values()) == 28
    for line in (
        f"{root}: left out 1 × .txt file",
        "train: 3 of 28 recordings are resampled from 8,000 to 4,000 Hz (data.sample_rate)",
        "train: 1 of 28 recordings have several channels, of which the mean is taken",
        "train: 1 of 28 recordings are longer than data.seconds and keep their middle",
        f"train: 2 of 28 recordings are silent, such as {root / 'high' / 'silent too.wav'}",
        f"train: left out 1 × recording of 0 seconds, such as {root / 'low' / 'empty.wav'}",
        f"train: 1 of 28 recordings go beyond full scale and are clipped, such as {root / 'low' / 'loud.wav'}",
        f"warning: {root}: 1 of 28 training recordings have a copy in another class; no model can tell them apart",
    ):
        assert out.count(line) == 1, line
    for batch in data.train_dataloader():
        assert batch.x.isfinite().all()


def test_a_copy_of_a_recording_that_is_held_out_leaves_train(tmp_path, capsys):
    root = recordings(tmp_path, 10)
    for name in TONES:
        for path in list((root / name).iterdir()):
            (root / name / f"copy of {path.name}").write_bytes(path.read_bytes())
    data = opened(root, val_size=0)
    assert data.sizes["train"] < 36 and "copy of one of them in train" in capsys.readouterr().out
    waves = {name: {w.numpy().tobytes() for w in data.splits[name].padded} for name in ("test",)}
    assert not waves["test"] & {w.numpy().tobytes() for w in data.plain_train().padded}


def broken(root: Path) -> None:
    (root / "low" / "0.wav").write_bytes(b"RIFF, or so it says")


def cut_off(root: Path) -> None:
    whole = (root / "low" / "1.flac").read_bytes()
    (root / "low" / "1.flac").write_bytes(whole[: len(whole) // 2])


def not_finite(root: Path) -> None:
    soundfile.write(root / "low" / "0.wav", np.full(100, np.nan, np.float32), RATE, subtype="FLOAT")


def no_audio(root: Path) -> None:
    for path in (root / "low").iterdir():
        path.rename(path.with_suffix(".mp4"))


def all_empty(root: Path) -> None:
    for path in list(root.glob("*/*")):
        path.unlink()
        soundfile.write(path.with_suffix(".wav"), np.zeros(0, np.float32), RATE)


def one_recording(root: Path) -> None:
    for path in sorted((root / "low").iterdir())[1:]:
        path.unlink()


def wrong_rate(root: Path) -> None:
    content = bytearray((root / "low" / "0.wav").read_bytes())
    content[24:28] = (16_777_213).to_bytes(4, "little")  # a prime: resampling from it would take 2.7 GB and more
    (root / "low" / "0.wav").write_bytes(content)


def unreadable(root: Path) -> None:
    (root / "low" / "0.wav").unlink()
    (root / "low" / "0.wav").mkdir()
    (root / "low" / "1.wav").write_bytes(b"no audio")


def only_a_test(root: Path) -> None:
    (root / "high").rename(root / "test")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (broken, r"cannot read .*low/0\.wav: .+; remove or replace"),
        (cut_off, r"cannot read .*low/1\.flac: .+; remove or replace"),
        (not_finite, r"cannot read .*low/0\.wav: it holds NaN or infinity; remove"),
        (wrong_rate, r"cannot read .*low/0\.wav: its header says 16,777,213 samples per second; remove"),
        (no_audio, r"class folder .*low has no recordings \(10 × \.mp4 file left out\)"),
        (all_empty, r"all 20 recordings are empty"),
        (
            one_recording,
            r"every class of .* needs 3 or more recordings, one for each of train, test, val: low has 1; add",
        ),
        (unreadable, r"cannot read .*low/1\.wav: .+; remove or replace"),
        (only_a_test, r"must have a folder train with one folder of recordings per class"),
    ],
)
def test_what_is_wrong_is_one_line(spoil, told, tmp_path):
    spoil(recordings(tmp_path, 10))
    with pytest.raises(UserError, match=told) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"augment": {"shift": -1}}, r"data\.augment\.shift must be a number >= 0"),
        ({"augment": {"views": 0}}, r"data\.augment\.views must be a whole number >= 1"),
        ({"augment": {"shifts": 1}}, r"unknown key data\.augment\.shifts.*did you mean 'shift'"),
        ({"augment": 3}, r"data\.augment must have the keys views, shift"),
        ({"label_fraction": 2}, r"data\.label_fraction must be a number > 0"),
        ({"test_size": 0}, r"data\.test_size must be a number > 0"),
        ({"image_size": 3}, r"unknown key data\.image_size"),
    ],
)
def test_a_wrong_value_is_one_line(values, told, tmp_path):
    with pytest.raises(UserError, match=told):
        make(tmp_path, **values)
    with pytest.raises(UserError, match=r"data\.root=.*none: there is no such folder"):
        make(tmp_path / "none").prepare_data()


# Spoken digits


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The names of the data set, with two takes to train and one to test, and hardly a sound."""
    monkeypatch.setattr(speech_digits, "TAKES", 3)
    monkeypatch.setattr(speech_digits, "TEST_TAKES", 1)
    monkeypatch.setattr(speech_digits, "COUNT", 180)
    for digit in range(10):
        for number, speaker in enumerate(speech_digits.SPEAKERS):
            for take in range(3):
                wave = tone(200 + 100 * digit, 0.05, seed=100 * digit + 10 * number + take)
                write(tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav", wave)
    return tmp_path


def said(root: Path, **values) -> SpeechDigitsDataModule:
    data = SpeechDigitsDataModule(root, **{"sample_rate": RATE, "seconds": 0.2, "bands": 16, "val_size": 0.2, **values})
    data.prepare_data()
    data.setup()
    return data


def test_the_published_split(digits):
    data = said(digits)
    assert data.classes == list("0123456789") and data.sizes == {"train": 100, "val": 20, "test": 60}
    test = {read(digits / "recordings" / f"3_theo_{take}.wav", RATE, 800).wave.tobytes() for take in (0, 1, 2)}
    assert sum(w.numpy().tobytes() in test for w in data.splits["test"].padded) == 1


def test_no_speaker_of_the_test_is_trained_on(digits, capsys):
    seen = set()
    for seed in range(6):
        data = said(digits, split="speaker", split_seed=seed)
        assert data.sizes == {"train": 120, "val": 30, "test": 30}
        seen.add(capsys.readouterr().out.split("data.split=speaker: ")[1].split(" is the test")[0])
    assert seen == set(speech_digits.SPEAKERS)
    first = said(digits, split="speaker", split_seed=0)
    george = {read(path, RATE, 800).wave.tobytes() for path in (digits / "recordings").glob("*_george_*.wav")}
    assert {w.numpy().tobytes() for w in first.splits["test"].padded} == george
    assert len({said(digits, **v).fingerprint() for v in ({}, {"split": "speaker"}, {"split_seed": 1})}) == 3


def test_a_download_is_unpacked_and_checked(digits, tmp_path_factory, monkeypatch):
    archive = tmp_path_factory.mktemp("home") / "fsdd.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(digits / "recordings", "free-spoken-digit-dataset-1.0.10/recordings")
        evil = tarfile.TarInfo("../../outside.wav")
        tar.addfile(evil, io.BytesIO())
    monkeypatch.setattr(speech_digits, "URL", archive.as_uri())
    root = tmp_path_factory.mktemp("new") / "fsdd"
    assert said(root).fingerprint() == said(digits).fingerprint()
    assert sorted(os.listdir(root)) == [".speech_digits.lock", "recordings"]
    (root / "recordings" / "0_theo_0.wav").unlink()
    with pytest.raises(UserError, match="has 179 of 180 recordings there; put its folder recordings"):
        said(root)
    monkeypatch.setattr(speech_digits, "COUNT", 200)
    with pytest.raises(UserError, match=r"is not as published: .* has 180 recordings"):
        said(root.parent / "other")
    monkeypatch.setattr(speech_digits, "URL", (archive.parent / "none.tar.gz").as_uri())
    with pytest.raises(UserError, match="could not be downloaded"):
        said(root.parent / "third")
    with pytest.raises(UserError, match=r"data\.split must be one of published, speaker"):
        SpeechDigitsDataModule(digits, split="speakers")


@pytest.mark.parametrize(("name", "root"), [("speech_digits", "data"), ("audio_folder", "mine")])
def test_the_presets_are_understood(name, root):
    config = OmegaConf.merge({"seed": 1}, {"data": OmegaConf.load(CONF / f"{name}.yaml")}, {"data": {"root": root}})
    data = instantiate(config.data)
    assert data.name == name and data.num_views == 32 and data.logmel.bands == 32
