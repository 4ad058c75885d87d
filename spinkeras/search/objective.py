"""The objective of a search: one score from accuracy and energy, and the front of both."""

import math
from typing import Any

import keras
import keras_tuner as kt

from spinkeras import checks


class EnergyObjective(keras.callbacks.Callback):
    """Combines a metric and the energy into one score, at a given exchange rate.

    In the score, a reduction of the energy by the factor `rate` is worth `delta` of the metric:

        score = metric - delta * ln(E / E_ref) / ln(rate)      direction "max", to be maximised
        score = metric + delta * ln(E / E_ref) / ln(rate)      direction "min", to be minimised

    `E` is the energy per inference in pJ. `E_ref` shifts all scores by the same amount, so it does
    not affect which trial wins. keras-tuner itself can only add logged values, so the units of
    energy and accuracy would set their weights. (AutoQKeras multiplies the accuracy by its
    forgiving factor instead. Then the same reduction is worth less at a low accuracy, and the
    reference matters.)

    As a callback it writes the score into the logs of every epoch. It needs the logs of
    `EnergyTracker`, so place it after the tracker. Give its property `objective` to the tuner. The
    tuner then keeps the epoch with the best score, and the metric and energy of that epoch.

    Args:
        delta: worth, in units of the metric, of a reduction of energy by `rate`, 0 to 1e12.
            Default 0.01: one percentage point of accuracy.
        rate: factor of energy that is worth `delta`, 1.001 to 1e12. Default 2.
        metric: key of the metric in the logs. Default `"val_accuracy"`.
        energy: key of the energy in the logs. Default `"val_energy_pj"`; `"energy_pj"` without
            validation data.
        reference_pj: `E_ref` in pJ, 1e-12 to 1e12. Default 1.
        direction: `"max"` (default) for a metric that should be large, `"min"` for a loss.
        name: key of the score in the logs. Default `"energy_score"`.

    Raises:
        ValueError: for arguments outside their range. In training, for keys that are not in the
            logs and for an energy that is not > 0.

    Example:

    >>> from spinkeras.search import EnergyObjective
    >>> objective = EnergyObjective(delta=0.01, rate=2.0)  # half the energy is worth 1 point
    >>> round(objective.score(0.95, 8.0), 4), round(objective.score(0.94, 4.0), 4)
    (0.92, 0.92)
    """

    def __init__(
        self,
        delta: float = 0.01,
        rate: float = 2.0,
        metric: str = "val_accuracy",
        energy: str = "val_energy_pj",
        reference_pj: float | None = 1.0,
        direction: str = "max",
        name: str = "energy_score",
    ) -> None:
        super().__init__()
        of_metric, factor = "(units of the metric)", "(a factor of energy)"
        self.delta = checks.number("delta", delta, of_metric, 0.0, 1e12, "0.01 is one point of 100")
        self.rate = checks.number("rate", rate, factor, 1.001, 1e12, "2 halves the energy")
        self.metric = checks.text("metric", metric, "a key of the logs")
        self.energy = checks.text("energy", energy, "a key of the logs")
        self.reference_pj = checks.number("reference_pj", reference_pj, "pJ", 1e-12, 1e12)
        self.direction = checks.choice("direction", direction, ("max", "min"))
        self.name = checks.text("name", name, "a key for the logs")

    @property
    def objective(self) -> kt.Objective:
        """The `keras_tuner.Objective` to give to a tuner.

        Example:

        >>> from spinkeras.search import EnergyObjective
        >>> objective = EnergyObjective().objective
        >>> objective.name, objective.direction
        ('energy_score', 'max')
        """
        return kt.Objective(self.name, self.direction)

    def score(self, metric: float, energy_pj: float) -> float:
        """Score of a metric and an energy in pJ, by the formulas of the class.

        Args:
            metric: value of the metric.
            energy_pj: energy per inference in pJ, above 0.

        Raises:
            ValueError: for a value that is not a number, and an energy that is not above 0.

        Example:

        >>> from spinkeras.search import EnergyObjective
        >>> round(EnergyObjective(delta=0.01, rate=2.0).score(0.95, 4.0), 4)  # two factors of 2
        0.93
        """
        found = checks.real(metric), checks.real(energy_pj)
        if None in found:
            given = f"metric = {checks.shown(metric)} and energy_pj = {checks.shown(energy_pj)}"
            raise ValueError(f"{given} must be numbers, the energy in pJ.")
        metric, energy_pj = found
        if not energy_pj > 0:
            raise ValueError(
                f"An energy of {energy_pj} pJ has no logarithm. Train the model with an "
                "EnergyTracker before EnergyObjective in the list of callbacks."
            )
        cost = self.delta * math.log(energy_pj / self.reference_pj) / math.log(self.rate)
        return float(metric - cost if self.direction == "max" else metric + cost)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        missing = [key for key in (self.metric, self.energy) if key not in logs]
        if missing:
            raise kt.errors.FatalValueError(
                f"EnergyObjective found no {missing} in the logs, only {sorted(logs)}. Put "
                "EnergyTracker() before it in the list of callbacks, give fit validation data for "
                "val_ keys, and compile the model with the metric."
            )
        logs[self.name] = self.score(logs[self.metric], logs[self.energy])


