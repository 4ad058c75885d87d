"""The result of a fit."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinkeras import checks, tables
from spinkeras._typing import Array
from spinkeras.calibration.conditions import stated_direction
from spinkeras.calibration.diagnosis import extrapolation, pattern
from spinkeras.calibration.posterior import Posterior
from spinkeras.physics.device import MTJDevice
from spinkeras.physics.empirical import EmpiricalCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class FitResult(tables.Table):
    """Outcome of `fit_device` and `fit_empirical`.

    `to_dataframe()` and `to_csv(path)` give one row per setting: the table and the fitted values.

    Attributes:
        device: fitted `MTJDevice`; after `fit_empirical` the given device with the fitted curve
            as its `switching_curve`, or `None` if none was given.
        curve: fitted `EmpiricalCurve`, or `None` after `fit_device`.
        reset_curve: fitted curve of the other direction, if the table has both; else `None`.
        parameters: fitted values by name, SI units.
        standard_errors: standard errors of the parameters, SI units, from the expected (Fisher)
            information. An error is huge if the data do not limit the parameter and
            `max_relative_error` allows this. The errors of a curve include the choice of its
            shape, see `fit_empirical`.
        correlation: correlation matrix of the estimates, in the order of `parameters`.
        deviance: deviance of the fit, see `spinkeras.calibration`; a small value is good.
        degrees_of_freedom: number of settings minus number of parameters.
        p_value: probability of a deviance at least as large if the law holds. The value comes from
            the chi-squared distribution, which needs several trials and both outcomes at most
            settings.
        table: the fitted table, with equal settings added up, see `read_table`.
        probability: fitted probability of every row of `table`.
        residuals: signed square roots of the deviance of every row; mostly within +-2.
        posterior: `Posterior` with draws of the parameters, or `None`.

    Example:

    >>> import spinkeras
    >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
    >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
    >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
    >>> fit.degrees_of_freedom, round(fit.device.thermal_stability, 1)
    (2, 39.9)
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
    reset_curve: EmpiricalCurve | None = None
    _predict: Any = dataclasses.field(default=None, repr=False)

    @property
    def overdispersion(self) -> float:
        """Deviance over degrees of freedom: about 1 if the law holds; NaN for 0 degrees.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> fit.overdispersion == fit.deviance / 2
        True
        """
        freedom = self.degrees_of_freedom
        return self.deviance / freedom if freedom else math.nan

    def scaled(self) -> "FitResult":
        """A copy with standard errors times `sqrt(overdispersion)`, if this factor exceeds 1.

        The larger errors are right if the counts scatter about the curve with a constant multiple
        of their binomial variance. They are still too small if the current jitters, which acts most
        where the curve is steep, or if the law is wrong.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> fit.scaled().standard_errors["anisotropy"] >= fit.standard_errors["anisotropy"]
        True

        Reference: P. McCullagh and J. A. Nelder, Generalized Linear Models, 2nd ed. (1989), 4.5.
        """
        factor = math.sqrt(max(1.0, np.nan_to_num(self.overdispersion, nan=1.0)))
        errors = {name: factor * error for name, error in self.standard_errors.items()}
        return dataclasses.replace(self, standard_errors=errors)

    def pattern(self) -> list[str]:
        """Sentences about what the residuals have in common; empty if they look random.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> fit.pattern()
        []
        """
        return pattern(self.table, self.probability, self.residuals)

    def predict(
        self,
        current: Array,
        pulse_width: Array,
        gate_voltage: Array = 0.0,
        *,
        direction: str | None = None,
        temperature: float | None = None,
    ) -> np.ndarray:
        """Fitted switching probability of pulses (NumPy float64).

        Args:
            current: A, scalar or array.
            pulse_width: s, > 0, broadcast against `current`.
            gate_voltage: V, broadcast against `current`. Default 0.
            direction: `"P->AP"` or `"AP->P"`. Default: the direction of `device`.
            temperature: K. Default: the temperature of `device`.

        Raises:
            ValueError: for settings outside the range of the fitted law, as in
                `spinkeras.switching_probability`, and for settings that are not numbers.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> float(fit.predict(72e-6, 2e-9).round(2))  # 461 of 1000 were measured
        0.46
        """
        names = ("current", "pulse_width", "gate_voltage")
        settings = map(checks.array, names, (current, pulse_width, gate_voltage))
        direction = stated_direction(direction)
        return self._predict(*np.broadcast_arrays(*settings), direction, temperature)

    def summary(self) -> str:
        """The estimates and the goodness of fit as text, and what of a curve no row shows.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> print(fit.summary())
        anisotropy                 1.0957e+05 +- 1.5e+03
        deviance 0.0 on 2 degrees of freedom (p = 0.99), 3 settings
        """
        lines = [
            f"{name:24} {value:12.5g} +- {self.standard_errors[name]:.2g}"
            for name, value in self.parameters.items()
        ]
        lines.append(
            f"deviance {self.deviance:.1f} on {self.degrees_of_freedom} degrees of freedom "
            f"(p = {self.p_value:.2g}), {len(self.residuals)} settings"
        )
        if self.curve is not None:
            lines += extrapolation(self.probability, self.curve)
        return "\n".join(lines)

    def plot(self, ax: "Sequence[Axes] | np.ndarray | None" = None) -> np.ndarray:
        """Data and fit above, residuals below: `spinkeras.plot.fit` of this result.

        Args:
            ax: two `matplotlib.axes.Axes`. Default `None`: the axes of a new figure.

        Returns:
            Array of the two `Axes`; `result.plot()[0].figure.savefig("fit.png")`.

        Raises:
            ValueError: for other `ax`.
            ImportError: without matplotlib.
        """
        import spinkeras

        return spinkeras.plot.fit(self, ax)

    def columns(self) -> dict:
        """Columns with one row per setting: `table`, the fitted probability and the residual.

        `read_table` reads the table again and does not use the other two.

        Example:

        >>> import spinkeras
        >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
        >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
        >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
        >>> fit.columns()["fitted_probability"].round(2)
        array([0.15, 0.46, 0.83])
        """
        fitted = {"fitted_probability": self.probability, "residual": self.residuals}
        return {**self.table, **fitted}

    def __repr__(self):
        fitted = ", ".join(
            f"{name} {value:.4g} +- {self.standard_errors[name]:.2g}"
            for name, value in self.parameters.items()
        )
        return (
            f"{type(self).__name__}({fitted}; deviance {self.deviance:.4g} on "
            f"{self.degrees_of_freedom} degrees of freedom, p {self.p_value:.2g}, "
            f"{len(self.residuals)} settings)"
        )

    def _repr_html_(self):
        import spinkeras

        return spinkeras.cards.fit(self)
