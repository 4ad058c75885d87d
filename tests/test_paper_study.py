"""The study: networks trained side by side are networks trained alone; killed runs go on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import spinkeras
from tests.processes import environment

FOLDER = Path(__file__).parents[1] / "examples" / "paper_study"
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the study uses tf.data"
)


@pytest.fixture
def runs(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import runs

    return runs


def images(samples=96, seed=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, samples)
    return (rng.random((10, 20))[y] + 0.2 * rng.random((samples, 20))).astype("float32"), y


class Bound(keras.constraints.Constraint):
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, weight):
        return keras.ops.clip(weight, -self.limit, self.limit)


def alone(runs, run, x, y):
    """The run without any of the study's machinery but the start: plain Keras."""
    from population import single

    keras.utils.set_random_seed(run.seed)
    model = single((x.shape[1], *run.hidden, 10), run.batch_norm, run.seed, train=run.train)
    for layer in model.layers:
        if isinstance(layer, spinkeras.SpinNeuron):
            layer.pulse_width = run.pulse_width
        elif run.weight_bound and isinstance(layer, keras.layers.Dense):
            layer.kernel.constraint = Bound(run.weight_bound)
            layer.kernel.assign(layer.kernel.constraint(layer.kernel))
    model.compile(
        keras.optimizers.SGD(run.learning_rate),
        lambda a, b: 10 * keras.losses.binary_crossentropy(a, b),
    )
    model.fit(x, np.eye(10, dtype="float32")[y], batch_size=len(x), epochs=run.steps, verbose=0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_population_trains_every_network_as_if_alone(runs, batch_norm):
    x, y = images()
    both = ("pulse_width", "anisotropy")
    options = {"batch_size": 0, "steps": 6, "hidden": (7,), "train": both}
    some = [
        runs.Run(**options, batch_norm=batch_norm, **own)
        for own in (
            {"learning_rate": 0.3, "seed": 0},
            {"learning_rate": 1.0, "seed": 1, "weight_bound": 0.3},
            {"learning_rate": 0.5, "seed": 2, "pulse_width": 6e-9},
        )
    ]
    assert len({run.population for run in some}) == 1
    together = runs.train(some, (x, y), (x, y))
    for run, result in zip(some, together):
        model = alone(runs, run, x, y)
        expected = runs.measure(model, x, y)
        for name, value in expected.items():
            if name != "accuracy":  # one image at a tie is 1 %
                np.testing.assert_allclose(result[name], value, rtol=2e-3, atol=2e-3, err_msg=name)
        assert abs(result["accuracy"] - expected["accuracy"]) < 1.1


def test_only_like_runs_share_a_population(runs):
    run = runs.Run()
    assert run.population == run.but(learning_rate=1.0, weight_bound=0.1).population
    assert run.population != run.but(seed=1).population  # another order of the images
    assert run.but(batch_size=0).population == run.but(batch_size=0, seed=1).population
    for change in ({"train": ("pulse_width",)}, {"gain": 2.0}, {"hidden": (3,)}, {"divisor": 1.0}):
        assert run.population != run.but(**change).population


@pytest.mark.slow
def test_bits_of_many_pulses_tend_to_the_expected_value(runs):
    x, y = images(400)
    run = runs.Run(batch_size=0, steps=150, hidden=(16,), learning_rate=1.0, pulses=(1, 4, 4096))
    (result,) = runs.train([run], (x, y), (x, y))  # a rate of 3 fails to converge
    assert result["accuracy"] > 95
    one, four, many = (result["bits"][n] for n in ("1", "4", "4096"))
    assert one < four < many + 1e-9
    assert abs(many - result["accuracy"]) < 1
    (drawn,) = runs.train([run.but(output="sampled")], (x, y), (x, y))
    assert drawn["accuracy"] > 30  # trains on bits; chance is 10


def test_the_learning_rate_is_sought_beyond_the_edge_of_the_grid(runs, tmp_path):
    class Scripted(runs.Study):
        def _train(self, runs):
            for run in runs:  # best at 0.03, below the grid
                distance = abs(np.log(run.learning_rate / 0.03))
                self.results[run.key] = {"accuracy": 90 - distance}

    lab = Scripted(tmp_path / "r.jsonl")
    (tuned,) = lab.tune([runs.Run()])
    assert tuned.learning_rate == 0.03
    assert (tuned.split, tuned.seed) == ("test", 0)
    assert all(json.loads(key)["split"] == "validation" for key in lab.results)
    best = lab.best([tuned, tuned.but(learning_rate=0.1)])
    assert best is tuned


def test_the_learning_rate_is_the_best_on_average_over_the_seeds(runs, tmp_path):
    accuracy = {1.0: (90, 90), 0.3: (80, 80), 3.0: (95, 10), 0.1: (70, 70), 9.0: (0, 0)}

    class Scripted(runs.Study):
        def _train(self, some):
            for run in some:  # the largest rate that works for one seed fails for the other
                self.results[run.key] = {"accuracy": accuracy[run.learning_rate][run.seed - 100]}

    lab = Scripted(tmp_path / "r.jsonl")
    assert lab.tune([runs.Run()], (0.3, 1.0, 3.0))[0].learning_rate == 3.0
    assert lab.tune([runs.Run()], (0.3, 1.0, 3.0), (100, 101))[0].learning_rate == 1.0


def test_a_frozen_study_never_trains(runs, tmp_path):
    with pytest.raises(LookupError, match="1 runs are not in"):
        runs.Study(tmp_path / "none.jsonl", frozen=True)([runs.Run()])


def test_results_from_before_a_setting_existed_still_count(runs, tmp_path):
    run = runs.Run(train=("pulse_width",))
    old = json.loads(run.key)
    del old["budget_pj"]
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"run": old, "result": {"accuracy": 1.0}}) + "\n")
    assert runs.Study(path, frozen=True)([run]) == [{"accuracy": 1.0}]


