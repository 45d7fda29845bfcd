"""The manifest: what one version of an adapter is, in a form that can be checked.

The format is documented in ``docs/adapter-format.md``. Laws: ``Manifest.model_validate_json(m.to_bytes()) == m``;
`content_digest` does not depend on the order in which files were found, on names, times or lineage: equal
weights and configuration for the same base model have equal content digests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kit.canonical import canonical_json, sha256_bytes, sha256_file, sha256_json
from kit.errors import InvalidName
from kit.names import Name, check_name
from kit.reasons import describe
from registry.errors import BaseModelUnreadable, InvalidReference

FORMAT: Final = "lorry.adapter/1"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = frozenset({CONFIG_FILE, WEIGHTS_FILE})
DEFAULT_ADAPTER = "profile"
DEFAULT_TENANT = "default"
LIVE = "live"
SHARED: Final = "~"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
VersionId = Annotated[str, Field(pattern=r"^v[0-9a-f]{32}$")]
BaseId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
_BASE_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
TranscriptId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


MAX_NUMBER = 2**31 - 1
MAX_WEIGHT = 100.0
"""Trained LoRA weights stay below 10; sums of far larger ones overflow in the layers that follow."""


def check_owner_name(value: str, *, field: str = "user_id") -> str:
    """Return `value` unchanged: a user's name, or `SHARED` for what a whole tenant shares.

    Raises:
        InvalidName: naming `field`, when it is neither.
    """
    return value if value == SHARED else check_name(value, field=field)


def check_base_id(value: str) -> str:
    """Return `value` unchanged.

    Raises:
        InvalidName: unless it is 1 to 256 characters without control characters.
    """
    if _BASE_ID.fullmatch(value) is None:
        raise InvalidName(
            f"the id of a base {value[:140]!a} must be 1 to 256 characters, none of them a control character",
            field="base.id",
        )
    return value


def _validate_owner_name(value: str) -> str:
    try:
        return check_owner_name(value)
    except InvalidName as exc:
        raise ValueError(exc.message) from exc


OwnerName = Annotated[str, AfterValidator(_validate_owner_name)]


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, and a manifest's digest needs every value to have one way of being written."""
    try:
        canonical_json(value)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"must hold JSON values only: {exc}") from exc
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_json)]


