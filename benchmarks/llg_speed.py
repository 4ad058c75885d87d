"""Compare the speed of the LLG solver with cmtj, and of the Fokker-Planck solver with a plain loop.

    python benchmarks/llg_speed.py               # about five minutes on one core
    python benchmarks/llg_speed.py --rounds 3    # quicker, wider spread

In every round all candidates run in turn, in one process. The results are medians over the rounds,
with the range. Times are CPU seconds, so other work on the machine and the number of its cores
hardly matter.

1. LLG: steps times trajectories per CPU second, for `llg.simulate_switching` and for cmtj (PyPI,
   optional; one junction per trajectory, Heun scheme, 300 K, only the end is logged). Both simulate
   the reference device at twice its critical current for 4 ns, with steps of 1 ps, from the same
   equilibrium. Both probabilities are printed next to the exact one.
2. Memory: how much more a simulation needs with 1e6 than with 2e4 trajectories.
3. Fokker-Planck: a P(I) curve of 25 currents at 5 ns. `fokker_planck` (error 1e-7) is compared with
   explicit finite volumes (error 1e-3), once as plain loops over time and cells, once with NumPy
   over the cells.
"""

import argparse
import functools
import math
import os
import pathlib
import platform
import resource
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import spinkeras
from examples.long_work import LongWork
from spinkeras.macrospin import fokker_planck, llg
from tools import finite_volume

DEVICE = spinkeras.MTJDevice.preset("stt_reference")
PULSE, STEP = 4e-9, 1e-12
CURRENT = 2 * DEVICE.critical_current
CURVE_PULSE = 5e-9


def cpu_seconds(function):
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


# --- LLG -----------------------------------------------------------------------------------------


def ours(trajectories, seed):
    result = llg.simulate_switching(
        DEVICE, CURRENT, PULSE, trajectories=trajectories, seed=seed, time_step=STEP
    )
    return int(result.switched)


def with_cmtj(cmtj, starts):
    """Number of starting directions that cmtj reverses, with one junction and run for each."""
    zero = cmtj.CVector(0, 0, 0)
    constant = cmtj.ScalarDriver.getConstantDriver
    switched = 0
    for m in starts:
        layer = cmtj.Layer.createSTTLayer(
            "free",
            cmtj.CVector(*m),
            cmtj.CVector(0, 0, 1),
            DEVICE.saturation_magnetization * 4e-7 * math.pi,
            DEVICE.thickness,
            DEVICE.area,
            [zero, zero, zero],
            DEVICE.damping,
            1.0,
            0.0,
            DEVICE.spin_torque_efficiency,
        )
        junction = cmtj.Junction([layer])
        junction.setLayerAnisotropyDriver("free", constant(DEVICE.anisotropy))
        junction.setLayerTemperatureDriver("free", constant(DEVICE.temperature))
        junction.setLayerReferenceLayer("free", cmtj.CVector(0, 0, 1))
        junction.setLayerCurrentDriver("free", constant(-CURRENT / DEVICE.area))
        junction.runSimulation(PULSE, STEP, PULSE, solverMode=cmtj.SolverMode.Heun)
        switched += junction.getLayerMagnetisation("free").z < 0
    return switched


