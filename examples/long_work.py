"""Do long work in named pieces, show the progress and the time left, and store finished pieces.

    work = LongWork("results/study.json", {"epochs": 10})
    results = work({f"seed {seed}": lambda seed=seed: train(seed) for seed in range(3)})

A script that was stopped or killed continues with the first missing piece when it is started again.
"""

import contextlib
import functools
import io
import json
import pathlib
import sys
import time

from spinkeras import files


class LongWork:
    """Results of named pieces of work, in a JSON file that is rewritten after every piece.

    Args:
        path: the file, `{"setting": ..., "results": {name: result}}`.
        setting: settings of all pieces, as JSON. A file with other settings is refused.
        keep: whether to keep the file at the end. Default `True`. Use `False` for a measurement
            that the next start should repeat.
    """

    def __init__(self, path, setting=None, keep=True):
        self.path = pathlib.Path(path)
        self.setting = json.loads(json.dumps(setting))
        self.keep = keep
        self.results = {}
        if self.path.exists():
            found = json.loads(self.path.read_text())
            if not isinstance(found, dict) or found.get("setting") != self.setting:
                other = found.get("setting") if isinstance(found, dict) else "an older format"
                raise SystemExit(f"{self.path} holds another run ({other}); move it away.")
            self.results = found["results"]
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, pieces):
        """`{name: result}` of `pieces`, functions by name; missing pieces are called in turn."""
        return dict(self.each(pieces))

    def show(self, pieces):
        """Call `pieces`, functions that print; the text of finished pieces comes from the file."""
        done = set(self.results)
        shown = {name: functools.partial(_printed, piece) for name, piece in pieces.items()}
        for name, text in self.each(shown):
            if name in done:
                print(text, end="", flush=True)

    def each(self, pieces):
        """Like a call, but yields `(name, result)` after every piece."""
        missing = [name for name in pieces if name not in self.results]
        if len(missing) < len(pieces):
            known = len(pieces) - len(missing)
            print(f"{known} of {len(pieces)} are in {self.path}; delete it to start over")
        begin, computed = time.monotonic(), 0
        for k, (name, piece) in enumerate(pieces.items()):
            if name in missing:
                left = (time.monotonic() - begin) / max(computed, 1) * (len(missing) - computed)
                about = f", {_words(left)}" if computed else ""
                print(f"{k + 1} of {len(pieces)}: {name}{about}", flush=True)
                self.results[name] = json.loads(json.dumps(piece(), default=_plain))
                self._write()
                computed += 1
            yield name, self.results[name]
        if not self.keep:
            self.path.unlink(missing_ok=True)

    def _write(self):
        found = {"setting": self.setting, "results": self.results}
        files.write(self.path, json.dumps(found) + "\n")


class _Copied(io.StringIO):
    """Prints text and also keeps it."""

    def write(self, text):
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return super().write(text)


def _printed(piece):
    with contextlib.redirect_stdout(_Copied()) as text:
        piece()
    return text.getvalue()


def _plain(array):
    return array.tolist()


def _words(seconds):
    """The time left, in words, estimated from the pieces done so far."""
    if seconds < 100:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left"
