"""durable: keras-tuner searches that survive killed processes."""

import contextlib
import glob
import json
import os
import threading
import time
import warnings

import keras_tuner as kt

from spinkeras import checks, files
from spinkeras.search import _keras_tuner

_ANEW = "begin another search with another project_name or with overwrite=True"
# Entries in the file of a search, and their types in JSON.
_OF_A_SEARCH = {
    **dict.fromkeys(("start_order", "end_order", "retry_queue", "tried_so_far"), list),
    **dict.fromkeys(("ongoing_trials", "run_times", "id_to_hash", "hyperparameters"), dict),
    **dict.fromkeys(("seed", "seed_state"), int),
}
_STATUS = ("RUNNING", "IDLE", "INVALID", "STOPPED", "COMPLETED", "FAILED")


def durable(tuner_class: type, lease: float = 180.0) -> type:
    """A keras-tuner tuner class whose search survives killed processes.

    Use the returned class like the original one, in one process or in keras-tuner's chief/worker
    mode, where a chief process gives trials to worker processes. Every process needs the same
    arguments, `overwrite=False` and the same shared `directory`:

        tuner = durable(kt.Hyperband)(hypermodel, objective=..., directory=..., project_name=...)

    These faults of keras-tuner 1.4.8 after a kill are corrected:

    - One process, keras-tuner: the search resumes, but a kill between two trials repeats the
      finished trial, and a kill while a state file is written makes the file unreadable. A grid
      search forgets its place in the grid and ends early. Here: finished trials never run again,
      files are replaced as a whole, and a grid search continues at its place.
    - A killed worker, keras-tuner: its trial stays with it, and only a worker with the same
      `KERASTUNER_TUNER_ID` gets the trial again. Without such a worker the trial is lost and the
      chief waits forever (with Hyperband the other workers, too). Here: every worker regularly
      writes a file in the shared directory to show that it is alive. If a worker has been silent
      for `lease` seconds, the chief gives its trial to another worker. Workers stay until all
      trials have ended.
    - A chief that starts again, keras-tuner: it runs the trials of all workers again, also of
      living ones. Here: it waits for the lease.

    A worker that was suspended (not killed) for longer than the lease may finish a trial that
    another worker has finished, too; the first result counts. Trials that run on several workers
    together are not supported.

    Args:
        tuner_class: `keras_tuner.RandomSearch`, `BayesianOptimization`, `Hyperband`, `GridSearch`
            or another subclass of `keras_tuner.Tuner`.
        lease: time in s, 1e-3 to 1e7, after which a silent worker counts as dead. Default 180. On
            a network file system it must be longer than the caching of files, often 60 s.

    Returns:
        A subclass of `tuner_class`.

    Raises:
        ValueError: for another class or lease. From the tuner's constructor: if the search that it
            resumes began with other hyperparameters, or if a file of this search is damaged.

    Example:

    >>> import keras_tuner
    >>> from spinkeras.search import durable
    >>> durable(keras_tuner.Hyperband).__name__
    'DurableHyperband'
    """
    if not (isinstance(tuner_class, type) and issubclass(tuner_class, kt.Tuner)):
        raise ValueError(
            f"tuner_class = {checks.shown(tuner_class)}: durable needs a subclass of "
            "keras_tuner.Tuner."
        )
    lease = checks.number("lease", lease, "s", 1e-3, 1e7, "180 s is 180")
    return type(f"Durable{tuner_class.__name__}", (tuner_class, _DurableTuner), {"lease": lease})


