"""Files of unknown origin build only what the package offers; each of these ran code before."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import save_file

import kd_lightning
from kd_lightning import cache, evaluate, export, predict, runs
from kd_lightning.config import build
from kd_lightning.deploy.files.write import export as export_file
from kd_lightning.deploy.recipe import describe_step
from kd_lightning.evaluation.opened import open_run
from kd_lightning.models import create_model
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import checksum
from kd_lightning.utils.trust import check_network, check_targets, names_own_code, trusting
from tests.conftest import Finished, compose, fresh_process
from tests.safety.test_flips import flip


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("honest") / "run"
    train(compose("loss=ce"), out)
    return out


@pytest.fixture
def stranger(honest: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, which a test then turns bad."""
    out = tmp_path / "stranger"
    out.mkdir()
    for file in honest.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that exists once the stranger's code has run."""
    return tmp_path / "code_ran"


def rename_student(run: Path, name: str, kwargs: dict[str, Any]) -> None:
    """Change the card of the weights file, and the checksum with it."""
    with safe_open(run / runs.STUDENT, "pt") as f:
        card, state = json.loads(f.metadata()["kd_lightning"]), {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
    save_file(state, run / runs.STUDENT, {"kd_lightning": json.dumps(card | {"name": name, "kwargs": kwargs})})
    metrics = json.loads((run / runs.METRICS).read_text())
    metrics["sha256"][runs.STUDENT] = checksum(run / runs.STUDENT)
    (run / runs.METRICS).write_text(json.dumps(metrics))


def change_config(run: Path, key: str, node: dict[str, Any]) -> None:
    stamp, _, text = (run / runs.CONFIG).read_text().partition("\n")
    config = OmegaConf.create(text)
    OmegaConf.update(config, key, node, merge=False)
    (run / runs.CONFIG).write_text(f"{stamp}\n{OmegaConf.to_yaml(config)}")


@pytest.fixture
def evil(mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dotted path of a function in a module of the working directory."""
    (tmp_path / "evil_module.py").write_text(
        f"open({str(mark)!r}, 'w').close()\ndef net(num_classes, **facts):\n    raise RuntimeError\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    return "evil_module.net"


COMMANDS = {
    "evaluate": (evaluate, ("RUN",)),
    "predict": (predict, ("RUN", "IMAGE")),
    "export": (export, ("RUN", "--format", "safetensors", "--out", "x.safetensors")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_card_runs_no_code(
    command: Callable[..., Finished], stranger: Path, evil: str, mark: Path, tmp_path: Path, name: str
) -> None:
    rename_student(stranger, evil, {})
    image = tmp_path / "image.png"
    __import__("PIL.Image").Image.new("RGB", (8, 8)).save(image)
    module, words = COMMANDS[name]
    done = command(module, *[{"RUN": stranger, "IMAGE": image}.get(word, word) for word in words])
    assert done.status == 2 and evil in done.err and "--trust" in done.err and "Traceback" not in done.err
    assert not mark.exists()


def test_load_runs_no_code_unless_it_is_trusted(stranger: Path, evil: str, mark: Path) -> None:
    rename_student(stranger, evil, {})
    with trusting(False):
        with pytest.raises(UserError, match="trust=True"):
            kd_lightning.load(stranger)
        assert not mark.exists()
    with trusting(), pytest.raises(RuntimeError):
        load_student(stranger)
    assert mark.exists()


@pytest.mark.parametrize("key", ["data", "loss", "optimizer", "scheduler", "trainer"])
def test_a_stored_configuration_runs_no_code(
    cli: Callable[..., Finished], stranger: Path, mark: Path, tmp_path: Path, key: str
) -> None:
    (tmp_path / "pickle.bin").write_bytes(pickle.dumps(Payload(mark)))
    node = {"_target_": "torch.load", "f": str(tmp_path / "pickle.bin"), "weights_only": False}
    trainer = {"max_epochs": 2} if key == "trainer" else {}
    change_config(stranger, key, node | trainer)
    done = cli(f"resume={stranger}", *(() if key == "trainer" else ("trainer.max_epochs=2",)), tiny=False)
    assert done.status == 2 and not mark.exists() and "Traceback" not in done.err
    if key != "trainer":
        assert "trust" in done.err and "torch.load" in done.err


@pytest.mark.parametrize("key", ["data", "hydra", "package"])
def test_a_command_that_repeats_a_run_runs_no_code_of_it(
    cli: Callable[..., Finished], stranger: Path, evil: str, mark: Path, key: str
) -> None:
    """`compare` prints such a command for runs that words cannot say; Hydra builds callbacks before it calls us."""
    node = {"_target_": evil}
    change_config(stranger, "data" if key == "data" else "hydra", node if key == "data" else {"callbacks": {"x": node}})
    if key == "package":
        stamp, _, text = (stranger / runs.CONFIG).read_text().partition("\n")
        (stranger / runs.CONFIG).write_text(f"{stamp}\n# @package _global_\n{text}")
    words = ("--config-path", str(stranger), "--config-name", runs.CONFIG, "hydra.output_subdir=null")
    for more in ((), ("-m", "seed=0")):
        done = cli(*words, *more, tiny=False)
        assert done.status == 2 and "trust=true" in done.err and "Traceback" not in done.err, done
        assert not mark.exists()


@pytest.mark.parametrize("key", ["data", "hydra"])
def test_filling_a_cache_runs_no_code_either(
    stranger: Path,
    evil: str,
    mark: Path,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node = {"_target_": evil}
    change_config(stranger, key, node if key == "data" else {"callbacks": {"x": node}})
    words = ("--config-path", str(stranger), "--config-name", runs.CONFIG, "hydra.output_subdir=null")
    monkeypatch.setattr(sys, "argv", ["kd-cache", *words])
    with fresh_process(), pytest.raises(SystemExit) as ended:
        cache.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "trust=true" in told and not mark.exists()


def test_a_name_is_told_without_an_import(evil: str, mark: Path) -> None:
    """Of the loss that a smaller student will be trained with, before anything of the run is built."""
    with trusting(False):
        assert "(net, lr" in describe_step(Path("out"), compose(f"loss._target_={evil}"))
    assert not mark.exists()


def test_own_code_is_the_users_own(cli: Callable[..., Finished], tmp_path: Path, evil: str, mark: Path) -> None:
    with pytest.raises(RuntimeError):
        cli("loss=ce", f"model.student={evil}")
    assert mark.exists()


def test_a_run_with_own_code_goes_on_with_trust(
    cli: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from kd_lightning.models import create_model\n"
        "def net(num_classes, image_size):\n    return create_model('resnet8', num_classes, image_size=image_size)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli("loss=ce", "model.student=my_nets.net", "hydra.run.dir=r").status == 0
    refused = cli("resume=r", "trainer.max_epochs=2", tiny=False)
    assert refused.status == 2 and "trust=true" in refused.err and "my_nets.net" in refused.err
    assert cli("resume=r", "trust=true", "trainer.max_epochs=2", tiny=False).status == 0
    assert not OmegaConf.load(tmp_path / "r" / runs.CONFIG).trust, "the folder does not say so of itself"


REFUSED = (
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "os.system",
    "joblib.load",
    "kd_lightning.losses.torch.load",
    "kd_lightning.losses.method.torch.load",
    "kd_lightning.data.module.json.loads",
    "kd_lightning.utils.files.write_text",
    "kd_lightning.losses.Tensor",
    "torch.optim.optimizer.torch.load",
    "torch.optim._multi_tensor",
    "kd_lightning.schedules.number",
    "lightning.pytorch.Trainer.from_argparse_args",
    "",
    ".",
    "kd_lightning.data.",
)


@pytest.mark.parametrize("target", REFUSED)
def test_what_is_not_offered_is_not_built(target: str) -> None:
    with trusting(False), pytest.raises(UserError, match="does not offer"):
        build(OmegaConf.create({"_target_": target}), "data")
    with trusting(False), pytest.raises(UserError, match="does not offer"):
        check_targets({"a": [{"b": {"_target_": target}}]}, "loss")


def test_all_that_the_package_configures_is_offered() -> None:
    conf = Path(__file__).parents[2] / "conf"
    for file in conf.glob("*/*.yaml"):
        if file.stem in ("wandb", "mlflow"):  # they send scores to a server, which a stranger's file must not choose
            continue
        with trusting(False):
            check_targets(OmegaConf.to_container(OmegaConf.load(file), resolve=False), file.stem)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("torch.hub.load", {"repo_or_dir": "x", "source": "local"}),
        ("kd_lightning.models.create._imported", {}),
        ("kd_lightning.deploy.prune.pickle.loads", {}),
        ("timm/hf-hub:stranger/net", {}),
        ("timm/local-dir:/tmp/x", {}),
        ("timm/resnet18", {"checkpoint_path": "x.pth"}),
        ("timm/resnet18", {"pretrained_cfg": {"file": "x.pth"}}),
        ("timm/../x", {}),
    ],
)
def test_what_is_no_network_of_ours_is_not_made(name: str, kwargs: dict[str, Any]) -> None:
    with trusting(False), pytest.raises(UserError, match="does not offer"):
        check_network(name, kwargs, "model.student")


def test_the_network_inside_another_one_is_checked(evil: str, mark: Path) -> None:
    with trusting(False), pytest.raises(UserError, match="does not offer"):
        create_model("kd_lightning.deploy.sparse", 10, image_size=8, kwargs={"of": evil, "kwargs": {}})
    assert not mark.exists()


def test_a_configuration_says_whether_it_needs_trust() -> None:
    assert not names_own_code(OmegaConf.to_container(compose(), resolve=True))
    assert names_own_code(OmegaConf.to_container(compose("model.student=my.net"), resolve=True))


def test_an_exported_program_is_opened_only_if_it_is_trusted(distilled: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.pt2"
    with trusting(False):
        export_file(open_run(distilled), "pt2", path)  # its own parity check reads what it has just written
        with pytest.raises(UserError, match=r"is a program, and .* may run code in it"):
            kd_lightning.load(path)
        assert kd_lightning.load(path, trust=True).classes
        flip(path)
        with pytest.raises(UserError, match="its checksum is wrong"):
            kd_lightning.load(path, trust=True)
