"""Odd values, texts and damaged files: one clear sentence, or what was given, never another thing.

Every test draws its cases from a seed. Raw errors and wrong contents taken are counted; both have
to be none. See `tests/odd.py` for what counts as an error of ours.
"""

import contextlib
import csv
import dataclasses
import json
import math
import os
import shutil
import warnings

import keras
import keras_tuner as kt
import numpy as np
import pytest

import spinkeras
from spinkeras import (
    ChipSpread,
    Driver,
    EmpiricalCurve,
    EnergyAssumptions,
    EnergyBudget,
    EquilibriumCurve,
    MTJDevice,
    NeelBrown,
    SpinNeuron,
    energy,
)
from spinkeras.hardware import chips, driver_table
from spinkeras.hardware.results_file import append_results, read_results
from spinkeras.macrospin import fokker_planck, llg
from spinkeras.search.durability import durable
from spinkeras.search.objective import EnergyObjective, energy_front
from spinkeras.search.space import spin_search_space
from tests import odd


def seeds(few, many):
    """A short run of the fast suite, and longer ones of the slow."""
    slow = [pytest.param(seed, many, marks=pytest.mark.slow) for seed in (1, 2, 3)]
    return pytest.mark.parametrize(("seed", "tries"), [(0, few), *slow])


def no_problem(problems, kinds):
    """Fails with some of the problems, and where a run was too short to say anything."""
    assert not problems, f"{len(problems)} problems, such as:\n" + "\n".join(problems[:5])
    assert {"taken", "refused"} <= set(kinds)


# --- arguments -----------------------------------------------------------------------------------

NEURON = (
    *("device", "train", "output", "pulses", "bipolar", "switching_model", "current_scale"),
    *("recenter", "shared_axes", "driver", "spread", "seed", "knob_scale"),
)
MEASURED = MTJDevice.preset("vgsot_zhang2020")
CURVE = EmpiricalCurve.preset("sot_80nm")
REFERENCE = MTJDevice.preset("stt_reference")
FREE = MTJDevice.preset("smtj_schnitzspan2023").switching_curve
BUILT = SpinNeuron(spread=ChipSpread(current=0.1))
BUILT.build((None, 3))


def read_back(name, made):
    """The argument as the object holds it."""
    if isinstance(made, SpinNeuron):
        names = {"train": "trained_knobs", "output": "output_mode"}
        return getattr(made, names.get(name, name))
    return made[name] if isinstance(made, dict) else getattr(made, name)


# maker, names of its arguments, and those that may be None
ARGUMENTS = {
    "neuron": (
        SpinNeuron,
        NEURON,
        "shared_axes current_scale switching_model driver spread seed",
    ),
    "law": (NeelBrown, ("barrier_exponent", "attempt_time"), "attempt_time"),
    "driver": (Driver, ("pulse_step", "gate_levels"), "pulse_step gate_levels"),
    "spread": (ChipSpread, tuple(ChipSpread.__dataclass_fields__), ""),
    "budget": (
        lambda **given: EnergyBudget(**{"limit": 1e-12, **given}),
        ("limit", "rate", "highest", "margin", "monitor", "mode", "assumptions"),
        "assumptions",
    ),
    "assumptions": (EnergyAssumptions, tuple(EnergyAssumptions.__dataclass_fields__), ""),
    "device": (
        MEASURED.replace,
        tuple(MTJDevice.__dataclass_fields__),
        "write_resistance switching_curve origin relaxation_time reset_efficiency reset_curve",
    ),
    "curve": (CURVE.replace, tuple(EmpiricalCurve.__dataclass_fields__), "origin"),
    "free curve": (FREE.replace, tuple(EquilibriumCurve.__dataclass_fields__), "origin"),
    "objective": (
        EnergyObjective,
        ("delta", "rate", "metric", "energy", "reference_pj", "direction", "name"),
        "",
    ),
}


def is_what_was_given(value, held):
    """Whether an argument holds what was given, and nothing that was made of something else."""
    if isinstance(held, bool):
        return isinstance(value, bool | np.bool_) and value == held
    if isinstance(held, int | float):
        return not isinstance(value, bool | np.bool_ | str | bytes) and float(value) == held
    if isinstance(held, tuple) and isinstance(value, bool):  # train
        return len(held) == 2 * value
    if isinstance(held, tuple):
        given = value if isinstance(value, list | tuple | np.ndarray) else [value]
        return np.shape(given)[:1] == (len(held),) and all(a == b for a, b in zip(given, held))
    return value == held


