"""The study of several tasks: `python docs/tasks_study.py CIFAR10_ROOT TEACHERS OUT`.

One ResNet-8 with two heads against two ResNet-8 with one head each, distilled by the same teachers at equal budget.
CIFAR-10, 10,000 training images without augmentation. TEACHERS is the folder of Y. Idelbayev's checkpoints. The teacher
of the ten classes is ResNet-56 as published; that of animal or vehicle is ResNet-20 as published, with a classifier of
two classes fitted on the training images. Both answer each training image once; then 15 students are trained, three for
each of 5 seeds. What is finished is not done again.

`python docs/tasks_study.py --collect OUT` writes docs/studies/tasks_object.csv and tasks_kind.csv of the finished runs,
which docs/make_studies.py reads, and prints parameters, MACs and latency of one student against two.
"""

import csv
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from kd_lightning import runs
from kd_lightning.data import CIFAR10Tasks
from kd_lightning.data.images.normalize import NORMALIZATIONS
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.models.hooks import FeatureExtractor, logits_of
from kd_lightning.runs.students import load_student

KIND = {
    "animal": ["bird", "cat", "deer", "dog", "frog", "horse"],
    "vehicle": ["airplane", "automobile", "ship", "truck"],
}
DATA = {"train_size": 10_000, "val_size": 1000}
COMMON = [
    *("experiment=cifar10_tasks", *(f"data.{key}={value}" for key, value in DATA.items())),
    *(
        "data.augment.pad=0",
        "data.augment.flip=false",
        "data.batch_size=64",
        "optimizer.lr=0.1",
        "trainer.max_epochs=4",
    ),
    *("scheduler.warmup_epochs=1", "trainer.enable_progress_bar=false"),
]


def kind_teacher(root: str, checkpoint: Path, out: Path) -> None:
    """Fit a classifier of two classes on the features of a ResNet-20 of ten, and write the network with it."""
    normalize = NORMALIZATIONS["imagenet"]
    data = CIFAR10Tasks(
        root, tasks={"kind": KIND}, task="kind", normalize=normalize, augment={}, batch_size=500, **DATA
    )
    data.setup()
    network = create_model("resnet20", 10).eval()
    load_weights(network, checkpoint)
    tap = FeatureExtractor(network, ["fc:input"])
    features, labels = [], []
    with torch.no_grad():
        for batch in data.train_dataloader():
            features.append(tap(batch.x).features["fc:input"])
            labels.append(batch.y)
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit(torch.cat(features).numpy(), torch.cat(labels).numpy())
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    weight, bias = torch.tensor(fitted.coef_).float(), torch.tensor(fitted.intercept_).float()
    # Logits of both classes whose difference is the fitted one's.
    state |= {"fc.weight": torch.cat([-weight, weight]) / 2, "fc.bias": torch.cat([-bias, bias]) / 2}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, out)


def run(*words: str) -> None:
    """Run a command of the package."""
    print("python -m", *words, flush=True)
    subprocess.run([sys.executable, "-m", *words], check=True)


def main(root: str, teachers: Path, out: Path) -> None:
    """Make what is not there yet, in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    two = out / "resnet20_kind.safetensors"
    if not two.is_file():
        kind_teacher(root, teachers / "resnet20-12fca82f.th", two)
    weights = {"object": teachers / "resnet56-4bfd9763.th", "kind": two}
    live = [f"model.teacher_weights.{task}={path}" for task, path in weights.items()]
    live += ["model.teacher_normalize=imagenet", "model.teacher_cache=off"]
    for task in weights:
        answers = out / f"answers_{task}.safetensors"
        if not answers.is_file():
            words = [f"data.root={root}", f"data.task={task}", *COMMON, *live]
            run("kd_lightning.cache", "--export", str(answers), *words)
    stored = [f"model.teacher_weights.{task}={out / f'answers_{task}.safetensors'}" for task in weights]
    stored += ["model.teacher={object: stored, kind: stored}", "model.teacher_normalize=null"]
    words = [f"hydra.sweep.dir={out / 'runs'}", f"data.root={root}", *COMMON, *stored]
    run("kd_lightning.train", "-m", "seed=0,1,2,3,4", "data.task=null,object,kind", *words)


def collect(out: Path) -> None:
    """Write a line for each run and task, and print what one student costs against two."""
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in ("object", "kind")}
    first: dict[str, Path] = {}
    for finished in runs.find(out / "runs"):
        alone = finished.config.data.task
        first.setdefault(alone or "together", finished.path)
        for task in [alone] if alone else found:
            found[task].append(_line(finished, task))
    for task, lines in found.items():
        file = Path(__file__).parent / "studies" / f"tasks_{task}.csv"
        with open(file, "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(lines, key=lambda line: (line["setting"], line["seed"])))
        print(f"{file}: {len(lines)} runs")
    students = {name: load_student(path)[0] for name, path in first.items()}
    sizes = {name: runs.read(path).metrics["student"] for name, path in first.items()}
    for what in ("parameters", "macs"):
        one, two = sizes["together"][what], sizes["object"][what] + sizes["kind"][what]
        print(f"{what}: {one:,} against {two:,}, {one / two:.3f} of it")
    for count in (1, 64):
        one, two = latencies(students, torch.randn(count, 3, 32, 32))
        print(f"batch {count}: {1000 * one:.2f} ms against {1000 * two:.2f} ms, {one / two:.3f} of it")


def _line(finished: runs.Run, task: str) -> dict[str, Any]:
    alone = finished.config.data.task is not None
    prefix = "" if alone else f"{task}/"
    student, metrics, seed = finished.student, finished.metrics, finished.config.seed
    calibrated, temperature = student["calibrated"]["test"], student["calibrated"]["temperature"]
    values: dict[str, Any] = {"study": f"tasks_{task}", "setting": "alone" if alone else "together"}
    values |= {"student": finished.config.model.student, "seed": seed}
    values |= {"images_seen": metrics.get("images_seen"), "labels": DATA["train_size"]}
    values["val_accuracy"] = student["val"][f"{prefix}accuracy"]
    values |= {f"test_{name}": student["test"][prefix + name] for name in ("accuracy", "nll", "ece")}
    values |= {f"calibrated_{name}": calibrated[prefix + name] for name in ("nll", "ece")}
    values |= {"temperature": temperature if alone else temperature[task], "seconds": round(metrics["seconds"])}
    values |= {"revision": metrics.get("git_revision"), "command": "python docs/tasks_study.py data TEACHERS OUT"}
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in values.items()}


@torch.inference_mode()
def latencies(students: dict[str, nn.Module], x: torch.Tensor, rounds: int = 200) -> tuple[float, float]:
    """Return the seconds of one student of both tasks and of two students, taken in turn; medians."""
    took: dict[str, list[float]] = {name: [] for name in students}
    for _ in range(rounds):
        for name, student in students.items():
            start = time.perf_counter()
            logits_of(student, x)
            took[name].append(time.perf_counter() - start)
    pairs = [a + b for a, b in zip(took["object"], took["kind"], strict=True)]
    return median(took["together"]), median(pairs)


if __name__ == "__main__":
    if sys.argv[1] == "--collect":
        collect(Path(sys.argv[2]))
    else:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
