"""What a finished run shows in TensorBoard."""

import re
import shlex
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.losses import CE
from kd_lightning.losses.distillation import Distillation
from kd_lightning.plots.evaluation import confusion_figure, save
from kd_lightning.runs.command import Command, Sweep
from kd_lightning.training.pictures import panel, samples_figure, samples_text
from kd_lightning.training.record import hyperparameters as hparams
from kd_lightning.training.run import train
from kd_lightning.training.tensorboard import LAYOUT
from tests.conftest import compose


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_a_run_ends_with_pictures_and_hyperparameters(tmp_path, teacher_run, cache):
    out = tmp_path / "run"
    metrics = train(compose(f"model.teacher_weights={teacher_run}", f"model.teacher_cache={cache}"), out)
    events = list(out.glob("events.out.*"))
    assert len(events) == 1, "one file a run"
    seen = EventAccumulator(str(out)).Reload()
    assert set(seen.Tags()["images"]) == {"z_test/confusion", "z_test/reliability", "z_test/samples"}
    assert {"train/loss", "train/ce", "train/kd", "train/agreement", "train/lr"} <= set(seen.Tags()["scalars"])
    assert seen.Scalars("z_test/accuracy")[-1].value == pytest.approx(metrics["student"]["best"]["test"]["accuracy"])
    assert set(seen.Tags()["histograms"]) == {"z_soft_labels/student", "z_soft_labels/teacher"}
    assert {"val/entropy", "val/teacher_entropy", "train/kd_over_ce"} <= set(seen.Tags()["scalars"])
    assert "_hparams_/session_start_info" in seen.summary_metadata


def test_a_samples_figure_names_what_each_model_says():
    probabilities = {"student": torch.tensor([[0.7, 0.2, 0.1]]), "teacher": torch.tensor([[0.1, 0.1, 0.8]])}
    figure = samples_figure(torch.rand(1, 8, 8, 3), torch.tensor([0]), probabilities, ["cat", "dog", "eel"])
    words = [(t.get_text(), t.get_color()) for axes in figure.axes for t in axes.texts]
    assert any("70% cat" in text and color == "tab:green" for text, color in words)
    assert any("80% eel" in text and color == "tab:red" for text, color in words)


def test_a_long_name_of_a_class_leaves_room_for_the_figure(tmp_path):
    figure = confusion_figure({"student": [[1, 0], [0, 1]]}, ["x" * 120, "y"])
    save(figure, tmp_path / "a.png")  # warned that nothing was left for the axes
    assert figure.axes[0].get_yticklabels()[0].get_text() == "x" * 23 + "…"


def test_a_table_of_sentences_shows_them_as_they_are():
    probabilities = {"student": torch.tensor([[0.7, 0.3], [0.7, 0.3]])}
    texts = ["**not** bold, <b>\nnor | a _cell_", "long " * 1000]
    table = samples_text(texts, torch.tensor([1, 0]), probabilities, ["a|b", "c"]).splitlines()
    assert table[2] == r"| \*\*not\*\* bold, \<b\> nor \| a \_cell\_ | c | **70% a\|b** |"
    assert len(table) == 6 and len(table[3]) < 350 and table[3].endswith(r"… | a\|b | 70% a\|b |")


def test_what_people_look_at_first(tmp_path, teacher_run):
    out = tmp_path / "run"
    train(compose(f"model.teacher_weights={teacher_run}", "model.teacher_cache=off"), out)
    seen = EventAccumulator(str(out)).Reload()
    groups = dict.fromkeys(sorted(tag.partition("/")[0] for tag in seen.Tags()["scalars"]))
    assert list(groups) == ["train", "val", "z_test"], "few groups, and single dots come last"
    layout = seen.summary_metadata["custom_scalars__config__"].plugin_data
    assert layout.plugin_name == "custom_scalars"
    assert "run/text_summary" in seen.Tags()["tensors"]
    text = seen.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| teacher |" in text and "| student, last (deployed) |" in text
    assert re.search(r"Calibrated with T = \d\.\d\d, as it is deployed: NLL \d\.\d{3}, ECE 0\.\d{3}\.", text)


def test_the_panel_shows_a_long_command_whole(monkeypatch):
    words = ["python", "-m", "kd_lightning.train", *(f"data.key_{i}=a value of {i}" for i in range(9))]
    monkeypatch.setattr("kd_lightning.training.pictures.train_command", lambda: words)
    text = panel({"student": {"last": {"test": {"accuracy": 0.5, "nll": 1.0, "ece": 0.1}}}, "select": "last"})
    command = [line.removeprefix("    ") for line in text.partition("\n\n")[0].splitlines()]
    assert len(command) > 1 and all(len(line) <= 100 for line in command)
    assert shlex.split("\n".join(command).replace("\\\n", "")) == words


def test_the_layout_joins_what_belongs_together():
    terms, accuracy, *_ = (lines for [_, lines] in LAYOUT["distillation"].values())
    tags = ["train/loss", "train/ce", "train/kd", "train/accuracy", "train/lr", "val/accuracy", "val/teacher_accuracy"]
    assert [tag for tag in ["train/epoch", *tags] if re.match(terms[0], tag)] == tags[:3]
    assert [tag for tag in tags if re.match(accuracy[0], tag)] == ["train/accuracy", "val/accuracy", tags[-1]]


def test_hparams_of_a_sweep_are_what_it_sweeps_over(monkeypatch):
    cfg = compose("loss=ce", "seed=1")
    run = SimpleNamespace(loss=Distillation(CE()), teachers=(), data=None, trainer=None)
    monkeypatch.setattr(Command(), "sweep", Sweep(("optimizer.lr", "seed"), 4))
    assert list(hparams(cfg, run).items()) == [("loss", "ce"), ("optimizer.lr", 0.05), ("seed", 1)]
