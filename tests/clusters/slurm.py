"""A SLURM cluster on the loopback interface, for one program: `with Slurm(folder) as cluster: …`.

Debian's packages are enough: `apt-get install slurm-wlm munge`. Nothing of the system's own SLURM or munge is used or
changed; root is needed, because slurmd starts jobs as the users who submitted them.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

CPUS = 4  # that the node says it has, whatever the machine has
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=10
InactiveLimit=0
ReturnToService=2
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} MaxTime=INFINITE
PartitionName=high Nodes={host} PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE
"""


class Slurm:
    """munged, slurmctld and slurmd in `folder`, with a partition `low` whose jobs those of `high` preempt.

    Args:
        folder: A new folder.
        environ: Environment of its programs and of `call`.
        grace: Seconds between SIGTERM and SIGKILL of a job that is preempted.
    """

    def __init__(self, folder: Path, environ: dict[str, str], grace: int = 0) -> None:
        missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if shutil.which(name) is None]
        if missing:
            raise SystemExit(f"not found: {', '.join(missing)}; apt-get install slurm-wlm munge")
        if os.geteuid() != 0:
            raise SystemExit("slurmd starts jobs as other users: this needs root")
        self.folder, self._grace = folder.absolute(), grace
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environ = environ | {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def __enter__(self) -> "Slurm":
        self.folder.mkdir(mode=0o755)
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host, ports = socket.gethostname().split(".")[0], _free_ports(2)
        conf = CONF.format(host=host, ports=ports, folder=self.folder, cpus=CPUS, grace=self._grace)
        (self.folder / "slurm.conf").write_text(conf)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        munge = [f"--{name}={self.folder}/munge.{name[:3]}" for name in ("pid-file", "log-file", "seed-file")]
        munge += [f"--key-file={key}", f"--socket={self.folder}/munge.socket"]
        self._start("munged", "--foreground", "--force", *munge)
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "-D", "-c")
        self._wait(lambda: not self.call("scontrol", "ping", check=False).returncode)
        self._start("slurmd", "-D", "-N", host)
        self._wait(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T").stdout)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.call("scancel", "--user=root", check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def call(self, *words: str, check: bool = True, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command of SLURM, or one that uses it, to its end; with `check`, end the program if it fails."""
        done = subprocess.run(words, env=self.environ, cwd=cwd, capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def _start(self, *words: str) -> None:
        log = open(self.folder / f"{words[0]}.out", "wb")  # noqa: SIM115 - the daemon's own
        self._daemons.append(subprocess.Popen(words, env=self.environ, stdout=log, stderr=log))

    def _wait(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "\n".join(p.read_text(errors="replace")[-2000:] for p in self.folder.glob("*.out"))
                self.__exit__(None, None, None)
                raise SystemExit(f"SLURM did not start:\n{logs}")
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
