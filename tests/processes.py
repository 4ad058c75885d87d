"""Other processes that the tests start: code, and the examples as a user runs them."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEADLINE = 280  # s, for anything that has to happen at all


def environment(*folders, **extra):
    """This environment, with the project (and further folders) to import from."""
    path = [*map(str, folders), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(path)} | extra


def run_example(name, *arguments, cwd):
    """What an example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    return subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=cwd,
        env=environment(),
    ).stdout


def run_code(code, *arguments, **variables):
    """A Python process with this code that has ended, one way or the other."""
    env = environment(**variables)
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        env.pop(f"KERASTUNER_{name}", None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Processes:
    """Children with their output in files; whatever is left is killed at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}

    def start(self, name, code, *arguments, **extra):
        with open(self.folder / f"{name}.log", "ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                env=environment(**extra),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self, name):
        code = self.running[name].wait(timeout=DEADLINE)
        assert code == 0, f"{name}:\n" + (self.folder / f"{name}.log").read_text()[-3000:]

    def until(self, what):
        """Poll for a condition; a child that fails, or the deadline, ends the wait."""
        end = time.monotonic() + DEADLINE
        while not what():
            for name, process in self.running.items():
                assert process.poll() in (None, 0), (self.folder / f"{name}.log").read_text()[
                    -3000:
                ]
            assert time.monotonic() < end, "deadline passed"
            time.sleep(0.05)
