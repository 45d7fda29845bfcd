from __future__ import annotations

from hypothesis.internal.conjecture.providers import HypothesisProvider


def test_what_is_drawn_does_not_depend_on_the_modules_that_this_process_has_loaded() -> None:
    drawn_from = HypothesisProvider(None)._local_constants
    assert [len(drawn_from.set_for_type(kind)) for kind in ("integer", "float", "bytes", "string")] == [0, 0, 0, 0]
