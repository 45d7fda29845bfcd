"""Users an hour: our resident trainer beside one fresh process per user with a plain TRL script.

The same people, the same examples, the same base in NF4, the same rank, rate, batch size and number of steps, one
thread each; in turn. Ours counts its own start too, once for all users. The peer is given its best case: no
recomputing of activations, and an adapter that is written as PEFT writes it, without a check or a checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import compare, report
from lorry.commands.demo import choose_people
from training.base_models import DEFAULT_BASE, prepare_base
from training.config import ResolvedConfig, resolve
from training.dataset import Dataset, build_dataset
from transcripts.formats.chitchat import dataset_path
from transcripts.importer import read_transcripts

STEPS = 20
USERS = 4
ROUNDS = 2  # a quarter of an hour on two quiet cores

_OURS = """
import sys
from pathlib import Path
from training.config import ResolvedConfig
from training.dataset import Dataset
from training.trainer import Trainer, TrainingJob

base, config, root, *names = sys.argv[1:]
how = ResolvedConfig.from_yaml(Path(config).read_text())
folder = Path(root)
jobs = [
    TrainingJob(
        dataset=Dataset.load(folder / name / "dataset"),
        config=how.for_user("default", name),
        output_directory=folder / name / "ours",
        checkpoints=folder / name / "checkpoints",
    )
    for name in names
]
trainer = Trainer(Path(base))
for outcome in trainer.train_all(jobs):
    assert outcome.trained is not None, outcome.error
    print(f"{outcome.trained.record.seconds:.1f} s for {outcome.trained.record.steps} steps, "
          f"{outcome.trained.record.tokens} tokens")
"""

_PEER = """
import json, sys
from pathlib import Path
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

base, examples, output = sys.argv[1:4]
how = json.loads(sys.argv[4])
torch.set_num_threads(how["threads"])
cuda = torch.cuda.is_available()
dtype = torch.bfloat16 if cuda else torch.float32
lines = [json.loads(line) for line in Path(examples).read_text().splitlines()]
data = Dataset.from_list(
    [{"prompt": e["prompt"], "completion": [{"role": "assistant", "content": e["completion"]}]} for e in lines]
)
model = AutoModelForCausalLM.from_pretrained(
    base, dtype=dtype, device_map="cuda" if cuda else "cpu",
    quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype),
)
trainer = SFTTrainer(
    model=model,
    processing_class=AutoTokenizer.from_pretrained(base),
    train_dataset=data,
    peft_config=LoraConfig(
        r=how["rank"], lora_alpha=how["alpha"], target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
    ),
    args=SFTConfig(
        output_dir=output, max_steps=how["steps"], per_device_train_batch_size=how["batch_size"],
        learning_rate=how["learning_rate"], max_length=how["max_length"], bf16=cuda, use_cpu=not cuda,
        gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
        dataloader_pin_memory=cuda, seed=0,
    ),
)
trainer.train()
trainer.save_model(output)
"""


def run(*, quick: bool) -> Path:
    """Train the same people both ways, in turn, and write the report."""
    users, rounds = (2, 1) if quick else (USERS, ROUNDS)
    base = prepare_base(DEFAULT_BASE, Path(tempfile.gettempdir()) / "lorry-base" / DEFAULT_BASE)
    config = resolve(arguments={"steps": 2 if quick else STEPS, "threads": 1})
    ours: list[float] = []
    peer: list[float] = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="lorry-bench-") as folder:
            root = Path(folder)
            names = write_datasets(root, users, config)
            sides = [(ours, lambda r=root, n=names: _train_ours(base, config, r, n))]
            sides.append((peer, lambda r=root, n=names: _train_peer(base, config, r, n)))
            for rates, train in sides if number % 2 else reversed(sides):
                started = time.perf_counter()
                train()
                rates.append(3600 * users / (time.perf_counter() - started))
    rate = compare(
        f"jobs of {config.training.steps} steps, {users} users in a row",
        unit="users/hour",
        ours=ours,
        peer=peer,
        target=2.0,
        better="higher",
    )
    return report("training_resident", [rate], peer="a fresh process per user, TRL", quick=quick)


def write_datasets(root: Path, users: int, config: ResolvedConfig) -> list[str]:
    """Build the dataset of so many people in `root/NAME/dataset`; return their names."""
    names = []
    for sender in choose_people(users, seed=0):
        transcripts = list(read_transcripts(dataset_path(), format="chitchat", user_speaker=sender))
        build_dataset(transcripts, config=config.dataset, directory=root / sender[:8] / "dataset")
        Dataset.load(root / sender[:8] / "dataset")
        names.append(sender[:8])
    return names


def _train_ours(base: Path, config: ResolvedConfig, root: Path, names: list[str]) -> None:
    file = root / "config.yaml"
    file.write_text(config.to_yaml())
    _run(_OURS, str(base), str(file), str(root), *names)


def _train_peer(base: Path, config: ResolvedConfig, root: Path, names: list[str]) -> None:
    training = config.training.model_dump(mode="json")
    keys = ("rank", "alpha", "steps", "batch_size", "learning_rate", "max_length", "threads")
    how = json.dumps({key: training[key] for key in keys})
    for name in names:
        _run(_PEER, str(base), str(root / name / "dataset" / "examples" / "train.jsonl"), str(root / name / "trl"), how)


def _run(program: str, *arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    print(done.stdout.strip())
