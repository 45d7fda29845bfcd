"""`lorry adapters push`, `pull` and `verify`: an adapter's files on their way in and out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lorry.commands.adapter_lifecycle import short
from lorry.context import Context, base_directory, open_context
from lorry.errors import NothingToDo, NotThere
from lorry.output import Bar, command, out, print_json, print_table, progress, run, say
from registry.artifact.draft import MODEL_CARD, is_model_card
from registry.artifact.peft_config import named_base
from registry.artifact.untrusted import printable
from registry.client import Verifier, draft_from_directory
from registry.errors import AdapterInvalid, ArtifactError, BaseModelMismatch, SignatureInvalid
from registry.manifest import (
    CONFIG_FILE,
    DEFAULT_ADAPTER,
    LIVE,
    SHARED,
    AdapterRef,
    BaseIdentity,
    Draft,
    Manifest,
    Owner,
)

Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Reference = Annotated[str, typer.Argument(help="USER, users/USER[/ADAPTER][@ALIAS or @VERSION], or shared/ADAPTER[@…]")]
PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", help="PEM key that must have signed it; LORRY_SIGNING_PUBLIC_KEY_FILE when omitted"),
]
_DAMAGED = 1


def push(
    directory: Annotated[Path, typer.Argument(help="directory with adapter_config.json and adapter_model.safetensors")],
    user: Annotated[str | None, typer.Option(help="user who owns the adapter")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="let all users of the tenant share it")] = False,
    adapter: Annotated[str, typer.Option(help="name of the adapter")] = DEFAULT_ADAPTER,
    base: Annotated[
        str | None,
        typer.Option(
            help="id of its base model, see `lorry bases`; when omitted, this home's, unless it names another"
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="let `live` point to it when it is published")] = False,
    as_json: Json = False,
) -> None:
    """Publish a PEFT LoRA directory that was trained elsewhere, for a user or shared by the tenant."""
    manifest, sent, serves = run(
        _push(directory, user=user, shared=shared, adapter=adapter, base=base, live=live), as_json=as_json
    )
    if as_json:
        print_json(manifest.model_dump(mode="json"))
        return
    name = f"{manifest.owner.path}/{manifest.adapter}"
    done = "published" if sent else "already there:"
    out.print(f"{done} {name} version {manifest.version} ({manifest.version_id})", highlight=False)
    if not serves:
        ref = AdapterRef(owner=manifest.owner, adapter=manifest.adapter)
        say(f"to let it serve: {command()} adapters promote {short(ref)}@{manifest.version}")


def pull(
    reference: Reference,
    directory: Annotated[
        Path, typer.Argument(help="directory to write to: new, or one that holds this version already")
    ],
    signature: Annotated[
        Path | None, typer.Option(help="write the signature to this file, for `model_signing verify`")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download one version's verified files, and its signature if wanted."""
    manifest = run(_pull(reference, directory, signature=signature), as_json=as_json)
    if as_json:
        print_json(manifest.model_dump(mode="json"))
    else:
        out.print(f"version {manifest.version} of {reference} is in {directory}", highlight=False)


def verify(reference: Reference, public_key: PublicKey = None, as_json: Json = False) -> None:
    """Read one version back from the object store through its seal, and check every digest and the signature."""
    found = run(_verify(reference, public_key=public_key), as_json=as_json)
    if as_json:
        print_json(found)
    else:
        rows = [[name, str(value)] for name, value in found.items() if name != "sound"]
        print_table(f"{reference}: {'sound' if found['sound'] else 'NOT SOUND'}", ["what", "found"], rows)
    if not found["sound"]:
        raise typer.Exit(_DAMAGED)


async def _push(
    directory: Path, *, user: str | None, shared: bool, adapter: str, base: str | None, live: bool
) -> tuple[Manifest, bool, bool]:
    """Return the version, whether anything had to be sent, and whether `live` names it.

    The same content again is the version that it is.
    """
    if (user is None) != shared:
        raise NothingToDo("say either --user USER or --shared", field="user")
    if not directory.is_dir():
        raise NotThere(f"there is no directory {directory}", field="directory")
    async with open_context() as context:
        owner = Owner.named(tenant=context.settings.tenant, user=SHARED if user is None else user)
        identity, folder = await _base(context, base)
        draft = await asyncio.to_thread(
            _draft, directory, owner=owner, adapter=adapter, base=identity, base_directory=folder
        )
        if folder is not None:
            await asyncio.to_thread(_require_same_base, directory, base=identity, base_directory=folder)
        if is_model_card(directory / MODEL_CARD):
            say(f"{MODEL_CARD} is left out: it is no part of an adapter")
        with progress() as bars:
            bar = Bar(bars, "publishing")
            manifest = await context.registry.publish(directory, draft=draft, on_progress=bar)
            bar.finish()
        if live:
            await _make_live(context, manifest)
        serves = await context.registry.get_alias(owner, adapter, LIVE) == manifest.version_id
        return manifest, bar.was_called, serves


