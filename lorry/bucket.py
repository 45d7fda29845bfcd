"""The bucket, made where nobody else makes it: `python -m lorry.bucket` creates LORRY_S3_BUCKET unless it is there.

For object stores that come with a deployment. An organisation's own bucket is made by whoever runs that, with its
rules for access and backup, and then no process of Lorry's needs the right to create one.
"""

from __future__ import annotations

import asyncio
import sys

from kit.errors import LorryError
from kit.settings import StorageSettings
from kit.storage import ObjectStorage


def main() -> None:
    """Create it; exit code 2 for settings that cannot be used, 1 for a store that cannot be."""
    settings = StorageSettings.read_or_exit("lorry.bucket")
    try:
        asyncio.run(_create(settings))
    except LorryError as exc:
        sys.stderr.write(f"lorry.bucket: {exc.message}\n")
        raise SystemExit(1) from exc
    sys.stdout.write(f"the bucket {settings.s3_bucket} is there\n")


async def _create(settings: StorageSettings) -> None:
    storage = ObjectStorage(settings)
    try:
        await storage.create_bucket()
    finally:
        storage.close()


if __name__ == "__main__":
    main()