class Frozen(BaseModel):
    """A value that cannot change, and that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Owner(Frozen):
    """Whose adapter it is: one user of a tenant, or, with `user` `SHARED`, the tenant itself."""

    tenant: Name
    user: OwnerName

    @classmethod
    def named(cls, *, tenant: str, user: str) -> Self:
        """Return the owner of names that a person typed; `user` may be `SHARED`.

        Raises:
            InvalidName: naming the one that breaks the rule of names.
        """
        return cls(tenant=check_name(tenant, field="tenant"), user=check_owner_name(user))

    @property
    def shared(self) -> bool:
        """Whether every user of the tenant may use it."""
        return self.user == SHARED

    @property
    def path(self) -> str:
        """How references name it: ``users/<user>`` or ``shared``."""
        return "shared" if self.shared else f"users/{self.user}"


class BaseIdentity(Frozen):
    """Which base model an adapter fits, recorded by us because PEFT may leave it out.

    `id` is a name for people; the digests decide. `weights_sha256` covers the names and bytes of all
    safetensors files, `tokenizer_sha256` the tokenizer's files, `chat_template_sha256` the template's text.
    """

    id: BaseId
    revision: str | None = None
    config_sha256: Sha256
    weights_sha256: Sha256
    tokenizer_sha256: Sha256
    chat_template_sha256: Sha256

    def matches(self, other: BaseIdentity) -> bool:
        """Say whether both describe the same base, whatever it is called."""
        return not self.differences(other)

    def differences(self, other: BaseIdentity) -> list[str]:
        """Return the names of the digests in which the two differ."""
        return [name for name in self.digests() if getattr(self, name) != getattr(other, name)]

    def digests(self) -> dict[str, str]:
        """Return what identifies the base: every digest, without names."""
        return {name: getattr(self, name) for name in BaseIdentity.model_fields if name.endswith("_sha256")}

    @classmethod
    def of_directory(cls, directory: Path, *, id: str, revision: str | None = None) -> Self:
        """Digest a base model saved by transformers (reads every weight: about a second a gigabyte).

        Raises:
            BaseModelUnreadable: naming the file that is missing.
            InvalidName: for an id that is empty, too long, or has control characters.
        """
        check_base_id(id)
        config = directory / "config.json"
        weights = sorted(directory.glob("*.safetensors"))
        tokenizer = [p for p in (directory / "tokenizer.json", directory / "tokenizer_config.json") if p.is_file()]
        if not config.is_file():
            raise BaseModelUnreadable(f"{directory} has no config.json", field="config.json")
        if not weights:
            raise BaseModelUnreadable(f"{directory} has no safetensors weights", field="*.safetensors")
        if not tokenizer:
            raise BaseModelUnreadable(f"{directory} has no tokenizer.json", field="tokenizer.json")
        return cls(
            id=id,
            revision=revision,
            config_sha256=sha256_file(config),
            weights_sha256=_digest_files(weights),
            tokenizer_sha256=_digest_files(tokenizer),
            chat_template_sha256=sha256_bytes(_chat_template(directory)),
        )


class BaseShape(BaseModel):
    """The sizes that ``config.json`` of a Llama-like model says; other fields of it do not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_hidden_layers: int = Field(gt=0, le=MAX_NUMBER)
    hidden_size: int = Field(gt=0, le=MAX_NUMBER)
    intermediate_size: int = Field(gt=0, le=MAX_NUMBER)
    num_attention_heads: int = Field(gt=0, le=MAX_NUMBER)
    num_key_value_heads: int | None = Field(None, gt=0, le=MAX_NUMBER)
    head_dim: int | None = Field(None, gt=0, le=MAX_NUMBER)

    @classmethod
    def parse(cls, config: bytes | str) -> Self:
        """Read the sizes from a base model's configuration.

        Raises:
            BaseModelUnreadable: when it does not tell them.
        """
        try:
            return cls.model_validate_json(config)
        except ValidationError as exc:
            first = exc.errors()[0]
            where, why = describe(first)
            raise BaseModelUnreadable(
                f"the base model's config.json does not tell its sizes: {where or 'config.json'}: {why}", field="config"
            ) from exc

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read the sizes of the base model in `directory`.

        Raises:
            BaseModelUnreadable: when its ``config.json`` does not tell them.
        """
        try:
            return cls.parse((directory / "config.json").read_bytes())
        except OSError as exc:
            raise BaseModelUnreadable(f"{directory}/config.json cannot be read", field="config.json") from exc

    def features(self, module: str) -> tuple[int, int]:
        """Return (inputs, outputs) of one of the seven linear layers."""
        head = self.head_dim or self.hidden_size // self.num_attention_heads
        queries, keys = self.num_attention_heads * head, (self.num_key_value_heads or self.num_attention_heads) * head
        return {
            "q_proj": (self.hidden_size, queries),
            "k_proj": (self.hidden_size, keys),
            "v_proj": (self.hidden_size, keys),
            "o_proj": (queries, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
        }[module]


class RegisteredBase(BaseIdentity):
    """A base model as the registry knows it; without its `shape` it is a name that nothing can be published for."""

    shape: BaseShape | None = None

    @property
    def identity(self) -> BaseIdentity:
        """The base as manifests name it."""
        return BaseIdentity.model_validate(self.model_dump(exclude={"shape"}))


class ManifestFile(Frozen):
    """One file of a version; `path` is a bare name, since an adapter has no folders."""

    path: Literal["adapter_config.json", "adapter_model.safetensors"]
    size_bytes: int = Field(gt=0)
    sha256: Sha256


class LoraShape(Frozen):
    """What the engine must be able to hold: rank, scaling numerator and the layers touched."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: tuple[str, ...]


