import os
import stat
from pathlib import Path

import pytest

from lorry.errors import AlreadyRunning, HomeUnusable
from lorry.home import Home


def test_a_home_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "new" / "home")
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_created_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match="file"):
        Home.open(tmp_path / "file" / "home")


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    first = home.secret("token")
    assert home.secret("token") == first
    assert home.secret("other") != first
    assert stat.S_IMODE((tmp_path / "secrets" / "token").stat().st_mode) == 0o600


def test_only_one_process_owns_a_home(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    with home.ownership(), pytest.raises(AlreadyRunning), home.ownership():
        pass


def test_the_state_of_an_owner_that_died_is_not_believed(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    home.write_state({"postgres": "somewhere"})
    assert home.read_state() is None


def test_the_state_is_readable_while_owned_and_gone_after(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    with home.ownership():
        home.write_state({"postgres": "somewhere"})
        assert Home.open(tmp_path).read_state() == {"postgres": "somewhere"}
    assert not (tmp_path / "run" / "state.json").exists()


def test_commands_that_use_anothers_parts_are_known_while_they_run(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    with home.guest():
        assert home.guests() == [os.getpid()]
    assert home.guests() == []


def test_a_command_that_was_killed_is_no_guest(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    (home.folder("run", "guests") / "1").write_text('{"pid": 1, "started": 1.5}')
    (home.folder("run", "guests") / "2").write_text("")
    assert home.guests() == []
    assert not (tmp_path / "run" / "guests" / "1").exists()
