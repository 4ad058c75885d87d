"""What free-running junctions cost, and what their chips, tables and exports say or refuse."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import (
    ChipSpread,
    EmpiricalCurve,
    EnergyAssumptions,
    EquilibriumCurve,
    MTJDevice,
    SpinNeuron,
)
from spinkeras.energy import antiparallel_resistance, read_energy
from spinkeras.physics import equilibrium
from tests.layer.harness import law_of

LOW = MTJDevice.preset("smtj_reference")
GENTLE = EnergyAssumptions(read_voltage=0.02, read_time=1e-9)
FIELD = 1e-3
CURVE = EquilibriumCurve(
    threshold=-0.7e-6,
    slope=1.2e6,
    floor=0.02,
    ceiling=0.95,
    relaxation_time=0.4e-6,
    anisotropy_exponent=0.5,
    slope_anisotropy_exponent=0.4,
    relaxation_anisotropy_exponent=5.0,
)
MEASURED = LOW.replace(switching_curve=CURVE)


def network(device=LOW, **options):
    options = {"name": "free", "switching_model": law_of(device), "pulses": 3} | options
    layer = SpinNeuron(device, **options)
    return keras.Sequential([keras.Input((4,)), layer])


def by_hand(model, x, assumptions):
    """J per inference: the held current, the reads and the gate, and nothing else."""
    layer = model.layers[-1]
    device, current = layer.device, layer.bias_current + layer.current_scale * x.astype("float64")
    p = spinkeras.switching_probability(current, 1e-6, device, layer.anisotropy, law_of(device))
    high = antiparallel_resistance(current, device)
    path = device.resistance_parallel * (1 - p) + high * p
    path = path if device.write_resistance is None else device.write_resistance
    held = current**2 * layer.pulse_width * path
    read = read_energy(p, device, assumptions)
    gate = device.gate_capacitance * layer.gate_voltage**2
    return layer.pulses * held.sum(-1), layer.pulses * read.sum(-1), gate.sum() + 0 * x[:, 0]


@pytest.mark.backends
@pytest.mark.parametrize(
    "device",
    [LOW, LOW.replace(offset_field=FIELD), MEASURED, MEASURED.replace(write_resistance=900.0)],
    ids=["law", "field", "curve", "channel"],
)
def test_the_energy_is_that_of_the_held_current_and_the_reads(device):
    model = network(device)
    model.layers[-1].gate_voltage = np.array([-0.2, 0.0, 0.1, 0.3])
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    held, read, gate = (float(e.mean()) * 1e12 for e in by_hand(model, x, GENTLE))
    report = spinkeras.energy_report(model, x, assumptions=GENTLE, print_fn=None)
    row = report.layers[0]
    found = [row[f"{part}_pj"] for part in ("write", "read", "gate", "reset")]
    np.testing.assert_allclose(found, [held, read, gate, 0.0], rtol=2e-5)
    assert np.isnan(row["retention_s"])
    shown = f"none, relaxation {spinkeras.cards.duration(row['relaxation_s'])}"
    assert shown in report._repr_html_()
    assert "relaxation" in str(report)
    highest = model.layers[-1].anisotropy.max()
    if device.switching_curve is None:
        balance = equilibrium.balance_current(device)
        slowest = equilibrium.relaxation_time(balance, device, highest)
    else:
        slowest = 0.4e-6 * (highest / device.anisotropy) ** 5
    assert row["relaxation_s"] == pytest.approx(slowest)
    assert report.columns()["relaxation_s"] == [row["relaxation_s"]]
    assert row["latency_ns"] == pytest.approx(3 * LOW.nominal_pulse_width * 1e9)
    model.compile("sgd", "mse", run_eagerly=True)
    tracker = spinkeras.EnergyTracker(GENTLE)
    model.evaluate(x, x, verbose=0, callbacks=[tracker])
    assert tracker.results["energy_pj"] == pytest.approx(held + read + gate, rel=1e-4)
    history = model.fit(x, x, verbose=0, callbacks=[tracker]).history
    assert history["energy_pj"][0] == pytest.approx(held + read + gate, rel=1e-4)
    assert np.isnan(history["retention_s"][0])


def test_the_report_says_what_it_counts():
    said = []
    report = spinkeras.energy_report(
        network(), np.zeros((2, 4), "float32"), assumptions=GENTLE, print_fn=said.append
    )
    assert "free-running, relaxation up to" in said[0]
    assert "no reset" in said[0]
    assert "settle before the first read" in said[0]
    assert report.layers[0]["write_pj"] == 0.0  # no current is needed at the midpoint
    mixed = keras.Sequential([keras.Input((4,)), *network().layers, SpinNeuron(name="pulsed")])
    report = spinkeras.energy_report(
        mixed, np.zeros((2, 4), "float32"), assumptions=GENTLE, print_fn=None
    )
    free, pulsed = report.layers
    assert report.columns()["relaxation_s"][0] == free["relaxation_s"] > 0
    assert np.isnan(report.columns()["relaxation_s"][1])
    assert list(report.to_dataframe()["relaxation_s"].isna()) == [False, True]
    assert free["reset_pj"] == 0 < pulsed["reset_pj"]
    assert np.isfinite(pulsed["retention_s"])


@pytest.mark.parametrize(
    ("assumptions", "strong"),
    [(EnergyAssumptions(), True), (GENTLE, False), (EnergyAssumptions(read_time=1e-10), False)],
)
@pytest.mark.parametrize("device", [LOW, MEASURED], ids=["law", "curve"])
def test_a_read_that_disturbs_is_said(assumptions, strong, device):
    model, x = network(device), np.zeros((2, 4), "float32")
    model.compile("sgd", "mse", run_eagerly=True)
    for measure in (
        lambda: spinkeras.energy_report(model, x, assumptions=assumptions, print_fn=None),
        lambda: model.evaluate(x, x, verbose=0, callbacks=[spinkeras.EnergyTracker(assumptions)]),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measure()
        assert any("may change the bit" in str(w.message) for w in caught) is strong


def test_the_push_of_a_read_is_what_the_exact_equation_says():
    """Of a bit in balance: `push rho(0)`, the current of probability through `z = 0`."""
    from spinkeras.energy import pulse
    from spinkeras.macrospin import fokker_planck

    push = pulse.read_push(LOW, GENTLE)
    drive = GENTLE.read_voltage / LOW.resistance_parallel / LOW.critical_current_per_stability
    assert push == pytest.approx(drive * GENTLE.read_time / LOW.diffusion_time)
    from scipy import linalg

    for stability in (0.5, 4.0):
        matrix, _, readout = fokker_planck.legendre_system(0.1 / stability, stability)
        rest, _, _ = fokker_planck.legendre_system(0.0, stability)
        density = np.append([0.5**0.5], np.linalg.solve(rest[1:, 1:], -rest[1:, 0] * 0.5**0.5))
        moved = readout @ linalg.expm(matrix * stability * 0.01) @ density - 0.5
        z = (np.arange(2000) + 0.5) / 2000
        at_top = 1 / (2 * np.mean(np.exp(stability * z**2)))
        assert moved == pytest.approx(0.1 * 0.01 * at_top, rel=0.05)
        assert at_top < 0.5  # so a push of 0.1 is one of up to 0.05


@pytest.mark.parametrize("threshold", [-0.7e-6, 0.0, 2e-6])
def test_the_push_of_a_read_of_a_measured_junction_is_its_linear_response(threshold):
    """Two states with rates of their own: the change of a bit in balance after a short read."""
    from spinkeras.energy import pulse

    curve = CURVE.replace(threshold=threshold, floor=0.0, ceiling=0.9)
    read = EnergyAssumptions(read_voltage=1e-4, read_time=1e-9)
    push = pulse.read_push(LOW, read, curve.curve(LOW).telegraph)
    current = 1e-4 / LOW.resistance_parallel
    ends = curve.switching_probability([threshold, threshold + current])
    moved = np.diff(ends)[0] * -np.expm1(-read.read_time / curve.relaxation_time)
    assert push / 2 == pytest.approx(moved, rel=2e-3)
    channel = LOW.replace(write_resistance=900.0, switching_curve=curve)
    assert np.isnan(pulse.read_push(channel, read, curve.curve(channel).telegraph))
    assert "push of a read not known" in " ".join(
        read.lines(channel, curve.curve(channel).telegraph)
    )


@pytest.mark.parametrize("threshold", [-0.7e-6, 0.0])
def test_pulses_that_need_no_drive_are_priced_without_a_reset(threshold, tmp_path):
    """How to reset a device does not follow from a curve that is half reversed at no drive."""
    curve = EmpiricalCurve(threshold=threshold, slope=1e6, floor=0.05, pulse_width=1e-6)
    device = LOW.replace(switching_curve=curve)
    model, x = network(device), np.linspace(-1, 1, 12).reshape(3, 4).astype("float32")
    assert not model.layers[-1].free_running
    report = spinkeras.energy_report(model, x, print_fn=None)
    assert report.layers[0]["reset_pj"] == 0 < report.layers[0]["write_pj"]
    assert f"reset not counted (a curve with a threshold of {threshold * 1e6:g} uA" in str(report)
    for asked in (spinkeras.energy.reset_current, spinkeras.energy.reset_energy):
        with pytest.raises(ValueError, match=r"threshold .* A\) does not describe a reset pulse"):
            asked(device)
        assert asked(device.replace(switching_curve=curve.replace(threshold=1e-6))) > 0
    rows = spinkeras.device_settings(model, tmp_path / "table.csv")
    assert {row["reset_error"] for row in rows} == {None}
    assert {row["bias_current_a"] for row in rows} == {threshold}
    spinkeras.apply_device_settings(model, tmp_path / "table.csv")
    drawn = spinkeras.evaluate_chips(
        model, x, np.zeros(3), ChipSpread(current=0.1), 2, progress=False
    )
    assert np.all(np.isfinite(drawn.energy_pj))
    model.compile("sgd", "mse", run_eagerly=True)
    history = model.fit(x, x, verbose=0, callbacks=[spinkeras.EnergyTracker()]).history
    assert history["energy_pj"][0] == pytest.approx(report.total_pj, rel=1e-4)


@pytest.mark.parametrize(
    ("device", "other"),
    [
        (LOW.replace(offset_field=FIELD), LOW),
        (MEASURED, LOW.replace(switching_curve=CURVE.replace(threshold=-0.71e-6))),
        (LOW.replace(switching_curve=CURVE.replace(threshold=0.0)), MEASURED),
    ],
    ids=["law", "curve", "at zero"],
)
def test_the_table_of_the_driver_has_no_margins_of_a_bit_that_is_kept(tmp_path, device, other):
    model = network(device)
    model.layers[-1].gate_voltage = np.array([-0.2, 0.0, 0.1, 0.3])
    for name in ("table.csv", "table.json"):
        rows = spinkeras.device_settings(model, tmp_path / name)
        assert [row["retention_s"] for row in rows] == [None] * 4
        assert rows[3]["gate_voltage_v"] == pytest.approx(0.3)
        again = network(device)
        spinkeras.apply_device_settings(again, tmp_path / name)
        np.testing.assert_allclose(again.layers[-1].gate_voltage, model.layers[-1].gate_voltage)
    with pytest.raises(ValueError, match="another device"):
        spinkeras.apply_device_settings(network(other), rows)
    with pytest.raises(ValueError, match=r"'free' is free-running.*keeps no bit"):
        spinkeras.reliability(model)


@pytest.mark.parametrize("field", [0.0, -FIELD])
def test_chips_differ_by_their_stray_field(field):
    """On a chip of known devices the answer is that of the devices themselves."""
    device = LOW.replace(offset_field=field)
    layer = network(device).layers[-1]
    layer.gate_voltage = np.array([-0.3, 0.0, 0.1, 0.3])
    spread = ChipSpread(offset_field=2e-3, stability=0.05, current=0.03, temperature=20.0)
    chip = spread.draw((4,), np.random.default_rng(1), chip_temperature=330.0)
    assert np.std(chip.offset_field) > 0
    x = np.linspace(-2, 2, 20).reshape(5, 4).astype("float32")
    tensors = type(chip)(*(ops.convert_to_tensor(f.astype("float32")) for f in chip))
    found = ops.convert_to_numpy(layer.response(ops.convert_to_tensor(x), tensors, spread))
    for k in range(4):
        hot = device.replace(temperature=330.0, offset_field=field + float(chip.offset_field[k]))
        wanted = chip.stability[k] * device.stability_at(layer.anisotropy[k])
        unit = chip.current[k] * device.critical_current_per_stability
        actual = hot.replace(
            anisotropy=wanted * hot.thermal_energy / hot.volume,
            gate_voltage_range=(0.0, 0.0),
            spin_torque_efficiency=hot.spin_torque_efficiency
            * hot.critical_current_per_stability
            / unit,
        )
        current = layer.bias_current[k] + layer.current_scale * x[:, k]
        expected = spinkeras.switching_probability(
            current, 1e-6, actual, switching_model="equilibrium"
        )
        np.testing.assert_allclose(found[:, k], expected, atol=3e-5)


@pytest.mark.parametrize("model", [CURVE, EmpiricalCurve.preset("sot_80nm"), "macrospin"])
def test_chips_shift_the_thresholds(model):
    """A shift of the threshold is one of the current, whatever the law and its sign."""
    device = LOW if model is CURVE else MTJDevice.preset("stt_reference")
    layer = SpinNeuron(device, switching_model=model)
    x = np.linspace(-2, 2, 20).reshape(5, 4).astype("float32")
    layer.build(x.shape)
    size = 0.5 * layer.current_scale
    spread = ChipSpread(offset_current=size)
    chip = spread.draw((4,), np.random.default_rng(1), chip_temperature=300.0)
    assert 0.2 * size < np.std(chip.offset_current) < 5 * size
    tensors = type(chip)(*(ops.convert_to_tensor(f.astype("float32")) for f in chip))
    moved = ops.convert_to_tensor((x - chip.offset_current / layer.current_scale).astype("float32"))
    for cause, seen in (("all", moved), ("threshold", moved), ("slope", x), ("faults", x)):
        found = layer.response(ops.convert_to_tensor(x), tensors, spread, cause)
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, layer(seen))), atol=2e-5)
    drawn = spread.draw_tensors((4000,), 300.0, keras.random.SeedGenerator(0), "float32")
    assert ops.convert_to_numpy(drawn.offset_current).std() == pytest.approx(size, rel=0.1)
    assert ChipSpread.from_config(spread.get_config()) == spread


def test_accuracy_of_chips_falls_with_the_stray_field():
    rng = np.random.default_rng(0)
    model = network(pulses=1)
    x = rng.normal(size=(200, 4)).astype("float32") * 3
    y = x.argmax(-1)
    nominal, spread = (
        spinkeras.evaluate_chips(
            model, x, y, ChipSpread(offset_field=sigma), chips=8, progress=False
        ).accuracy.mean()
        for sigma in (0.0, 10e-3)
    )
    assert nominal == 1.0
    assert spread < 0.97
    drawn = spinkeras.evaluate_chips(model, x, y, ChipSpread(), 2, pulses=1, progress=False)
    assert drawn.accuracy.mean() < 1


@pytest.mark.parametrize(
    ("spread", "device", "message"),
    [
        (ChipSpread(offset_field=1e-3), "stt_reference", "no defined effect on a pulsed device"),
        (ChipSpread(read_time=1e-9), LOW, "A free-running junction .* has neither"),
        (ChipSpread(ceiling=0.9), LOW, "A free-running junction .* has neither"),
        (ChipSpread(ceiling=0.9), MEASURED, "A free-running junction .* has neither"),
        (ChipSpread(offset_field=1e-3), MEASURED, "no defined effect on a measured curve"),
        (ChipSpread(temperature=5.0), MEASURED, "known only at the temperature of its measurement"),
    ],
)
def test_spreads_without_a_meaning_are_refused(spread, device, message):
    free = isinstance(device, MTJDevice)
    model = network(device) if free else keras.Sequential([keras.Input((4,)), SpinNeuron()])
    x = np.zeros((3, 4), "float32")
    with pytest.raises(ValueError, match=message):
        spinkeras.evaluate_chips(model, x, np.zeros(3), spread, chips=1, progress=False)


def test_correlated_reads_are_refused_where_they_would_be_drawn_independently(tmp_path):
    x = np.zeros((3, 4), "float32")
    with pytest.raises(ValueError, match=r"'free': 5 reads .* correlated.*on chips"):
        spinkeras.evaluate_chips(
            network(), x, np.zeros(3), ChipSpread(), chips=1, pulses=5, progress=False
        )
    with pytest.raises(ValueError, match="offset_field"):
        ChipSpread.from_devices([LOW.replace(offset_field=1e-3)], LOW)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=r"'free': 3 reads .* correlated.*in an export"):
            spinkeras.export_for_serving(network(), tmp_path, sample=True, assumptions=GENTLE)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="exports need TensorFlow")
@pytest.mark.parametrize(
    "device", [LOW.replace(offset_field=FIELD), MEASURED], ids=["law", "curve"]
)
def test_an_export_answers_and_prices_as_the_model(tmp_path, device):
    model = network(device, pulses=1)
    model.layers[-1].gate_voltage = np.array([-0.2, 0.0, 0.1, 0.3])
    report = spinkeras.export_for_serving(model, tmp_path, sample=True, assumptions=GENTLE)
    assert report.output_error < 1e-6
    assert report.energy_error < 1e-5
