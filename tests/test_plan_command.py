"""`megbrain plan --intervals`: output, exit codes, files that are not what they should be."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from megbrain_py.cli.main import main

TABLE = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"


def plan(folder: Path, text: str | bytes, *more: str) -> int:
    file = folder / "in.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return main(["plan", "--intervals", str(file), "--out", str(folder / "out.csv"), *more])


def test_the_table_comes_back_with_offsets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, TABLE, "--capacity", "12") == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(
        r"height    12 \(no placement is lower\)\nmax-live  12\nseconds   \d+\.\d{3}\n", printed
    )
    rows = list(csv.reader((tmp_path / "out.csv").open()))
    assert [",".join(row[:-1]) for row in rows] == TABLE.splitlines()
    assert rows[0][-1] == "offset"
    offsets = [int(row[-1]) for row in rows[1:]]
    assert max(offsets) == 8
    assert offsets[0] == offsets[1]
    assert len({offsets[0], offsets[2], offsets[4]}) == 3


def test_a_capacity_that_is_not_met_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, TABLE, "--capacity", "11") == 1
    assert "capacity  11: exceeded by 1" in capsys.readouterr().out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 6


def test_other_columns_and_their_order_are_kept(tmp_path: Path) -> None:
    assert plan(tmp_path, "\ufeffsize,name,upper,id,lower\r\n5,x,4,1,-2\r\n0,y,3,2,1\r\n") == 0
    written = (tmp_path / "out.csv").read_text().splitlines()
    assert written[:2] == ["size,name,upper,id,lower,offset", "5,x,4,1,-2,0"]


def test_no_buffers_need_no_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tmp_path, "id,lower,upper,size\n") == 0
    assert "height    0" in capsys.readouterr().out


BAD = {
    "": "empty, expected a header id,lower,upper,size",
    "id,lower,upper\n": "line 1: expected one column 'size', found id,lower,upper",
    "id,size,lower,upper,size\n": "line 1: expected one column 'size'",
    "id,lower,upper,size,alignment\n": "line 1: column 'alignment' is not supported",
    TABLE + "b6,1,2\n": "line 7: expected 4 fields, found 3",
    TABLE + "b6,1,2,x\n": "line 7: 'size' is 'x', expected an integer",
    TABLE + "b6,1,2,1.5\n": "line 7: 'size' is '1.5', expected an integer",
    TABLE + "b6,2,2,1\n": "line 7: expected lower < upper, found 2 and 2",
    TABLE + "b6,1,2,-1\n": "line 7: 'size' is -1, expected at least 0",
    TABLE + f"b6,1,{1 << 63},1\n": "line 7: 'upper' is 9223372036854775808, expected at most 2^62",
    TABLE + f"b6,0,1,{1 << 62}\n": "the sizes add up to more than 2^62 bytes",
    TABLE + 'b6,"1,2,3\n': "not a CSV file: unexpected end of data",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files_name_the_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, text) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"megbrain plan: {tmp_path}/in.csv: {BAD[text]}")
    assert not (tmp_path / "out.csv").exists()


def test_bytes_that_are_no_text_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, b"id,lower\xff\xfe") == 2
    assert "in.csv: not a CSV file: " in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.csv")
    assert main(["plan", "--intervals", missing, "--out", str(tmp_path / "out.csv")]) == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize("capacity", ["-1", "many"])
def test_a_capacity_is_a_number_of_bytes(
    capacity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        plan(tmp_path, TABLE, "--capacity", capacity)
    assert "argument --capacity" in capsys.readouterr().err
