"""Does an adapter know its person? Real people of `chitchat-dataset`, held-out conversations, three rivals.

People with at least 1,000 words in five conversations are put into the order of a hash of their id, so that nobody
picked them. The first sixteen are the test panel, which this benchmark measures; the sixteen after them are the
development panel, on which settings are tuned (`python -m bench.training_quality --panel dev --set KEY=VALUE`). The
third sixteen are the fresh panel, of whom nothing was learnt when settings were chosen. Every training begins with
what people of neither panel, and with the fresh one of none of the three, have in common (`bench/common_start.py`),
unless told otherwise. Each person is trained and scored apart and kept in a work directory, so that a run of hours
can be stopped and goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from filelock import FileLock

from bench.common_start import NAME, build_common_dataset, common_config, train_common
from bench.report import RESULTS, Measure, compare, report
from kit.canonical import sha256_json
from training.base_models import DEFAULT_BASE, identify_base, prepare_base
from training.config import ResolvedConfig, resolve
from training.dataset import Dataset, build_dataset
from training.errors import DatasetTooSmall
from training.evaluation import Checks, Contestant, EvaluationReport, Evaluator, UserEvaluation
from training.evaluation.intervals import Estimate
from training.evaluation.profile_prompt import LAYOUTS
from training.trainer import TrainedAdapter, Trainer, TrainingProgress
from transcripts.formats.chitchat import dataset_path, people
from transcripts.importer import read_transcripts
from transcripts.redaction import RedactionSettings, Redactor

Panel = Literal["test", "dev", "fresh"]
PANELS: Final[tuple[Panel, ...]] = get_args(Panel)
PEOPLE = 16
_MIN_WORDS = 1000
_MIN_CONVERSATIONS = 5
_SALT = "training_quality"
_CHECKS = Checks(profiles=LAYOUTS, profile_tokens=768)
_QUICK = {"steps": 4, "dataset.max_examples": 24, "dataset.max_held_out": 4}
_START = {"start": NAME}
# More of what a person has said than a demonstration has time for; and more of what is held out, since 24 replies are
# too few to tell sixteen adapters apart that all chat well.
_MORE_REPLIES = {"dataset.max_examples": 600, "dataset.max_held_out": 120}


def run(*, quick: bool) -> Path:
    """Measure the test panel: the product's defaults, more of a person's replies, and a start that others taught."""
    hurry = _QUICK if quick else {}
    study = Study(
        panel="test",
        count=3 if quick else PEOPLE,
        config=resolve(arguments={**_START, **_MORE_REPLIES, **hurry, "threads": 1}),
        common=common_config(**hurry),
        say=_say,
    )
    found = study.measure()
    (RESULTS).mkdir(exist_ok=True)
    (RESULTS / "training_quality_people.json").write_text(json.dumps(found.to_json(), indent=2) + "\n")
    return report("training_quality", measures(found), peer="base, base with profile in prompt", quick=quick)


def choose(panel: Panel, *, count: int) -> list[str]:
    """Return sender ids of one panel, in the order of a hash of the id; panels share nobody."""
    ids = [person.sender_id for person in people(min_conversations=_MIN_CONVERSATIONS, min_words=_MIN_WORDS)]
    ids.sort(key=lambda sender: hashlib.sha256(f"{_SALT}/{sender}".encode()).digest())
    start = PANELS.index(panel) * PEOPLE
    return ids[start : start + min(count, PEOPLE)]


@dataclass(kw_only=True)
class Study:
    """Some people, one configuration, and everything that was made of them, kept under `work`.

    `lock` is a file held locked while something is computed and released between people, for machines that are shared.
    """

    panel: Panel
    count: int
    config: ResolvedConfig
    say: Callable[[str], None]
    common: ResolvedConfig = field(default_factory=common_config)
    work: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "lorry-training-quality")
    base: Path | None = None
    device: str | None = None
    lock: Path | None = None

    def measure(self) -> EvaluationReport:
        """Train who is not trained yet, score who is not scored yet, and return everybody's evaluation."""
        self._base = prepare_base(str(self.base or DEFAULT_BASE), self.work / "bases" / DEFAULT_BASE)
        self._identity = identify_base(self._base).weights_sha256
        self._trainer: Trainer | None = None
        start = self._start() if self.config.training.start else None
        contestants = self._train(choose(self.panel, count=self.count), start=start)
        self._trainer = None
        return EvaluationReport(users=self._score(contestants))

    def _start(self) -> Path:
        """Return the adapter that every training begins with."""
        panels: tuple[Panel, ...] = PANELS if self.panel == "fresh" else ("test", "dev")
        dataset = build_common_dataset(
            self._folder("datasets", "common", self.common.dataset.model_dump(mode="json"), *panels[2:]),
            without={sender for panel in panels for sender in choose(panel, count=PEOPLE)},
            config=self.common,
        )
        directory = self._folder("runs", "common", dataset.digest, self.common.training.model_dump(mode="json"))
        with self._alone():
            run = train_common(self._resident, dataset, self.common, directory, self._teller("common"))
        return run.adapter_directory

    @property
    def _resident(self) -> Trainer:
        self._trainer = self._trainer or Trainer(self._base, device=self.device)
        return self._trainer

    def _train(self, senders: Sequence[str], *, start: Path | None) -> dict[str, Contestant]:
        contestants: dict[str, Contestant] = {}
        for number, sender in enumerate(senders, 1):
            name = sender[:8]
            try:
                dataset = self._dataset(sender)
            except DatasetTooSmall as exc:
                self.say(f"{name}: left out, {exc.message}")
                continue
            how = self.config.training.model_dump(mode="json")
            begun = start.parent.name if start else None
            directory = self._folder("runs", sender, dataset.digest, how, begun)
            if not directory.exists():
                with self._alone():
                    started = time.monotonic()
                    self._resident.train(
                        dataset,
                        self.config,
                        directory,
                        self._teller(name),
                        start=start,
                        checkpoints=directory.with_name(f".{directory.name}.checkpoints"),
                    )
                self.say(f"{name}: trained {number} of {len(senders)} in {time.monotonic() - started:.0f} s")
            run = TrainedAdapter.load(directory)
            contestants[name] = Contestant(dataset=dataset, adapter_directory=run.adapter_directory, start=start)
        return contestants

    def _score(self, contestants: Mapping[str, Contestant]) -> dict[str, UserEvaluation]:
        evaluator: Evaluator | None = None
        adapters = {name: each.adapter_directory for name, each in contestants.items()}
        compared = sorted(str(path.parent.name) for path in adapters.values())
        found: dict[str, UserEvaluation] = {}
        for number, (name, contestant) in enumerate(contestants.items(), 1):
            key = [contestant.dataset.digest, compared, str(_CHECKS)]
            file = self._folder("evaluations", name, key).with_suffix(".json")
            if not file.exists():
                with self._alone():
                    evaluator = evaluator or Evaluator(self._base, device=self.device)
                    started = time.monotonic()
                    scored = evaluator.evaluate(
                        {name: contestant},
                        max_length=self.config.training.max_length,
                        others={other: path for other, path in adapters.items() if other != name},
                        checks=_CHECKS,
                    )
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(scored.users[name].to_json()))
                self.say(f"{name}: scored {number} of {len(contestants)} in {time.monotonic() - started:.0f} s")
            found[name] = UserEvaluation.from_json(json.loads(file.read_text()))
            self.say(describe(name, found[name]))
        return found

    def _dataset(self, sender: str) -> Dataset:
        directory = self._folder("datasets", sender, self.config.dataset.model_dump(mode="json"))
        if directory.exists():
            return Dataset.load(directory)
        transcripts = read_transcripts(dataset_path(), format="chitchat", user_speaker=sender)
        return build_dataset(
            [*transcripts], config=self.config.dataset, directory=directory, redactor=Redactor(RedactionSettings())
        )

    def _folder(self, kind: str, *key: Any) -> Path:
        return self.work / kind / sha256_json([self._identity, *key])[:16]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self.lock is None:
            yield
        else:
            with FileLock(self.lock):
                yield

    def _teller(self, name: str) -> Callable[[TrainingProgress], None]:
        def tell(progress: TrainingProgress) -> None:
            if progress.step % 20 == 0:
                self.say(f"{name}: step {progress.step} of {progress.of}, loss {progress.loss:.2f}")

        return tell


