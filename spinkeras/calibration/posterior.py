"""Draws of parameters that are uncertain or differ from device to device.

The No-U-Turn sampler (NUTS) of TensorFlow Probability draws from the posterior of a calibration.
Devices are drawn from the posterior or from a stated spread.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from spinkeras import checks
from spinkeras.notices import warn
from spinkeras.physics.device import MTJDevice, get_device

FLOOR = 1e-12  # least distance of probabilities from 0 and 1, so that an outlier stays finite
_EDGE = 0.0075  # standard deviation of a prior's shoulders, as a fraction of its span


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Draws from the posterior, the distribution of the parameters given the data.

    Attributes:
        draws: `{name: array of shape (draws, chains)}`, SI units.
        r_hat: `{name: potential scale reduction}`; below 1.01 the chains agree.
        effective_sample_size: `{name: effective number of independent draws}`, all chains together.
        acceptance: mean acceptance probability; the sampler aims at 0.8.
        divergences: number of divergent transitions. It should be 0 or a few in 1000 draws. It is
            larger if the posterior reaches the bounds of `free`, where transitions diverge.

    Example:

    >>> import numpy as np
    >>> from spinkeras.calibration import Posterior
    >>> draws = {"damping": np.linspace(0.018, 0.022, 400).reshape(100, 4)}
    >>> posterior = Posterior(draws, {"damping": 1.0}, {"damping": 390.0}, 0.81, 0)
    >>> print(posterior.summary())
    damping                          0.02 +- 0.0012  95 % [0.0181, 0.0219]  R-hat 1.000  ESS 390
    """

    draws: dict[str, np.ndarray]
    r_hat: dict[str, float]
    effective_sample_size: dict[str, float]
    acceptance: float
    divergences: int

    def summary(self) -> str:
        """Mean, standard deviation, 95 % interval and diagnostics as text, one parameter a line."""
        lines = []
        for name, draws in self.draws.items():
            low, high = np.quantile(draws, (0.025, 0.975))
            lines.append(
                f"{name:24} {draws.mean():12.5g} +- {draws.std():.2g}  95 % [{low:.5g}, "
                f"{high:.5g}]  R-hat {self.r_hat[name]:.3f}  "
                f"ESS {self.effective_sample_size[name]:.0f}"
            )
        return "\n".join(lines)


