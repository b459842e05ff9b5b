"""What the repository's own tests share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import sslzoo

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the loop is killed in test_interruption.py")


class Programs:
    """Runs this repository's programs, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._server = folder, None

    def __call__(self, program: str, *arguments: object, expect: int = 0, timeout: float = 300, **env: str) -> str:
        """programs("apps/pretrain", "--list"): what it printed, standard output first.

        It has one thread, and `env` beside this process's variables; `expect` is its exit code.
        """
        out, err = self._folder / "out", self._folder / "err"
        about = {
            "argv": [str(ROOT / program), *map(str, arguments)],
            "env": {**os.environ, "OMP_NUM_THREADS": "1", **env},
            "cwd": str(Path.cwd()),
            "out": str(out),
            "err": str(err),
            "timeout": timeout,
        }
        code = self._ask(json.dumps(about))
        printed = out.read_text() + err.read_text()
        assert code == expect, printed
        return printed

    def on_two(self, program: str, *arguments: object, timeout: float = 300) -> str:
        """The same as two processes under torchrun."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command = [*launcher, str(ROOT / program), *map(str, arguments)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _ask(self, line: str) -> int:
        if self._server is None:
            command = [sys.executable, ROOT / "tests" / "fork_server.py"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._server = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)
        assert self._server.stdin is not None and self._server.stdout is not None
        print(line, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the process that the programs are forked from."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Iterator[Programs]:
    """programs("apps/evaluate", *arguments, expect=1): what it printed."""
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def save_untrained() -> Callable[[Path, int], Path]:
    """save_untrained(folder, image_size): the backbone folder of a small network of random weights."""

    def save(folder: Path, image_size: int) -> Path:
        torch.manual_seed(0)
        architecture = {"name": "resnet10", "cifar_stem": True, "width": 8, "image_size": image_size}
        recipe = {"image_size": image_size, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
        about = {"method": "none", "recipe": recipe, "epoch": 0, "data": "none"}
        network = sslzoo.create_backbone(**architecture)
        sslzoo.save_backbone(folder, network, architecture=architecture, **about)
        return folder

    return save


@pytest.fixture
def backbone(save_untrained, tmp_path) -> Path:
    """The folder of an untrained backbone for 32 px images."""
    return save_untrained(tmp_path / "backbone", 32)