@pytest.mark.parametrize("area", ARGUMENTS)
@seeds(120, 3000)
def test_arguments(area, seed, tries):
    make, names, may_be_none = ARGUMENTS[area]
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for k in range(tries):
        name, value = names[k % len(names)], odd.odd_value(rng)
        words = name.rstrip("s"), name.split("_")[0]
        kind, result = odd.outcome(lambda: make(**{name: value}), *words)  # noqa: B023
        kinds.append(kind)
        what = f"{area} {name}: {type(value).__name__}"
        if kind == "raw":
            problems.append(f"{what}: {result}")
        elif kind == "taken" and value is None:
            if name not in may_be_none.split():
                problems.append(f"{what}: None taken")
        elif kind == "taken" and not is_what_was_given(value, read_back(name, result)):
            problems.append(f"{what}: taken as {read_back(name, result)!r}")
    no_problem(problems, kinds)


@seeds(150, 3000)
def test_search_spaces(seed, tries):
    names = [
        "device",
        "shortest_pulse",
        "window",
        "train",
        "sharing",
        "gain",
        "recenter",
        "pulses",
        "rank",
        "prefix",
    ]
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for k in range(tries):
        name, value = names[k % len(names)], odd.odd_value(rng)
        if rng.integers(3) == 0:
            value = (value, odd.odd_value(rng))
        given = {"device": "stt_reference", "window": 2.0, "gain": 1.0, name: value}
        kind, result = odd.outcome(
            lambda: SpinNeuron(**spin_search_space(kt.HyperParameters(), **given)),  # noqa: B023
            name,
            name.split("_")[0],
        )
        kinds.append(kind)
        if kind == "raw":
            problems.append(f"{name}: {result}")
    no_problem(problems, kinds)


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: EnergyAssumptions(bad),
        lambda bad: ChipSpread(bad),
        lambda bad: Driver(bad),
        lambda bad: NeelBrown(bad),
        lambda bad: MTJDevice(bad),
        lambda bad: EmpiricalCurve(bad),
        lambda bad: EquilibriumCurve(bad),
        lambda bad: EnergyAssumptions(read=bad),
        lambda bad: ChipSpread(sigma=bad),
        lambda bad: Driver(step=bad),
        lambda bad: NeelBrown(exponent=bad),
        lambda bad: MTJDevice(diametre=bad),
        lambda bad: EmpiricalCurve(level=bad),
        lambda bad: MEASURED.replace(diametre=bad),
        lambda bad: CURVE.replace(level=bad),
        lambda bad: ChipSpread.from_devices(bad, "stt_reference"),
        lambda bad: ChipSpread.from_factors(bad),
        lambda bad: ChipSpread.from_factors({"stability": bad}),
        lambda bad: MTJDevice.preset(bad),
        lambda bad: EmpiricalCurve.preset(bad),
        lambda bad: MTJDevice.from_json(bad),
        lambda bad: MTJDevice.from_config(bad),
        lambda bad: EmpiricalCurve.from_config(bad),
        lambda bad: EquilibriumCurve.from_config(bad),
        lambda bad: Driver.from_config(bad),
        lambda bad: NeelBrown.from_config(bad),
        lambda bad: SpinNeuron.from_config(bad),
        lambda bad: SpinNeuron(pulse_step=bad),
        lambda bad: SpinNeuron(attempt_time=bad, gate_levels=bad),
        lambda bad: spinkeras.DeviceRange("stt_reference", bad),
        lambda bad: spinkeras.DeviceRange("stt_reference", "pulse_width", bad),
        lambda bad: spinkeras.ExactBackup(b"" if isinstance(bad, str) else bad),
        lambda bad: durable(bad),
        lambda bad: durable(kt.RandomSearch, lease=bad),
        lambda bad: spinkeras.switching_probability(bad, 2e-9, "stt_reference"),
        lambda bad: spinkeras.midpoint_current(bad, "stt_reference"),
        lambda bad: spinkeras.pulse_width_for_slope(bad, "stt_reference"),
        lambda bad: setattr(BUILT, "pulse_width", bad),
        lambda bad: setattr(BUILT, "gate_voltage", bad),
        lambda bad: setattr(BUILT, "anisotropy", bad),
        lambda bad: BUILT.hold_chip(1.5 if bad is None else bad),
        lambda bad: spinkeras.spin_neurons(bad),
        lambda bad: spinkeras.latency(bad),
        lambda bad: spinkeras.energy_report(bad, np.ones((2, 3))),
        lambda bad: spinkeras.reliability(bad),
        lambda bad: spinkeras.device_settings(bad),
        lambda bad: spinkeras.device_settings(BUILT, 5 if bad is None else bad),
        lambda bad: spinkeras.apply_device_settings(bad, []),
        lambda bad: spinkeras.SpinTensorBoard(5 if isinstance(bad, str) else bad),
        lambda bad: spin_search_space(bad),
        lambda bad: energy_front(bad),
        lambda bad: spinkeras.show_versions(bad),
        lambda bad: spinkeras.search.SpinHyperModel(network, 1 if bad is None else bad),
        lambda bad: spinkeras.search.SpinHyperModel(network, None, 1 if bad is None else bad),
        lambda bad: spinkeras.sample_devices("stt_reference", 2, spread={"anisotropy": bad}),
        lambda bad: Driver(pulse_step=1e-9).grids(bad),
        lambda bad: NeelBrown().curve(bad),
        lambda bad: EnergyAssumptions().lines(bad),
        lambda bad: llg.simulate_switching("stt_reference", 1j if bad is None else bad, 2e-9),
        lambda bad: EnergyObjective().score(0.9, bad),
        lambda bad: energy.antiparallel_resistance(5e-5, "stt_reference", resistance=bad),
        lambda bad: energy.antiparallel_resistance(5e-5, "stt_reference", tmr=bad),
        lambda bad: energy.write_energy(5e-5, 2e-9, bad, "stt_reference"),
        lambda bad: energy.write_energy(5e-5, bad, 0.5, "stt_reference"),
        lambda bad: energy.write_energy(5e-5, 2e-9, 0.5, "stt_reference", bad),
        lambda bad: energy.read_energy(bad, "stt_reference"),
        lambda bad: energy.read_energy(0.5, "stt_reference", 1 if bad is None else bad),
        lambda bad: energy.reset_current(bad),
        lambda bad: energy.reset_current("stt_reference", 1 if bad is None else bad),
        lambda bad: energy.reset_pulses(bad),
        lambda bad: energy.reset_failure("stt_reference", bad),
        lambda bad: energy.reset_energy("stt_reference", resistance=bad),
        lambda bad: energy.pulse_energies(5e-5, 2e-9, bad, 0.5, "stt_reference"),
        lambda bad: energy.pulse_energies(5e-5, 2e-9, 1e5, 0.5, "stt_reference", pulses=bad),
        lambda bad: spinkeras.hardware.read_disturb("stt_reference", bad),
        lambda bad: REFERENCE.stability_at(bad),
        lambda bad: REFERENCE.retention_at(bad),
        lambda bad: REFERENCE.gate_voltage_for(bad),
        lambda bad: REFERENCE.stability_for_retention(bad),
        lambda bad: spinkeras.DeviceRange("stt_reference", "anisotropy").to_weight(bad),
        lambda bad: llg.spin_orbit_field(1e12, bad, "stt_reference"),
        lambda bad: fokker_planck.switching_probability(bad, 2e-9, "stt_reference"),
        lambda bad: fokker_planck.switching_probability(5e-5, bad, "stt_reference"),
        lambda bad: fokker_planck.switching_curve(bad, [1.5], 40.0),
        lambda bad: fokker_planck.switching_curve(2.2, [1.5], bad),
        lambda bad: fokker_planck.switching_curve(2.2, bad, 40.0),
    ],
)
def test_calls(call):
    """What is no number, no name and no device, in every way into the package."""
    for bad in ("x", None, True, 1j, [], {}, {"a": 1}, odd.Strange(), odd.nested(60), -(10**400)):
        if isinstance(bad, list | dict) and not bad:  # an empty table is one
            continue
        kind, said = odd.outcome(lambda: call(bad))  # noqa: B023
        assert kind == "refused", said


