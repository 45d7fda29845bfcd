"""A process whose children train and are killed: ``python -m tests.support.training_driver JSON``.

The trainer is loaded once and every child is a fork of it, so that many kills cost no more than their steps.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.errors import LorryError
from tests.support.tiny_training import tiny_dataset
from training.config import resolve
from training.trainer import OnProgress, Trainer, TrainingProgress

Train = Callable[..., Any]
Scenario = Callable[[Train, Path], Any]


def main() -> None:
    """Run every scenario below a folder of its name, where it leaves what it found in ``found.json``."""
    given = json.loads(sys.argv[1])
    trainer = Trainer(Path(given["base"]), device="cpu")
    how = resolve(arguments=given["config"])
    for name, scenario in SCENARIOS.items():
        root = Path(given["root"]) / name

        def train(on_progress: OnProgress | None = None, *, root: Path = root, **options: Any) -> Any:
            return trainer.train(
                tiny_dataset(), how, root / "run", on_progress, checkpoints=root / "checkpoints", **options
            )

        def work(scenario: Scenario = scenario, train: Train = train, root: Path = root) -> None:
            found = scenario(train, root)
            (root / "found.json").write_text(json.dumps(found))

        root.mkdir()
        if _child(work) != 0:
            sys.exit(f"{name} failed")


def killed_at_each_step(train: Train, root: Path) -> list[int]:
    """Kill each child right after one step more than the child before; return how each ended."""
    ends = []
    for step in range(1, 50):
        ends.append(_child(lambda step=step: train(_kill_at(step), checkpoint_seconds=0)))
        if ends[-1] == 0:
            break
    return ends


def killed_at_any_time(train: Train, root: Path) -> list[int]:
    """Kill each child after a little longer than the one before, wherever it is; return how each ended."""
    ends = []
    for number in range(40):
        ends.append(_child(lambda: train(checkpoint_seconds=0), kill_after_seconds=0.1 * 1.25**number))
        if ends[-1] == 0:
            break
    return ends


def no_room_for_checkpoints(train: Train, root: Path) -> dict[str, Any]:
    """Let no file grow while checkpoints are written; give room again before the adapter is."""

    def on_progress(progress: TrainingProgress) -> None:
        _limit_files(None if progress.step == progress.of else 10_000)

    _limit_files(10_000)
    run = train(on_progress, checkpoint_seconds=0)
    return {"unwritten": run.record.unwritten_checkpoints, "steps": run.record.steps}


def no_room_for_the_adapter(train: Train, root: Path) -> dict[str, Any]:
    """Let no file grow once the last step is done; then give room and train again."""

    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == progress.of:
            _limit_files(10_000)

    found: dict[str, Any] = {}
    try:
        train(on_progress, checkpoint_seconds=0)
    except LorryError as exc:
        _limit_files(None)
        found |= {"error": type(exc).__name__, "field": exc.field}
        found["left"] = sorted(path.name for path in root.iterdir())
    found["resumed_from"] = train().record.resumed_from
    return found


def no_memory(train: Train, root: Path) -> dict[str, Any]:
    """Allow no memory beyond what is in use, once the training runs; then allow all and train again."""

    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == 2:
            in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            # Far below what is in use: what happens to be freed in the meantime makes no room.
            resource.setrlimit(resource.RLIMIT_AS, (in_use // 2, resource.RLIM_INFINITY))

    found: dict[str, Any] = {}
    try:
        train(on_progress, checkpoint_seconds=0)
    except LorryError as exc:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found |= {"error": type(exc).__name__, "message": exc.message}
        found["left"] = sorted(path.name for path in root.iterdir())
    found["resumed_from"] = train().record.resumed_from
    return found


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (killed_at_each_step, killed_at_any_time, no_room_for_checkpoints, no_room_for_the_adapter, no_memory)
}


def _child(work: Callable[[], Any], *, kill_after_seconds: float | None = None) -> int:
    """Do `work` in a fork and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # a child must not go on as its parent would
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after_seconds is not None:
        end = time.monotonic() + kill_after_seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_at(step: int) -> Callable[[TrainingProgress], None]:
    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


def _limit_files(n_bytes: int | None) -> None:
    limit = resource.RLIM_INFINITY if n_bytes is None else n_bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
