"""Which question writer a dataset's configuration names, ready to write."""

from __future__ import annotations

from collections.abc import Collection

from training.config import DatasetConfig
from training.writers.cost import load_prices
from training.writers.extractive import ExtractiveWriter
from training.writers.openai_compatible import OpenAICompatibleWriter
from training.writers.remote import Desk
from training.writers.settings import WriterSettings
from training.writers.spool import MemorySpool, Spool
from training.writers.wording import load_wording
from training.writers.writer import QuestionWriter
from transcripts.redaction import Redactor

DEFAULT_CLAUDE = "claude-haiku-5-5"


def make_writer(
    settings: WriterSettings,
    config: DatasetConfig,
    *,
    spool: Spool | None = None,
    redactor: Redactor | None = None,
    key: str = "",
    claimed: Collection[str] = (),
) -> QuestionWriter:
    """Return the writer that `config.writer` names.

    Args:
        settings: which service, and how it is asked.
        config: which writer, how many pairs, the seed.
        spool: where a remote writer keeps answers between steps; in memory unless given.
        redactor: applied to everything that leaves the machine.
        key: names this piece of work; requests of equal transcripts under another key are others'.
        claimed: ids of batches that are known to belong to other work.

    Raises:
        WriterRefused: the settings lack what that writer needs.
        ConfigInvalid: the price table cannot be used.
    """
    if config.writer == "extractive":
        return ExtractiveWriter(seed=config.seed)
    model = settings.writer_model or (DEFAULT_CLAUDE if config.writer == "claude" else "")
    desk = Desk(
        name=f"{config.writer}/{load_wording().version}:{model}",
        model=model,
        settings=settings,
        config=config,
        prices=load_prices(settings.writer_prices_file),
        spool=spool or MemorySpool(),
        key=key,
        redact=None if redactor is None else lambda transcripts: redactor.redact(transcripts).transcripts,
    )
    if config.writer == "openai":
        return OpenAICompatibleWriter(desk)
    from training.writers.claude import ClaudeBatchWriter  # its SDK takes seconds to import

    return ClaudeBatchWriter(desk, claimed=claimed)
