"""What the examples and benchmarks do with work that takes long (examples/long_work.py)."""

import json

import numpy as np
import pytest

from examples.long_work import LongWork


def pieces(*names, broken=()):
    def piece(name):
        if name in broken:
            raise KeyboardInterrupt
        print(f"result of {name}")
        return {"name": name, "values": np.arange(2)}

    return {name: lambda name=name: piece(name) for name in names}


def test_work_that_was_stopped_goes_on_where_it_stopped(tmp_path, capsys):
    path = tmp_path / "new" / "work.json"
    with pytest.raises(KeyboardInterrupt):
        LongWork(path, {"epochs": 2})(pieces("a", "b", "c", broken="c"))
    assert set(json.loads(path.read_text())["results"]) == {"a", "b"}
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "1 of 3: a"  # nothing is known about the time
    assert first[2] == "2 of 3: b, about 0 s left"
    results = LongWork(path, {"epochs": 2})(pieces("a", "b", "c", broken="ab"))
    assert results["c"] == {"name": "c", "values": [0, 1]}
    assert list(results) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == [
        f"2 of 3 are in {path}; delete it to start over",
        "3 of 3: c",
        "result of c",
    ]


def test_work_of_another_setting_is_not_mixed_in(tmp_path):
    path = tmp_path / "work.json"
    LongWork(path, {"epochs": 2})(pieces("a"))
    with pytest.raises(SystemExit, match=r"holds another run .*move it away"):
        LongWork(path, {"epochs": 3})
    path.write_text("[1, 2]")
    with pytest.raises(SystemExit, match="older format"):
        LongWork(path)


def test_what_was_printed_is_printed_again(tmp_path, capfd):
    path = tmp_path / "measurement.json"
    with pytest.raises(KeyboardInterrupt):
        LongWork(path, keep=False).show(pieces("a", "b", broken="b"))
    assert capfd.readouterr().out.count("result of a") == 1
    LongWork(path, keep=False).show(pieces("a", "b", broken="a"))
    out = capfd.readouterr().out
    assert out.index("result of a") < out.index("result of b")
    assert not path.exists()  # a measurement is made anew next time
