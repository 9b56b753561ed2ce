"""What an engine cannot run, another answers; who is to blame decides whether the engine stays."""

import pytest
from modelhost_server.engines.base import EngineFailure, NotForEngine
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.runtime.backed import BackedModel


class Model:
    """Raises what it is told to; counts its runs."""

    engine, loader, signatures, variables, is_pure = "litert", "", (), (), True

    def __init__(self, error=None):
        self.error, self.runs, self.closed = error, 0, False

    def run(self, signature, inputs, outputs, sink):
        self.runs += 1
        if self.error:
            raise self.error

    def close(self):
        self.closed = True


def run(model):
    model.run(0, [], (), None)


def test_an_engine_that_works_needs_no_backup():
    main = Model()
    backed = BackedModel(main, lambda: pytest.fail("not needed"), pytest.fail)
    run(backed)
    assert main.runs == 1


def test_a_failure_that_the_backup_does_not_have_demotes_the_engine_once():
    main, backup, told = Model(EngineFailure("no such shape")), Model(), []
    backed = BackedModel(main, lambda: backup, told.append)
    run(backed)
    run(backed)
    assert told == ["no such shape"]
    assert (main.runs, backup.runs) == (1, 2)


def test_a_call_that_is_not_for_the_engine_leaves_it_where_it_is():
    main, backup = Model(NotForEngine("too large an integer")), Model()
    backed = BackedModel(main, lambda: backup, pytest.fail)
    run(backed)
    main.error = None
    run(backed)
    assert (main.runs, backup.runs) == (2, 1)


def test_an_input_that_the_backup_refuses_too_is_to_blame_itself():
    refusal = ModelhostError(Reason.MODEL_REJECTED_INPUT, "id 7 is out of range")
    main, backup = Model(EngineFailure("gather")), Model(refusal)
    backed = BackedModel(main, lambda: backup, pytest.fail)
    with pytest.raises(ModelhostError, match="id 7"):
        run(backed)
    main.error = None
    run(backed)
    assert (main.runs, backup.runs) == (2, 1)


def test_the_backup_is_loaded_once_and_closed_with_the_model():
    loads, main, backup = [], Model(EngineFailure("x")), Model(ModelhostError(Reason.MODEL_REJECTED_INPUT, "x"))

    def load():
        loads.append(1)
        return backup

    backed = BackedModel(main, load, pytest.fail)
    for _ in range(3):
        with pytest.raises(ModelhostError):
            run(backed)
    backed.close()
    assert len(loads) == 1
    assert main.closed
    assert backup.closed
