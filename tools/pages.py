"""The code of the README and of the documentation: runs it from a clean start, draws its pictures.

    python -m tools.pages                            # runs every page, each in its own process
    python -m tools.pages docs/gallery.md --draw     # this one, and writes the pictures

The Python blocks of a page run one after the other, as a reader would paste them, in an empty
folder. What follows a block is checked: a block of text is what it prints (numbers within 5 %), a
picture in `figures` is what it draws. A comment before a block gives it a process of its own:

    <!-- own process: KERAS_BACKEND=jax -->
"""

import argparse
import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNSHIPPED = ("rehm_fig1b_300K.txt", "smtj_pbnn_measured_0p75ns.csv")
"""Measurements that others published: a block that reads one runs where it lies in DATA."""
DATA = pathlib.Path(os.environ.get("SPINKERAS_DATA", "data")).resolve() / "mtj"

_BLOCK = re.compile(
    r"(?:<!-- own process: (?P<own>.+?) -->\n)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n*^```(?:text)?\n(?P<output>.*?)^```\n)?"
    r"(?:\n*!\[[^\]]*\]\((?P<picture>[^)]*figures/[^)]+)\))?",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Block(NamedTuple):
    """Python code of a page, its first line there, and what it prints and draws."""

    code: str
    line: int
    own: str | None
    output: str | None
    picture: str | None


def blocks(page):
    """The Python blocks of a page."""
    text = page.read_text()
    return [
        Block(
            match["code"],
            text.count("\n", 0, match.start("code")) + 1,
            *match.group("own", "output", "picture"),
        )
        for match in _BLOCK.finditer(text)
    ]


def run(page, draw=False):
    """Run a page's blocks here, in an empty folder.

    Args:
        page: path of the page.
        draw: whether to write its pictures.

    Raises:
        RuntimeError: naming the page, the block and what went wrong.
    """
    if "matplotlib.pyplot" in sys.modules:  # in a process that has drawn before
        sys.modules["matplotlib.pyplot"].close("all")
    space: dict = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks(page):
            wanted = [name for name in UNSHIPPED if name in block.code]
            for name in wanted:
                if (DATA / name).exists():
                    pathlib.Path(name).write_bytes((DATA / name).read_bytes())
            if not all(pathlib.Path(name).exists() for name in wanted):
                continue
            try:
                _run(page, block, space, draw)
            except (Exception, SystemExit) as error:
                where = f"{page.name}, the block at line {block.line}"
                raise RuntimeError(f"{where}: {traceback.format_exc(limit=-3)}") from error


def _run(page, block, space, draw):
    if block.own is not None:
        own = dict(pair.split("=") for pair in block.own.split())
        own["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        subprocess.run([sys.executable, "-c", block.code], env=os.environ | own, check=True)
        return
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), space)
    if block.output is not None:
        _compare(block.output, printed.getvalue())
    if block.picture is not None:
        _picture(page.parent / block.picture, draw)


def _compare(expected, printed):
    """Same words, numbers within 5 %."""
    words = [" ".join(_NUMBER.sub("#", text).split()) for text in (expected, printed)]
    pairs = zip(*(map(float, _NUMBER.findall(text)) for text in (expected, printed)))
    far = [(a, b) for a, b in pairs if abs(a - b) > 0.05 * max(abs(a), abs(b))]
    if words[0] != words[1] or far:
        raise ValueError(f"It prints\n{printed}and the page says\n{expected}{far or ''}")


def _picture(path, draw):
    from matplotlib import pyplot

    if not pyplot.get_fignums() or not pyplot.gcf().axes:
        raise ValueError(f"It draws nothing, and the page shows {path.name}.")
    if draw:
        path.parent.mkdir(exist_ok=True)
        pyplot.gcf().savefig(path, dpi=110, metadata={"Software": None})
    elif not path.exists():
        raise ValueError(f"{path} is missing: python -m tools.pages {path.name} --draw")
    pyplot.close("all")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", type=pathlib.Path, help="default: all")
    parser.add_argument("--draw", action="store_true", help="write the pictures")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["MPLBACKEND"] = "Agg"
    if len(args.pages) == 1:
        return run(args.pages[0].resolve(), args.draw)
    for page in args.pages or PAGES:
        if blocks(page):
            print(page.name, flush=True)
            again = [sys.executable, "-m", "tools.pages", str(page)] + ["--draw"] * args.draw
            subprocess.run(again, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
