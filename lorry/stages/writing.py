"""Having questions written for one user, so that a command that was interrupted goes on where it stopped.

What a remote writer wrote, and how far it got, lies in the user's own folder: it is their words.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kit.canonical import sha256_json
from kit.errors import DatabaseUnavailable
from kit.whole import write_whole
from lorry.output import say
from lorry.stages.bills import WritingBill
from training.config import DatasetConfig
from training.errors import WriterError, WriterFailed, WriterStale
from training.writers.cost import Cost
from training.writers.factory import make_writer
from training.writers.settings import WriterSettings
from training.writers.spool import DirectorySpool
from training.writers.state import WriterState
from training.writers.writer import QuestionWriter, Written
from transcripts.transcript import Transcript

OnWriting = Callable[[int, int], None]
Claimed = Callable[[Path], Awaitable[Collection[str]]]  # given whose writing asks
Billed = Callable[[Path], WritingBill]  # given whose writing is paid for
STATE = "state.json"
_DONE = "written.json"
_POLL_SECONDS = 0.5


async def nobodys(place: Path) -> Collection[str]:
    """Return no batch: nobody else has questions written."""
    return ()


async def write_questions(
    kept: Sequence[Transcript],
    *,
    settings: WriterSettings,
    config: DatasetConfig,
    folder: Path,
    billed: Billed,
    claimed: Claimed = nobodys,
    on_progress: OnWriting | None = None,
) -> Written:
    """Return what the configured writer writes about `kept`, redacted transcripts; written once, it is reused.

    `folder` belongs to the user. Of several commands that want the same, one writes and the others wait for it; batches
    that `claimed` names are not taken for this one's, and it is asked again before each submission. What it costs goes
    onto the bill of `billed`, the estimate before it begins. What the service keeps is deleted as soon as it was read.

    Raises:
        QuotaExhausted: the tenant's month does not pay for it.
        WriterError: see `QuestionWriter`; calling again goes on where it stopped.
    """
    key = _key(kept, name=make_writer(settings, config).name, config=config)
    place = folder / key
    spool = DirectorySpool(place / "answers")
    writer = make_writer(settings, config, spool=spool, key=key)
    if not writer.remote:
        return await writer.collect(await writer.begin(kept), kept)

    async def make() -> QuestionWriter:
        return make_writer(settings, config, spool=spool, key=key, claimed=await claimed(place))

    async with _alone(place):
        return await _write(make, kept, place=place, bill=billed(place), on_progress=on_progress)


async def _write(
    make: Callable[[], Awaitable[QuestionWriter]],
    kept: Sequence[Transcript],
    *,
    place: Path,
    bill: WritingBill,
    on_progress: OnWriting | None,
) -> Written:
    done, progress = place / _DONE, place / STATE
    state, writer = _stored(progress), await make()
    if not done.exists():
        state = await _finish(make, kept, state=state, progress=progress, bill=bill, on_progress=on_progress)
        try:
            _keep(done, (await writer.collect(state, kept)).to_json())
        except WriterFailed:
            await bill.close()
            await discard(writer, state, progress)
            progress.unlink(missing_ok=True)  # the next command begins anew
            bill.forget()
            raise
    written = Written.from_json(json.loads(await asyncio.to_thread(done.read_bytes)))
    if bill.is_open:
        await bill.spend(written.cost)
        await bill.close()
        bill.forget()
    if state is not None:
        await discard(writer, state, progress)
    return written


@asynccontextmanager
async def _alone(place: Path) -> AsyncIterator[None]:
    """Be the only command that has these questions written; say so while another's end is waited for."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock, told = FileLock(place.with_name(f".{place.name}.lock")), False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                say("another command has the same questions written; waiting for it …")
            told = True
            await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def read_written(kept: Sequence[Transcript], *, name: str, config: DatasetConfig, folder: Path) -> Written | None:
    """Return what the remote writer of that name wrote about `kept` before; None when it is not there."""
    try:
        return Written.from_json(json.loads((folder / _key(kept, name=name, config=config) / _DONE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_written(written: Written, kept: Sequence[Transcript], *, config: DatasetConfig, folder: Path) -> None:
    """Have what was written about `kept` elsewhere found by `read_written`."""
    _keep(folder / _key(kept, name=written.writer, config=config) / _DONE, written.to_json())


def _key(kept: Sequence[Transcript], *, name: str, config: DatasetConfig) -> str:
    """Return the name of what a writer writes: what was asked, of whom, about what."""
    asked = config.model_dump(mode="json", include={"writer", "pairs", "seed", "max_completion_characters"})
    return sha256_json([asked, name, [each.id for each in kept]])[:16]


async def _finish(
    make: Callable[[], Awaitable[QuestionWriter]],
    kept: Sequence[Transcript],
    *,
    state: WriterState | None,
    progress: Path,
    bill: WritingBill,
    on_progress: OnWriting | None,
) -> WriterState:
    """Take the steps that are left; every state is kept before the next step."""
    writer = await make()
    if state is None:
        state = await _begin(writer, kept, bill=bill)
        _keep(progress, state.to_json())
    elif _is_broken_off(state):
        await bill.promise(await writer.estimate(kept), anew=False)
    await bill.spend(state.spent)
    try:
        while not state.written:
            if on_progress is not None:
                on_progress(*state.progress)
            await asyncio.sleep(state.wait_seconds)
            if state.phase == "submitting":
                writer = await make()  # which batches are others' is known anew
            state = await writer.poll(state, kept)
            _keep(progress, state.to_json())
            await bill.spend(state.spent)
    except DatabaseUnavailable:  # it was waited for
        raise
    except BaseException:
        if _is_broken_off(state):
            await bill.withdraw()
        raise
    return state


def _is_broken_off(state: WriterState) -> bool:
    """Say whether nothing more is bought unless somebody goes on: no service works on, or may work on, a batch."""
    return not state.written and state.phase != "submitting" and not state.batches


async def _begin(writer: QuestionWriter, kept: Sequence[Transcript], *, bill: WritingBill) -> WriterState:
    """Begin what the tenant can pay; an answer that was bought before is spooled."""
    await bill.promise(await writer.estimate(kept), anew=True)
    try:
        return await writer.begin(kept)
    except BaseException as exc:
        if isinstance(exc, WriterError) and (spent := exc.details.get("spent")) is not None:
            await bill.spend(Cost.from_json(spent))
        if isinstance(exc, WriterFailed):
            await bill.close()
            bill.forget()
        else:
            await bill.withdraw()
        raise


async def discard(writer: QuestionWriter, state: WriterState, progress: Path) -> None:
    """Have everything deleted that the service and the spool keep."""
    while not state.discarded:
        state = await writer.discard(state)
        _keep(progress, state.to_json())
        await asyncio.sleep(state.wait_seconds)


def _stored(progress: Path) -> WriterState | None:
    try:
        return WriterState.from_json(json.loads(progress.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, WriterStale):
        return None


def _keep(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, json.dumps(value))
