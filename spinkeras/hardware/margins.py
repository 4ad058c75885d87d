"""Reliability: how long a device keeps its bit, and how often a read or a reset fails."""

import functools
from typing import Any

import keras
import numpy as np
from scipy import stats

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.energy import pulse
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.layer.members import spin_neurons
from spinkeras.physics import laws
from spinkeras.physics.device import DeviceLike, checked_stability, get_device
from spinkeras.physics.resistance import current_of_voltage

TEN_YEARS = 10 * 365.25 * 24 * 3600.0  # s


def reliability(
    model: keras.Model,
    spread_stability: float = 0.0,
    writes: float = 1e12,
    assumptions: EnergyAssumptions | None = None,
) -> list[dict[str, Any]]:
    """Retention, endurance and read disturb of every spin layer at its trained settings.

    Args:
        model: built Keras model with `SpinNeuron` layers.
        spread_stability: relative sigma of the thermal stability over devices (log-normal), 0 to
            1. Default 0.
        writes: write cycles that a junction endures, 1 to 1e30. Default 1e12.
        assumptions: `EnergyAssumptions` for the read. Default `None`: `EnergyAssumptions()`.

    Returns:
        One dictionary per layer with these keys. `layer`: name. `retention_s`: mean time in s
        before the weakest neuron's nominal device loses its bit. `retention_yield`: expected
        fraction of devices that keep their bit for ten years. `inferences`: number until the
        junctions are worn out, where every pulse needs a reset (the worst case, `P = 1`).
        `read_disturb`: probability that a read reverses the device of the worst neuron.

    Raises:
        ValueError: for a model without built spin layers, two spin layers with the same name, a
            free-running layer, or arguments outside their range.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> row = spinkeras.reliability(model, spread_stability=0.08)[0]
    >>> round(row["retention_yield"], 2)  # at a thermal stability of 40, ten years need 41.1
    0.37
    """
    assumptions = pulse.checked_assumptions(assumptions)
    spread_stability = checks.number(
        "spread_stability", spread_stability, "(a relative sigma)", 0, 1, "5 % is 0.05"
    )
    writes = checks.number("writes", writes, "write cycles", 1, 1e30)
    table = []
    for name, layer in named_layers(model).items():
        device = layer.device
        if layer.free_running:
            raise ValueError(
                f"Layer {name!r} is free-running (its law is an equilibrium): it keeps no bit and "
                "is not written, so it has no retention, endurance or reset. energy_report shows "
                "its relaxation time, and warns if reads disturb it."
            )
        stability = device.stability_at(layer.anisotropy.ravel())
        needed = device.stability_for_retention(TEN_YEARS)
        if spread_stability:
            good = stats.norm.cdf(np.log(stability / needed) / spread_stability)
        else:
            good = stability >= needed
        per_inference = layer.pulses * (2 if assumptions.reset else 1)
        table.append(
            {
                "layer": name,
                "retention_s": float(device.retention_at(stability).min()),
                "retention_yield": float(np.mean(good)),
                "inferences": writes / per_inference,
                "read_disturb": float(read_disturb(device, stability, assumptions).max()),
            }
        )
    return table


def read_disturb(
    device: DeviceLike, stability: Array, assumptions: EnergyAssumptions | None = None
) -> Array:
    """Probability that one read reverses a device in its initial state (Kramers rate).

    `P = t_r k(i)`, `k(i) = (Delta / t_D) sqrt(Delta/pi) (1-i)(1-i^2) exp(-Delta (1-i)^2)` with
    `i = V_r / (R Ic0)`, where `R` is the resistance of the initial state. This is an upper limit,
    because the rate is lower at the start of a read. `P` is 1 if the read current reaches `Ic0`.

    Args:
        device: `MTJDevice` or preset name.
        stability: thermal stability `Delta`, above 0, number or array.
        assumptions: `EnergyAssumptions` for the read. Default `None`: `EnergyAssumptions()`.

    Returns:
        NumPy float64 array of the shape of `stability`.

    Raises:
        ValueError: for a stability that is not a number or is not above 0.

    Example:

    >>> from spinkeras.hardware import read_disturb
    >>> disturb = read_disturb("stt_reference", [30.0, 40.0])  # a read of 0.1 V for 2 ns
    >>> [f"{probability:.2g}" for probability in disturb]
    ['0.018', '6.9e-05']

    References: W. F. Brown, Phys. Rev. 130, 1677 (1963); T. Taniguchi and H. Imamura, Phys. Rev. B
    83, 054432 (2011).
    """
    assumptions, device = pulse.checked_assumptions(assumptions), get_device(device)
    stability = np.asarray(checked_stability(stability))
    current = current_of_voltage(assumptions.read_voltage, device)
    ratio = current / (device.critical_current_per_stability * stability)
    return laws.reversal(np, stability, ratio, assumptions.read_time / device.diffusion_time)


def reset_error(device, stability, assumptions):
    """Probability that the nominal reset pulse fails, interpolated in `_reset_table`."""
    nodes, log_error = _reset_table(device, assumptions)
    return np.exp(np.interp(stability, nodes, log_error))


@functools.lru_cache(maxsize=16)
def _reset_table(device, assumptions):
    """33 thermal stabilities over the range of the gate, and the exact `ln(reset error)` there."""
    low, high = map(device.stability_at, device.anisotropy_range)
    nodes = np.unique(np.linspace(low, high, 33))
    errors = [pulse.reset_failure(device, delta, assumptions) for delta in nodes]
    return nodes, np.log(errors)


def named_layers(model):
    layers = spin_neurons(model)
    if not layers:
        raise ValueError("This model has no SpinNeuron, so there are no device settings.")
    named = {layer.name: layer for layer in layers}
    if len(named) < len(layers):
        raise ValueError(
            f"Two spin layers have the same name among {[layer.name for layer in layers]}; a table "
            "needs different names. Pass name= to SpinNeuron."
        )
    return named
