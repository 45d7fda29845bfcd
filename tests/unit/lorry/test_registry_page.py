from pathlib import Path

from lorry.registry_page import page

PAGE = Path(__file__).resolve().parents[3] / "docs" / "registry-api.md"


def test_the_page_of_the_registrys_routes_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m lorry.registry_page > docs/registry-api.md"


def test_the_page_knows_what_an_engine_may_do() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    engine = {row.split("`")[1] for row in rows if "| operator, engine |" in row}
    assert "GET /versions/{version_id}/grant" in engine
    assert "POST /versions/{version_id}/erase" not in engine
    assert len(engine) < len(rows) / 2
