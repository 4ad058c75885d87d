"""The bits of a neuron: draws of pulses that switch, and of reads that remember earlier ones."""

from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras._typing import Array

MOST_CORRELATED = 64
"""Greatest number of correlated reads of a free-running junction that are drawn one by one."""

FORGOTTEN = 4.6
"""Time from one read to the next, in correlation times, at which their correlation is 1 %."""

FEW_PULSES = 16
"""Greatest number of pulses drawn one by one: TensorFlow's binomial draw costs 80 uniform ones."""


def draw(probability: Array, pulses: int, seed: Any, correlation: Array = None) -> Array:
    """Drawn fraction of pulses that switch, with the gradient of the probability.

    With a `correlation` of successive reads, the reads are drawn as a chain.
    """
    expected = ops.stop_gradient(probability)
    shape, dtype = ops.shape(probability), probability.dtype
    if correlation is not None:
        count, bit = 0, expected  # this draws the first read in equilibrium
        for _ in range(pulses):
            number = keras.random.uniform(shape, dtype=dtype, seed=seed)
            bit = ops.cast(number < expected + correlation * (bit - expected), dtype)
            count = count + bit
    elif pulses <= FEW_PULSES:
        numbers = (keras.random.uniform(shape, dtype=dtype, seed=seed) for _ in range(pulses))
        count = sum(ops.cast(number < expected, dtype) for number in numbers)
    else:
        count = keras.random.binomial(shape, float(pulses), expected, dtype=dtype, seed=seed)
    return ops.stop_gradient(count / pulses) + (probability - expected)


def remembers(law, device, pulses):
    """Whether successive reads of a free-running junction are correlated by 1 % or more.

    This is asked for the worst case of the device: its shortest interval between reads and its
    highest barrier, with both states equally probable.

    Args:
        law: function `(xp, log_duration, stability) -> Curve` of `laws.get_curve`.
        device: `MTJDevice` of the junction.
        pulses: number of reads.
    """
    return pulses > 1 and device.pulse_width_range[0] < _forgetting_time(law, device)


def refuse_chain(name, law, device, pulses, where):
    """Refuse to draw reads that are correlated, where they cannot be drawn as a chain."""
    if remembers(law, device, pulses):
        raise ValueError(
            f"Layer {name!r}: {pulses} reads of a free-running junction are correlated "
            f"and cannot be drawn {where}. Use one read, expected values, or a device whose "
            f"pulse_width_range begins at {_forgetting_time(law, device):.3g} s or later."
        )


def _forgetting_time(law, device):
    """Time in s after which a read is nearly independent of the one before."""
    ends = device.stability_at(np.array(device.anisotropy_range))
    curve = law(np, 0 * ends, ends)
    return FORGOTTEN * float(np.max(law.telegraph.correlation_time(np, curve, 0 * ends, ends)))
