"""Reading studies from files and folders."""

from pathlib import Path

import pytest

from medfuse.config import Limits
from medfuse.data.studies import StudyFiles, find_studies, read_file, read_study
from medfuse.errors import InputError, LimitError
from medfuse.types import Study


def put(folder: Path, **files: bytes) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)


def test_each_subfolder_is_a_study_sorted_by_ending(tmp_path: Path) -> None:
    put(tmp_path / "b", i2__DCM=b"2", i1__dcm=b"1", IM0003=b"3", DICOMDIR=b"index", n__txt=b"note")
    put(tmp_path / "a", voice__dcm=b"v")
    put(tmp_path / "a" / "series", x__dcm=b"x")
    put(tmp_path / ".hidden", x__dcm=b"x")
    (tmp_path / "readme.md").write_text("not a study")
    first, second = find_studies(tmp_path)
    assert (first.name, second.name) == ("a", "b")
    assert read_study(first, Limits()) == Study(images=(b"x",), voice=b"v")
    assert read_study(second, Limits()) == Study(images=(b"3", b"1", b"2"), note=b"note")


def test_a_table_says_where_each_study_is(tmp_path: Path) -> None:
    put(tmp_path / "studies", a__dcm=b"a", b__dcm=b"b", n__txt=b"n", v__wav=b"v")
    (tmp_path / "cohort.csv").write_text(
        "study_id,images,note,voice,label\n"
        "s1,studies/a.dcm;studies/b.dcm,studies/n.txt,,1\n"
        "s2,,,studies/v.wav,\n"
    )
    first, second = find_studies(tmp_path)
    assert (first.name, second.name) == ("s1", "s2")
    assert read_study(first, Limits()) == Study(images=(b"a", b"b"), note=b"n")
    assert read_study(second, Limits()) == Study(voice=b"v")


def test_a_table_whose_path_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("study_id,images,note,voice\ns1,,../secret.txt,\n")
    with pytest.raises(InputError, match="row 1: a path leaves"):
        find_studies(tmp_path)


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("study_id,images,note\ns1,,n.txt\n")
    with pytest.raises(InputError, match="no column voice"):
        find_studies(tmp_path)


def test_a_folder_without_studies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no studies"):
        find_studies(tmp_path)
    with pytest.raises(InputError, match="there is none"):
        find_studies(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a__txt": b"", "b__txt": b""}, "2 notes"),
        ({"a__wav": b"", "b__mp3": b""}, "2 recordings"),
        ({"a__dcm": b"", "b__docx": b""}, r"neither image, note nor recording \(ending in \.docx"),
    ],
)
def test_a_study_is_never_read_in_part(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    put(tmp_path / "Doe_Jane", **files)
    (study,) = find_studies(tmp_path)
    with pytest.raises(InputError, match=why) as caught:
        read_study(study, Limits())
    assert "Doe" not in str(caught.value)


def test_a_file_is_read_up_to_its_limit_and_refused_beyond(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_file(path, 4) == b"1234"
    with pytest.raises(LimitError, match="more than 3 bytes"):
        read_file(path, 3)


def test_too_many_images_are_refused_before_any_is_read(tmp_path: Path) -> None:
    files = StudyFiles("s", images=(tmp_path / "gone",) * 3)
    with pytest.raises(LimitError, match="3 image files; at most 2"):
        read_study(files, Limits(instances=2))


def test_a_file_that_is_gone_is_an_error_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        read_study(StudyFiles("s", notes=(tmp_path / "Doe_Jane.txt",)), Limits())
    assert "Doe" not in str(caught.value)
