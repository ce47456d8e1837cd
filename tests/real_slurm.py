"""A real Slurm of two nodes for tests: tests/cluster/cluster.sh, on ports and in a folder of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "cluster" / "cluster.sh"
PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch")
KNOBS = {"grace": 12, "kill_wait": 5, "user_signal": "yes"}
"""What tests find: see the script. Shorter times change nothing: Slurm looks at grace times only every 15 s."""


class Cluster:
    """Nodes n1 and n2, with what tests do to them. Its commands see the cluster by SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_ports(4)
        self.knobs: dict[str, object] = {}

    # What users do

    def run(
        self, *command: object, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a user of the cluster; its exit code is the caller's to judge."""
        words, environment = [str(word) for word in command], os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        return subprocess.run(
            words, cwd=cwd, env=environment | (env or {}), capture_output=True, text=True, timeout=timeout, check=False
        )

    def ask(self, *command: object, cwd: Path | None = None) -> str:
        """What a command prints that has to succeed."""
        done = self.run(*command, cwd=cwd)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *options: object, command: str, cwd: Path) -> str:
        """sbatch a line of bash; the job's number. The log is slurm-NUMBER.out in cwd."""
        return self.ask("sbatch", "--parsable", "--open-mode=append", *options, f"--wrap={command}", cwd=cwd)

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL ..., at once and without accounting."""
        return self.ask("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    def details(self, job: str) -> dict[str, str]:
        """What scontrol show job tells: Restarts, PreemptTime, NodeList, ExitCode, Reason ..."""
        return dict(word.split("=", 1) for word in self.ask("scontrol", "show", "job", job).split() if "=" in word)

    def sacct(self, job: str, column: str = "State") -> list[str]:
        """One value for each start of a job, as accounting knows them: a second or two late."""
        lines = self.ask("sacct", "-X", "-D", "-n", "-P", f"--jobs={job}", f"--format={column}").splitlines()
        return [line.strip() for line in lines]

    def wait_for(self, predicate: Callable[[], object], seconds: float, what: str) -> None:
        """Look every 0.1 s; fails, telling what Slurm knows, if it does not come true in time."""
        end = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > end:
                jobs = self.run("squeue", "--states=all").stdout
                pytest.fail(f"waited {seconds} s in vain for {what}\n{jobs}{self.log()[-2000:]}")
            time.sleep(0.1)

    def wait_for_state(self, job: str, state: str, seconds: float = 30) -> None:
        self.wait_for(lambda: self.state(job) == state, seconds, f"job {job} to be {state}")

    # What administrators and accidents do

    def start(self) -> None:
        """Start what does not run, bring back nodes that are down, take on changed knobs."""
        self._script("start")

    def lose_node(self, node: str) -> None:
        """Kill all that runs on a node, and tell Slurm that it is down, as after a crash."""
        self._script("lose", node)

    def cut_node(self, node: str) -> None:
        """Tell Slurm that a node is down while its tasks go on, as when its network fails."""
        self._script("cut", node)

    def preempt(self, job: str) -> str:
        """Give a job's nodes to one of partition urgent, which sleeps a second; that one's number, once the first was told."""
        nodes = self.details(job)["NodeList"]
        urgent = self.submit("--partition=urgent", "--exclusive", f"--nodelist={nodes}", command="sleep 1", cwd=self.folder)
        self.wait_for(lambda: self._told(job), 20, f"the preemption of job {job}")
        return urgent

    def _told(self, job: str) -> bool:
        return self.details(job).get("PreemptTime", "None") != "None" or self.state(job) != "RUNNING"

    def reconfigure(self, **knobs: object) -> None:
        """Change knobs of the script while jobs run: reconfigure(user_signal="no", grace=30)."""
        self.knobs |= knobs
        self.start()

    @contextmanager
    def without_sacct(self) -> Iterator[None]:
        """Stop the accounting: sacct fails, squeue and scontrol go on."""
        pid = int((self.folder / "run" / "slurmdbd.pid").read_text())
        os.kill(pid, 9)
        try:
            yield
        finally:
            self.start()

    def clear(self) -> None:
        """End every job at once and make the cluster what it was: for the next test."""
        self._script("clear")
        self.reconfigure(**KNOBS)

    def log(self, daemon: str = "slurmctld") -> str:
        """The log of slurmctld, slurmdbd, n1 or n2."""
        return (self.folder / "log" / f"{daemon}.log").read_text(errors="replace")

    def _script(self, *arguments: str) -> None:
        knobs = {f"CLUSTER_{name.upper()}": str(value) for name, value in {"port": self.port, **self.knobs}.items()}
        done = self.run("bash", SCRIPT, *arguments, self.folder, env=knobs, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster that is gone at the end, also when this process is killed; skips where it cannot run."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.geteuid() != 0 or not all(shutil.which(program, path=path) for program in PROGRAMS):
        pytest.skip("a Slurm of the tests' own takes root and packages (as root: bash tests/cluster/cluster.sh install)")
    folder = Path(tempfile.mkdtemp(prefix="misrank-cluster-"))
    # Reads till this process closes the pipe, or dies
    purge = ["bash", "-c", 'cat; exec bash "$0" purge "$1"', str(SCRIPT), str(folder)]
    with subprocess.Popen(purge, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True):
        cluster = Cluster(folder)
        cluster.reconfigure(**KNOBS)
        yield cluster


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the system gives to outgoing connections."""
    while True:
        first = random.randrange(20000, 32000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