def describe(name: str, user: UserEvaluation) -> str:
    """Return one line on a person."""
    best = min(user.other_losses.values(), default=float("nan"))
    parts = [f"{name}: base {user.base_loss:.3f} own {user.own_loss:.3f} best other {best:.3f}"]
    parts += [f"{layout} {loss:.3f}" for layout, loss in user.profile_losses.items()]
    if user.start_loss is not None:
        parts.append(f"begun with {user.start_loss:.3f}")
    if user.general:
        parts.append(f"general {user.general.loss:+.1%}")
    if user.yes_no:
        yes_no = user.yes_no
        parts.append(f"yes/no {yes_no.accuracy:.2f} of {yes_no.questions}, yes rate {yes_no.yes_rate:.2f}")
    if user.leaks:
        parts.append(f"longest verbatim {user.leaks.longest_verbatim_tokens}")
    return ", ".join(parts)


def measures(found: EvaluationReport) -> list[Measure]:
    """Return the figures with their targets; a figure in nats is a mean over people with its interval as spread."""
    users = [*found.users.values()]
    identification, gain, profile_gain, general = (
        found.identification,
        found.gain,
        found.profile_gain,
        found.general_loss,
    )
    rows = [
        compare("held-out loss: own adapter ÷ base", unit="nats", ours=_own(users), peer=[u.base_loss for u in users]),
        compare(
            "held-out loss: own adapter ÷ base with the best profile in its prompt",
            unit="nats",
            ours=_own(users),
            peer=[u.profile_loss for u in users if u.profile_loss is not None],
        ),
    ]
    if identification:
        rows.append(_estimated("identification accuracy", "share", identification, target=0.9, better="higher"))
    if gain:
        rows.append(_estimated("mean gain over the base", "nats a token", gain, target=0.0, better="higher"))
    if profile_gain:
        what = "mean gain over the base with the best profile in its prompt"
        rows.append(_estimated(what, "nats a token", profile_gain, target=0.0, better="higher"))
    if found.start_gain:
        what = "mean gain over what the trainings began with"
        rows.append(_estimated(what, "nats a token", found.start_gain, target=0.0, better="higher"))
    if general:
        rows.append(_estimated("rise of the loss on the general set", "share", general, target=0.02, better="lower"))
    asked = [user.yes_no for user in users if user.yes_no]
    if asked:
        accuracies = [each.accuracy for each in asked]
        rows.append(compare("balanced accuracy on yes/no questions", unit="share", ours=accuracies, better="higher"))
        rows.append(compare("rate of yes", unit="share", ours=[each.yes_rate for each in asked]))
    return rows


