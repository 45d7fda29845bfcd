"""Turns one GGUF file into a directory that transformers, PEFT and vLLM load: run as ``python -m training.gguf``.

A process of its own, because unpacking takes a gigabyte for a minute and prints progress bars that
nobody asked for; the caller keeps neither.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, directory: Path) -> None:
    """Write config, tokenizer, chat template and dense bfloat16 weights into `directory`.

    The same file gives the same bytes every time. The unpacked weights are copied into a model that was never
    quantised, because transformers refuses to save one that came out of a GGUF file.
    """
    folder, name = str(gguf.parent), gguf.name
    unpacked = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    config.name_or_path = ""
    if hasattr(config, "_model_name_or_path"):
        del config._model_name_or_path  # the file's own title, which vLLM would show as the model's name
    dense = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    dense.load_state_dict(unpacked.state_dict(), strict=True)
    dense.tie_weights()
    dense.generation_config = unpacked.generation_config
    dense.save_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(directory)
    _forget_where_it_was_loaded(directory / "tokenizer_config.json")


def _forget_where_it_was_loaded(tokenizer_config: Path) -> None:
    """Drop the keys that say whether this machine was online: they would change the tokenizer's digest."""
    values = json.loads(tokenizer_config.read_bytes())
    for key in ("is_local", "local_files_only"):
        values.pop(key, None)
    tokenizer_config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
