"""The examples run end to end, as a user starts them."""

import json
import re

import pytest

import spinkeras
from spinkeras import calibration
from tests.calibration.harness import MEASURED, small_table, write
from tests.processes import run_example


def kept(folder, name):
    """What an example kept of every piece of its work."""
    return list(json.loads((folder / "results" / name).read_text())["results"].values())


@pytest.mark.slow
def test_trainable_activation_is_complete_and_honest(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    out = run_example("trainable_activation.py", "--seeds", "1", "--steps", "200", cwd=tmp_path)
    assert "trained pulse width + anisotropy" in out
    results = kept(tmp_path, "trainable_activation_digits.json")
    assert next(r["arm"] for r in results) == "fixed slope"
    fixed, width, both = results
    assert fixed["pulse_width_ns"][0] == [2.0] * 25
    assert max(width["pulse_width_ns"][0]) > 2.5
    assert set(width["gate_voltage"][0]) == {0.0}
    assert any(v != 0 for v in both["gate_voltage"][0])
    assert len({r["energy_by_epoch"][0] for r in results}) == 3
    png = tmp_path / "results/trainable_activation_digits.png"
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_trained_knobs_win_on_digits(tmp_path):
    run_example("trainable_activation.py", "--seeds", "3", cwd=tmp_path)
    results = kept(tmp_path, "trainable_activation_digits.json")
    for seed in range(3):
        fixed, width, both = (r for r in results if r["seed"] == seed)
        assert min(width["accuracy"], both["accuracy"]) > fixed["accuracy"] + 2
        assert max(width["energy_pj"], both["energy_pj"]) < fixed["energy_pj"]


@pytest.mark.slow
def test_example_calibrate_device(tmp_path):
    pytest.importorskip("matplotlib")
    out = run_example("calibrate_device.py", cwd=tmp_path)
    assert "or use fit_empirical" in out
    assert "34.1 (p = 0.0002): rejected" in out
    assert out.count("R-hat") == 3
    names = sorted(path.name for path in (tmp_path / "results").iterdir())
    stems = ("sot_junction", "stt_junction")
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("csv", "png")]


@pytest.mark.slow
def test_example_with_own_data(tmp_path):
    pytest.importorskip("matplotlib")
    table = small_table()
    lines = [",".join(table)] + [",".join(map(str, row)) for row in zip(*table.values())]
    out = run_example("calibrate_device.py", write(tmp_path, "\n".join(lines)), cwd=tmp_path)
    assert "deviance" in out
    text = (tmp_path / "results" / "device.json").read_text()
    fitted = spinkeras.MTJDevice.from_json(text)
    assert fitted == calibration.fit_device(table, "stt_reference").device
    assert (tmp_path / "results" / "calibration.png").stat().st_size > 10_000


@pytest.mark.slow
def test_example_with_own_data_of_a_curve(tmp_path):
    pytest.importorskip("matplotlib")
    rows = zip(*MEASURED.values())
    lines = [",".join(MEASURED)] + [",".join(map(str, row)) for row in rows]
    path = write(tmp_path, "\n".join(lines))
    run_example("calibrate_device.py", path, "--device", "vgsot_zhang2020", cwd=tmp_path)
    text = (tmp_path / "results" / "device.json").read_text()
    device = spinkeras.MTJDevice.from_json(text)
    assert device.switching_curve.threshold * 1112 == pytest.approx(0.90, abs=0.01)


@pytest.mark.slow
def test_signed_output_prints_its_table(tmp_path):
    pytest.importorskip("sklearn")
    out = run_example("signed_output.py", "--quick", cwd=tmp_path)
    assert "5 of 6: SpinNeuron(bipolar=True), slope 1, about" in out
    found = json.loads((tmp_path / "results/signed_output_digits.json").read_text())["results"]
    assert list(found)[:3] == ["ReLU", "tanh", "sigmoid"]
    assert len(found) == 6
    for name, accuracy in found.items():
        assert f"{name:36}" in out
        assert 0 <= accuracy["0.01"][0] <= 100


@pytest.mark.slow
def test_variation_aware_compares_on_the_same_chips_and_goes_on(tmp_path):
    pytest.importorskip("sklearn")
    arguments = ("--hidden", "8", "--epochs", "1", "--chips", "2")
    run_example("variation_aware.py", *arguments, "--seeds", "1", cwd=tmp_path)
    out = run_example("variation_aware.py", *arguments, "--seeds", "2", cwd=tmp_path)
    assert "4 of 4: variation-aware training, seed 1" in out
    assert "seed 0" not in out  # taken from the file
    assert "variation-aware minus ordinary, 10 % spread, one pulse:" in out
    rows = [row for some in kept(tmp_path, "variation_aware_digits.json") for row in some]
    assert len(rows) == 2 * 2 * 3 * 2


@pytest.mark.slow
def test_stochastic_binary_network_samples_what_enumeration_says(tmp_path):
    pytest.importorskip("sklearn")
    out = run_example("stochastic_binary_network.py", cwd=tmp_path)
    alone, machine = (float(v) for v in re.findall(r"(-\d+\.\d+)", out.splitlines()[0]))
    assert machine > alone + 0.8

    def row(name):
        line = next(line for line in out.splitlines() if line.startswith(name))
        return [float(value) for value in line.split()[-3:]]

    exact, free, shifted = map(row, ("exact draws", "free-running", "the same"))
    assert max(free[:2]) < 0.015
    assert free[2] < 1.5 * exact[2]
    assert shifted[2] > 3 * free[2]
    assert "fJ per bit" in out
