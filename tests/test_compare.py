"""The command, the end of a sweep, and a sweep that is run again."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hydra import initialize_config_dir

from kd_lightning import runs
from kd_lightning.compare import main
from kd_lightning.config import CONF_DIR
from kd_lightning.report.commands import repeat_command, train_command
from kd_lightning.report.folders import compare_folders
from kd_lightning.report.groups import Setting
from kd_lightning.report.sweep import announcement
from kd_lightning.runs import claims
from kd_lightning.runs.directory import Run
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished, compose, environment

Cli = Callable[..., Finished]
SWEEP = ("-m", "loss=ce", "seed=0,1", "hydra.sweep.dir=sweep")


def test_an_empty_folder_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("error: no finished run: no run below") and err.count("\n") == 1


def test_the_report_goes_where_it_is_told(teacher_run: Path, tmp_path: Path) -> None:
    main([str(teacher_run), "--out", str(tmp_path / "new" / "out")])
    files = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert files == ["comparison.csv", "comparison.html", "comparison.md"]


def test_the_command_of_a_row_repeats_its_run(cli: Cli, teacher_run: Path) -> None:
    words = shlex.split(repeat_command(compare_folders([teacher_run]).results[0].setting.first))
    assert cli(*words[3:], tiny=False).status == 0
    again = runs.read(Path("outputs/train/again"))
    assert again.config == runs.read(teacher_run).config
    assert again.metrics["student"] == runs.read(teacher_run).metrics["student"]


def test_a_network_s_arguments_and_a_teacher_s_recipe_are_words() -> None:
    """They needed the run's own config.yaml, with a path that no other machine has."""
    words = ("teacher_stage=adamw", "model.student=text_bag", "+model.student_kwargs.dropout=0.5")
    run = Run(Path("r"), compose(*words), {})
    told = shlex.split(train_command(Setting("", {}, {"0": run}, {})))
    assert {*words} <= {*told} and "--config-path" not in told


def test_an_unwritable_folder_is_one_line(
    teacher_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(teacher_run), "--out", str(tmp_path / "file")])
    assert stop.value.code == 2 and "--out" in capsys.readouterr().err


def test_what_is_typed_replaces_what_the_experiment_sweeps(tmp_path: Path) -> None:
    """Plain trainings were told that they need a teacher, because the experiment's list of losses has distillation."""
    words = ["experiment=benchmark_digits", "seed=0", f"hydra.sweep.dir={tmp_path}"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        plain = hydra.compose("train", [*words, "loss=ce"], return_hydra_config=True)
        listed = hydra.compose("train", words, return_hydra_config=True)
    assert announcement(plain).startswith("sweep: 1 run of 20 epochs, 20 epochs in all. After")
    assert announcement(listed).startswith("sweep: 24 runs of 20 epochs, 480 epochs in all; a teacher that is not kept")


def test_a_sweep_is_announced_compared_and_goes_on(cli: Cli) -> None:
    first = cli(*SWEEP)
    assert first.status == 0 and "sweep: 2 runs of 1 epoch, 2 epochs in all" in first.out
    assert "power: 2 seeds cannot show a gain; 3 are the fewest" in first.out
    assert "report: sweep/comparison.html" in first.out and Path("sweep/comparison.csv").is_file()
    done, stopped = Path("sweep/0_seed0"), Path("sweep/1_seed1")
    weights = (done / "student.safetensors").stat().st_mtime_ns
    metrics = runs.read(stopped).metrics
    (stopped / runs.METRICS).unlink()  # as if it had been killed in its tests

    again = cli(*SWEEP)
    assert again.status == 0 and "1 finished run lies there already and is not run again" in again.out
    assert "finished before, not run again: sweep/0_seed0" in again.out
    assert (done / "student.safetensors").stat().st_mtime_ns == weights
    resumed = runs.read(stopped).metrics
    assert resumed["parts"] == 2 and resumed["student"] == metrics["student"]

    other = cli(*SWEEP, "optimizer.lr=0.01")
    assert other.status != 0 and "sweep/0_seed0 holds a run with optimizer.lr=0.05, not 0.01" in other.err


def test_help_is_quick_and_loads_no_torch() -> None:
    code = "import sys; from kd_lightning.compare import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'lightning', 'scipy', 'hydra')))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), stdout=subprocess.DEVNULL).returncode == 0


def test_a_run_is_recognized_by_what_is_learned(tmp_path: Path) -> None:
    config = compose("loss=kd", "loss.temperature=4")
    assert not claims.holds(tmp_path, config)
    claims.claim(tmp_path, config, resume=False)
    assert claims.holds(tmp_path, config)
    assert claims.holds(tmp_path, compose("loss=kd", "loss.temperature=4.0", "trainer.log_every_n_steps=3"))
    with pytest.raises(UserError, match="temperature=4"):
        claims.holds(tmp_path, compose("loss=kd", "loss.temperature=2"))


@pytest.mark.parametrize(("name", "seeds"), [("digits", 10), ("cifar10", 5), ("cifar100", 5)])
def test_the_benchmarks_have_baseline_and_seeds(name: str, seeds: int) -> None:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = hydra.compose("train", overrides=[f"experiment=benchmark_{name}"], return_hydra_config=True)
    params = config.hydra.sweeper.params
    assert params.loss.startswith("ce,") and params.seed == ",".join(map(str, range(seeds)))
    assert config.hydra.sweep.dir.startswith(f"outputs/benchmark/{name}")
    text = (CONF_DIR / "experiment" / f"benchmark_{name}.yaml").read_text()
    assert f"python -m kd_lightning.train experiment=benchmark_{name}" in text.splitlines()[1]
