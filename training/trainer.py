"""The resident trainer: the base model is loaded and quantised once, users stream through it.

Promise: the same dataset, configuration, base, machine and thread count give the same adapter, byte for byte,
in any process and whoever was trained before in this one.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kit.canonical import canonical_json
from registry.manifest import BaseIdentity
from training.base_models import identify_base
from training.canonical import canonicalise
from training.config import CONFIG_FILE, ResolvedConfig
from training.dataset import Dataset
from training.errors import AdapterUnreadable, DatasetTooSmall, TrainingFailed
from training.examples import Example
from training.qlora import fresh_adapter, load_quantised, load_tokenizer
from training.schedule import plan_batches
from training.sft import OnStep, run_sft
from training.tokens import TokenisedExample, tokenise

ADAPTER_DIRECTORY = "adapter"
RECORD_FILE = "training.json"
_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What happened in one training: counts, losses in nats per completion token, seconds of wall clock.

    `finished_at` is UTC in ISO 8601.
    """

    dataset_digest: str
    question_writer: str
    transcript_ids: tuple[str, ...]
    base: dict[str, Any]
    steps: int
    examples: int
    left_out: int
    tokens: int
    losses: tuple[float, ...]
    seconds: float
    threads: int
    device: str
    packages: dict[str, str]
    finished_at: str


@dataclass(frozen=True, kw_only=True)
class TrainedAdapter:
    """One run's directory: ``adapter/`` (what is published), the resolved configuration and the record."""

    directory: Path
    config: ResolvedConfig
    record: TrainingRecord

    @property
    def adapter_directory(self) -> Path:
        """The two files that are published, and nothing else."""
        return self.directory / ADAPTER_DIRECTORY

    @property
    def base(self) -> BaseIdentity:
        """The base model that it was trained for."""
        return BaseIdentity.model_validate(self.record.base)

    @classmethod
    def load(cls, directory: Path) -> TrainedAdapter:
        """Read a run's directory.

        Raises:
            AdapterUnreadable: when it is not one.
        """
        try:
            config = ResolvedConfig.from_yaml((directory / CONFIG_FILE).read_text(encoding="utf-8"))
            value = json.loads((directory / RECORD_FILE).read_bytes())
            lists = {key: tuple(value[key]) for key in ("losses", "transcript_ids")}
            record = TrainingRecord(**{**value, **lists})
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise AdapterUnreadable(f"{directory} is not a finished training: {exc}", field=str(directory)) from exc
        return cls(directory=directory, config=config, record=record)


