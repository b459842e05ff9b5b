"""Runs programs in processes forked from one that has already imported what they all import.

python tests/fork_server.py

Reads a line of JSON for each: argv, env, cwd, out, err (files) and timeout in seconds; writes its exit code as a line.
A program of this repository starts so in a tenth of a second instead of six.
"""

import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

IMPORTED_BY_MOST = (
    *("torch", "torch._dynamo", "torchvision", "timm", "safetensors.torch", "pyarrow.parquet", "PIL.Image"),
    *("rich.console", "rich.table", "tyro", "viewgen", "pairquality", "pairdata", "sslzoo.methods", "ssl_eval"),
)


def main() -> None:
    """Serve until standard input ends."""
    for name in IMPORTED_BY_MOST:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        print(_exit_code(child, request["timeout"]), flush=True)


def _exit_code(child: int, timeout: float) -> int:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -signal.SIGKILL


def _run(request: dict[str, Any]) -> NoReturn:
    """As `python argv[0] argv[1] ...` would."""
    os.setsid()
    for stream, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    program = Path(sys.argv[0])
    sys.path[0:1] = [str(program.parent)] if program.is_file() else []
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
