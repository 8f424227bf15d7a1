"""Teachers with other classes than the data: picked, ordered, or refused with names that are near."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision import models

from kd_lightning.models import create_model
from kd_lightning.models.published import imagenet_classes, published
from kd_lightning.runs.students import load_student, save_weights
from kd_lightning.teachers.classes import chosen_classes
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

ANIMALS = ("tabby cat", "beagle dog", "dog", "cat", "horse")


def test_a_mapping_picks_by_name_or_number_and_a_list_orders() -> None:
    picked = {"cat": "tabby cat", "dog": 2}
    assert chosen_classes(picked, ANIMALS, ["dog", "cat"], "") == (list(ANIMALS), [2, 0])
    assert chosen_classes(["cat", "fox", "dog"], ["dog", "cat"], ["dog", "cat"], "")[1] == [2, 0]
    assert chosen_classes(None, ANIMALS, ["dog", "cat"], "")[1] == [2, 3], "it knows its own names"
    assert chosen_classes(None, ["dog", "cat"], ["dog", "cat"], "")[1] is None


@pytest.mark.parametrize(
    ("wanted", "classes", "told"),
    [
        (None, ["cats", "dog"], r"its 5 classes lack 1 of the data's 2: 'cats' \(near: cat"),
        (["cat", "dgo"], ["cat", "dog"], r"teacher_classes\[1\] lacks 'dog'; did you mean 'dgo'\?"),
        ({"cat": "tabby", "dog": 2}, ["cat", "dog"], r"teacher_classes\[1\]\.cat: the teacher has no class 'tabby'"),
        ({"cat": 5, "dog": 2}, ["cat", "dog"], r"teacher_classes\[1\]\.cat must be a whole number .* 4, got 5"),
        ({"cat": 3}, ["cat", "dog"], r"teacher_classes\[1\] lacks 'dog'"),
        ({"cat": 3, "dgo": 2}, ["cat", "dog"], r"'dgo' is no class of the data; did you mean 'dog'\?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(wanted: object, classes: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        chosen_classes(wanted, ANIMALS, classes, "[1]")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_name_that_a_teacher_has_twice_is_picked_by_number() -> None:
    """A crane is a bird and a machine: the first of them would teach about the other in silence."""
    names = ["crane", "tabby", "crane"]
    for wanted in (None, names, {"crane": "crane", "tabby": "tabby"}):
        with pytest.raises(UserError, match=r"has 'crane' at the outputs 0, 2; give the number"):
            chosen_classes(wanted, names, ["crane", "tabby"], "")
    assert chosen_classes({"crane": 2, "tabby": "tabby"}, names, ["crane", "tabby"], "")[1] == [2, 1]


def test_a_classifier_of_another_size_says_what_to_name(tmp_path: Path) -> None:
    net = create_model("resnet8", 1000)
    save_weights(tmp_path / "net.safetensors", net)
    with pytest.raises(UserError, match=r"classifier has 1,000 classes and the data 10: .*model\.teacher_classes=\["):
        train(compose(f"model.teacher_weights={tmp_path / 'net.safetensors'}"), tmp_path / "run")


@pytest.mark.usefixtures("no_pictures")
def test_a_run_of_other_classes_is_not_taken_in_silence(tmp_path: Path) -> None:
    train(compose("loss=ce", "model.student=resnet8", "trainer.max_epochs=3"), tmp_path / "teacher")
    model, card = load_student(tmp_path / "teacher")
    flipped = tmp_path / "flipped.safetensors"  # the same network, whose outputs and their names are in another order
    with torch.no_grad():
        model.fc.weight.copy_(model.fc.weight.flip(0))
        model.fc.bias.copy_(model.fc.bias.flip(0))
    save_weights(flipped, model, replace(card, classes=card.classes[::-1]))
    runs = [train(compose(f"model.teacher_weights={path}"), tmp_path / path.stem) for path in
            (tmp_path / "teacher" / "student.safetensors", flipped)]  # fmt: skip
    assert runs[0]["teacher"]["test"] == runs[1]["teacher"]["test"]


def test_published_networks_say_what_they_were_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = published("resnet18", "model.teacher_weights", images=True)
    assert known.image_size == 224 and known.classes == imagenet_classes() and len(known.classes) == 1000
    assert known.normalize == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    with pytest.raises(UserError, match="'resnet8' is not published with weights"):
        published("resnet8", "model.teacher_weights", images=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    name = models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "checkpoints" / name)
    picks = "{" + ", ".join(f"{digit}: {7 * digit}" for digit in range(10)) + "}"
    words = ("model.teacher=squeezenet1_1", "model.teacher_weights=published", "data.train_size=64")
    with pytest.raises(UserError, match=r"1,000 classes lack 10 of the data's 10: '0' \(near"):
        train(compose(*words), tmp_path / "refused")
    with pytest.raises(UserError, match=r"the teacher is right on .* and chance is"):  # its weights are random
        train(compose(*words, f"model.teacher_classes={picks}"), tmp_path / "run")
