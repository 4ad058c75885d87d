"""The law of a device, as a function of the fitted fields."""

import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import calibration
from spinkeras.calibration.device_law import DeviceLaw
from tests.calibration.harness import GATED, MEASURED, gated


def test_law_of_a_gate_coefficient_alone_takes_draws():
    """Draws come as a column, and nothing else then gives the pulse widths their shape."""
    law = DeviceLaw(GATED, "macrospin")
    table = calibration.read_table(gated())
    rows = {name: table[name] for name in ("current_a", "pulse_width_s", "gate_voltage_v")}
    draws = np.array([[10.0], [50.0]])
    found, _ = law.probability(ops, {"vcma_coefficient": ops.convert_to_tensor(draws)}, rows)
    for value, probability in zip(draws[:, 0], ops.convert_to_numpy(found)):
        exact, _ = law.probability(np, {"vcma_coefficient": value}, rows)
        np.testing.assert_allclose(probability, exact, atol=1e-9)


def test_says_when_the_device_is_no_macrospin():
    with pytest.raises(ValueError, match=r"outside the domain .* or use fit_empirical"):
        calibration.fit_device(MEASURED, "stt_reference", resistance=776.0)


LAWS = [{}, {"curie_temperature": 700.0, "demagnetizing_factor": 0.3, "vcma_exponent": 1.0}]


@pytest.mark.parametrize(
    "model",
    ["macrospin", "neel_brown", spinkeras.NeelBrown(barrier_exponent=1.5, attempt_time=2e-9)],
)
@pytest.mark.parametrize("options", LAWS)
def test_rows_of_other_temperatures_and_directions_are_those_devices(model, options):
    """Each row as the device of its temperature and direction has it; also as tensors."""
    device = GATED.replace(reset_efficiency=0.8, gate_voltage_range=(-0.2, 0.2))
    given = [
        (kelvin, way, gate)
        for kelvin in (200.0, 300.0, 420.0)
        for way in ("P->AP", "AP->P")
        for gate in (-0.2, 0.0, 0.2)
    ]
    width, current = 20e-9, np.linspace(12e-6, 30e-6, 7)
    kelvin, way, gate = (np.repeat(column, 7) for column in zip(*given))
    rows = {
        "current_a": np.tile(current, len(given)),
        "pulse_width_s": np.full(len(gate), width),
        "gate_voltage_v": gate,
        "temperature_k": kelvin,
        "direction": way,
    }
    expected = []
    for one_kelvin, one_way, one_gate in given:
        here = device.at_temperature(one_kelvin, **options)
        here = here.starting({"P->AP": "parallel", "AP->P": "antiparallel"}[one_way])
        at_gate = here.anisotropy_at(one_gate)
        expected.append(
            spinkeras.switching_probability(current, width, here, at_gate, switching_model=model)
        )
    expected = np.concatenate(expected)
    assert np.ptp(expected) > 0.5
    names = ["anisotropy", "saturation_magnetization", "spin_torque_efficiency", "reset_efficiency"]
    values = {name: np.log(getattr(device, name)) for name in names}
    for kept in ([], names[:1], names):  # fitted, or the device's own
        law = DeviceLaw(device, model, options, kelvin)
        found, excess = law.probability(np, {name: values[name] for name in kept}, rows)
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert excess == 0
    draws = {name: ops.convert_to_tensor(np.full((2, 1), value)) for name, value in values.items()}
    drawn, _ = law.probability(ops, draws, rows)
    np.testing.assert_allclose(ops.convert_to_numpy(drawn), [expected] * 2, atol=1e-9)


def test_one_reset_efficiency_is_that_of_the_write():
    """Without an efficiency of the reset, both directions follow the fitted one."""
    law = DeviceLaw(GATED, "macrospin")
    rows = {
        "current_a": np.full(2, 30e-6),
        "pulse_width_s": np.full(2, 10e-9),
        "gate_voltage_v": np.zeros(2),
        "direction": np.array(["P->AP", "AP->P"]),
    }
    found, _ = law.probability(np, {"spin_torque_efficiency": np.log(0.4)}, rows)
    assert found[0] == found[1]
