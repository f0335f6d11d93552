"""How windows are cut; their checks are tested with what uses them."""

from __future__ import annotations

from rhn.port_tools import MOST_STEPS_IN_FLIGHT, StepsInFlight, steps_per_slice


def test_slices_have_enough_rows_and_make_up_the_window() -> None:
    cases = {(35, 20): 35, (50, 128): 5, (50, 1000): 1, (97, 128): 97, (0, 5): 0}
    assert {sizes: steps_per_slice(*sizes, least_rows=512) for sizes in cases} == cases


def test_the_host_waits_for_the_oldest_step_when_too_many_are_in_flight() -> None:
    waited: list[int] = []
    in_flight = StepsInFlight(wait=waited.append)
    for step in range(6):
        in_flight.add(step)
        assert waited == list(range(step + 1 - MOST_STEPS_IN_FLIGHT))
