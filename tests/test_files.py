"""Files and folders that are written as a whole: what an error says when they cannot be."""

import pathlib

import pytest

import spinkeras
from spinkeras import files


def whole_folder(path):
    with files.new_folder(path) as folder:
        (folder / "inside").write_text("content")


# paths below a folder with a file and with a folder that is not empty: what an error says of them
PLACES = {
    "none/a.csv": r"none'? .*does not exist",
    "none/nor this/a.csv": r"none.nor this'? .*does not exist",
    "file/a.csv": r"file'? .*does not exist",
    "full.csv": r"full\.csv'?$",
}


@pytest.fixture
def home(tmp_path):
    (tmp_path / "file").write_text("here")
    (tmp_path / "full.csv").mkdir()
    (tmp_path / "full.csv" / "other").write_text("here")
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_an_error_names_what_the_user_gave(place, kind, home):
    path = kind(home / place)
    report = spinkeras.ChipReport([0.5], [1.0], 0.5, spinkeras.ChipSpread(), None)
    for write in (lambda: files.write(path, "text"), lambda: report.to_csv(path)):
        with pytest.raises(OSError, match=PLACES[place]) as error:
            write()
        assert ".part" not in str(error.value)
        assert isinstance(error.value, FileNotFoundError) == ("not exist" in PLACES[place])
    assert sorted(found.name for found in home.rglob("*")) == ["file", "full.csv", "other"]


def test_a_new_folder_makes_the_folders_above_it(home):
    with pytest.raises(OSError, match=r"file.a\.csv'?$") as error:
        whole_folder(home / "file" / "a.csv")
    assert ".part" not in str(error.value)
    for place in ("none/nor this/a.csv", "full.csv"):  # the second is replaced
        whole_folder(home / place)
        assert [found.name for found in (home / place).iterdir()] == ["inside"]


def test_an_error_of_the_content_stays(tmp_path):
    with pytest.raises(OSError, match="mine"), files.new_folder(tmp_path / "new"):
        raise OSError("mine")
    assert not list(tmp_path.iterdir())
