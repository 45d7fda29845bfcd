"""The resident trainer: the base model is loaded and quantised once, users stream through it.

Promise: the same dataset, configuration, base, machine and thread count give the same adapter, byte for byte,
in any process, whoever was trained before in this one, and however often the training was killed and went on.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from kit.canonical import canonical_json, sha256_file, sha256_json
from kit.staging import staging
from registry.manifest import WEIGHTS_FILE
from training.base_models import identify_base
from training.canonical import canonicalise
from training.checkpoints import CheckpointFolder
from training.config import CONFIG_FILE, ResolvedConfig, TrainingConfig
from training.dataset import Dataset
from training.errors import AdapterUnreadable, ConfigInvalid, TrainingFailed
from training.examples import Example
from training.failures import machine_failures_named
from training.loop import Course, OnProgress, TrainingLoop, TrainingProgress
from training.loss import collate, label_losses
from training.objectives.divergence import TokenDistributions
from training.objectives.replay import replay_examples
from training.objectives.teacher import Teacher, batches_of_similar_length, shown_to_teacher
from training.presets import BaseShape
from training.qlora import fresh_adapter, load_quantised, load_tokenizer
from training.runs import ADAPTER_DIRECTORY, RECORD_FILE, TrainedAdapter, TrainingRecord, settle
from training.task import General, Minimised, Task, plan_task
from training.tokens import TokenisedExample, tokenise
from transcripts.transcript import Transcript

__all__ = [
    "ADAPTER_DIRECTORY",
    "RECORD_FILE",
    "OnProgress",
    "TrainedAdapter",
    "Trainer",
    "TrainingJob",
    "TrainingOutcome",
    "TrainingProgress",
    "TrainingRecord",
    "reproducible",
    "settle",
]

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")
_EXPANDED_BYTES = 2 << 30
_SCORE_TOKENS = 1024
_GENERAL_TOP_K = 64
_STATE_VERSION = 2  # of what a checkpoint holds: another one's are not taken up


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What one user's training needs: `transcripts` where the objective has a teacher, `start` where it has one."""

    dataset: Dataset
    config: ResolvedConfig
    output_directory: Path
    transcripts: Mapping[str, Transcript] = field(default_factory=dict)
    checkpoints: Path | None = None
    start: Path | None = None

    @cached_property
    def start_sha256(self) -> str | None:
        """The digest of the weights that it begins with; None where it begins with nothing.

        Raises:
            AdapterUnreadable: there are none in that directory.
        """
        if self.start is None:
            return None
        try:
            return sha256_file(self.start / WEIGHTS_FILE)
        except OSError as exc:
            raise AdapterUnreadable(f"{self.start} has no {WEIGHTS_FILE}: {exc.strerror}", field="start") from exc


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """What became of one job: `trained`, or the `error` that ended it and nobody else's."""

    job: TrainingJob = field(repr=False)
    trained: TrainedAdapter | None = None
    error: TrainingFailed | None = None