def energy_front(
    tuner: kt.Tuner,
    metric: str = "val_accuracy",
    energy: str = "val_energy_pj",
    direction: str = "max",
) -> list[dict[str, Any]]:
    """All finished trials by energy, with a mark on those that no other trial beats.

    A trial is on this front if no other finished trial has less energy and a better metric.

    Args:
        tuner: keras-tuner tuner after a search with `EnergyTracker`.
        metric: key of the metric in the logs. Default `"val_accuracy"`.
        energy: key of the energy in the logs. Default `"val_energy_pj"`.
        direction: `"max"` (default) or `"min"`: which metric is better.

    Returns:
        List of dictionaries in the order of energy: `trial_id`, `metric`, `energy_pj` (pJ per
        inference), `values` (hyperparameters), `on_front` (`True` on the front). Metric and energy
        are those of the epoch with the best score.

    Raises:
        ValueError: for another object than a tuner, another direction, and if no finished trial
            has both keys.

    Example:

    >>> import keras_tuner as kt
    >>> from spinkeras.search import energy_front
    >>> class Search(kt.GridSearch):  # in place of training: the metrics of three networks
    ...     def run_trial(self, trial, **_):
    ...         size = trial.hyperparameters.Choice("size", [1, 2, 3])
    ...         accuracy, picojoule = {1: (0.8, 3.0), 2: (0.9, 2.0), 3: (0.95, 5.0)}[size]
    ...         return {"val_accuracy": accuracy, "val_energy_pj": picojoule}
    >>> tuner = Search(objective=kt.Objective("val_accuracy", "max"), directory="front")
    >>> tuner.search(verbose=0)
    >>> [(row["metric"], row["energy_pj"], row["on_front"]) for row in energy_front(tuner)]
    [(0.9, 2.0, True), (0.8, 3.0, False), (0.95, 5.0, True)]
    """
    if not isinstance(getattr(tuner, "oracle", None), kt.Oracle):
        raise ValueError(
            f"tuner = {checks.shown(tuner)} must be a keras-tuner tuner after its search, such as "
            "a keras_tuner.RandomSearch."
        )
    sign = 1.0 if checks.choice("direction", direction, ("max", "min")) == "max" else -1.0
    rows = []
    for trial in tuner.oracle.get_best_trials(10**6):
        if trial.status != "COMPLETED" or not all(map(trial.metrics.exists, (metric, energy))):
            continue
        rows.append(
            {
                "trial_id": trial.trial_id,
                "metric": float(trial.metrics.get_last_value(metric)),
                "energy_pj": float(trial.metrics.get_last_value(energy)),
                "values": dict(trial.hyperparameters.values),
            }
        )
    if not rows:
        raise ValueError(f"No finished trial of this tuner has both {metric!r} and {energy!r}.")
    rows.sort(key=lambda row: (row["energy_pj"], -sign * row["metric"]))
    best = -math.inf
    for row in rows:
        row["on_front"] = sign * row["metric"] > best
        best = max(best, sign * row["metric"])
    return rows
