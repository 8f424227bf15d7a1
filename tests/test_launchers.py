"""Sweeps on launchers and sweepers of Hydra's plugins: what their jobs know, what they share, how they end."""

import importlib.util
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton

from kd_lightning import runs
from kd_lightning.cli import launcher_error
from kd_lightning.config import CONF_DIR
from kd_lightning.runs.command import Command, Sweep
from kd_lightning.train import READY
from kd_lightning.training.nonfinite import Diverged
from kd_lightning.training.processes import check_launcher
from kd_lightning.utils.checks import UserError
from tests.conftest import TINY, Finished, environment

PLUGINS = {
    "hydra/launcher=joblib": "hydra_joblib_launcher",
    "hydra/launcher=submitit_slurm": "hydra_submitit_launcher",
    "hydra/launcher=ray": "hydra_ray_launcher",
    "hydra/sweeper=optuna": "hydra_optuna_sweeper",
}


def installed(plugin: str) -> bool:
    found = importlib.util.find_spec("hydra_plugins")
    return found is not None and importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None


@pytest.mark.parametrize("word", PLUGINS)
def test_each_has_a_ready_yaml_or_says_what_to_install(word: str, cli: Callable[..., Finished]) -> None:
    if not installed(PLUGINS[word]):
        done = cli("-m", word, "seed=0,1")
        package = PLUGINS[word].replace("_", "-")
        assert done.status == 2 and re.search(rf"^error: .*{package}", done.err), done.err
        return
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = hydra.compose("train", overrides=[READY.get(word, word)], return_hydra_config=True).hydra
    assert f"hydra_plugins.{PLUGINS[word]}." in config.launcher._target_ + config.sweeper._target_
    if "optuna" in word:
        assert config.sweeper.direction == "maximize", "of the accuracy, which the plugin would minimize"


def test_a_job_in_another_process_knows_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command(), "sweep", Sweep(("seed",), 4, "outputs/sweep/1", in_turn=False))
    stamp = Command().stamp()
    there = pickle.loads(pickle.dumps(Singleton.get_state()["instances"][Command]))
    assert (there.stamp(), there.sweep, there.words) == (stamp, Command().sweep, Command().words)
    check_launcher(1)
    with pytest.raises(UserError, match="one process"):
        check_launcher(2)


def test_errors_come_back_from_other_processes() -> None:
    error = pickle.loads(pickle.dumps(Diverged("NaN in epoch 1", {"epoch": 1})))
    assert (str(error), error.how, error.status) == ("NaN in epoch 1", {"epoch": 1}, 3)
    assert "out of memory" in str(launcher_error(BrokenProcessPool("terminated")))
    with pytest.raises(RuntimeError, match="ours"):
        launcher_error(RuntimeError("ours"))


def test_a_checkpoint_in_the_working_directory_is_not_gone_on_from(cli: Callable[..., Finished]) -> None:
    """Lightning writes such a file on SLURM, and begins the next training there with it, whatever that is."""
    Path("hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    done = cli("loss=ce", "hydra.run.dir=run")
    assert done.status == 0, done.err
    assert runs.read(Path("run")).metrics["epochs"] == 1


@pytest.mark.skipif(not installed("hydra_joblib_launcher"), reason="needs the extra joblib")
@pytest.mark.slow
def test_four_runs_at_once_share_one_teacher_and_one_cache(tmp_path: Path) -> None:
    words = ["-m", *TINY, "loss.temperature=1,2,4,8", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"]
    command = [sys.executable, "-m", "kd_lightning.train", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is trained first, once") == 1 and not done.stderr, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweep").iterdir()
    found = runs.find(sweep)
    assert [run.path.name for run in found] == ["0_T1", "1_T2", "2_T4", "3_T8"] and (
        sweep / "comparison.html"
    ).is_file()
    assert len(runs.find(tmp_path / "outputs" / "teachers")) == 1
    assert len(list((tmp_path / "outputs" / "teacher_cache").rglob("*.bin"))) == 1
    assert len({run.metrics["teacher"]["test"]["accuracy"] for run in found}) == 1
