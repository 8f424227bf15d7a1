"""What a finished run shows in TensorBoard."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.training.pictures import samples_figure
from kd_lightning.training.run import train
from tests.conftest import compose


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_a_run_ends_with_pictures_and_hyperparameters(tmp_path, teacher_run, cache):
    out = tmp_path / "run"
    metrics = train(compose(f"model.teacher_weights={teacher_run}", f"model.teacher_cache={cache}"), out)
    events = list(out.glob("events.out.*"))
    assert len(events) == 1, "one file a run"
    seen = EventAccumulator(str(out)).Reload()
    assert set(seen.Tags()["images"]) == {"test/confusion", "test/reliability", "test/samples"}
    assert {"train/loss", "train/ce", "train/kd", "train/agreement", "train/lr"} <= set(seen.Tags()["scalars"])
    assert seen.Scalars("final/accuracy")[-1].value == pytest.approx(metrics["student"]["best"]["test"]["accuracy"])
    assert set(seen.Tags()["histograms"]) == {"soft_labels/student", "soft_labels/teacher"}
    assert {"val/entropy", "val/teacher_entropy", "train/kd_over_ce"} <= set(seen.Tags()["scalars"])
    assert "_hparams_/session_start_info" in seen.summary_metadata


def test_a_samples_figure_names_what_each_model_says():
    probabilities = {"student": torch.tensor([[0.7, 0.2, 0.1]]), "teacher": torch.tensor([[0.1, 0.1, 0.8]])}
    figure = samples_figure(torch.rand(1, 8, 8, 3), torch.tensor([0]), probabilities, ["cat", "dog", "eel"])
    words = [(t.get_text(), t.get_color()) for axes in figure.axes for t in axes.texts]
    assert any("70% cat" in text and color == "tab:green" for text, color in words)
    assert any("80% eel" in text and color == "tab:red" for text, color in words)
