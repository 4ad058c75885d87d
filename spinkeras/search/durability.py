"""keras-tuner searches that survive killed processes; needs keras-tuner, so import it by name."""

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

_ANEW = "begin another search: with another project_name, or with overwrite=True"
# What a search holds, by its kind in JSON.
_OF_A_SEARCH = {
    **dict.fromkeys(("start_order", "end_order", "retry_queue", "tried_so_far"), list),
    **dict.fromkeys(("ongoing_trials", "run_times", "id_to_hash", "hyperparameters"), dict),
    **dict.fromkeys(("seed", "seed_state"), int),
}
_STATUS = ("RUNNING", "IDLE", "INVALID", "STOPPED", "COMPLETED", "FAILED")


def durable(tuner_class: type, lease: float = 180.0) -> type:
    """A keras-tuner tuner class whose search survives killed processes.

    Use it as the class itself, in one process or in keras-tuner's chief/worker mode, with the
    same arguments in every process, `overwrite=False` and a `directory` that all of them share:

        tuner = durable(kt.Hyperband)(hypermodel, objective=..., directory=..., project_name=...)

    What keras-tuner 1.4.8 does when a process is killed, and what changes here:

    - In one process it resumes, but a trial killed after it ended and before the next one began
      is run twice, and a kill while a state file is written leaves a file that cannot be read.
      Here finished trials are never queued again, and files are replaced as a whole. A grid
      search forgets its place in the grid and ends early; here it goes on.
    - A worker killed in mid-trial keeps that trial: only a worker with the same
      `KERASTUNER_TUNER_ID` gets it again. Without one the trial is lost and the chief waits for
      ever (in Hyperband the other workers, too). Here every worker shows that it is alive by a
      file in the shared directory, and the chief gives the trial of a worker that has been silent
      for `lease` seconds to another. Workers stay until no trial is under way any more.
    - A chief that starts again queues the trials of all workers, also of those that live. Here it
      waits for the lease.

    A worker that was suspended for longer than the lease (not killed) may finish its trial a
    second time; the first result counts. Trials that several workers share are not supported.

    Args:
        tuner_class: `keras_tuner.RandomSearch`, `BayesianOptimization`, `Hyperband`, `GridSearch`
            or another subclass of `keras_tuner.Tuner`.
        lease: s, 1e-3 to 1e7, silence after which a worker counts as dead. Default 180; on a
            network file system it has to be longer than the caching of file contents, often 60 s.

    Returns:
        A subclass of `tuner_class`.

    Raises:
        ValueError: for another class or lease; from the tuner's constructor, where the search it
            finds was begun with other hyperparameters, or a file of it is damaged.

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
    """The tuner's part: signs of life of a worker, the clock of the chief, files."""

    lease = 180.0

    def __init__(self, oracle, *args, **kwargs):
        # A tuner makes its oracle itself; this is the one place before it reads its files.
        kind = type(oracle)
        oracle.__class__ = type(f"Durable{kind.__name__}", (_DurableOracle, kind), {})
        oracle.lease = self.lease
        oracle.is_chief = "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")
        oracle.seen = {}
        self._idle = False
        self._given = oracle.get_space()  # before a search that is found replaces it
        self._space = None
        super().__init__(oracle, *args, **kwargs)

    def search(self, *args, **kwargs):
        stop = threading.Event()
        name = os.environ.get("KERASTUNER_TUNER_ID")
        if "KERASTUNER_ORACLE_IP" in os.environ and name:
            is_chief = "chief" in name
            target = self._watch if is_chief else self._beat
            # keras-tuner tells threads apart by their names.
            threading.Thread(
                target=target, args=(stop,), name=f"spinkeras-{name}", daemon=True
            ).start()
        try:
            super().search(*args, **kwargs)
        finally:
            stop.set()

    def on_search_begin(self):
        self.save()  # else a kill in the first trial would forget its settings
        super().on_search_begin()

    def pre_create_trial(self):
        if self._idle:  # the last answer was to ask again; keras-tuner would do so at once
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
            raise ValueError(f"space = {checks.shown(self._space)} is not one of hyperparameters")

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
        """The hyperparameters that the network declares must be those of the search found."""
        found, begun_with = self.oracle.hyperparameters, self._space
        self.oracle.hyperparameters = self._given
        self._populate_initial_space()
        self.oracle.hyperparameters = found
        # A search of an earlier version has not noted them; it knows those that it has met.
        before = begun_with or _described(found)
        new = _names(set(self._space) - set(before))
        gone = _names(set(before) - set(self._space)) if begun_with else []
        both = set(before) & set(self._space)
        changed = _names(key for key in both if before[key] != self._space[key])
        if new or gone or changed:
            raise ValueError(
                f"The search in {self.project_dir!r} was begun with other hyperparameters: new are "
                f"{new}, gone {gone}, with another range {changed}. Declare the same ones again, "
                f"or {_ANEW}."
            )

    def _beat(self, stop):
        count = 0
        path = _alive_path(self.project_dir, self.tuner_id)
        while not stop.is_set():
            try:
                _replace_json(path, [os.getpid(), time.time(), count])
            except OSError as error:
                warnings.warn(f"No sign of life could be written: {error}", stacklevel=1)
            count += 1
            stop.wait(self.lease / 4)

    def _watch(self, stop):
        while not stop.wait(self.lease / 4):
            self.oracle.reap()


