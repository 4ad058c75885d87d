"""Other processes that the tests start: their environment, and the examples as a user runs them."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


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
