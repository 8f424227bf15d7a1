"""What a finished run shows in TensorBoard."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.report.pictures import confusion_figure, samples_figure
from kd_lightning.train import train
from tests.conftest import compose


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_a_run_ends_with_pictures_and_hyperparameters(tmp_path, teacher_run, cache):
    out = tmp_path / "run"
    metrics = train(compose(f"model.teacher_weights={teacher_run}", f"model.teacher_cache={cache}"), out)
    events = list(out.glob("events.out.*"))
    assert len(events) == 1, "one file a run"
    seen = EventAccumulator(str(out)).Reload()
    assert set(seen.Tags()["images"]) == {"test/confusion", "test/samples"}
    assert {"train/loss", "train/ce", "train/kd", "train/agreement", "train/lr"} <= set(seen.Tags()["scalars"])
    assert seen.Scalars("final/accuracy")[-1].value == pytest.approx(metrics["student"]["best"]["test"]["accuracy"])
    assert "_hparams_/session_start_info" in seen.summary_metadata


def test_a_confusion_figure_shows_shares_of_the_true_class():
    figure = confusion_figure(torch.tensor([[3, 1], [0, 0]]), ["cat", "dog"])
    image = figure.axes[0].images[0].get_array()
    assert image.tolist() == [[0.75, 0.25], [0.0, 0.0]], "a class without samples has no share, not NaN"
    assert [t.get_text() for t in figure.axes[0].texts] == ["75%", "25%"]


def test_a_samples_figure_names_what_each_model_says():
    probabilities = {"student": torch.tensor([[0.7, 0.2, 0.1]]), "teacher": torch.tensor([[0.1, 0.1, 0.8]])}
    figure = samples_figure(torch.rand(1, 8, 8, 3), torch.tensor([0]), probabilities, ["cat", "dog", "eel"])
    words = [(t.get_text(), t.get_color()) for axes in figure.axes for t in axes.texts]
    assert any("70% cat" in text and color == "tab:green" for text, color in words)
    assert any("80% eel" in text and color == "tab:red" for text, color in words)
