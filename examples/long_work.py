"""Long work in named pieces: says which one runs and how long is left, and keeps what is done.

    work = LongWork("results/study.json", {"epochs": 10})
    results = work({f"seed {seed}": lambda seed=seed: train(seed) for seed in range(3)})

A script that was stopped or killed and is started again goes on at the first piece that is missing.
"""

import contextlib
import functools
import io
import json
import pathlib
import sys
import time


class LongWork:
    """Results of named pieces of work, in a JSON file that is written anew after every piece.

    Args:
        path: the file, `{"setting": ..., "results": {name: result}}`.
        setting: what all pieces have in common, as JSON; another one does not go on from the file.
        keep: whether the file stays when everything is done. Default `True`; `False` for a
            measurement that should be made again next time.
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
        """`{name: result}` of `pieces`, functions by name; the missing ones are called, in turn."""
        return dict(self.each(pieces))

    def show(self, pieces):
        """Calls `pieces`, functions that print; what was done before is printed from the file."""
        done = set(self.results)
        shown = {name: functools.partial(_printed, piece) for name, piece in pieces.items()}
        for name, text in self.each(shown):
            if name in done:
                print(text, end="", flush=True)

    def each(self, pieces):
        """As a call, yielding `(name, result)` one after the other."""
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
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps({"setting": self.setting, "results": self.results}) + "\n")
        part.replace(self.path)


class _Copied(io.StringIO):
    """Keeps what it passes on."""

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
    """The time that is left, in words; that of the pieces done so far is all that is known."""
    if seconds < 100:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left"