class _DurableOracle:
    """The oracle's part, mixed into the oracle of the tuner."""

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
                    f"The hyperparameter {error} was not declared by the network of an earlier "
                    "trial, which this kind of search needs. Declare it in every call of build, or "
                    "inside hp.conditional_scope."
                ) from error
            raise ValueError(
                f"The trials in {_keras_tuner.search_folder(self)!r} do not fit their search "
                f"({checks.shown_error(error)}); a file may be damaged. Bring it back from a copy, "
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
                    f"{path}: {name} = {checks.shown(state[name])} is not of the kind "
                    f"{kind.__name__}"
                )
        for key in [*state["start_order"], *state["end_order"], *state["retry_queue"]]:
            if not os.path.exists(
                os.path.join(_keras_tuner.search_folder(self), f"trial_{key}", "trial.json")
            ):
                raise ValueError(f"{path} names the trial {checks.shown(key)}, which has no file")
        super().reload()  # queues every trial that was under way
        # Written, but killed before the search knew of it: the number is given out again.
        for trial_id in [key for key in self.trials if key not in self.start_order]:
            del self.trials[trial_id]
        for key in self.start_order:
            if self.trials[key].status in ("COMPLETED", "FAILED") and not self._finished(key):
                self.end_order.append(key)
        if self.is_chief:
            # Their workers may be alive; the lease decides.
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
        self.seen.pop(tuner_id, None)  # it asks, so it is alive
        self.reap()
        if tuner_id in self.ongoing_trials:  # it died, was started again and gets its trial back
            self._forget_results(self.ongoing_trials[tuner_id])
        waiting = [key for key in _keras_tuner.waiting(self) if not self._finished(key)]
        _keras_tuner.set_waiting(self, waiting)
        trial = super().create_trial(tuner_id)
        if trial.status == "STOPPED" and self.ongoing_trials:
            # A trial under way may come back, so nobody leaves before the last has ended.
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    @kt.synchronized
    def end_trial(self, trial):
        if self._finished(trial.trial_id):
            return  # ended by another worker in the meantime
        super().end_trial(trial)
        self.save()  # else the file would hold the trial as still under way

    @kt.synchronized
    def reap(self):
        """Take the trial from every worker that has been silent for the lease."""
        if not self.is_chief:
            return
        now = self.clock()
        for tuner_id in {*self.tuner_ids, *self.ongoing_trials}:
            sign = _read(_alive_path(_keras_tuner.search_folder(self), tuner_id))
            last = self.seen.get(tuner_id)
            # Compared with the chief's own clock only: hosts need not agree on the time.
            if last is None or last[0] != sign:
                self.seen[tuner_id] = (sign, now)
            elif now - last[1] > self.lease:
                del self.seen[tuner_id]
                self.tuner_ids.discard(tuner_id)
                trial = self.ongoing_trials.pop(tuner_id, None)
                if trial is not None and not self._finished(trial.trial_id):
                    print(f"Worker {tuner_id} is silent; trial {trial.trial_id} is run again.")
                    self._forget_results(trial)
                    _keras_tuner.set_waiting(self, [*_keras_tuner.waiting(self), trial.trial_id])
                self.save()

    def _finished(self, trial_id):
        return trial_id in self.end_order

    def _forget_results(self, trial):
        """Drop what a killed run reported; keras-tuner would keep it in place of the new result."""
        trial.metrics = type(trial.metrics)()
        trial.status = "RUNNING"
        self._save_trial(trial)


def _alive_path(project_dir, tuner_id):
    return os.path.join(project_dir, f"alive_{tuner_id}.json")


def _replace_json(path, state):
    files.write(path, json.dumps(state))


@contextlib.contextmanager
def _readable(folder):
    """Context in which a search is read; whatever it stumbles over becomes one sentence."""
    try:
        yield
    except Exception as error:  # keras-tuner checks nothing of what it reads
        raise ValueError(
            f"The search in {folder!r} cannot be read: {checks.shown_error(error)}. Bring the file "
            f"back from a copy, or {_ANEW}."
        ) from None


def _described(space):
    """Hyperparameters by name and condition, as they come back from JSON."""
    return {
        json.dumps([hp.name, [c.get_config() for c in hp.conditions]]): json.loads(
            json.dumps([type(hp).__name__, hp.get_config()])
        )
        for hp in space.space
    }


def _names(keys):
    return sorted({json.loads(key)[0] for key in keys})


def _check_trial(path):
    """Refuse the file of a trial that keras-tuner would take for something else."""
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
                f"{path}: {hp.name} = {checks.shown(value)} is none of the values of {hp}"
            )


def _possible(hp, value):
    """Whether a hyperparameter can have a value."""
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
