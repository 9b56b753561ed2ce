"""A journal's file after harm: opening it says that it is corrupt, or has all that was written."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from modelhost_server.journal.database import CorruptJournalError, Database, LostChangesError, NewerJournalError

from .damage import damaged
from .tally import Tally

_CHANGES = 12


def _written(folder: Path) -> list[tuple[int, dict[Any, Any]]]:
    """Writes a journal, and leaves it as a killed server does; what was there after each change."""
    path = folder / "live" / "journal.db"
    path.parent.mkdir()
    Database.create(path)
    database = Database(path)
    states = [(database.revision, dict(database.rows))]
    for number in range(1, _CHANGES + 1):
        if number == _CHANGES // 2:
            # What came before is in the file itself then, and no longer in the log beside it.
            database.close()
            database = Database(path)
        name = f"setting-{number % 5}"
        database.write({("settings", name): (name, "v" * number * 50)}, number)
        states.append((database.revision, dict(database.rows)))
    for file in path.parent.iterdir():
        shutil.copy(file, folder / file.name)
    database.close()
    return states


def fuzz_journals(seed: int, cases: int) -> Tally:
    """So many damaged journals."""
    tally = Tally("journals")
    with tempfile.TemporaryDirectory(prefix="modelhost-fuzz-") as directory, tally.timed():
        folder = Path(directory)
        states = _written(folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        place = folder / "case"
        for number in range(cases):
            noise = random.Random(f"{seed}/journal/{number}")
            place.mkdir()
            for name, data in files.items():
                (place / name).write_bytes(data)
            harmed = noise.choice(sorted(files))
            data = damaged(noise, files[harmed])
            (place / harmed).write_bytes(data if noise.random() < 0.95 else b"")
            try:
                database = Database(place / "journal.db")
                found = database.revision, dict(database.rows)
                database.close()
            except CorruptJournalError:
                tally.answers["found corrupt"] += 1
            except LostChangesError:
                tally.answers["found older than it was"] += 1
            except NewerJournalError:
                tally.answers["found newer"] += 1
            except Exception as error:
                tally.fail(f"case {number}, {harmed}: {error!r}")
            else:
                if found == states[-1]:
                    tally.answers["as it was"] += 1
                else:
                    tally.fail(f"case {number}, {harmed}: it opens with {len(found[1])} rows, revision {found[0]}")
            shutil.rmtree(place)
            tally.cases += 1
    return tally