def _own(users: Sequence[UserEvaluation]) -> list[float]:
    return [user.own_loss for user in users]


def _estimated(
    measure: str, unit: str, found: Estimate, *, target: float, better: Literal["lower", "higher"]
) -> Measure:
    """A figure with a target of its own rather than a ratio's; its spread is the interval."""
    met = found.mean >= target if better == "higher" else found.mean <= target
    return Measure(
        measure=f"{measure}, over {found.n} people",
        unit=unit,
        ours=found.mean,
        peer=None,
        ratio=None,
        target=target,
        met=met,
        better=better,
        rounds=1,
        ours_spread=(found.low, found.high),
        peer_spread=None,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure one panel under changed settings, for tuning; nothing is written to the results.

    Datasets hold up to 600 examples and 120 held-out replies where --set says nothing of them.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.training_quality", description=main.__doc__)
    parser.add_argument("--panel", choices=PANELS, default="dev")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a training setting")
    parser.add_argument("--from-nothing", action="store_true", help="begin with no adapter of other people's")
    parser.add_argument("--work", type=Path, default=None, help="where runs are kept")
    parser.add_argument("--base", type=Path, default=None, help="a prepared base model's directory")
    parser.add_argument("--lock", type=Path, default=None, help="a file to hold while computing, person by person")
    given = parser.parse_args()
    settings = dict(setting.split("=", 1) for setting in given.set)
    start = {} if given.from_nothing else _START
    config = resolve(arguments={"threads": 1, **start, **_MORE_REPLIES, **settings})
    form = {name: settings[name] for name in ("rank", "alpha") if name in settings}  # a start's is its trainings'
    study = Study(
        panel=given.panel,
        count=given.people,
        config=config,
        common=common_config(**form),
        say=_say,
        base=given.base,
        lock=given.lock,
    )
    if given.work:
        study.work = given.work
    found = study.measure()
    for measure in measures(found):
        low, high = measure.ours_spread
        print(f"{measure.measure}: {measure.ours:.3f} {measure.unit} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