# --- descriptions in JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda bad: energy.antiparallel_resistance(bad, "stt_reference"),
        lambda bad: energy.write_energy(bad, 2e-9, 0.5, "stt_reference"),
        lambda bad: energy.gate_energy(bad, "stt_reference"),
        lambda bad: spinkeras.physics.current_of_voltage(bad, "stt_reference"),
        lambda bad: spinkeras.physics.voltage_of_current(bad, "stt_reference"),
        lambda bad: REFERENCE.anisotropy_at(bad),
        lambda bad: spinkeras.DeviceRange("stt_reference", "anisotropy").to_value(bad),
        lambda bad: llg.spin_orbit_field(bad, 0.3, "stt_reference"),
    ],
)
def test_calls_with_a_number_of_either_sign(call):
    for bad in (
        "x",
        None,
        True,
        1j,
        {"a": 1},
        odd.Strange(),
        odd.nested(60),
        [1.0, "x"],
        [[1], [1, 2]],
    ):
        kind, said = odd.outcome(lambda: call(bad))  # noqa: B023
        assert kind == "refused", said
    plain = [call(sign * 0.1) for sign in (-1, 1)]
    np.testing.assert_allclose(call([-0.1, 0.1]), plain)
    assert np.isnan(call(math.nan))


def as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("thing", [MEASURED, MTJDevice.preset("stt_reference")])
@seeds(200, 6000)
def test_devices_in_json(thing, seed, tries):
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for _ in range(tries):
        if rng.integers(2):
            text, path = odd.changed_json(as_json(thing.get_config()), rng)
        else:
            text, path = odd.damaged(thing.to_json(), rng), "damaged"
        kind, result = odd.outcome(lambda: MTJDevice.from_json(text))  # noqa: B023
        kinds.append(kind)
        if kind == "raw":
            problems.append(f"{path}: {result}")
        elif kind == "taken" and not holds(result.get_config(), json.loads(text)):
            problems.append(f"{path}: taken as {result!r}")
    no_problem(problems, kinds)


