"""Is what a profile states true of its person, theirs alone, and all there is to say?

Made people (`bench/fidelity/people.py`) have known traits: the calibration is fitted on some and everything is measured
on others. Controls: the same people with every trait negated are trained anew, and the adapter of one is asked about
the transcripts of another. Real people of `chitchat-dataset` have no known traits; of their facts a checker that shares
no code with the pipeline judges the support, and those that come out for somebody else as well are counted. Everything
is trained and served in earnest, a person at a time, and kept under the work directory, so that a run that is stopped
goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from bench.fidelity.figures import Found, found_in, judged, stated
from bench.fidelity.fitting import fit, measure
from bench.fidelity.measures import (
    calibration_measures,
    made_measures,
    real_measures,
    swapped_measures,
    turned_measures,
)
from bench.fidelity.people import FIRST_FITTED, MadePerson, make_person
from bench.report import RESULTS, Measure, report
from bench.training_quality import choose
from kit.canonical import sha256_file, sha256_json
from lorry.context import Context, base_directory, open_context
from lorry.pipeline import resolve_config
from lorry.stages.building import build_user_dataset
from lorry.stages.training import train_users
from registry.client import draft_from_directory
from registry.manifest import Manifest, Owner
from serving.extraction.bank import standard_bank
from serving.extraction.engine_client import EngineClient
from serving.extraction.extract import find_candidates
from serving.extraction.scoring.confidence import CALIBRATION_FILE, Calibration, Scores, standard_calibration
from serving.extraction.settings import ExtractionSettings
from serving.extraction.support.search import TurnSearch
from tests.support.ports import free_port_block
from training.config import ResolvedConfig
from transcripts.formats.chitchat import dataset_path
from transcripts.importer import read_transcripts
from transcripts.store import TranscriptStore
from transcripts.transcript import Transcript

_PORTS = 22
_ROOT = Path(__file__).resolve().parents[1]
_FIRST_TESTED = 0  # a seed, as FIRST_FITTED: nobody is in both
_QUICK = ("steps=4", "dataset.max_examples=24")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many people of each sort."""

    tested: int = 6
    fitted: int = 6
    turned: int = 2
    real: int = 6


