"""Models change places while calls run."""

from modelhost_server.runtime.slots import Slots


class Model:
    closed = False

    def close(self) -> None:
        assert not self.closed, "closed once"
        self.closed = True


def test_a_model_is_closed_when_it_is_replaced_and_idle():
    slots, first, second = Slots(), Model(), Model()
    slots.put(1, first)
    slots.put(1, second)
    assert first.closed
    assert not second.closed
    assert slots.acquire(1).model is second


def test_a_model_that_runs_is_closed_after_its_last_run():
    slots, first, second = Slots(), Model(), Model()
    slots.put(1, first)
    runs = [slots.acquire(1), slots.acquire(1)]
    slots.put(1, second)
    runs[0].end()
    assert not first.closed
    runs[1].end()
    assert first.closed


def test_a_retired_model_takes_no_run():
    slots, first = Slots(), Model()
    slots.put(1, first)
    use = slots.acquire(1)
    slots.remove(1)
    assert not use.begin()
    use.end()
    assert first.closed


def test_an_empty_slot_is_removed_without_complaint():
    Slots().remove(7)
