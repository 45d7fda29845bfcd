"""Whether an adapter's tensors have the sizes of a base model's linear layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.artifact.findings import Finding
from registry.artifact.peft_config import LINEAR_LAYERS
from registry.artifact.tensors import LoraPair
from registry.artifact.untrusted import printable
from registry.errors import BaseModelMismatch
from registry.manifest import WEIGHTS_FILE, BaseShape


def misfits(pairs: Iterable[LoraPair], base: BaseShape) -> Iterator[Finding]:
    """Yield what of an adapter is not the base's: layers that it does not have, features of other numbers."""
    layers, features = base.num_hidden_layers, {module: base.features(module) for module in LINEAR_LAYERS}
    for pair in pairs:
        if pair.layer >= layers:
            reason = f"is of layer {pair.layer}; the base has {layers} layers"
            yield _misfit("no-such-layer", pair.a.name, reason)
            continue
        found, wanted = (pair.a.shape[1], pair.b.shape[0]), features[pair.module]
        if found != wanted:
            name = pair.a.name if found[0] != wanted[0] else pair.b.name
            yield _misfit(
                "other-features",
                name,
                f"does not fit: the adapter's {pair.module} maps {found[0]} to {found[1]} features, the base's"
                f" {wanted[0]} to {wanted[1]}",
            )


def check_fits(pairs: Iterable[LoraPair], base: BaseShape) -> None:
    """Refuse an adapter of another base.

    Raises:
        BaseModelMismatch: naming the tensor, its size and the base's.
    """
    for finding in misfits(pairs, base):
        raise BaseModelMismatch(finding.message, field=finding.field)


def _misfit(code: str, tensor: str, reason: str) -> Finding:
    shown = printable(tensor)
    return Finding(code=code, field=f"{WEIGHTS_FILE}:{shown}", message=f"{WEIGHTS_FILE}: tensor {shown} {reason}")