def holds(config, given):
    """Whether a configuration holds what was given; what was left out has its default."""
    if isinstance(given, dict):
        return isinstance(config, dict) and all(
            key in config and holds(config[key], value) for key, value in given.items()
        )
    if isinstance(given, list):
        return len(config) == len(given) and all(map(holds, config, given))
    numbers = isinstance(given, int | float) and isinstance(config, int | float)
    same_kind = numbers and isinstance(given, bool) == isinstance(config, bool)
    return config == given and (same_kind or type(config) is type(given))


FULL = SpinNeuron(
    device=MEASURED,
    spread=ChipSpread(stability=0.1, devices=[[1.0] * 5] * 2),
    output="sampled",
    driver=Driver(gate_levels=8, pulse_step=1e-10),
    pulses=4,
    seed=3,
    shared_axes=(1,),
)
LAYERS = {
    "plain": lambda: SpinNeuron(),
    "law": lambda: SpinNeuron(switching_model=NeelBrown(barrier_exponent=1.5)),
    "curve": lambda: SpinNeuron(switching_model=CURVE, train="pulse_width", bipolar=True),
    "full": lambda: SpinNeuron.from_config(FULL.get_config()),
}
OURS = (*NEURON, "class_name", "module", "registered_name")
PROBE = np.linspace(-30, 30, 12, dtype="float32").reshape(4, 3)


@pytest.mark.parametrize("which", LAYERS)
@seeds(60, 2000)
def test_layers_in_files(which, seed, tries):
    """The configuration of a layer as it stands in a `.keras` file, changed in one place."""
    rng, problems, kinds = np.random.default_rng(seed), [], []
    config = as_json({key: v for key, v in LAYERS[which]().get_config().items() if key in NEURON})
    whole = as_json(LAYERS[which]().get_config())
    for _ in range(tries):
        if rng.integers(15) == 0:
            changed, path = {}, "all"
        else:
            text, path = odd.changed_json(config, rng)
            try:
                changed = whole | json.loads(text)
            except (RecursionError, ValueError):  # Keras cannot read such a file
                continue
            for key in config.keys() - json.loads(text).keys():
                del changed[key]
        if not isinstance(path, str) and path[-1] in ("module", "registered_name", "class_name"):
            continue  # by these Keras finds the class
        kind, result = odd.outcome(lambda: built(changed))  # noqa: B023
        kinds.append(kind)
        if kind == "raw":
            problems.append(f"{path}: {result}")
        elif kind == "taken":
            problems += [f"{path}: {p}" for p in problems_of(result, changed)]
    no_problem(problems, kinds)


def plain(key, value):
    """A short form of an argument in full."""
    if key == "train" and isinstance(value, bool):
        return ["pulse_width", "anisotropy"] if value else []
    return [value] if key == "shared_axes" and isinstance(value, int) else value


def built(config):
    layer = SpinNeuron.from_config(config)
    layer.build(PROBE.shape)
    return layer


def problems_of(layer, config):
    """What is wrong with a layer that was made of a configuration."""
    made = as_json(layer.get_config())
    found = [
        f"{key} = {value!r:.200} taken as {made[key]!r:.200}"
        for key, value in config.items()
        if key in NEURON and value is not None and not holds(made[key], plain(key, value))
    ]
    if layer.device == MEASURED:
        return found
    answer = keras.ops.convert_to_numpy(layer(PROBE))
    low = -1 if layer.bipolar else 0
    if not (np.all(np.isfinite(answer)) and answer.min() >= low and answer.max() <= 1):
        found.append(f"answers {answer!r}")
    return found


