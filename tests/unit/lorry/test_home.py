import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorry.errors import HomeUnusable
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


def test_a_secret_that_two_commands_make_at_once_is_one(tmp_path: Path) -> None:
    homes = [Home.open(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda home: home.secret("token"), homes))) == 1
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["token"]


def test_commands_that_have_ended_are_not_remembered_as_working_on_a_user(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    script = (
        "import sys; from pathlib import Path; from lorry.home import Home; "
        "Home.open(Path(sys.argv[1])).work_on('default', 'ann')"
    )
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    home.work_on("default", "ann")
    (folder,) = (tmp_path / "run" / "working").iterdir()
    assert [path.name for path in folder.iterdir()] == [str(os.getpid())]
    assert [process.pid for process in home.working_on("default", "ann")] == [os.getpid()]
