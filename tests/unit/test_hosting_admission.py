"""Memory limits: who is let in, and what the others are told."""

import pytest
from modelhost_server.errors import ModelhostError, Reason
from modelhost_server.hosting.admission import Admission, Budget, Footprint, NoMemoryError, check
from modelhost_server.store.phases import Phase
from modelhost_server.store.records import EngineChoice, Loaded, LoadOptions, Version

MB = 1 << 20
CHOICE = EngineChoice("tensorflow")


def version(name: str, private: int = 0, used: float = 0.0, handles: int = 0, path: str = "") -> Version:
    made = Version("s", name, 1, 1, path, path, LoadOptions(), digest=name)
    made.phase, made.handles = Phase.AVAILABLE, handles
    made.statistics.last_used = used
    made.loaded = Loaded("tensorflow", "", (), (), private, 0, 0, 0, (0, 0, ""))
    return made


def test_what_fits_is_let_in():
    check("scope 's'", 100 * MB, 60 * MB, 40 * MB, (), "s", 0.0)


def test_what_does_not_fit_is_told_how_much_there_is_and_what_could_go():
    loaded = [
        version("busy", 30 * MB, used=1, handles=1),
        version("late", 20 * MB, used=90),
        version("early", 10 * MB, used=10),
    ]  # fmt: skip
    with pytest.raises(ModelhostError) as caught:
        check("scope 's'", 100 * MB, 60 * MB, 41 * MB, loaded, "s", 100.0)
    error = caught.value
    assert error.reason is Reason.MEMORY_LIMIT
    assert error.details == {"needed_bytes": str(41 * MB), "free_bytes": str(40 * MB), "limit_bytes": str(100 * MB)}
    assert "scope 's': about 41 MB needed, 40 MB free of 100 MB" in error.message
    assert "busy" not in error.message
    assert error.message.index("early/versions/1 (10 MB, unused for 90 s)") < error.message.index("late/versions/1")


def test_what_is_in_other_scopes_has_no_name():
    loaded = [version("early", 10 * MB, used=10), version("late", 20 * MB, used=90)]
    with pytest.raises(ModelhostError) as caught:
        check("the server", 100 * MB, 60 * MB, 41 * MB, loaded, "another", 100.0)
    assert caught.value.message.endswith("could be unloaded: 30 MB in other scopes")


async def test_loads_under_way_count(tmp_path):
    weights = tmp_path / "m" / "variables"
    weights.mkdir(parents=True)
    (weights / "variables.data").write_bytes(bytes(20 * MB))
    admission = Admission(tmp_path / "cache")

    async def nothing() -> int:
        return 0

    budgets = [Budget("the server", lambda: 40 * MB, nothing, list)]
    first, second = version("a", path=str(tmp_path / "m")), version("b", path=str(tmp_path / "m"))
    async with admission.reserve(first, CHOICE, 1, budgets):
        with pytest.raises(ModelhostError, match="26 MB needed, 14 MB free"):
            async with admission.reserve(second, CHOICE, 1, budgets):
                pytest.fail("it was let in")
    async with admission.reserve(second, CHOICE, 1, budgets):
        assert budgets[0].reserved == 26 * MB
    assert budgets[0].reserved == 0


async def test_what_was_measured_is_known_to_the_next_server(tmp_path):
    private = 0

    async def measure() -> int:
        return private

    budgets = [Budget("the server", lambda: 10 * MB, measure, list)]
    tight = version("a", path=str(tmp_path))
    async with Admission(tmp_path).reserve(tight, CHOICE, 1, budgets):
        private = 12 * MB
    with pytest.raises(ModelhostError, match="12 MB needed, 10 MB free of 10 MB"):
        await Admission(tmp_path).confirm(tight, "tensorflow", Footprint(12 * MB, 5 * MB), 1, budgets)
    private = 0
    with pytest.raises(ModelhostError, match="12 MB needed"):
        async with Admission(tmp_path).reserve(tight, CHOICE, 1, budgets):
            pytest.fail("it was let in")


async def test_what_is_shared_with_others_is_not_told_as_needed(tmp_path):
    async def measure() -> int:
        return 23 * MB

    budgets = [Budget("scope 's'", lambda: 20 * MB, measure, list)]
    with pytest.raises(NoMemoryError, match="23 MB needed, 20 MB free of 20 MB") as caught:
        await Admission(tmp_path).confirm(version("a"), "tensorflow", Footprint(24 * MB, 5 * MB), 1, budgets)
    assert caught.value.needed == 23 * MB


async def test_mapped_files_are_there_once_and_the_rest_in_each_worker(tmp_path):
    async def nothing() -> int:
        return 0

    budgets = [Budget("scope 's'", lambda: 100 * MB, nothing, list)]
    admission = Admission(tmp_path)
    known = version("a")
    await admission.confirm(known, "tensorflow", Footprint(40 * MB, 10 * MB), 3, budgets)
    async with admission.reserve(known, CHOICE, 3, budgets):
        assert budgets[0].reserved == 60 * MB
    async with admission.reserve_again([(known, CHOICE)], budgets):
        assert budgets[0].reserved == 10 * MB
    with pytest.raises(ModelhostError, match="110 MB needed"):
        async with admission.reserve(known, CHOICE, 8, budgets):
            pytest.fail("it was let in")
