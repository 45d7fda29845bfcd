"""A job's finished training, beside its state in PostgreSQL: whichever worker goes on with the job has it.

It is kept part by part, each in a transaction of its own that holds the job only after the bytes have arrived. Whoever
asks something of the job waits for no transfer, and a machine that dies in the middle of one holds nothing up.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path

from kit.canonical import sha256_file
from kit.database import Database
from kit.staging import staging
from training.jobs.assignment import Assignment
from training.jobs.finished.repository import FinishedRepository
from training.jobs.holding import holding
from training.jobs.repository import JobRepository
from training.runs import RECORD_FILE

_PART_BYTES = 1 << 20  # the driver has several copies of one in memory
_log = logging.getLogger(__name__)


class Shelf:
    """Finished trainings of the jobs that one worker holds.

    Raises:
        DatabaseUnavailable: by every method; done again, each begins from its beginning.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, job: Assignment, directory: Path) -> None:
        """Keep the finished training in `directory`; one that is kept already is not kept again.

        Raises:
            JobStopped: this worker does not hold the job any more, see `JobRepository.require_held`.
            OSError: a file cannot be read.
        """
        record = await asyncio.to_thread(sha256_file, directory / RECORD_FILE)
        async with holding(self._database, job) as session:
            finished = FinishedRepository(session)
            if (await finished.files(job.job_id) or {}).get(RECORD_FILE) == record:
                return
            await finished.begin(job.job_id)
        found = await asyncio.to_thread(lambda: sorted(path for path in directory.rglob("*") if path.is_file()))
        names = {path.relative_to(directory).as_posix(): path for path in found}
        files = {name: await self._keep_file(job, name, path) for name, path in names.items()}
        async with holding(self._database, job) as session:
            await FinishedRepository(session).complete(job.job_id, files)

    async def _keep_file(self, job: Assignment, name: str, path: Path) -> str:
        digest, number = hashlib.sha256(), 0
        with path.open("rb") as file:
            while data := await asyncio.to_thread(file.read, _PART_BYTES):
                await asyncio.to_thread(digest.update, data)
                async with self._database.transaction() as session:
                    await FinishedRepository(session).add_part(job.job_id, name, number, data)
                    await JobRepository(session).require_held(job)  # last: see above
                number += 1
        return digest.hexdigest()

    async def restore(self, job: Assignment, directory: Path) -> bool:
        """Put the job's finished training into `directory`, which must not exist; False when none is kept whole.

        Raises:
            JobStopped: see `Assignment.check`.
            OSError: the files cannot be written.
        """
        async with self._database.reading() as session:
            files = await FinishedRepository(session).files(job.job_id)
        if files is None:
            return False
        directory.parent.mkdir(parents=True, exist_ok=True)
        with staging(directory.parent, prefix=".partial-") as making:
            for name, sha256 in files.items():
                if await self._restore_file(job, name, making / name) != sha256:
                    _log.error("what is kept of a finished training is damaged: the job is trained once more")
                    return False
            making.chmod(0o755)
            making.rename(directory)
        return True

    async def _restore_file(self, job: Assignment, name: str, path: Path) -> str:
        digest, number = hashlib.sha256(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while data := await self._part(job, name, number):
                await asyncio.to_thread(digest.update, data)
                await asyncio.to_thread(file.write, data)
                number += 1
        return digest.hexdigest()

    async def _part(self, job: Assignment, name: str, number: int) -> bytes | None:
        job.check()
        async with self._database.reading() as session:
            return await FinishedRepository(session).part(job.job_id, name, number)