def _draft(directory: Path, *, owner: Owner, adapter: str, base: BaseIdentity, base_directory: Path | None) -> Draft:
    """Describe what is to be published.

    Raises:
        AdapterInvalid: for what is no servable adapter, and for one that was made for another base than this home's.
    """
    try:
        return draft_from_directory(directory, owner=owner, adapter=adapter, base=base, base_directory=base_directory)
    except BaseModelMismatch as exc:
        raise AdapterInvalid(
            f"the adapter does not fit {base.id}, this home's base model: {exc.message}; name the base it was made for"
            f" with --base ID (`{command()} bases list` shows those that are registered)",
            field=exc.field,
        ) from exc


def _require_same_base(directory: Path, *, base: BaseIdentity, base_directory: Path) -> None:
    """Refuse an adapter that says it was made for another base than this home's, for which nobody named one.

    A sibling of the base has the same shapes, so that the name is all there is to tell them apart by.

    Raises:
        AdapterInvalid: naming both.
    """
    named = named_base((directory / CONFIG_FILE).read_bytes())
    if named is None or Path(named) == base_directory or _last_part(named) == _last_part(base.id):
        return
    raise AdapterInvalid(
        f"{CONFIG_FILE}: base_model_name_or_path says {printable(named)}, and this home's base model is {base.id};"
        f" say --base {base.id} if it was made for that all the same, or the id of its own (`{command()} bases list`)",
        field="base_model_name_or_path",
    )


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()


async def _base(context: Context, base_id: str | None) -> tuple[BaseIdentity, Path | None]:
    """Return the base that was named, or this home's, which is made known on the way."""
    if base_id is not None:
        return (await context.registry.show_base(base_id)).identity, None
    from training.base_models import identify_base

    folder = base_directory(context.plan)
    identity = await asyncio.to_thread(identify_base, folder)
    config = await asyncio.to_thread((folder / "config.json").read_bytes)
    await context.registry.register_base(identity, config=config)
    return identity, folder


async def _make_live(context: Context, manifest: Manifest) -> None:
    held = await context.registry.get_alias(manifest.owner, manifest.adapter, LIVE)
    if held != manifest.version_id:
        await context.registry.move_alias(
            manifest.owner, manifest.adapter, LIVE, version_id=manifest.version_id, expected_version_id=held
        )


async def _pull(reference: str, directory: Path, *, signature: Path | None) -> Manifest:
    async with open_context() as context:
        resolution = await context.registry.resolve(AdapterRef.parse(reference, tenant=context.settings.tenant))
        grant = await context.registry.grant(resolution.manifest.version_id)
        if signature is not None and grant.signature is None:
            raise SignatureInvalid(f"{reference} is not signed", field="signature")
        await context.registry.download(grant, directory)
        if signature is not None:
            await asyncio.to_thread(signature.write_text, json.dumps(grant.signature, indent=2) + "\n")
        return grant.manifest


async def _verify(reference: str, *, public_key: Path | None) -> dict[str, Any]:
    async with open_context() as context:
        path = public_key or context.settings.signing_public_key_file
        verifier = Verifier.open(path) if path else None
        resolution = await context.registry.resolve(AdapterRef.parse(reference, tenant=context.settings.tenant))
        grant = await context.registry.grant(resolution.manifest.version_id)
        manifest = grant.manifest
        found: dict[str, Any] = {
            "sound": True,
            "version_id": manifest.version_id,
            "manifest_digest": manifest.digest,
            "sealed_bytes": grant.sealed_bytes,
            "seal_and_files": "whole",
            "signature": "none" if grant.signature is None else "not checked: no public key",
        }
        try:
            await context.registry.read_back(grant)
        except ArtifactError as exc:
            found |= {"sound": False, "seal_and_files": exc.message}
        if verifier is not None:
            try:
                verifier.verify(grant.signature, manifest)
                found["signature"] = "valid"
            except SignatureInvalid as exc:
                found |= {"sound": False, "signature": exc.message}
        return found