# --- files ---------------------------------------------------------------------------------------


def small_model(device="stt_reference"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            SpinNeuron(device=device, name="first"),
            keras.layers.Dense(2, name="dense"),
            SpinNeuron(name="second"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    model.compile("adam", "mse")
    return model


def table_of(path):
    """The numbers of a driver's table, read by other means than the library's."""
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
    else:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    return {(row["layer"], int(float(row["neuron"]))): row for row in rows}


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@seeds(60, 1500)
def test_driver_tables(suffix, seed, tries, tmp_path):
    model, path = small_model(), tmp_path / f"table{suffix}"
    for k, layer in enumerate(spinkeras.spin_neurons(model)):
        layer.pulse_width = [3e-9, 7e-9 + k * 1e-9]
        layer.gate_voltage = [0.25, -0.5]
    rows = driver_table.device_settings(model, path)
    text, before = path.read_text(), model.get_weights()
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for _ in range(tries):
        if suffix == ".json" and rng.integers(2):
            content, what = odd.changed_json(rows, rng)
            path.write_text(content)
        else:
            path.write_bytes(odd.damaged(text, rng))
            what = "damaged"
        for weight, value in zip(model.weights, before):
            weight.assign(value)
        kind, result = odd.outcome(
            lambda: driver_table.apply_device_settings(model, path), path.name, "row", "The table"
        )
        kinds.append(kind)
        if kind == "raw":
            problems.append(f"{what}: {result}")
        elif kind == "refused":
            if any(np.any(a != b) for a, b in zip(model.get_weights(), before)):
                problems.append(f"{what}: refused and changed")
        else:
            given = table_of(path)
            for row in driver_table.device_settings(model):
                for key in ("pulse_width_s", "gate_voltage_v"):
                    wanted = float(given[row["layer"], row["neuron"]][key])
                    if not math.isclose(
                        row[key], wanted, rel_tol=1e-5, abs_tol=1e-6 * (key[0] == "g")
                    ):
                        problems.append(f"{what}: {row} where {wanted} was given")
    no_problem(problems, kinds)


def test_a_driver_table_of_a_very_stable_device_is_valid_json(tmp_path):
    """A retention that no number holds is given as the longest one, in the table and the file."""
    large = MTJDevice.preset("stt_reference").replace(
        diameter=200e-9, switching_curve=CURVE, gate_voltage_range=(-0.5, 0.5)
    )
    assert large.thermal_stability > 900
    layer = SpinNeuron(large, train="pulse_width", name="spin")
    model = keras.Sequential([keras.Input((2,)), layer])
    rows = driver_table.device_settings(model, tmp_path / "table.json")
    assert all(row["retention_s"] == 1e300 for row in rows)

    def no_constant(name):
        raise AssertionError(name)

    assert json.loads((tmp_path / "table.json").read_text(), parse_constant=no_constant) == rows
    driver_table.apply_device_settings(model, tmp_path / "table.json")


X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")


def chip_results(model, path):
    return chips.evaluate_chips(
        model, X, Y, ChipSpread(stability=0.3), chips=4, chips_at_once=2, results_file=path,
        progress=False,
    )  # fmt: skip


def filed_results(whole, label, path):
    """What `evaluate_chips` does with its file, the chips measured before: it is much faster."""
    done = read_results(path, label, True)
    wanted = dict(enumerate(zip(whole.accuracy.tolist(), whole.energy_pj.tolist())))
    missing = {chip: list(pair) for chip, pair in wanted.items() if chip not in done}
    if missing:
        append_results(path, label, missing)
    pairs = np.array([(done | missing)[chip] for chip in range(4)])
    return dataclasses.replace(whole, accuracy=pairs[:, 0], energy_pj=pairs[:, 1])


def rows_of(content):
    """Chip and values of every whole line that holds a result."""
    found = []
    for line in content.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
            found.append((row["chip"], row["label"], row["values"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("chips") / "chips.jsonl"
    model = small_model()
    return model, chip_results(model, path), path.read_bytes()


def check_results(results, path, content, measured_again):
    """What is wrong with going on from a file with this content, and what it came to."""
    model, whole, written = results
    label = json.loads(written.splitlines()[0])["label"]

    def go_on():
        return chip_results(model, path) if measured_again else filed_results(whole, label, path)

    path.write_bytes(content)
    kind, report = odd.outcome(go_on, path.name)
    if kind == "raw":
        return kind, [report]
    if kind == "refused":
        return kind, [] if path.read_bytes() == content else ["refused and changed"]
    problems, given = [], rows_of(content)
    for chip in range(4):
        values = [report.accuracy[chip], report.energy_pj[chip]]
        measured = np.allclose(values, [whole.accuracy[chip], whole.energy_pj[chip]], rtol=1e-4)
        if not measured and values not in [row[2] for row in given if row[0] == chip]:
            problems.append(f"chip {chip} has {values}")
    after = path.read_bytes()
    if not {row[0] for row in rows_of(after)} >= set(range(4)):  # or those of a longer study
        problems.append(f"file then {after!r}")
    kind_again, again = odd.outcome(go_on)
    if kind_again != "taken" or path.read_bytes() != after:
        problems.append(f"the next one: {again}")
    return kind, problems


@pytest.mark.parametrize(
    ("step", "measured_again"),
    [(5, False), *(pytest.param(k, m, marks=pytest.mark.slow) for k, m in ((1, False), (7, True)))],
)
def test_chip_results_cut_at_any_byte_go_on(step, measured_again, results, tmp_path):
    """The half line is measured again, and never glued to the next."""
    content = results[2]
    ends = [k for k, byte in enumerate(content) if byte == 10]
    for at in sorted({*range(0, len(content), step), *ends, *(end + 1 for end in ends)}):
        path = tmp_path / "cut.jsonl"
        kind, problems = check_results(results, path, content[:at], measured_again)
        assert (kind, problems) == ("taken", []), at
        assert path.read_bytes() == content


@seeds(100, 3000)
def test_chip_results(seed, tries, results, tmp_path):
    rng, problems, kinds = np.random.default_rng(seed), [], []
    lines = [json.loads(line) for line in results[2].splitlines()]
    for _ in range(tries):
        if rng.integers(2):
            k = rng.integers(len(lines))
            text, what = odd.changed_json(lines[k], rng)
            several = [json.dumps(line) for line in lines]
            several[k] = text
            content = "".join(f"{line}\n" for line in several).encode()
        else:
            content, what = odd.damaged(results[2], rng), "damaged"
        kind, found = check_results(results, tmp_path / "chips.jsonl", content, False)
        kinds.append(kind)
        problems += [f"{what}: {content!r}: {problem}" for problem in found]
    no_problem(problems, kinds)


# --- backups -------------------------------------------------------------------------------------


def backed_up(model, folder):
    callback = spinkeras.ExactBackup(folder)
    callback.set_model(model)
    return callback


def everything(model):
    """Values of all that a backup holds, which only the callback itself can list."""
    # Private: the variables that a backup holds. They, and where a fit begins, have no public name.
    return [keras.ops.convert_to_numpy(v) for v in backed_up(model, "x")._variables()]


@pytest.fixture
def backup(tmp_path):
    """A model after two backed-up epochs, its folder with the newer one, and its values."""
    model, folder = small_model(), tmp_path / "backup"
    model.layers[0].pulse_width = [3e-9, 7e-9]
    callback = backed_up(model, folder)
    callback.on_train_begin()
    callback.on_epoch_end(0, {"loss": 1.5})
    callback.on_epoch_end(1, {"loss": float("nan"), "f1": np.array([0.5, 1.0])})
    return model, folder, everything(model)


def resumed(model, folder):
    """What resuming comes to: kind, what was said, epochs, values; from other weights."""
    for variable in backed_up(model, folder)._variables():
        variable.assign(0 * keras.ops.convert_to_numpy(variable))
    callback = backed_up(model, folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kind, result = odd.outcome(callback.on_train_begin, "backup")
    said = [str(warning.message) for warning in said if warning.category is UserWarning]
    return kind, result, said, model._initial_epoch, everything(model), callback._history


def damage_backup(folder, rng):
    """Damages one file of a backup, or what lies beside it; what was done."""
    newest = folder / "epoch_000002"
    name = ("variables.npz", "history.json", "content.json")[rng.integers(3)]
    done = rng.integers(9)
    if done <= 3:
        content = (newest / name).read_bytes()
        (newest / name).write_bytes(odd.damaged(content, rng))
    elif done == 4:
        (newest / name).unlink()
    elif done == 5:
        newest.rename(folder / "epoch_000007")
    elif done == 6:
        stray = ("notes.txt", "epoch_000009", "epoch_x", "epoch_", "epoch_99999999999999", ".old")
        (folder / stray[rng.integers(6)]).write_bytes(b"stray")
    elif done == 7:
        stray = ("epoch_000009", "epoch_000001 (copy)", "epoch_abc", "epoch_-00001", "models")
        (folder / stray[rng.integers(5)]).mkdir()
        (folder / ".epoch_000003.0.part").mkdir()
    else:
        text, _ = odd.changed_json(json.loads((newest / "content.json").read_text()), rng)
        (newest / "content.json").write_text(text)
    return f"{done} {name}"


@pytest.mark.parametrize("older_too", [False, True])
@seeds(30, 400)
def test_backups(older_too, seed, tries, backup, tmp_path):
    model, folder, values = backup
    if older_too:
        callback = backed_up(model, tmp_path / "older")
        callback.on_epoch_end(0, {"loss": 1.5})
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for k in range(tries):
        here = tmp_path / f"try_{k}" / "backup"
        shutil.copytree(folder, here)
        if older_too:
            shutil.copytree(tmp_path / "older", here, dirs_exist_ok=True)
        what = damage_backup(here, rng)
        kind, said, warned, epochs, found, _ = resumed(model, here)
        kinds.append(kind)
        whole = all(np.array_equal(a, b) for a, b in zip(found, values))
        if kind == "raw":
            problems.append(f"{what}: {said}")
        elif kind == "taken" and not (whole and epochs in (1, 2)):
            problems.append(f"{what}: taken")
        elif kind == "taken" and epochs == 1 and not warned:
            problems.append(f"{what}: the older one taken without a word")
        elif kind == "refused" and (older_too or any(np.any(v) for v in found)):
            problems.append(f"{what}: refused, {said}")
        shutil.rmtree(here.parent)
    assert not problems, problems[:5]
    assert "taken" in kinds
    assert older_too or "refused" in kinds


def test_a_backup_holds_the_history_whatever_its_numbers(backup):
    model, folder, _ = backup
    *_, epochs, _, history = resumed(model, folder)
    assert epochs == 2
    assert history[0] == [0, {"loss": 1.5}]
    assert math.isnan(history[1][1]["loss"])
    assert history[1][1]["f1"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"device": MTJDevice.preset("stt_reference").replace(temperature=310.0)}, "device"),
        ({"device": "stt_arm"}, "device"),
        ({"knob_scale": 2.0}, "knob_scale"),
        ({"recenter": False}, "recenter"),
        ({"current_scale": 1e-5}, "current_scale"),
        ({"driver": Driver(gate_levels=16)}, "driver"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_backup_of_another_device_or_setting_is_refused(change, word, nested, tmp_path):
    def model(**arguments):
        neuron = SpinNeuron(**arguments)
        inner = [keras.Sequential([neuron])] if nested else [neuron]
        made = keras.Sequential([keras.Input((2,)), *inner, keras.layers.Dense(1)])
        made.compile("adam", "mse")
        return made

    callback = backed_up(model(), tmp_path / "backup")
    callback.on_epoch_end(0, {"loss": 1.0})
    kind, said, *_ = resumed(model(**change), tmp_path / "backup")
    assert kind == "refused"
    assert "spin layer 0 has another" in said
    assert word in said
    assert resumed(model(), tmp_path / "backup")[0] == "taken"


def test_backups_hold_nothing_that_the_device_cannot_do(backup):
    """NaN is not backed up; a knob that was put outside its box comes back at its edge."""
    model, folder, values = backup
    callback = backed_up(model, folder)
    callback.on_train_begin()
    model.layers[1].kernel.assign(np.full((2, 2), np.nan))
    with pytest.warns(UserWarning, match="Epoch 2 ended with NaN .* not backed up"):
        callback.on_epoch_end(2, {"loss": 1.0})
    kind, _, said, epochs, found, _ = resumed(model, folder)
    assert (kind, said, epochs) == ("taken", [], 2)
    np.testing.assert_array_equal(found[0], values[0])
    model.layers[0].log_pulse_width.assign([9.0, 0.0])
    callback.on_epoch_end(3, {"loss": 1.0})
    kind, _, said, *_ = resumed(model, folder)
    assert kind == "taken"
    assert len(said) == 1
    assert "pulse_width of layer 'first'" in said[0]
    knob = keras.ops.convert_to_numpy(model.layers[0].log_pulse_width)
    np.testing.assert_allclose(knob, [model.layers[0]._ranges["pulse_width"].bounds[1], 0.0])


@pytest.mark.parametrize("calls", range(8))
def test_a_backup_killed_at_any_system_call_leaves_one(calls, backup, monkeypatch):
    """The process ends at the n-th call that changes or flushes the disk."""
    model, folder, values = backup
    callback = backed_up(model, folder)
    callback.on_train_begin()
    model.layers[1].kernel.assign(np.ones((2, 2)))
    newer, count = everything(model), [calls]

    class Killed(BaseException):
        pass

    def until_killed(function):
        def call(*args, **kwargs):
            if count[0] == 0:
                raise Killed
            count[0] -= 1
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "replace", "mkdir"):
            patch.setattr(os, name, until_killed(getattr(os, name)))
        patch.setattr(shutil, "rmtree", until_killed(shutil.rmtree))
        with contextlib.suppress(Killed):
            callback.on_epoch_end(2, {"loss": 1.0})
    kind, _, said, epochs, found, _ = resumed(model, folder)
    assert (kind, said) == ("taken", [])
    for a, b in zip(found, {2: values, 3: newer}[epochs]):
        np.testing.assert_array_equal(a, b)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


# --- searches ------------------------------------------------------------------------------------


def network(hp):
    hp.Float("x", 0.0, 1.0)
    return network_without_x(hp)


def network_without_x(hp):
    hp.Boolean("y")
    with hp.conditional_scope("y", [True]):
        if hp.get("y"):
            hp.Int("inner", 1, 5)
    hp.Choice("c", ["a", "b"])
    return keras.Sequential()


def tuner(folder, build=network, kind="GridSearch"):
    made = durable(getattr(kt, kind))(
        build,
        objective=kt.Objective("score", "max"),
        directory=folder,
        project_name="search",
        max_trials=6,
        seed=1,
    )
    made.oracle.verbose = 0
    return made


def go_on(made):
    """One more trial of a search."""
    oracle = made.oracle
    trial = oracle.create_trial("tuner0")
    if trial.status == "RUNNING":
        oracle.update_trial(trial.trial_id, {"score": 0.5})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    made.save()
    return made


def begun(folder, **options):
    made = tuner(folder, **options)
    made.save()
    for _ in range(2):
        go_on(made)
    return made


@pytest.mark.parametrize("kind", ["GridSearch", "RandomSearch", "BayesianOptimization"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hp: hp.Float("z", 0.0, 1.0), r"New: .*'z'.*missing: \[\]"),
        (lambda hp: hp.Choice("z", [1, 2]), r"New: .*'z'.*missing: \[\]"),
        (lambda hp: hp.Float("x", 0.0, 2.0), r"another range: .*'x'"),
        (lambda hp: hp.Int("x", 0, 1), r"another range: .*'x'"),
        (None, r"New: \[\]; missing: .*'x'"),
    ],
)
def test_a_search_with_other_hyperparameters_is_refused(kind, change, message, tmp_path):
    def other(hp):
        if change is not None:
            change(hp)
            hp.Float("x", 0.0, 1.0)
        return network_without_x(hp)

    begun(tmp_path, kind=kind)
    with pytest.raises(ValueError, match=f"begun with other hyperparameters.*{message}"):
        tuner(tmp_path, other, kind=kind)
    go_on(tuner(tmp_path, kind=kind))


def test_a_hyperparameter_that_appears_in_the_search_is_named(tmp_path):
    made = begun(tmp_path)
    hp = made.oracle.get_space()
    hp.Choice("late", [1, 2])
    made.oracle.update_space(hp)
    with pytest.raises(ValueError, match="did not declare the hyperparameter 'late'"):
        go_on(made)


@seeds(40, 600)
def test_searches(seed, tries, tmp_path):
    begun(tmp_path / "whole")
    rng, problems, kinds = np.random.default_rng(seed), [], []
    for k in range(tries):
        here = tmp_path / f"try_{k}"
        shutil.copytree(tmp_path / "whole", here)
        paths = sorted(here.rglob("*.json"))
        path = paths[rng.integers(len(paths))]
        what = f"{path.name}"
        if rng.integers(2):
            text, where = odd.changed_json(json.loads(path.read_text()), rng)
            path.write_text(text)
            what += f" {where}"
        elif rng.integers(6):
            path.write_bytes(odd.damaged(path.read_text(), rng))
        elif path.name != "tuner0.json":  # without it there is no search to go on with
            path.unlink()
        kind, result = odd.outcome(lambda: tuner(here), here.name)  # noqa: B023
        if kind == "taken":
            kind, result = odd.outcome(lambda: go_on(result))  # noqa: B023
        kinds.append(kind)
        if kind == "raw":
            problems.append(f"{what}: {result}")
        shutil.rmtree(here)
    no_problem(problems, kinds)
