import pytest

from keras_rpe.written_file import write_file


def test_text_and_bytes(tmp_path):
    assert write_file(tmp_path / "a", "δ = 0.2\n").read_bytes() == "δ = 0.2\n".encode()
    assert write_file(tmp_path / "a", b"\0\r\n").read_bytes() == b"\0\r\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_old_file_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    write_file(tmp_path / "a", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
