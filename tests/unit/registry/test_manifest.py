"""The manifest's laws."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kit.errors import InvalidName
from registry.errors import BaseModelUnreadable, InvalidReference
from registry.manifest import (
    SHARED,
    AdapterRef,
    BaseIdentity,
    Draft,
    Lineage,
    LoraShape,
    Manifest,
    ManifestFile,
    Owner,
)
from tests.support.adapters import BASE

names = st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True).filter(lambda name: name not in {".", ".."})
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(st.text(max_size=10), json_values, max_size=3)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    return Draft(
        config={},
        owner=Owner(tenant=draw(names), user=draw(names)),
        adapter=draw(names),
        version=draw(st.none() | st.integers(1, 2**31 - 1)),
        base=BASE.model_copy(update={"weights_sha256": draw(digests)}),
        lora=LoraShape(rank=draw(st.integers(1, 64)), alpha=draw(st.floats(0.1, 1e6)), target_modules=("q_proj",)),
        files=(
            ManifestFile(path="adapter_config.json", size_bytes=draw(st.integers(1, 2**40)), sha256=draw(digests)),
            ManifestFile(path="adapter_model.safetensors", size_bytes=7, sha256=draw(digests)),
        ),
        lineage=Lineage(seed=draw(st.none() | st.integers()), hyperparameters=draw(json_objects)),
        evaluation=draw(json_objects),
    )


def manifest_of(draft: Draft, **changes: Any) -> Manifest:
    fields = draft.model_dump(exclude={"config"})
    fields |= {"version_id": "v" + "0" * 32, "version": 1, "created_at": datetime.now(UTC)}
    return Manifest.model_validate(fields | changes)


@given(drafts())
def test_a_manifest_survives_its_own_bytes(draft: Draft) -> None:
    manifest = manifest_of(draft)
    again = Manifest.model_validate_json(manifest.to_bytes())
    assert again == manifest
    assert again.digest == manifest.digest


@given(drafts())
def test_the_content_digest_does_not_depend_on_the_order_of_files(draft: Draft) -> None:
    assert draft.model_copy(update={"files": draft.files[::-1]}).content_digest == draft.content_digest


@given(drafts(), names, json_objects)
def test_the_content_digest_does_not_depend_on_names_or_lineage(draft: Draft, name: str, data: dict[str, Any]) -> None:
    renamed = draft.model_copy(
        update={
            "owner": Owner(tenant=name, user=name),
            "adapter": name,
            "version": 5,
            "lineage": Lineage(hyperparameters=data),
            "evaluation": data,
            "base": draft.base.model_copy(update={"id": "other", "revision": "r"}),
        }
    )
    assert renamed.content_digest == draft.content_digest


@given(drafts(), digests)
def test_the_content_digest_depends_on_every_file_and_on_the_base(draft: Draft, digest: str) -> None:
    changed = draft.files[1].model_copy(update={"sha256": digest})
    if changed != draft.files[1]:
        assert draft.model_copy(update={"files": (draft.files[0], changed)}).content_digest != draft.content_digest
    base = draft.base.model_copy(update={"weights_sha256": digest})
    if base != draft.base:
        assert draft.model_copy(update={"base": base}).content_digest != draft.content_digest


@given(drafts())
def test_the_digest_covers_what_the_content_digest_leaves_out(draft: Draft) -> None:
    manifest = manifest_of(draft)
    assert manifest_of(draft, version=2).digest != manifest.digest
    assert manifest_of(draft, version_id="v" + "1" * 32).digest != manifest.digest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_a_manifest_refuses_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(ValidationError, match="JSON"):
        Lineage(hyperparameters={"x": value})


def test_a_manifest_refuses_fields_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        Owner.model_validate({"tenant": "t", "user": "u", "surprise": 1})


@given(names, names, names, names)
def test_a_reference_survives_being_written(tenant: str, user: str, adapter: str, selector: str) -> None:
    ref = AdapterRef(owner=Owner(tenant=tenant, user=user), adapter=adapter, selector=selector)
    assert AdapterRef.parse(str(ref), tenant=tenant) == ref


@given(names, names, names)
def test_a_reference_to_a_shared_adapter_survives_being_written(tenant: str, adapter: str, selector: str) -> None:
    ref = AdapterRef(owner=Owner(tenant=tenant, user=SHARED), adapter=adapter, selector=selector)
    assert AdapterRef.parse(str(ref), tenant=tenant) == ref
    assert str(ref) == f"shared/{adapter}@{selector}"


@pytest.mark.parametrize("text", ["~", "users/~", "users/~/house", "shared/~", "shared/", "shared/a/b"])
def test_what_is_shared_is_named_in_one_way_only(text: str) -> None:
    with pytest.raises((InvalidName, InvalidReference)):
        AdapterRef.parse(text)


def test_a_tenant_is_never_shared() -> None:
    with pytest.raises(ValidationError):
        Owner(tenant=SHARED, user="ann")


def test_a_bare_user_means_the_live_version_of_the_profile_adapter() -> None:
    ref = AdapterRef.parse("ann")
    assert str(ref) == "users/ann/profile@live"
    assert ref.version is None


def test_a_selector_of_digits_is_a_version_number() -> None:
    assert AdapterRef.parse("users/ann@12").version == 12


@pytest.mark.parametrize("text", ["", "users/", "users/a/b/c", "users/a@", "users/a@b@c", "users//b", "/etc/passwd"])
def test_a_reference_of_another_form_is_refused_and_the_form_shown(text: str) -> None:
    with pytest.raises(InvalidReference, match="users/<user>"):
        AdapterRef.parse(text)


@pytest.mark.parametrize("text", ["users/..", "users/a b", "users/ä", "users/a/..", "users/a@..", "users/" + "a" * 129])
def test_a_reference_with_a_bad_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        AdapterRef.parse(text)


def base_directory(directory: Any) -> Any:
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "tokenizer.json").write_text("{}")
    (directory / "chat_template.jinja").write_text("template")
    return directory


def test_a_base_is_identified_by_its_bytes_and_not_by_its_name(tmp_path: Any) -> None:
    directory = base_directory(tmp_path)
    before = BaseIdentity.of_directory(directory, id="a")
    assert before.matches(BaseIdentity.of_directory(directory, id="b", revision="r"))
    (directory / "chat_template.jinja").write_text("another")
    after = BaseIdentity.of_directory(directory, id="a")
    assert before.differences(after) == ["chat_template_sha256"]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_base_directory_that_lacks_a_file_is_refused_by_name(tmp_path: Any, missing: str) -> None:
    (base_directory(tmp_path) / missing).unlink()
    with pytest.raises(BaseModelUnreadable) as caught:
        BaseIdentity.of_directory(tmp_path, id="a")
    assert caught.value.field in {missing, "*.safetensors"}


def test_the_digest_of_a_manifest_is_of_sorted_json_without_spaces() -> None:
    draft = Draft(
        owner=Owner(tenant="t", user="u"),
        base=BASE,
        lora=LoraShape(rank=1, alpha=1.0, target_modules=("q_proj",)),
        files=(),
        config={},
    )
    data = manifest_of(draft).to_bytes()
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(("tenant", "user", "field"), [("t", "a/b c", "user_id"), ("", "ann", "tenant")])
def test_an_owner_of_typed_names_says_which_is_none(tenant: str, user: str, field: str) -> None:
    with pytest.raises(InvalidName) as refused:
        Owner.named(tenant=tenant, user=user)
    assert refused.value.field == field
    assert Owner.named(tenant="t", user=SHARED).shared
