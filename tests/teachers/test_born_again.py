"""Self-distillation: a generation is taught by the run of the same seed of the generation before."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import runs
from kd_lightning.runs.students import load_student


@pytest.mark.slow  # test_chain.py has generations, too
@pytest.mark.usefixtures("no_pictures")
def test_two_generations(cli: Any) -> None:
    words = ("experiment=born_again", "seed=1,2", "trainer.max_epochs=4", "model.teacher=${model.student}")
    first = cli(*words, "hydra.sweep.dir=outputs/born_again/1")
    assert first.status == 0, first.err
    parents = "model.teacher_weights=outputs/born_again/1/${seed}"
    second = cli(*words, "hydra.sweep.dir=outputs/born_again/2", parents)
    assert second.status == 0, second.err
    for seed in ("1", "2"):
        parent, child = (runs.read(Path("outputs/born_again") / n / seed) for n in ("1", "2"))
        assert parent.config.model.teacher == parent.config.model.student == "resnet8"
        assert child.config.model.teacher_weights == f"outputs/born_again/1/{seed}"
        told = parent.student["test"]
        assert child.metrics["teacher"]["test"]["accuracy"] == pytest.approx(told["accuracy"], abs=1e-6)
        assert child.metrics["teacher"]["test"]["nll"] == pytest.approx(told["nll"], rel=1e-4)
        assert not same_weights(parent.path, child.path)
    assert len([p for p in Path("outputs/teachers").iterdir() if p.is_dir()]) == 1  # generation 0, for both seeds


def same_weights(a: Path, b: Path) -> bool:
    models = (load_student(path)[0] for path in (a, b))
    return all(torch.equal(p, q) for p, q in zip(*(m.parameters() for m in models), strict=True))
