"""Filters for messages of Lightning and Hydra that say nothing new about our runs; all others are shown."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO

_EXPECTED = {
    r"Checkpoint directory .* exists and is not empty": "it is the run's own folder, claimed before",
    r"The number of training batches .* is smaller than the logging interval": "TrainLog also logs at an epoch's end",
    r"The '\w+_dataloader' does not have many workers": "workers of resident data would be slower, not faster",
    r".*isinstance\(treespec, LeafSpec\)": "Lightning's own use of torch",
    r".*does not have a `__len__`|.*is not a map-style dataset": "our loaders know their length",
    r"Total length of `list` across ranks is zero": "nothing is held out with data.val_size=0",
    r"The `srun` command is available": "whoever starts a run on a cluster's login node means to",
    r"\s*'hydra/(launcher|sweeper)/\w+' is validated against ConfigStore schema": "conf/hydra/ is meant to be",
    r"hydra\.utils\.instantiate\(\) resolved": "utils/trust.py decides what may be built",  # Hydra 1.4
    r"Warning: Profiler clears events at the end of each cycle": "its traces hold them",
    r"Found \d+ module\(s\) in eval mode": "there are none in train mode during tests",
}


def quiet() -> None:
    """Hide Lightning's start-up notices and the expected warnings above."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def unlogged() -> Iterator[None]:
    """Nothing is logged, warned of or printed on stderr inside: exporters tell pages before the line that matters."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