class _DurableTuner(kt.Tuner):
    """The tuner: it writes files as a whole, and runs the threads of workers and chief."""

    lease = 180.0

    def __init__(self, oracle, *args, **kwargs):
        # A tuner makes its oracle itself; this is the only place before the oracle reads files.
        kind = type(oracle)
        oracle.__class__ = type(f"Durable{kind.__name__}", (_DurableOracle, kind), {})
        oracle.lease = self.lease
        oracle.is_chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")
        oracle.seen = {}
        self._idle = False
        self._given = oracle.get_space()  # a resumed search will replace it
        self._space = None
        super().__init__(oracle, *args, **kwargs)

    def search(self, *args, **kwargs):
        stop = threading.Event()
        name = os.environ.get("KERASTUNER_TUNER_ID")
        if "KERASTUNER_ORACLE_IP" in os.environ and name:
            is_chief = "chief" in name
            target = self._watch if is_chief else self._beat
            # keras-tuner distinguishes threads by their names.
            threading.Thread(
                target=target, args=(stop,), name=f"spinkeras-{name}", daemon=True
            ).start()
        try:
            super().search(*args, **kwargs)
        finally:
            stop.set()

    def on_search_begin(self):
        self.save()  # otherwise a kill in the first trial would lose the settings
        super().on_search_begin()

    def pre_create_trial(self):
        if self._idle:  # no trial was free; keras-tuner would ask again without a pause
            time.sleep(min(1.0, self.lease / 4))
        self._idle = True
        super().pre_create_trial()

    def on_trial_begin(self, trial):
        self._idle = False
        super().on_trial_begin(trial)

    def save(self):
        if not _keras_tuner.is_worker(self):
            self.oracle.save()
        _replace_json(_keras_tuner.tuner_file(self), self.get_state())

    def get_state(self):
        return {**super().get_state(), "space": self._space}

    def set_state(self, state):
        super().set_state(state)
        self._space = state.get("space")
        if not (self._space is None or isinstance(self._space, dict)):
            raise ValueError(f"space = {checks.shown(self._space)} holds no hyperparameters")

    def _populate_initial_space(self):
        super()._populate_initial_space()
        self._space = _described(self.oracle.get_space())

    def reload(self):
        with _readable(self.project_dir):
            checks.from_json(
                files.read_text(_keras_tuner.tuner_file(self)), _keras_tuner.tuner_file(self)
            )
            super().reload()
        if not _keras_tuner.is_worker(self):
            self._refuse_another_space()

    def _refuse_another_space(self):
        """Refuse to resume a search if the network declares other hyperparameters."""
        found, begun_with = self.oracle.hyperparameters, self._space
        self.oracle.hyperparameters = self._given
        self._populate_initial_space()
        self.oracle.hyperparameters = found
        # Files of an earlier version lack them; then use those that the trials have declared.
        before = begun_with or _described(found)
        new = _names(set(self._space) - set(before))
        gone = _names(set(before) - set(self._space)) if begun_with else []
        both = set(before) & set(self._space)
        changed = _names(key for key in both if before[key] != self._space[key])
        if new or gone or changed:
            raise ValueError(
                f"The search in {self.project_dir!r} was begun with other hyperparameters. New: "
                f"{new}; missing: {gone}; with another range: {changed}. Declare the same ones "
                f"again, or {_ANEW}."
            )

    def _beat(self, stop):
        count = 0
        path = _alive_path(self.project_dir, self.tuner_id)
        while not stop.is_set():
            try:
                _replace_json(path, [os.getpid(), time.time(), count])
            except OSError as error:
                warnings.warn(
                    f"This worker cannot write the file that shows it is alive: {error}",
                    stacklevel=1,
                )
            count += 1
            stop.wait(self.lease / 4)

    def _watch(self, stop):
        while not stop.wait(self.lease / 4):
            self.oracle.reap()


class _DurableOracle:
    """Mixin for the oracle, the part of a tuner that hands out trials."""

    clock = staticmethod(time.monotonic)

    def save(self):
        _replace_json(_keras_tuner.oracle_file(self), self.get_state())

    def _save_trial(self, trial):
        path = os.path.join(_keras_tuner.trial_folder(self, trial.trial_id), "trial.json")
        _replace_json(path, trial.get_state())

    def get_state(self):
        state = super().get_state()
        if _keras_tuner.is_grid(self):
            state["grid"] = _keras_tuner.place_in_grid(self)
        return state

    def set_state(self, state):
        super().set_state(state)
        if _keras_tuner.is_grid(self):
            _keras_tuner.set_place_in_grid(self, state["grid"])
        self._was_ongoing = dict(state["ongoing_trials"])

    def populate_space(self, trial_id):
        try:
            return super().populate_space(trial_id)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            if error.args and error.args[0] in [hp.name for hp in self.hyperparameters.space]:
                raise ValueError(
                    f"In an earlier trial the network did not declare the hyperparameter {error}, "
                    "which this kind of search needs. Declare it in every call of build, or "
                    "inside hp.conditional_scope."
                ) from error
            raise ValueError(
                f"The trials in {_keras_tuner.search_folder(self)!r} do not fit their search "
                f"({checks.shown_error(error)}); a file may be damaged. Restore it from a backup, "
                f"or {_ANEW}."
            ) from error

    def reload(self):
        for path in glob.glob(
            os.path.join(_keras_tuner.search_folder(self), "trial_*", "trial.json")
        ):
            _check_trial(path)
        path = _keras_tuner.oracle_file(self)
        state = checks.from_json(files.read_text(path), path)
        for name, kind in _OF_A_SEARCH.items():
            if type(state[name]) is not kind:
                raise ValueError(
                    f"{path}: {name} = {checks.shown(state[name])} is not of type {kind.__name__}"
                )
        for key in [*state["start_order"], *state["end_order"], *state["retry_queue"]]:
            if not os.path.exists(
                os.path.join(_keras_tuner.search_folder(self), f"trial_{key}", "trial.json")
            ):
                raise ValueError(f"{path} names the trial {checks.shown(key)}, which has no file")
        super().reload()  # queues every trial that was running
        # A kill may come after a trial is written and before the search lists it. The search will
        # use its number again, so drop it.
        for trial_id in [key for key in self.trials if key not in self.start_order]:
            del self.trials[trial_id]
        for key in self.start_order:
            if self.trials[key].status in ("COMPLETED", "FAILED") and not self._finished(key):
                self.end_order.append(key)
        if self.is_chief:
            # The workers of these trials may be alive; the lease will decide.
            for tuner_id, trial_id in self._was_ongoing.items():
                if not self._finished(trial_id):
                    self.ongoing_trials[tuner_id] = self.trials[trial_id]
                    self.tuner_ids.add(tuner_id)
        held = {trial.trial_id for trial in self.ongoing_trials.values()}
        queue = dict.fromkeys(_keras_tuner.waiting(self))
        waiting = [key for key in queue if not (self._finished(key) or key in held)]
        _keras_tuner.set_waiting(self, waiting)
        for trial_id in waiting:
            self._forget_results(self.trials[trial_id])

    @kt.synchronized
    def create_trial(self, tuner_id):
        self.seen.pop(tuner_id, None)  # a worker that asks for a trial is alive
        self.reap()
        if tuner_id in self.ongoing_trials:  # the worker was restarted and gets its trial again
            self._forget_results(self.ongoing_trials[tuner_id])
        waiting = [key for key in _keras_tuner.waiting(self) if not self._finished(key)]
        _keras_tuner.set_waiting(self, waiting)
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            # A running trial may have to run again, so workers wait until the last one ends.
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        if self._finished(trial.trial_id):
            return  # another worker has finished it in the meantime
        super().end_trial(trial)
        self.save()  # otherwise the file would show the trial as running

    @kt.synchronized
    def reap(self):
        """Take the trial from every worker that has been silent for the lease."""
        if not self.is_chief:
            return
        now = self.clock()
        for tuner_id in {*self.tuner_ids, *self.ongoing_trials}:
            sign = _read(_alive_path(_keras_tuner.search_folder(self), tuner_id))
            last = self.seen.get(tuner_id)
            # Only the chief's own clock is used, because the clocks of hosts may differ.
            if last is None or last[0] != sign:
                self.seen[tuner_id] = (sign, now)
            elif now - last[1] > self.lease:
                del self.seen[tuner_id]
                self.tuner_ids.discard(tuner_id)
                trial = self.ongoing_trials.pop(tuner_id, None)
                if trial is not None and not self._finished(trial.trial_id):
                    print(f"Worker {tuner_id} is silent; trial {trial.trial_id} will run again.")
                    self._forget_results(trial)
                    _keras_tuner.set_waiting(self, [*_keras_tuner.waiting(self), trial.trial_id])
                self.save()

    def _finished(self, trial_id):
        return trial_id in self.end_order

    def _forget_results(self, trial):
        """Delete the results of a killed run; keras-tuner would prefer them to the new ones."""
        trial.metrics = type(trial.metrics)()
        trial.status = "RUNNING"
        self._save_trial(trial)