class Lineage(Frozen):
    """Where a version came from; every field is None for one that was pushed from outside."""

    dataset_digest: Sha256 | None = None
    transcript_ids: tuple[TranscriptId, ...] = ()
    question_writer: str | None = None
    seed: int | None = None
    hyperparameters: JsonObject = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    parent_version_id: VersionId | None = None
    trained_at: datetime | None = None


class Declaration(Frozen):
    """What a publisher says of an adapter."""

    owner: Owner
    adapter: Name = DEFAULT_ADAPTER
    version: int | None = Field(
        default=None, gt=0, le=MAX_NUMBER, description="a number to insist on; None = the next one"
    )
    base: BaseIdentity
    lora: LoraShape
    files: tuple[ManifestFile, ...]
    lineage: Lineage = Lineage()
    evaluation: JsonObject = Field(default_factory=dict)

    @property
    def content_digest(self) -> str:
        """SHA-256 over base digests and the sorted (path, size, digest) of every file."""
        files = sorted((f.path, f.size_bytes, f.sha256) for f in self.files)
        return sha256_json({"base": self.base.digests(), "files": files})


class Draft(Declaration):
    """A declaration with the adapter's configuration: all of a publish but its weights.

    The registry adds the version's name and time, and stores the configuration in its canonical form.
    """

    config: JsonObject = Field(description="the content of adapter_config.json; digests are of its canonical form")


class Manifest(Declaration):
    """One immutable version."""

    format: Literal["lorry.adapter/1"] = FORMAT
    version_id: VersionId
    version: int = Field(gt=0, le=MAX_NUMBER)
    created_at: datetime

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is `digest`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes: covers every field."""
        return sha256_bytes(self.to_bytes())


_REFERENCE = re.compile(
    r"(?:users/(?P<user>[^/@]+)(?:/(?P<adapter>[^/@]+))?|shared/(?P<shared>[^/@]+))(?:@(?P<selector>[^/@]+))?", re.ASCII
)


class AdapterRef(Frozen):
    """How people name a version of one tenant.

    ``users/<user>[/<adapter>][@<alias or number>]``, or ``shared/<adapter>[@<alias or number>]`` for an adapter that
    the tenant's users share. Laws: ``AdapterRef.parse(str(r), tenant=r.owner.tenant) == r``.
    """

    owner: Owner
    adapter: Name = DEFAULT_ADAPTER
    selector: Annotated[str, AfterValidator(lambda v: check_name(v, field="alias"))] = LIVE

    @classmethod
    def parse(cls, text: str, *, tenant: str = DEFAULT_TENANT) -> Self:
        """Read a reference; a bare ``<user>`` is short for ``users/<user>``.

        Raises:
            InvalidReference: showing the form, when the text is something else.
        """
        found = _REFERENCE.fullmatch(text if text.startswith(("users/", "shared/")) else f"users/{text}")
        if found is None:
            raise InvalidReference(
                f"{text[:200]!r} is not users/<user>[/<adapter>][@<alias or version>],"
                " nor shared/<adapter>[@<alias or version>]",
                field="reference",
            )
        user = SHARED if found["shared"] else check_name(found["user"], field="user_id")
        adapter = check_name(found["shared"] or found["adapter"] or DEFAULT_ADAPTER, field="adapter")
        return cls(
            owner=Owner(tenant=check_name(tenant, field="tenant"), user=user),
            adapter=adapter,
            selector=check_name(found["selector"] or LIVE, field="alias"),
        )

    @property
    def version(self) -> int | None:
        """The version number, when the selector is one."""
        return int(self.selector) if self.selector.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.owner.path}/{self.adapter}@{self.selector}"


def _digest_files(paths: Iterable[Path]) -> str:
    return sha256_json([(path.name, sha256_file(path)) for path in paths])


def _chat_template(directory: Path) -> bytes:
    """The template lives in its own file since transformers 4.43; older savers keep it in the config."""
    template = directory / "chat_template.jinja"
    return template.read_bytes() if template.is_file() else b""