class Trainer:
    """A quantised base in memory, and one training at a time."""

    def __init__(self, base_directory: Path, *, device: str | None = None) -> None:
        """Load and quantise the base; about half a minute for 135M parameters on a CPU.

        Args:
            base_directory: saved by transformers, with a chat template.
            device: ``cpu`` or ``cuda``; CUDA when there is any, unless told.

        Raises:
            BaseModelUnreadable: naming the file that is missing.
            BaseModelUnavailable: when the base has no chat template.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.base_identity = identify_base(base_directory)
        self.tokenizer = load_tokenizer(base_directory)
        self._base = load_quantised(base_directory, device=self.device)
        self._busy = threading.Lock()

    def train(
        self, dataset: Dataset, config: ResolvedConfig, output_directory: Path, on_progress: OnStep | None = None
    ) -> TrainedAdapter:
        """Train one user's adapter and return its directory, which appears only when it is whole.

        `on_progress` is told (step, of, loss) after each step; what it raises ends the training, and nothing stays
        behind. Calls from several threads take turns. When another process put a training of the same inputs there
        meanwhile, that one is returned.

        Raises:
            DatasetTooSmall: no example fits into `max_length` tokens.
            LossNotFinite: the training diverged.
            TrainingFailed: `output_directory` exists, or the machine ran out of memory.
        """
        if output_directory.exists():
            raise TrainingFailed(f"{output_directory} exists: remove it or name another", field="output_directory")
        output_directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=output_directory.parent))
        try:
            with self._busy:
                record = self._train_into(staging, dataset, config, on_progress)
            (staging / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
            (staging / RECORD_FILE).write_bytes(canonical_json(asdict(record)))
            staging.chmod(0o755)
            return settle(staging, output_directory)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _train_into(
        self, staging: Path, dataset: Dataset, config: ResolvedConfig, on_progress: OnStep | None
    ) -> TrainingRecord:
        started = time.monotonic()
        examples, tokenised = self._tokenise(dataset, config)
        plan = _plan(examples, tokenised, config)
        try:
            with reproducible(config.training.seed, threads=config.training.threads) as threads:
                losses = self._fit(staging / ADAPTER_DIRECTORY, tokenised, plan, config, on_progress)
        except (torch.OutOfMemoryError, MemoryError) as exc:
            raise TrainingFailed(
                "out of memory: lower batch_size or max_length, or set gradient_checkpointing", field="batch_size"
            ) from exc
        return TrainingRecord(
            dataset_digest=dataset.digest,
            question_writer=dataset.question_writer,
            transcript_ids=dataset.transcript_ids,
            base=self.base_identity.model_dump(mode="json"),
            steps=len(plan),
            examples=len(tokenised),
            left_out=len(dataset.train) - len(tokenised),
            tokens=sum(len(tokenised[index].input_ids) for step in plan for index in step),
            losses=tuple(losses),
            seconds=time.monotonic() - started,
            threads=threads,
            device=self.device,
            packages={package: version(package) for package in _PACKAGES},
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _fit(
        self,
        adapter_directory: Path,
        tokenised: list[TokenisedExample],
        plan: list[list[int]],
        config: ResolvedConfig,
        on_progress: OnStep | None,
    ) -> list[float]:
        """Put an adapter on the base, train it, write its canonical files, take it off."""
        adapter_directory.mkdir()
        with (
            tempfile.TemporaryDirectory(prefix="lorry-train-") as name,
            fresh_adapter(self._base, config.training) as m,
        ):
            scratch = Path(name)
            losses = run_sft(
                m, self.tokenizer, tokenised, plan=plan, config=config.training, scratch=scratch, on_step=on_progress
            )
            m.save_pretrained(scratch / "peft", safe_serialization=True, save_embedding_layers=False)
            canonicalise(scratch / "peft", adapter_directory)
        return losses

    def _tokenise(self, dataset: Dataset, config: ResolvedConfig) -> tuple[list[Example], list[TokenisedExample]]:
        limit = config.training.max_length
        pairs = [(example, tokenise(example, self.tokenizer, max_length=limit)) for example in dataset.train]
        kept = [(example, tokens) for example, tokens in pairs if tokens is not None]
        if not kept:
            raise DatasetTooSmall(
                f"none of the {len(pairs)} examples fits into {limit} tokens: raise max_length", field="max_length"
            )
        return [example for example, _ in kept], [tokens for _, tokens in kept]


@contextmanager
def reproducible(seed: int, *, threads: int | None) -> Iterator[int]:
    """Seed every generator and allow only deterministic kernels inside the block; yield the thread count.

    Determinism is promised for one thread count: sums are split over threads.
    """
    before_threads = torch.get_num_threads()
    before_deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads or before_threads)
        try:
            yield torch.get_num_threads()
        finally:
            torch.set_num_threads(before_threads)
            torch.use_deterministic_algorithms(before_deterministic)


def settle(staging: Path, directory: Path) -> TrainedAdapter:
    """Rename a finished run into its place and return it, or the run of the same inputs that came there first.

    Raises:
        TrainingFailed: a run of other inputs came there first.
    """
    try:
        staging.rename(directory)
        return TrainedAdapter.load(directory)
    except OSError as exc:
        if not directory.exists():
            raise
        ours, first = TrainedAdapter.load(staging), TrainedAdapter.load(directory)
        if _inputs(ours) != _inputs(first):
            raise TrainingFailed(f"{directory} was taken meanwhile: name another", field="output_directory") from exc
        return first


def _inputs(run: TrainedAdapter) -> tuple[object, ...]:
    return run.config.training, run.record.dataset_digest, run.record.base


def _plan(examples: list[Example], tokenised: list[TokenisedExample], config: ResolvedConfig) -> list[list[int]]:
    training = config.training
    return plan_batches(
        [len(tokens.input_ids) for tokens in tokenised],
        [training.statement_epochs if example.kind == "statement" else training.reply_epochs for example in examples],
        batch_size=training.batch_size,
        steps=training.steps,
        seed=training.seed,
    )
