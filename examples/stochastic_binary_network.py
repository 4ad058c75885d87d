"""Sample a Boltzmann machine with free-running junctions, and compare with exact enumeration.

A restricted Boltzmann machine with 16 visible and 8 hidden bits learns scikit-learn's digits, which
are averaged to 4 x 4 pixels and cut at the median of each pixel. With so few bits all 65536 images
can be enumerated, so training and probabilities are exact. Then two layers of free-running
junctions (`switching_model="equilibrium"`: a barrier so low that they switch without a pulse, one
read per bit) replace the logistic function and the random numbers. Many chains go from hidden to
visible bits and back in parallel. The table compares means and pair correlations with the exact
values. For comparison it shows the same number of exact draws, which have only the error of
counting, and junctions in unknown stray fields.

    python examples/stochastic_binary_network.py            # less than a minute on one core
    python examples/stochastic_binary_network.py --quick    # to see it run
"""

import argparse
import itertools

import keras
import numpy as np
from keras import ops
from scipy import special
from sklearn.datasets import load_digits

import spinkeras

VISIBLE, HIDDEN = 16, 8
INTERVAL = 5e-6  # s, five correlation times of a junction with equally probable states
STRAY_FIELD = 0.5e-3  # T, sigma of the stray field over the junctions of a chip
READ = spinkeras.EnergyAssumptions(read_voltage=0.02, read_time=1e-9)
STATES = np.array(list(itertools.product([0, 1], repeat=VISIBLE)), "float32")


def load():
    """Digits as 1797 rows of 16 bits."""
    pixels = load_digits().images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, VISIBLE)
    return (pixels > np.median(pixels, axis=0)).astype("float32")


def probabilities(weights, visible_bias, hidden_bias):
    """Probability of every image, by summing over all hidden bits."""
    hidden = STATES @ weights + hidden_bias
    logs = STATES @ visible_bias + np.logaddexp(0, hidden).sum(1)
    return special.softmax(logs.astype("float64"))


def train(images, steps, seed=0):
    """Weights and biases, trained with the exact gradient of the likelihood and momentum."""
    rng = np.random.default_rng(seed)
    parts = [
        0.1 * rng.normal(size=(VISIBLE, HIDDEN)).astype("float32"),
        special.logit(images.mean(0).clip(0.05, 0.95)).astype("float32"),
        np.zeros(HIDDEN, "float32"),
    ]
    speed = [np.zeros_like(part) for part in parts]

    def moments(visible, share):
        hidden = special.expit(visible @ parts[0] + parts[2])
        weighted = visible * share[:, None]
        return weighted.T @ hidden, weighted.sum(0), share @ hidden

    uniform = np.full(len(images), 1 / len(images), "float32")
    for _ in range(steps):
        model = probabilities(*parts).astype("float32")
        for k, (data, own) in enumerate(zip(moments(images, uniform), moments(STATES, model))):
            speed[k] = 0.9 * speed[k] + 0.1 * (data - own)
            parts[k] = parts[k] + speed[k]
    return parts


def junctions(units, seed):
    """A layer of free-running junctions whose output is one bit each."""
    device = spinkeras.MTJDevice.preset("smtj_reference").replace(
        pulse_width_range=(INTERVAL, INTERVAL), nominal_pulse_width=INTERVAL
    )
    layer = spinkeras.SpinNeuron(
        device, switching_model="equilibrium", train=(), output="always_sampled", seed=seed
    )
    layer.build((None, units))
    return layer


def fields(layer, sigma, rng):
    """Shift of every junction's input that has the same effect as its stray field (T)."""
    device, shifts = layer.device, []
    for field in sigma * rng.normal(size=layer.pulse_width.size):
        moved = device.replace(offset_field=float(field))
        current = spinkeras.midpoint_current(INTERVAL, moved, switching_model="equilibrium")
        shifts.append(-current / layer.current_scale)
    return np.array(shifts, "float32")


def sample(parts, chains, sweeps, every, sigma=0.0, seed=0):
    """Images from chains that go from visible to hidden bits and back, without the first half."""
    rng = np.random.default_rng(seed)
    visible_layer, hidden_layer = junctions(VISIBLE, seed), junctions(HIDDEN, seed + 1)
    weights = ops.convert_to_tensor(parts[0])
    visible_bias = parts[1] + fields(visible_layer, sigma, rng)
    hidden_bias = parts[2] + fields(hidden_layer, sigma, rng)
    visible, kept = ops.convert_to_tensor(rng.integers(0, 2, (chains, VISIBLE)), "float32"), []
    for sweep in range(sweeps):
        hidden = hidden_layer(ops.matmul(visible, weights) + hidden_bias)
        visible = visible_layer(ops.matmul(hidden, ops.transpose(weights)) + visible_bias)
        if sweep >= sweeps // 2 and sweep % every == 0:
            kept.append(ops.convert_to_numpy(visible))
    return np.concatenate(kept)


def errors(images, model):
    """Largest error of a pixel's mean and of a pair's mean product, and a total distance.

    The distance is half the sum of the absolute differences of 256 frequencies, those of all
    images of the upper half.
    """
    pairs = images.T @ images / len(images) - STATES.T @ (STATES * model[:, None])
    half = 2 ** np.arange(8)

    def frequencies(rows, share):
        return np.bincount((rows[:, :8] @ half).astype(int), share, 256)

    uniform = np.full(len(images), 1 / len(images))
    distance = np.abs(frequencies(images, uniform) - frequencies(STATES, model)).sum() / 2
    return np.abs(np.diag(pairs)).max(), np.abs(pairs).max(), distance


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, to see it run")
    quick = parser.parse_args().quick
    steps, chains, sweeps = (40, 500, 60) if quick else (250, 2000, 200)
    images = load()
    print(f"training of the Boltzmann machine, {steps} steps")
    parts = train(images, steps)
    model = probabilities(*parts)
    mean = images.mean(0)
    alone = np.mean(images @ np.log(mean) + (1 - images) @ np.log(1 - mean))
    index = (images @ 2 ** np.arange(VISIBLE)[::-1]).astype(int)
    print(f"log-likelihood per digit: pixels alone {alone:.2f}, ", end="")
    print(f"Boltzmann machine {np.mean(np.log(model[index])):.2f} nats")

    options = {"chains": chains, "sweeps": sweeps, "every": 5}
    print(f"{chains} chains of {sweeps} sweeps through the junctions")
    found = sample(parts, **options)
    rng = np.random.default_rng(1)
    print(f"{chains} chains with stray fields")
    rows = {
        "exact draws": STATES[rng.choice(len(STATES), len(found), p=model)],
        "free-running junctions": found,
        f"the same, stray fields of {STRAY_FIELD * 1e3:g} mT": sample(
            parts, sigma=STRAY_FIELD, **options
        ),
    }
    print(f"{len(found)} samples; largest error against enumeration of all {len(STATES)} images")
    print(f"{'':36}{'mean':>8}{'pair':>8}{'distance':>10}")
    for name, drawn in rows.items():
        mean, pair, distance = errors(drawn, model)
        print(f"{name:36}{mean:8.4f}{pair:8.4f}{distance:10.4f}")

    layer = junctions(HIDDEN, 0)
    network = keras.Sequential([keras.Input((HIDDEN,)), layer])
    driven = images[:200] @ parts[0] + parts[2]
    report = spinkeras.energy_report(network, driven, assumptions=READ, print_fn=None)
    print(
        f"one sweep of the hidden bits: {report.total_pj / HIDDEN * 1e3:.2g} fJ per bit, "
        f"{report.latency_ns / 1e3:.2g} us"
    )


if __name__ == "__main__":
    main()