class Trainer:
    """A quantised base in memory, and one training at a time."""

    def __init__(self, base_directory: Path, *, device: str | None = None, expanded: bool | None = None) -> None:
        """Load and quantise the base; a few seconds for 135M parameters on a CPU.

        Args:
            base_directory: saved by transformers, with a chat template.
            device: ``cpu`` or ``cuda``; CUDA when there is any, unless told.
            expanded: keep the quantised weights' values instead of their 4 bits, see `load_quantised`; unless told, on
                a CPU for bases of up to 2 GiB.

        Raises:
            BaseModelUnreadable: naming the file that is missing.
            BaseModelUnavailable: when the base has no chat template.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda"):
            os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's products are not reproducible
        self.base_identity = identify_base(base_directory)
        self.tokenizer = load_tokenizer(base_directory)
        if expanded is None:
            shape = BaseShape.read(str(base_directory))
            expanded = self.device == "cpu" and shape is not None and 4 * shape.parameters <= _EXPANDED_BYTES
        self._base = load_quantised(base_directory, device=self.device, expanded=expanded)
        self._general: dict[tuple[int, int, int], General] = {}
        self._busy = threading.Lock()

    def train(
        self,
        dataset: Dataset,
        config: ResolvedConfig,
        output_directory: Path,
        on_progress: OnProgress | None = None,
        *,
        start: Path | None = None,
        transcripts: Mapping[str, Transcript] = MappingProxyType({}),
        checkpoints: Path | None = None,
        checkpoint_seconds: float = 60.0,
    ) -> TrainedAdapter:
        """Train one user's adapter and return its directory, which appears only when it is whole.

        What `on_progress` raises after a step ends the training, and only the checkpoint stays. Calls from several
        threads take turns. When another process put a training of the same inputs there meanwhile, that one is
        returned.

        Args:
            dataset: what is trained on.
            config: how; equal ones give equal adapters.
            output_directory: the run's, which must not exist.
            on_progress: told after each step.
            start: the directory of the adapter that ``start`` names; its rank and alpha must be the configuration's.
            transcripts: what the teacher of ``objective: distillation`` is shown, by the ids that the dataset has for
                them (their texts may have been redacted since); held-out ones are left out.
            checkpoints: a folder of this training's own, in which it leaves its state every `checkpoint_seconds`, from
                which it goes on when called again, and which it removes when it is finished. None keeps none.
            checkpoint_seconds: 0 keeps one after each step.

        Raises:
            DatasetTooSmall: no example fits into `max_length` tokens.
            ConfigInvalid: `start` is given where the configuration names none, or the reverse, or does not fit it.
            AdapterUnreadable: `start` is no adapter.
            LossNotFinite: the training diverged.
            OutOfMemory: with what to lower.
            DiskFull: the adapter could not be written; the checkpoint stays.
            TrainingPaused: when `on_progress` raised it; the checkpoint is of that step.
            TrainingFailed: `output_directory` exists.
        """
        if output_directory.exists():
            raise TrainingFailed(f"{output_directory} exists: remove it or name another", field="output_directory")
        if (start is None) != (config.training.start is None):
            raise ConfigInvalid(
                f"start: the configuration names {config.training.start}, and {start} is given", field="start"
            )
        job = TrainingJob(
            dataset=dataset,
            config=config,
            output_directory=output_directory,
            transcripts=transcripts,
            checkpoints=checkpoints,
            start=start,
        )
        with machine_failures_named():
            output_directory.parent.mkdir(parents=True, exist_ok=True)
            with staging(output_directory.parent, prefix=".partial-") as making:
                with self._busy:
                    folder = self._checkpoint_folder(job)
                    record = self._train_into(making, job, on_progress, folder, checkpoint_seconds)
                (making / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
                (making / RECORD_FILE).write_bytes(canonical_json(asdict(record)))
                making.chmod(0o755)
                trained = settle(making, output_directory)
                if folder is not None:
                    folder.remove()
                return trained

    def train_all(
        self, jobs: Iterable[TrainingJob], on_progress: Callable[[TrainingJob, TrainingProgress], None] | None = None
    ) -> Iterator[TrainingOutcome]:
        """Train one job after the other and yield what became of each; one that fails ends nobody else's training."""
        for job in jobs:

            def tell(progress: TrainingProgress, job: TrainingJob = job) -> None:
                if on_progress is not None:
                    on_progress(job, progress)

            try:
                trained = self.train(
                    job.dataset,
                    job.config,
                    job.output_directory,
                    tell,
                    start=job.start,
                    transcripts=job.transcripts,
                    checkpoints=job.checkpoints,
                )
            except TrainingFailed as exc:
                yield TrainingOutcome(job=job, error=exc)
            else:
                yield TrainingOutcome(job=job, trained=trained)

    def base_losses(
        self,
        examples: Sequence[Example],
        *,
        max_length: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[float | None]:
        """Return each completion's loss under the quantised base alone, in nats per token.

        What the base says anyway need not be trained. None stands for an example that does not fit into `max_length`.
        `on_progress` is told how many of how many are scored; what it raises ends the scoring.
        """
        rows = [tokenise(example, self.tokenizer, max_length=max_length) for example in examples]
        kept = [(index, row) for index, row in enumerate(rows) if row is not None]
        found: list[float | None] = [None] * len(rows)
        tell = on_progress or (lambda done, total: None)
        done = 0
        with self._busy, machine_failures_named(), torch.no_grad():
            tell(done, len(kept))
            for batch in batches_of_similar_length([len(row.input_ids) for _, row in kept], max_tokens=_SCORE_TOKENS):
                tensors = collate([kept[number][1] for number in batch], pad_token_id=self._pad_token_id)
                on_device = {key: tensor.to(self.device) for key, tensor in tensors.items()}
                losses, owners = label_losses(self._base, on_device)
                for place, number in enumerate(batch):
                    found[kept[number][0]] = float(losses[owners == place].double().mean())
                done += len(batch)
                tell(done, len(kept))
        return found

    def _train_into(
        self,
        staging: Path,
        job: TrainingJob,
        on_progress: OnProgress | None,
        folder: CheckpointFolder | None,
        checkpoint_seconds: float,
    ) -> TrainingRecord:
        training = job.config.training
        with reproducible(training.seed, threads=training.threads) as threads:
            general = self._general_for(training, threads=threads)
            task = plan_task(job.dataset, job.config, self.tokenizer, general_rows=len(general.rows))
            general.know(task.replay_plan)
            taught = self._taught(task, job)
            with fresh_adapter(self._base, training, start=job.start) as model:
                minimised = self._minimised(model, task, training, general, taught)
                loop = TrainingLoop(model, task, minimised, config=training, pad_token_id=self._pad_token_id)
                course = loop.run(on_progress=on_progress, checkpoints=folder, checkpoint_seconds=checkpoint_seconds)
                self._save(model, staging / ADAPTER_DIRECTORY)
        return self._record(job, task, course, threads)

    def _save(self, model: Any, adapter_directory: Path) -> None:
        adapter_directory.mkdir()
        with tempfile.TemporaryDirectory(prefix=".peft-", dir=adapter_directory.parent) as scratch:
            model.save_pretrained(scratch, safe_serialization=True, save_embedding_layers=False)
            canonicalise(Path(scratch), adapter_directory)

    def _general_for(self, training: TrainingConfig, *, threads: int) -> General:
        """The general rows, of which what the base says is computed once for all users of this trainer."""
        if not training.replay_share or not training.replay_weight:
            return General(rows=(), ask=lambda row: [])
        key = (training.max_length, training.distillation_top_k or _GENERAL_TOP_K, threads)
        if key not in self._general:
            tokenised = [tokenise(each, self.tokenizer, max_length=key[0]) for each in replay_examples()]
            teacher = Teacher(self._base, pad_token_id=self._pad_token_id)
            self._general[key] = General(
                rows=[row for row in tokenised if row is not None],
                ask=lambda row: teacher.distributions([row], k=key[1]),
            )
        return self._general[key]

    def _taught(self, task: Task, job: TrainingJob) -> list[TokenisedExample] | None:
        """The rows as the teacher sees them; None without a teacher."""
        dataset, training, transcripts = job.dataset, job.config.training, job.transcripts
        if training.objective != "distillation":
            return None
        unknown = set(transcripts) - set(dataset.transcript_ids)
        if unknown:
            raise ConfigInvalid(
                f"{len(unknown)} of the transcripts for the teacher are not the dataset's", field="transcripts"
            )
        hidden = {*dataset.held_out_transcript_ids, *task.watched_transcript_ids}
        shown = {name: each for name, each in transcripts.items() if name not in hidden}
        if not shown:
            raise ConfigInvalid(
                "objective: distillation shows transcripts to the teacher, and none was given", field="objective"
            )
        return shown_to_teacher(
            task.examples,
            shown,
            self.tokenizer,
            max_length=training.max_length,
            context_tokens=training.distillation_context_tokens,
        )

    def _minimised(
        self, model: Any, task: Task, training: TrainingConfig, general: General, taught: list[TokenisedExample] | None
    ) -> Minimised:
        if taught is None:
            return Minimised(config=training, general=general)
        teacher = Teacher(model.get_base_model(), pad_token_id=self._pad_token_id, bare=model.disable_adapter)
        if training.distillation_top_k:
            written: Sequence[TokenDistributions] = teacher.distributions(taught, k=training.distillation_top_k)
        else:
            written = _AskedEachTime(teacher, taught)
        return Minimised(config=training, general=general, teacher=written)

    def _record(self, job: TrainingJob, task: Task, course: Course, threads: int) -> TrainingRecord:
        steps = len(course.losses)
        return TrainingRecord(
            dataset_digest=job.dataset.digest,
            question_writer=job.dataset.question_writer,
            transcript_ids=job.dataset.transcript_ids,
            base=self.base_identity.model_dump(mode="json"),
            steps=steps,
            examples=len(task.rows),
            left_out=task.left_out,
            tokens=sum(task.tokens[:steps]),
            losses=tuple(course.losses),
            seconds=course.seconds,
            threads=threads,
            device=self.device,
            packages={package: version(package) for package in _PACKAGES},
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            planned_steps=len(task.plan),
            best_step=course.watch.best_step or steps,
            watched=len(task.watched),
            looks=tuple(course.watch.looks),
            replayed=sum(len(rows) for rows in task.replay_plan[:steps]),
            resumed_from=course.resumed_from,
            unwritten_checkpoints=course.unwritten_checkpoints,
            start_sha256=job.start_sha256,
        )

    def _checkpoint_folder(self, job: TrainingJob) -> CheckpointFolder | None:
        if job.checkpoints is None:
            return None
        training = job.config.training
        inputs = {
            "state": _STATE_VERSION,
            "dataset": job.dataset.digest,
            "training": training.model_dump(mode="json"),
            "start": job.start_sha256,
            "base": self.base_identity.model_dump(mode="json"),
            "transcripts": sorted((name, each.id) for name, each in job.transcripts.items())
            if training.objective != "sft"
            else [],
            "threads": training.threads or torch.get_num_threads(),
            "device": self.device,
            "packages": {package: version(package) for package in _PACKAGES},
        }
        return CheckpointFolder(job.checkpoints, inputs=sha256_json(inputs))

    @property
    def _pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id or 0


class _AskedEachTime(Sequence[TokenDistributions]):
    """The teacher's whole distributions, which are too large to be kept: computed whenever they are read."""

    def __init__(self, teacher: Teacher, rows: Sequence[TokenisedExample]) -> None:
        self._teacher, self._rows = teacher, rows

    def __getitem__(self, index: Any) -> Any:
        return self._teacher.distributions([self._rows[index]], k=0)[0]

    def __len__(self) -> int:
        return len(self._rows)


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