def sample_posterior(
    probability, scaled, theta, information, table, seed, chains=4, draws=1000, warmup=500
) -> Posterior:
    """Draws by NUTS on the scales of the fit, whitened by the information of the fit.

    The prior is uniform between the bounds on these scales. It has a Gaussian shoulder over the
    outer 3 % on both sides (4 standard deviations), so that the density is smooth. The domain of a
    switching law has a shoulder of 1 % outside.

    Whitening is a linear map that makes the parameters nearly uncorrelated. It uses the information
    of the fit first and the draws later. If parameters nearly compensate each other, their
    posterior is a narrow ridge. A linear map keeps this ridge straight; a map of the bounds to the
    whole line would bend the ridge.

    Args:
        probability: function `(xp, values, rows)` that returns the probability of every row of a
            table and the distance from the domain of the law.
        scaled: free parameters: `names`, bounds `low` and `high` on the scales of the fit, and
            `backward`, which converts to SI units.
        theta: estimate on these scales.
        information: Fisher information of the estimate.
        table: pooled counts of `spinkeras.calibration.read_table`.
        seed: integer, 0 to 2147483647.
        chains: number of chains, >= 2. Default 4.
        draws: draws per chain, >= 10. Default 1000.
        warmup: steps per chain before the draws, >= 10. Default 500.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "posterior=True needs the TensorFlow backend of Keras; set KERAS_BACKEND=tensorflow "
            f"before the first import (now: {keras.backend.backend()})."
        )
    try:
        import tensorflow_probability as tfp
    except ImportError as error:
        raise ImportError(
            "posterior=True needs TensorFlow Probability: pip install tensorflow-probability[tf]."
        ) from error
    import tensorflow as tf
    from keras import ops

    for name, value, low in (("chains", chains, 2), ("draws", draws, 10), ("warmup", warmup, 10)):
        checks.whole(f"posterior option {name}", value, low, 1_000_000)
    seed = checks.whole("seed", seed, 0, 2**31 - 1)
    span = scaled.high - scaled.low
    edge = _EDGE * span
    low, high = scaled.low + 4 * edge, scaled.high - 4 * edge
    # A uniform prior has the variance span^2 / 12, which sets the scale if the data do not.
    scale: np.ndarray = np.linalg.cholesky(np.linalg.inv(information + np.diag(12 / span**2)))
    rng = np.random.default_rng(seed)
    start = theta + rng.standard_normal((chains, len(theta))) @ scale.T
    values = np.clip(start, low, high)
    for k in range(chains):  # move a start with a large excess towards the estimate
        for _ in range(20):
            if probability(np, dict(zip(scaled.names, values[k])), table)[1] > 0.02:
                values[k] = (values[k] + theta) / 2
    low, high, edge = (tf.constant(v, tf.float64) for v in (low, high, edge))
    switched, kept = table["switched"], table["trials"] - table["switched"]

    def log_density(values):
        named = {name: values[..., k, None] for k, name in enumerate(scaled.names)}
        p, excess = probability(ops, named, table)
        p = tf.clip_by_value(p, FLOOR, 1 - FLOOR)
        likelihood = tf.reduce_sum(switched * tf.math.log(p) + kept * tf.math.log1p(-p), axis=-1)
        outside = (values - tf.clip_by_value(values, low, high)) / edge
        shoulders = tf.reduce_sum(tf.square(outside), axis=-1) + (excess / 0.01) ** 2
        return likelihood - shoulders / 2

    @tf.function(jit_compile=True)
    def run(start, scale, seed):
        kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
            tfp.mcmc.NoUTurnSampler(
                lambda x: log_density(tf.linalg.matvec(scale, x)),
                step_size=tf.constant(0.5, tf.float64),
                max_tree_depth=8,
            ),
            num_adaptation_steps=int(0.8 * warmup),
            target_accept_prob=tf.constant(0.8, tf.float64),
        )
        return tfp.mcmc.sample_chain(
            draws,
            start,
            kernel=kernel,
            num_burnin_steps=warmup,
            seed=seed,
            trace_fn=lambda _, r: (
                r.inner_results.has_divergence,
                r.inner_results.log_accept_ratio,
            ),
        )

    for stage in (1, 2):  # the draws of the first stage whiten the second
        x, (diverged, log_accept) = run(
            tf.constant(np.linalg.solve(scale, values.T).T),
            tf.constant(scale),
            tf.constant([seed, stage], tf.int32),
        )
        thetas = tf.linalg.matvec(tf.constant(scale), x)
        values = thetas[-1].numpy()
        covariance = np.cov(thetas.numpy().reshape(-1, len(theta)), rowvar=False)
        scale = np.linalg.cholesky(np.atleast_2d(covariance) + 1e-12 * np.eye(len(theta)))
    r_hat = tfp.mcmc.potential_scale_reduction(thetas).numpy()
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # TFP warns of its own cast of a complex Fourier transform
    size = tfp.mcmc.effective_sample_size(thetas, cross_chain_dims=1).numpy()
    logger.setLevel(level)
    posterior = Posterior(
        draws=scaled.backward(np.clip(thetas.numpy(), scaled.low, scaled.high)),
        r_hat=dict(zip(scaled.names, r_hat.tolist())),
        effective_sample_size=dict(zip(scaled.names, size.tolist())),
        acceptance=float(np.mean(np.minimum(1.0, np.exp(log_accept.numpy())))),
        divergences=int(np.sum(diverged.numpy())),
    )
    if not (np.all(r_hat < 1.05) and np.all(size > 100)):
        warn(
            "The chains have not converged (R-hat should be below 1.05 and the effective sample "
            f"size above 100):\n{posterior.summary()}\nUse more draws, e.g. "
            "posterior={'warmup': 2000, 'draws': 4000}, or narrower bounds in `free`."
        )
    return posterior


def merged(first: Posterior, second: Posterior, prefix: str) -> Posterior:
    """One posterior of two independent ones; names of the second get the prefix."""

    def joined(name):
        others = getattr(second, name).items()
        return getattr(first, name) | {prefix + key: value for key, value in others}

    return Posterior(
        draws=joined("draws"),
        r_hat=joined("r_hat"),
        effective_sample_size=joined("effective_sample_size"),
        acceptance=min(first.acceptance, second.acceptance),
        divergences=first.divergences + second.divergences,
    )


def sample_devices(
    source: Any, count: int, seed: int = 0, spread: dict[str, float] | None = None
) -> list[MTJDevice]:
    """Draws random devices from a posterior, around a nominal device with a spread, or both.

    A posterior describes the uncertainty about *one* device; a spread describes how the devices of
    a chip differ. With both, the spread varies each device drawn from the posterior.

    Args:
        source: result of `fit_device` or `fit_empirical` with a posterior (`fit_empirical` also
            needs a `device`), or an `MTJDevice` or preset name together with `spread`.
        count: number of devices, >= 1.
        seed: integer >= 0; the same seed gives the same devices. Default 0.
        spread: `{field: relative standard deviation}`, each 0 to 1. A field is any numeric field of
            the device, `threshold` or `slope` of its `switching_curve`, or `reset_threshold` or
            `reset_slope` of its `reset_curve`. The fields vary independently and are log-normal
            with the nominal value as the median. For example, anisotropy and diameter vary the
            thermal stability; diameter also varies all that depends on the area. Damping and
            spin_torque_efficiency vary the critical current, resistance_area_product and tmr the
            read signal: `{"diameter": 0.03, "anisotropy": 0.05, "resistance_area_product": 0.04}`.

    Returns:
        List of `MTJDevice`.

    Raises:
        ValueError: for an unknown field, a spread outside its range, a source without draws, or a
            spread so wide that it gives an impossible device.

    Example:

    >>> import numpy as np
    >>> from spinkeras import calibration
    >>> devices = calibration.sample_devices("stt_reference", 500, spread={"anisotropy": 0.05})
    >>> relative = np.array([d.anisotropy for d in devices]) / 109.87e3
    >>> bool(0.045 < relative.std() < 0.055)
    True
    """
    count = checks.whole("count", count, 1, 100_000_000)
    rng = np.random.default_rng(checks.whole("seed", seed, 0, 2**63 - 1))
    fields = {}
    if hasattr(source, "posterior"):
        if source.posterior is None or source.device is None:
            raise ValueError(
                "A fit as source needs draws of a device: call fit_device with posterior=True (or "
                "fit_empirical with posterior=True and a `device`), or give a device and a spread."
            )
        nominal = source.device
        flat = {name: draws.ravel() for name, draws in source.posterior.draws.items()}
        size = len(next(iter(flat.values())))
        picked = rng.choice(size, count, replace=count > size)
        fields = {name: draws[picked] for name, draws in flat.items()}
    else:
        nominal = get_device(source)
    curve = nominal.switching_curve
    own = {f: v for f, v in nominal.get_config().items() if isinstance(v, float)}
    back = nominal.reset_curve
    of_curve = {} if curve is None else {"threshold": curve.threshold, "slope": curve.slope}
    if back is not None:
        of_curve |= {"reset_threshold": back.threshold, "reset_slope": back.slope}
    middle = own | of_curve

    def allowed(name, value):
        return name in middle and checks.real(value) is not None and 0 <= value <= 1

    given = isinstance(spread, dict) and spread
    if not (fields if spread is None else given and all(map(allowed, spread, spread.values()))):
        raise ValueError(
            f"spread = {checks.shown(spread)} must give relative standard deviations from 0 to 1 "
            f"(5 % is 0.05) for any of the fields {list(middle)}, as a dictionary."
        )
    for name, value in (spread or {}).items():
        sigma = math.sqrt(math.log1p(value**2))
        factor = np.exp(sigma * rng.standard_normal(count))
        fields[name] = fields.get(name, middle[name]) * factor

    def device(k):
        values = {name: float(column[k]) for name, column in fields.items()}
        changes = {name: values.pop(name) for name in list(values) if name in own}
        of_reset = {
            name.removeprefix("reset_"): values.pop(name)
            for name in list(values)
            if name.startswith("reset_")
        }
        if values:
            changes["switching_curve"] = curve.replace(**values)
        if of_reset:
            changes["reset_curve"] = back.replace(**of_reset)
        try:
            return nominal.replace(**changes)
        except ValueError as error:
            raise ValueError(
                f"Device {k} of {count} is impossible: {error} Use a narrower spread or bounds."
            ) from None

    return [device(k) for k in range(count)]