async def run(*, quick: bool) -> Path:
    """Run the benchmark with the product's own defaults and write its report."""
    size = Size(tested=2, fitted=2, turned=1, real=2) if quick else Size()
    study = Study(size=size, settings=_QUICK if quick else ())
    found = await study.run()
    return write_report(found, quick=quick)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that was measured."""

    measures: tuple[Measure, ...]
    calibration: Calibration | None
    people: dict[str, Any]


@dataclass(kw_only=True)
class Study:
    """Some people, one configuration, and everything that was made of them under `work`.

    Profiles are judged by the calibration that the package ships; with `ships_fresh` by the one fitted here, which
    is shipped from then on.
    """

    size: Size
    settings: Sequence[str] = ()
    work: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "lorry-extraction-fidelity")
    extraction: ExtractionSettings = field(default_factory=ExtractionSettings)
    ships_fresh: bool = False
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)

    async def run(self) -> Outcome:
        """Train, ask and judge whoever was not yet, and return the figures."""
        self.work.mkdir(parents=True, exist_ok=True)
        ports = free_port_block(_PORTS)
        os.environ |= {
            "LORRY_HOME": str(self.work / "home"),
            "LORRY_PORT_BASE": str(ports),
            "LORRY_GATEWAY_PORT": str(ports + 21),
        }
        config = resolve_config(None, list(self.settings))
        async with open_context() as context:
            tested = [make_person(_FIRST_TESTED + number) for number in range(self.size.tested)]
            fitted = [make_person(FIRST_FITTED + number) for number in range(self.size.fitted)]
            turned = [make_person(_FIRST_TESTED + n, negated=True) for n in range(self.size.turned)]
            facts = {p.name: await self._made(context, p, config) for p in (*fitted, *tested, *turned)}
            swapped = await self._swapped(context, tested[: self.size.turned + 1], config)
            real = await self._real(context, config)
        return self._judge(tested, fitted, turned, facts=facts, swapped=swapped, real=real)

    async def _made(self, context: Context, person: MadePerson, config: ResolvedConfig) -> list[Found]:
        return await self._facts(context, person.name, person.transcripts, config)

    async def _facts(
        self, context: Context, user: str, transcripts: Sequence[Transcript], config: ResolvedConfig
    ) -> list[Found]:
        """Return what comes up of a user, trained and asked unless that was done with the same inputs."""
        return await self._kept(
            f"facts/{user}",
            [sorted(t.id for t in transcripts)],
            config,
            lambda: self._train_and_ask(context, user, transcripts, config),
        )

    async def _train_and_ask(
        self, context: Context, user: str, transcripts: Sequence[Transcript], config: ResolvedConfig
    ) -> list[Found]:
        manifest = await self._adapter(context, user, transcripts, config)
        return await self._ask(context, manifest, user=user, transcripts=transcripts)

    async def _adapter(
        self, context: Context, user: str, transcripts: Sequence[Transcript], config: ResolvedConfig
    ) -> Manifest:
        started = time.monotonic()
        async with context.database.transaction() as session:
            await TranscriptStore(session).add(context.settings.tenant, user, transcripts)
        dataset = await build_user_dataset(context, user=user, config=config)
        trained = (await train_users(context, {user: dataset}, config=config, on_step=lambda *_: None))[user]
        config_file = base_directory(context.plan) / "config.json"
        await context.registry.register_base(trained.base, config=config_file.read_bytes())
        owner = Owner(tenant=context.settings.tenant, user=user)
        draft = draft_from_directory(trained.adapter_directory, owner=owner, base=trained.base)
        manifest = await context.registry.publish(trained.adapter_directory, draft=draft)
        self.say(f"{user}: trained and published in {time.monotonic() - started:.0f} s")
        return manifest

    async def _ask(
        self, context: Context, manifest: Manifest, *, user: str, transcripts: Sequence[Transcript]
    ) -> list[Found]:
        """Return what the version says of the person who said these transcripts: `user`, who need not be its owner."""
        started = time.monotonic()
        await context.stack.ensure("engine")
        async with EngineClient(url=context.plan.engine_url, token=context.plan.engine_token) as engine:
            found = await find_candidates(
                engine=engine,
                search=TurnSearch(context.database, tenant=context.settings.tenant, user=user),
                transcripts=transcripts,
                manifest=manifest,
                bank=standard_bank(),
                settings=self.extraction,
                calibration=standard_calibration(),
            )
        self.say(f"{user}: asked in {time.monotonic() - started:.0f} s, {len(found.candidates)} supported facts")
        return found_in(found)

    async def _swapped(
        self, context: Context, people: Sequence[MadePerson], config: ResolvedConfig
    ) -> dict[str, list[Found]]:
        """Return what each person's adapter says over the next one's transcripts, by the adapter's owner."""
        found: dict[str, list[Found]] = {}
        for number, person in enumerate(people if len(people) > 1 else ()):
            other = people[(number + 1) % len(people)]

            async def ask(person: MadePerson = person, other: MadePerson = other) -> list[Found]:
                manifest = await self._adapter(context, person.name, person.transcripts, config)
                return await self._ask(context, manifest, user=other.name, transcripts=other.transcripts)

            ids = [sorted(t.id for each in (person, other) for t in each.transcripts)]
            found[person.name] = await self._kept(f"swapped/{person.name}", [other.name, *ids], config, ask)
        return found

    async def _real(
        self, context: Context, config: ResolvedConfig
    ) -> dict[str, tuple[list[Found], dict[str, Transcript]]]:
        found = {}
        for sender in choose("test", count=self.size.real):
            transcripts = [*read_transcripts(dataset_path(), format="chitchat", user_speaker=sender)]
            facts = await self._facts(context, f"real-{sender[:12]}", transcripts, config)
            found[sender[:12]] = (facts, {transcript.id: transcript for transcript in transcripts})
        return found

    async def _kept(self, name: str, key: list[Any], config: ResolvedConfig, make: Callable[[], Any]) -> list[Found]:
        """Return what a file of the work directory holds, made first unless the same inputs made it before."""
        inputs = [
            key,
            config.training.model_dump(mode="json"),
            config.dataset.model_dump(mode="json"),
            self.extraction.model_dump(mode="json"),
            standard_bank().model_dump(mode="json"),
            [each.name for each in fields(Scores)],
            _code(),
        ]
        file = self.work / f"{name}-{sha256_json(inputs)[:16]}.json"
        if not file.exists():
            found: list[Found] = await make()
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps([each.to_json() for each in found], indent=1))
            partial.rename(file)
        return [Found.from_json(value) for value in json.loads(file.read_text())]

    def _judge(
        self,
        tested: Sequence[MadePerson],
        fitted: Sequence[MadePerson],
        turned: Sequence[MadePerson],
        *,
        facts: Mapping[str, list[Found]],
        swapped: Mapping[str, list[Found]],
        real: Mapping[str, tuple[list[Found], dict[str, Transcript]]],
    ) -> Outcome:
        fresh = self._fit(fitted, tested, facts)
        calibration = fresh if fresh is not None and self.ships_fresh else standard_calibration()

        def keep(found: Sequence[Found]) -> list[Found]:
            return stated(found, calibration=calibration, settings=self.extraction)

        made = {person.name: keep(facts[person.name]) for person in (*tested, *turned)}
        rows = made_measures(tested, made)
        rows += turned_measures(turned, tested, made)
        rows += swapped_measures(tested, {name: keep(found) for name, found in swapped.items()})
        rows += real_measures({name: (keep(found), said) for name, (found, said) in real.items()})
        rows += calibration_measures(calibration, tested, facts)
        people = {name: [found.text for found in facts] for name, facts in made.items()}
        people |= {f"real-{name}": [fact.text for fact in keep(found)] for name, (found, _) in real.items()}
        return Outcome(measures=tuple(rows), calibration=fresh, people=people)

    def _fit(
        self, fitted: Sequence[MadePerson], tested: Sequence[MadePerson], facts: Mapping[str, list[Found]]
    ) -> Calibration | None:
        known = [each for person in fitted for each in judged(person, facts[person.name])]
        held_out = [each for person in tested for each in judged(person, facts[person.name])]
        bank = standard_bank()
        try:
            fresh = fit(known, base=os.environ.get("LORRY_BASE_MODEL", "smollm2-135m-instruct"),
                        bank=f"{bank.name} {bank.version}", seed=FIRST_FITTED)  # fmt: skip
            return fresh.model_copy(update={"measured": measure(fresh, held_out)})
        except ValueError as exc:
            self.say(f"nothing could be fitted: {exc}")
            return None


