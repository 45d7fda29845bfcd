"""Memory of one training step: the loss on labels only beside the full logits, and recomputing activations beside not.

Both are peaks of resident memory, each in a fresh process. The loss layer's is what the peak grows by over the hidden
states and the projection's weights, on 4 rows of 512 tokens with 64 labels each; the peer projects every position, as
transformers' own loss does. The step's is the whole process of one forward and backward pass of those rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import compare, report
from training.base_models import DEFAULT_BASE, prepare_base

ROWS, TOKENS, LABELS = 4, 512, 64

_PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import psutil, torch

what, base = sys.argv[1], Path(sys.argv[2])
rows, tokens, labels = (int(number) for number in sys.argv[3:6])
torch.set_num_threads(1)
torch.manual_seed(0)
process = psutil.Process()




class Peak:
    # The peak of a process is of its whole life, loading included: so memory is looked at every half millisecond.
    def __enter__(self):
        self.before, self.most, self.stop = process.memory_info().rss, 0, threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.stop.is_set():
            self.most = max(self.most, process.memory_info().rss)
            time.sleep(0.0005)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


ids = torch.randint(10, 40_000, (rows, tokens))
targets = torch.full((rows, tokens), -100)
targets[:, -labels:] = ids[:, -labels:]

if what.startswith("loss"):
    from training.loss import cross_entropy, projected_losses
    from training.qlora import load_dense

    model = load_dense(base, device="cpu")
    hidden = torch.randn(rows, tokens, model.config.hidden_size, requires_grad=True)
    shifted, wanted = hidden[:, :-1], targets[:, 1:]
    # The first products and gradients of a process allocate for good: not of interest here.
    model.get_output_embeddings()(torch.zeros(8, model.config.hidden_size, requires_grad=True)).sum().backward()
    with Peak() as seen:
        if what == "loss-labels":
            at = wanted != -100
            loss = projected_losses(model, shifted[at], cross_entropy(wanted[at])).mean()
        else:
            logits = model.get_output_embeddings()(hidden)
            loss = model.loss_function(logits=logits, labels=targets, vocab_size=model.config.vocab_size)
        loss.backward()
    found = {"bytes": seen.most - seen.before, "loss": float(loss), "gradient": float(hidden.grad.abs().sum())}
else:
    from training.config import resolve
    from training.loss import label_losses
    from training.qlora import fresh_adapter, load_quantised

    model = load_quantised(base, device="cpu")
    config = resolve(arguments={"gradient_checkpointing": what == "step-recomputed"}).training
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": targets}
    with fresh_adapter(model, config) as adapted:
        adapted.train(config.gradient_checkpointing)
        with Peak() as seen:
            losses, _ = label_losses(adapted.get_base_model(), batch)
            losses.mean().backward()
    found = {"bytes": seen.most, "loss": float(losses.mean())}
print(json.dumps(found))
"""


def run(*, quick: bool) -> Path:
    """Measure in fresh processes, in turn, and write the report."""
    rounds = 1 if quick else 3
    base = prepare_base(DEFAULT_BASE, Path(tempfile.gettempdir()) / "lorry-base" / DEFAULT_BASE)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for what in ("loss-labels", "loss-full", "step-recomputed", "step-plain"):
            found.setdefault(what, []).append(_measure(what, base))
    _require_equal(found["loss-labels"], found["loss-full"], of=("loss", "gradient"))
    _require_equal(found["step-recomputed"], found["step-plain"], of=("loss",))
    mib = {what: [each["bytes"] / (1 << 20) for each in results] for what, results in found.items()}
    measures = [
        compare(
            f"added by the loss layer, {ROWS} × {TOKENS} tokens, {LABELS} labels a row",
            unit="MiB",
            ours=mib["loss-labels"],
            peer=mib["loss-full"],
            target=0.25,
        ),
        compare(
            f"peak of a step, {ROWS} × {TOKENS} tokens, recomputing",
            unit="MiB",
            ours=mib["step-recomputed"],
            peer=mib["step-plain"],
            target=0.6,
        ),
    ]
    return report("training_memory", measures, peer="full logits; no recomputing", quick=quick)


def _measure(what: str, base: Path) -> dict[str, float]:
    arguments = [what, str(base), *(str(number) for number in (ROWS, TOKENS, LABELS))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{what} failed: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _require_equal(ours: list[dict[str, float]], peer: list[dict[str, float]], *, of: tuple[str, ...]) -> None:
    """Refuse to compare two that did not compute the same."""
    for one, other in zip(ours, peer, strict=True):
        for key in of:
            if abs(one[key] - other[key]) > 1e-3 * abs(other[key]):
                raise RuntimeError(f"the {key} differs: {one[key]} and {other[key]}")
