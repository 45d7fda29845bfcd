"""What PEFT really writes is what the registry reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.client import canonical_config, draft_from_directory
from registry.errors import AdapterInvalid
from registry.manifest import CONFIG_FILE, Owner
from tests.support.adapters import BASE, MODULES

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
OWNER = Owner(tenant="default", user="ann")
pytestmark = [  # PEFT warns about what it is asked to make here
    pytest.mark.filterwarnings("ignore:.*lora_bias"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers."),
    pytest.mark.filterwarnings("ignore:Adapter .default.. [0-9]+ LoRA tensor"),
]


def save_adapter(directory: Path, *, layers: int = 3, **changes: object) -> Path:
    """Save an untrained adapter of a tiny Llama as PEFT does, with the README that it adds."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=64, num_hidden_layers=layers, **shape)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": list(MODULES), "task_type": "CAUSAL_LM"} | changes
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(**settings))
    model.save_pretrained(directory)
    assert (directory / "README.md").is_file()
    return directory


@pytest.mark.parametrize("layers", [1, 3])  # below 20 targets PEFT writes them fully qualified
def test_an_adapter_saved_by_peft_is_accepted(tmp_path: Path, layers: int) -> None:
    directory = save_adapter(tmp_path / "a", layers=layers)
    draft = draft_from_directory(directory, owner=OWNER, base=BASE)
    assert (draft.lora.rank, draft.lora.alpha, draft.lora.target_modules) == (4, 8.0, tuple(sorted(MODULES)))


def test_the_canonical_configuration_means_the_same_to_peft(tmp_path: Path) -> None:
    directory = save_adapter(tmp_path / "a")
    before = peft.LoraConfig.from_pretrained(directory)
    (directory / CONFIG_FILE).write_bytes(canonical_config((directory / CONFIG_FILE).read_bytes()))
    after = peft.LoraConfig.from_pretrained(directory)
    assert set(after.target_modules) == set(before.target_modules)
    assert (after.r, after.lora_alpha, after.use_rslora) == (before.r, before.lora_alpha, before.use_rslora)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules"),
    ],
)
def test_what_peft_can_make_but_no_mixed_batch_can_serve_is_refused(
    tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(AdapterInvalid) as caught:
        draft_from_directory(save_adapter(tmp_path / "a", **changes), owner=OWNER, base=BASE)
    assert caught.value.field == f"{CONFIG_FILE}:{field}"
