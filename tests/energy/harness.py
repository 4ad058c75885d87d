"""What the tests of the energy share: a model with data, and its energy from the formulas."""

import keras
import numpy as np
from scipy import optimize

import spinkeras
from spinkeras import EnergyAssumptions, SpinNeuron, energy


def numpy_energy(layer, x):
    """Mean pJ per inference of a layer on its own inputs, written out from the formulas."""
    device, assumptions = layer.device, EnergyAssumptions()
    current = layer.bias_current + layer.current_scale * x.astype("float64")
    width, anisotropy = layer.pulse_width, layer.anisotropy
    p = spinkeras.switching_probability(current, width, device, anisotropy)
    parallel = device.resistance_parallel

    def high(current):
        # V = I R_P (1 + TMR / (1 + (V/V_h)^2)) by bracketing
        def excess(v):
            return v - abs(current) * parallel * (
                1 + device.tmr / (1 + (v / device.tmr_half_voltage) ** 2)
            )

        top = abs(current) * parallel * (1 + device.tmr)
        v = optimize.brentq(excess, 0, top + 1e-12, xtol=1e-15, rtol=1e-14)
        return v / abs(current)

    antiparallel = np.vectorize(high)(current)
    f = assumptions.reversal_fraction
    resistance = parallel * (1 - p) + (f * parallel + (1 - f) * antiparallel) * p
    write = current**2 * width * resistance
    gate = device.gate_capacitance * layer.gate_voltage**2 + 0 * x
    fall = 1 + (assumptions.read_voltage / device.tmr_half_voltage) ** 2
    conductance = (1 - p) / parallel + p / (parallel * (1 + device.tmr / fall))
    read = assumptions.read_voltage**2 * assumptions.read_time * conductance
    reset = energy.reset_energy(device, assumptions) * p
    return {
        name: 1e12 * np.sum(value) / len(x)
        for name, value in (("write", write), ("gate", gate), ("read", read), ("reset", reset))
    }


def model_and_data(samples=96, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 6)).astype("float32")
    y = rng.normal(size=(samples, 1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            SpinNeuron(name="first", **kwargs),
            keras.layers.Dense(4),
            SpinNeuron(name="second", recenter=False, **kwargs),
            keras.layers.Dense(1),
        ]
    )
    layer = model.layers[0]
    layer.pulse_width = np.geomspace(2e-9, 20e-9, 6)
    layer.gate_voltage = np.linspace(-1, 1, 6)
    return model, x, y
