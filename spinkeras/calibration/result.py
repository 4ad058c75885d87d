"""What a fit found."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import stats

from spinkeras.calibration.diagnosis import pattern
from spinkeras.calibration.posterior import Posterior
from spinkeras.physics.device import MTJDevice
from spinkeras.physics.empirical import EmpiricalCurve


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_device` and `fit_empirical`.

    Attributes:
        device: fitted `MTJDevice`; after `fit_empirical` the given device with the fitted curve
            as its `switching_curve`, or `None` if none was given.
        curve: fitted `EmpiricalCurve`, or `None` after `fit_device`.
        parameters: fitted values by name, SI units.
        standard_errors: their standard errors (from the expected information), SI units. Huge
            for what the data do not limit, where `max_relative_error` lets that pass.
        correlation: correlation matrix of the estimates, in the order of `parameters`.
        deviance: see `spinkeras.calibration`; small is good.
        degrees_of_freedom: settings minus parameters.
        p_value: probability of a deviance at least as large if the model holds. From chi-squared,
            which needs several trials, and both outcomes, at most settings.
        table: the pooled table that was fitted, see `read_table`.
        probability: fitted probability of every row of `table`.
        residuals: signed square roots of the deviance of every row; within +-2 mostly.
        posterior: `Posterior`, or `None`.
    """

    device: MTJDevice | None
    curve: EmpiricalCurve | None
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    correlation: np.ndarray
    deviance: float
    degrees_of_freedom: int
    p_value: float
    table: dict[str, np.ndarray]
    probability: np.ndarray
    residuals: np.ndarray
    posterior: Posterior | None = None
    _internal: Any = dataclasses.field(default=None, repr=False)
    _predict: Any = dataclasses.field(default=None, repr=False)

    @property
    def overdispersion(self) -> float:
        """Deviance over degrees of freedom: about 1 if the law holds; NaN without freedom."""
        freedom = self.degrees_of_freedom
        return self.deviance / freedom if freedom else math.nan

    def scaled(self) -> "FitResult":
        """A copy with standard errors times `sqrt(overdispersion)`, if that is more than 1.

        Right where the counts scatter about the curve with a constant multiple of their binomial
        variance. Jitter of the current acts most where the curve is steep, and a wrong law stays
        wrong: these errors are then still too small.

        Reference: P. McCullagh and J. A. Nelder, Generalized Linear Models, 2nd ed. (1989), 4.5.
        """
        factor = math.sqrt(max(1.0, np.nan_to_num(self.overdispersion, nan=1.0)))
        errors = {name: factor * error for name, error in self.standard_errors.items()}
        return dataclasses.replace(self, standard_errors=errors)

    def pattern(self) -> list[str]:
        """What the residuals have in common, in words; empty if they look like chance."""
        return pattern(self.table, self.probability, self.residuals)

    def predict(self, current, pulse_width, gate_voltage=0.0):
        """Fitted switching probability at currents in A, pulse widths in s, gates in V (NumPy).

        Raises:
            ValueError: for settings at which the fitted law has no meaning, as
                `spinkeras.switching_probability`.
        """
        settings = (np.asarray(v, "float64") for v in (current, pulse_width, gate_voltage))
        return self._predict(*np.broadcast_arrays(*settings))

    def summary(self) -> str:
        """The estimates and the goodness of fit as text."""
        lines = [
            f"{name:24} {value:12.5g} +- {self.standard_errors[name]:.2g}"
            for name, value in self.parameters.items()
        ]
        lines.append(
            f"deviance {self.deviance:.1f} on {self.degrees_of_freedom} degrees of freedom "
            f"(p = {self.p_value:.2g}), {len(self.residuals)} settings"
        )
        return "\n".join(lines)

    def plot(self):
        """Figure of data and fit above, residuals below (needs matplotlib).

        Returns:
            `matplotlib.figure.Figure`; `result.plot().savefig("fit.png")`.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot() needs matplotlib: pip install matplotlib.") from error
        figure = Figure(figsize=(7, 6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.5, 1))
        current = self.table["current_a"]
        settings = np.stack([self.table["pulse_width_s"], self.table["gate_voltage_v"]], axis=-1)
        switched, trials = self.table["switched"], self.table["trials"]
        fraction = switched / trials
        low = stats.beta.ppf(0.16, switched + 0.5, trials - switched + 0.5)
        high = stats.beta.ppf(0.84, switched + 0.5, trials - switched + 0.5)
        bars = np.maximum([fraction - low, high - fraction], 0)
        scale, unit = (1e6, "uA") if np.max(np.abs(current)) < 1e-3 else (1e3, "mA")
        groups = np.unique(settings, axis=0)
        gated = np.any(groups[:, 1])
        shown = groups[np.unique(np.linspace(0, len(groups) - 1, 10).astype(int))]
        for number, (width, gate) in enumerate(shown):
            rows = np.all(settings == (width, gate), axis=1)
            colour = f"C{number}"
            x = current[rows] * scale
            margin = 0.1 * np.ptp(current[rows]) or 0.1 * abs(current[rows][0])
            fine = np.linspace(current[rows].min() - margin, current[rows].max() + margin, 300)
            top.plot(fine * scale, self.predict(fine, width, gate), color=colour)
            label = f"{width * 1e9:.3g} ns" + (f", {gate:+.2g} V" if gated else "")
            top.errorbar(x, fraction[rows], bars[:, rows], fmt="o", color=colour, label=label)
            bottom.plot(x, self.residuals[rows], "o", color=colour)
        top.set_ylabel("switching probability")
        top.legend(title="pulse width" + (", gate" if gated else ""))
        bottom.axhspan(-2, 2, color="0.92", zorder=0)
        bottom.axhline(0, color="0.5", linewidth=1)
        bottom.set_ylabel("deviance residual")
        bottom.set_xlabel(f"current ({unit})")
        top.set_title(
            f"deviance {self.deviance:.1f} on {self.degrees_of_freedom} degrees of freedom"
        )
        return figure