@functools.cache
def _code() -> str:
    """Return the digest of what trains and extracts: kept facts are of this code and no other."""
    files = sorted(
        path for room in ("serving/extraction", "training", "transcripts") for path in (_ROOT / room).rglob("*.py")
    )
    return sha256_json([[str(path.relative_to(_ROOT)), sha256_file(path)] for path in files])


def write_report(found: Outcome, *, quick: bool) -> Path:
    """Write the table, and beside it what was stated of whom and the calibration that was fitted."""
    RESULTS.mkdir(exist_ok=True)
    beside = {"people": found.people, "calibration": found.calibration and found.calibration.model_dump(mode="json")}
    (RESULTS / "extraction_fidelity_people.json").write_text(json.dumps(beside, indent=2, ensure_ascii=False) + "\n")
    return report("extraction_fidelity", found.measures, peer="always saying the mean (calibration only)", quick=quick)


def calibration_text(calibration: Calibration) -> str:
    """Return the packaged file's text for a fitted calibration."""
    head = (
        "# From a fact's scores to its confidence: log-odds = intercept + agreement × share of samples\n"
        "# + contrast × nats a token (clipped to -1 … 4) + surprise × nats (clipped to 0 … 40)\n"
        "# + support × (log(1 + turns for) − log(1 + turns against)).\n"
        "# `python -m bench.extraction_fidelity --write-calibration` fits and measures the figures, and writes this.\n"
    )
    value = calibration.model_dump(mode="json")
    for unmeasured in ("contrast", "surprise"):
        value["without_contrast"].pop(unmeasured, None)
    return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def main() -> None:
    """Run with other sizes or settings, and write the fitted calibration where it is shipped from."""
    parser = argparse.ArgumentParser(prog="python -m bench.extraction_fidelity", description=main.__doc__)
    parser.add_argument("--tested", type=int, default=Size.tested, help="made people, measured on")
    parser.add_argument("--fitted", type=int, default=Size.fitted, help="made people, fitted on")
    parser.add_argument(
        "--turned", type=int, default=Size.turned, help="of the tested, trained again negated, and swapped"
    )
    parser.add_argument("--real", type=int, default=Size.real, help="people of chitchat-dataset")
    parser.add_argument("--work", type=Path, default=None, help="where everything is kept, to go on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a training setting")
    parser.add_argument("--write-calibration", action="store_true", help="ship what was fitted")
    given = parser.parse_args()
    size = Size(tested=given.tested, fitted=given.fitted, turned=min(given.turned, given.tested), real=given.real)
    study = Study(size=size, settings=given.set, ships_fresh=given.write_calibration)
    if given.work:
        study.work = given.work.resolve()
    found = asyncio.run(study.run())
    print(f"written to {write_report(found, quick=False)}")
    if given.write_calibration and found.calibration is not None:
        import serving.extraction.scoring as scoring

        path = Path(scoring.__file__).with_name(CALIBRATION_FILE)
        path.write_text(calibration_text(found.calibration), encoding="utf-8")
        print(f"calibration {found.calibration.version} written to {path}")


if __name__ == "__main__":
    main()
