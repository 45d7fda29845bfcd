"""`python -m deploy.dashboards`: write every dashboard's JSON to deploy/grafana."""

from __future__ import annotations

from pathlib import Path

from deploy.dashboards import extraction, objectives, registry, serving, training
from deploy.dashboards.panels import Page, draw

PAGES: tuple[Page, ...] = (serving.PAGE, training.PAGE, extraction.PAGE, registry.PAGE, objectives.PAGE)
FOLDER = Path(__file__).resolve().parents[1] / "grafana"


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for page in PAGES:
        (FOLDER / f"{page.uid}.json").write_text(draw(page))


if __name__ == "__main__":
    main()