def benchmark_llg(rounds):
    try:
        import cmtj
    except ImportError:
        cmtj = None
        print("cmtj is not installed (pip install cmtj): only our own speed is measured")
    steps = round(PULSE / STEP)
    ours(2048, seed=0)  # compile
    counts = {"spinkeras": 4 * 2048, "cmtj": 1000}
    rates, switched = {"spinkeras": [], "cmtj": []}, {"spinkeras": 0, "cmtj": 0}
    for k in range(rounds):
        start = (
            llg.simulate_switching(
                DEVICE, 0.0, STEP, trajectories=1000, return_trajectories=1000, seed=k
            )
            .magnetization[:, 0]
            .astype("float64")
        )
        jobs = {"spinkeras": lambda k=k: ours(counts["spinkeras"], seed=k)}
        if cmtj is not None:
            jobs["cmtj"] = lambda start=start: with_cmtj(cmtj, start)
        for name, job in jobs.items():
            count, seconds = cpu_seconds(job)
            rates[name].append(counts[name] * steps / seconds)
            switched[name] += count
    exact = float(fokker_planck.switching_probability(CURRENT, PULSE, DEVICE))
    print(f"LLG, {steps} steps of 1 ps, P exact {exact:.4f}:")
    for name, values in rates.items():
        if values:
            total = rounds * counts[name]
            p = switched[name] / total
            print(
                f"  {name:10} {statistics.median(values):.3g} trajectory steps per CPU second "
                f"({min(values):.3g} to {max(values):.3g}); P = {p:.4f} +- "
                f"{math.sqrt(exact * (1 - exact) / total):.4f}"
            )
    if rates["cmtj"]:
        ratios = [a / b for a, b in zip(rates["spinkeras"], rates["cmtj"])]
        print(
            f"  ratio      {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        )


def benchmark_memory():
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def run(trajectories):
        llg.simulate_switching(
            DEVICE, CURRENT, 50e-12, trajectories=trajectories, time_step=STEP, progress=False
        )
        return peak()

    run(2048)
    small, large = run(20_000), run(1_000_000)
    print(f"memory: {(large - small) / 1e6:.1f} MB more at the peak for 980000 more trajectories")


# --- Fokker-Planck -------------------------------------------------------------------------------


def grid(ratio, cells, tau):
    """Faces uniform in z, central fluxes: `(faces, start, a, b, steps, step)`."""
    delta = DEVICE.thermal_stability
    faces = np.linspace(1, -1, cells + 1)
    width = 2 / cells
    z = (faces[1:] + faces[:-1]) / 2
    rho = np.where(z > 0, np.exp(-delta * (1 - z * z)), 0.0)
    rho /= rho.sum() * width
    drift = (1 - faces**2) * (ratio - faces)
    diffusion = (1 - faces**2) / (2 * delta)
    # Explicit Euler is stable up to the diffusion limit of 0.5; use 0.4 for safety.
    steps = math.ceil(tau / (0.4 * width**2 / diffusion.max()))
    return rho, drift, diffusion, width, steps, tau / steps


def naive_loops(ratio, cells, tau):
    rho, drift, diffusion, width, steps, step = grid(ratio, cells, tau)
    rho, drift, diffusion = rho.tolist(), drift.tolist(), diffusion.tolist()
    flux = [0.0] * (cells + 1)  # towards z = -1
    for _ in range(steps):
        for k in range(1, cells):
            mean, rise = (rho[k - 1] + rho[k]) / 2, (rho[k - 1] - rho[k]) / width
            flux[k] = drift[k] * mean + diffusion[k] * rise
        for k in range(cells):
            rho[k] += step / width * (flux[k] - flux[k + 1])
    return sum(rho[cells // 2 :]) * width


def naive_numpy(ratio, cells, tau):
    rho, drift, diffusion, width, steps, step = grid(ratio, cells, tau)
    flux = np.zeros(cells + 1)
    for _ in range(steps):
        mean, rise = (rho[:-1] + rho[1:]) / 2, (rho[:-1] - rho[1:]) / width
        flux[1:-1] = drift[1:-1] * mean + diffusion[1:-1] * rise
        rho += step / width * (flux[:-1] - flux[1:])
    return rho[cells // 2 :].sum() * width


def benchmark_fokker_planck(rounds, cells):
    current = np.linspace(20e-6, 60e-6, 25)
    tau = CURVE_PULSE / DEVICE.diffusion_time * DEVICE.thermal_stability
    exact = [finite_volume.switching_probability(i, CURVE_PULSE, DEVICE) for i in current]

    def curve(point):
        return np.array([point(i, cells, tau) for i in current / DEVICE.critical_current])

    jobs = {
        "fokker_planck": lambda: fokker_planck.switching_probability(current, CURVE_PULSE, DEVICE),
        "naive loops": lambda: curve(naive_loops),
        "naive NumPy": lambda: curve(naive_numpy),
    }
    times, errors = {name: [] for name in jobs}, {}
    for _ in range(rounds):
        for name, job in jobs.items():
            values, seconds = cpu_seconds(job)
            times[name].append(seconds)
            errors[name] = float(np.abs(values - exact).max())
    print(f"Fokker-Planck, P(I) at 25 currents, 5 ns ({cells} cells in the naive solvers):")
    for name, values in times.items():
        ratios = [b / a for a, b in zip(times["fokker_planck"], values)]
        print(
            f"  {name:14} {statistics.median(values):8.3f} CPU s ({min(values):.3f} to "
            f"{max(values):.3f}), {statistics.median(ratios):6.1f} times fokker_planck, largest "
            f"error {errors[name]:.1e}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    parser.add_argument("--cells", type=int, default=600, help="of the naive solvers, default 600")
    parser.add_argument("--output", default="results", help="folder for what is done before a stop")
    args = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    setting = {"rounds": args.rounds, "cells": args.cells}
    work = LongWork(pathlib.Path(args.output, "llg_speed.part.json"), setting, keep=False)
    work.show(
        {
            "llg": functools.partial(benchmark_llg, args.rounds),
            "memory": benchmark_memory,
            "fokker_planck": functools.partial(
                benchmark_fokker_planck, min(args.rounds, 3), args.cells
            ),
        }
    )


if __name__ == "__main__":
    main()
