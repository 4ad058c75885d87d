"""Fit the switching curve of the preset `vgsot_zhang2020` to simulated spin-orbit torque.

    python -m tools.fit_spin_orbit     # about five minutes on one core

This follows the protocol of the source. A current in the channel produces the damping-like field
`B_so = hbar theta J / (2 e Ms t_f)` along y, which acts on a layer with perpendicular anisotropy.
An exchange-bias field along x breaks the symmetry. The state is read after a relaxation time
without current. No closed form describes this, so `spinkeras.macrospin.llg` simulates it over
current, pulse width and gate voltage, and an `EmpiricalCurve` is fitted to the counts. The script
prints the fit and its errors.
"""

import numpy as np

from spinkeras import calibration
from spinkeras.macrospin import llg
from spinkeras.physics.device import MTJDevice

PRESET = "vgsot_zhang2020"
CHANNEL_SECTION = 50e-9 * 3e-9  # m^2, width times thickness
SPIN_HALL_ANGLE = 0.25
EXCHANGE_BIAS = -5e-3  # T along x, 50 Oe
RELAXATION = 3e-9  # s

# Currents in units of the threshold at zero temperature and exchange bias, which follows K_eff.
_LEVELS = (0.55, 0.62, 0.68, 0.73, 0.78, 0.83, 0.88, 0.94, 1.0, 1.1, 1.25, 1.5)
_WIDTHS = (1e-9, 2e-9, 4e-9, 12e-9)
_GATES = (-0.25, 0.0, 0.25)
_FREE = (
    "threshold",
    "slope",
    "ceiling",
    "threshold_exponent",
    "slope_exponent",
    "anisotropy_exponent",
    "slope_anisotropy_exponent",
    "ceiling_anisotropy_rate",
    "b",
    "c",
)


def critical_current(device, anisotropy=None) -> float:
    """Channel current in A that turns the magnetisation off its axis without noise and field.

    At this current `B_so = mu0Hk / 2`, so `J = 2 e Ms t_f (mu0Hk / 2) / (hbar theta)` (K.-S. Lee et
    al., Appl. Phys. Lett. 102, 112410 (2013)).
    """
    anisotropy = device.anisotropy if anisotropy is None else anisotropy
    field_per_ampere = llg.spin_orbit_field(1 / CHANNEL_SECTION, SPIN_HALL_ANGLE, device)
    return anisotropy / device.saturation_magnetization / field_per_ampere


def simulate(device, current, pulse_width, gate_voltage=0.0, trajectories=4000, seed=0):
    """Simulate pulses through the channel with the stochastic LLG equation.

    Args:
        device: `MTJDevice`.
        current: A, array.
        pulse_width: s.
        gate_voltage: V, set long before the pulse.
        trajectories, seed: as in `llg.simulate_switching`.

    Returns:
        `llg.SwitchingResult`.
    """
    density = np.asarray(current) / CHANNEL_SECTION
    return llg.simulate_switching(
        device,
        0.0,
        pulse_width,
        device.anisotropy_at(gate_voltage),
        trajectories,
        seed,
        spin_orbit_field=llg.spin_orbit_field(density, SPIN_HALL_ANGLE, device),
        in_plane_field=EXCHANGE_BIAS,
        relaxation_time=RELAXATION,
        progress=False,
    )


def measure(device, trajectories=4000):
    """Table of simulated counts in the form that `calibration.fit_empirical` takes."""
    rows = []
    for width in _WIDTHS:
        for gate in _GATES:
            current = np.array(_LEVELS) * critical_current(device, device.anisotropy_at(gate))
            result = simulate(device, current, width, gate, trajectories, seed=len(rows))
            rows += [(i, width, gate, k, trajectories) for i, k in zip(current, result.switched)]
            print(f"{width * 1e9:g} ns, {gate:+.2f} V: {result.probability.round(3)}", flush=True)
    names = ("current_a", "pulse_width_s", "gate_voltage_v", "switched", "trials")
    return dict(zip(names, map(np.array, zip(*rows))))


def main():
    device = MTJDevice.preset(PRESET)
    fixed = {"pulse_width": device.nominal_pulse_width}
    fit = calibration.fit_empirical(measure(device), _FREE, device=device, fixed=fixed)
    print(fit.summary())
    off = np.abs(fit.table["switched"] / fit.table["trials"] - fit.probability)
    print(f"fit minus simulation: rms {np.sqrt(np.mean(off**2)):.3f}, largest {off.max():.3f}")
    gate = np.abs(fit.table["gate_voltage_v"])
    for voltage in np.unique(gate):
        print(f"  at |V_gate| = {voltage:g} V: largest {off[gate == voltage].max():.3f}")


if __name__ == "__main__":
    main()
