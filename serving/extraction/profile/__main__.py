"""`python -m serving.extraction.profile`: the JSON Schema of a profile, for ``docs/profile.schema.json``."""

from __future__ import annotations

import sys

from serving.extraction.profile.profile import schema_text

if __name__ == "__main__":
    sys.stdout.write(schema_text())