def _alive_path(project_dir, tuner_id):
    return os.path.join(project_dir, f"alive_{tuner_id}.json")


def _replace_json(path, state):
    files.write(path, json.dumps(state))


@contextlib.contextmanager
def _readable(folder):
    """Context in which a search is read; every error becomes one `ValueError`."""
    try:
        yield
    except Exception as error:  # keras-tuner does not check what it reads
        raise ValueError(
            f"The search in {folder!r} cannot be read: {checks.shown_error(error)}. Restore the "
            f"file from a backup, or {_ANEW}."
        ) from None


def _described(space):
    """Hyperparameters by name and condition, as they are read from JSON."""
    return {
        json.dumps([hp.name, [c.get_config() for c in hp.conditions]]): json.loads(
            json.dumps([type(hp).__name__, hp.get_config()])
        )
        for hp in space.space
    }


def _names(keys):
    return sorted({json.loads(key)[0] for key in keys})


def _check_trial(path):
    """Refuse the file of a trial that keras-tuner would accept although it is damaged."""
    state = checks.from_json(files.read_text(path), path, finite=False)
    trial = kt.engine.trial.Trial.from_state(state)
    folder = os.path.basename(os.path.dirname(path))
    if f"trial_{trial.trial_id}" != folder:
        raise ValueError(f"{path} is the trial {checks.shown(trial.trial_id)}")
    checks.choice(f"{path}: status", trial.status, _STATUS)
    scored = trial.score is not None or trial.status == "COMPLETED"
    if scored and checks.real(trial.score) is None:
        raise ValueError(f"{path}: score = {checks.shown(trial.score)} is not a number")
    for hp in trial.hyperparameters.space:
        value = trial.hyperparameters.values.get(hp.name, hp.default)
        if not _possible(hp, value):
            raise ValueError(
                f"{path}: {hp.name} = {checks.shown(value)} is not a possible value of {hp}"
            )


def _possible(hp, value):
    """Whether a hyperparameter can have this value."""
    if hasattr(hp, "min_value"):
        found = None if isinstance(value, str) else checks.real(value)
        slack = 1e-9 * max(abs(hp.min_value), abs(hp.max_value))
        return found is not None and hp.min_value - slack <= found <= hp.max_value + slack
    same_kind = [one for one in hp.values if isinstance(value, bool) == isinstance(one, bool)]
    return value in same_kind


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