def test_tables_pair_the_seeds_and_stand_between_their_marks(runs):
    import report

    def result(accuracy, energy):
        curve = [[step, accuracy - 10 + step, energy] for step in range(1, 11)]
        numbers = {"accuracy": accuracy, "energy_pj": energy, "latency_ns": 4.0, "at_limit": 0.25}
        return numbers | {"pulse_width_ns": [2.0, 3.0, 4.0], "rate": 0.3, "curve": curve}

    fixed = [result(90.0, 4.0), result(92.0, 2.0)]
    trained = [result(93.0, 2.0), result(95.0, 1.0)]
    body = report.tuned_arms({"fixed": fixed, "trained": trained})
    last = [cell.strip() for cell in body.splitlines()[-1].strip("|").split("|")]
    assert last[:2] == ["trained", "0.3"]
    assert last[2].startswith("94.00 +- 1.41 [")
    assert last[3] == "3.00 +- 0.00 [3.00, 3.00]"  # paired: no spread
    assert last[4:] == ["1.50", "0.500", "4", "25%"]
    wide = report.widths({(8, "fixed"): fixed, (8, "trained"): trained})
    assert "| 8 | trained | 0.3 | 85.00 | 86.00 | 89.00 |" in wide
    text = "a\n<!-- table tuned -->\nold\n<!-- end -->\nb\n"
    assert report.insert(text, "tuned", body).split(body) == [
        "a\n<!-- table tuned -->\n",
        "\n<!-- end -->\nb\n",
    ]
    with pytest.raises(ValueError, match="no marks for the table 'other'"):
        report.insert(text, "other", body)


SCRIPT = """
import sys, runs
runs.load = lambda run, folder: (DATA, DATA)
import numpy as np
rng = np.random.default_rng(0)
y = rng.integers(0, 10, 60)
DATA = (rng.random((60, 12)).astype("float32"), y)
lab = runs.Study(sys.argv[1])
lab([runs.Run(steps=5, batch_size=20, hidden=(3,), seed=s) for s in range(4)])
"""


@pytest.mark.slow
def test_a_killed_study_goes_on_and_repeats_nothing(tmp_path):
    path = tmp_path / "results.jsonl"
    env = environment(FOLDER)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()  # said after the first result is on the disk
        process.send_signal(signal.SIGKILL)
    before = path.read_bytes().splitlines()
    assert 1 <= len(before) < 4
    with path.open("ab") as file:  # as if killed in the middle of a line
        file.write(b'{"run": {"dataset": "mn')
    subprocess.run(command, env=env, check=True, capture_output=True)
    after = path.read_bytes().splitlines()
    assert after[: len(before)] == before
    assert sorted(json.loads(line)["run"]["seed"] for line in after) == [0, 1, 2, 3]
