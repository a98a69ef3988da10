"""Downloads: whole and of the right checksum, or not there."""

import fcntl
import hashlib
import threading

import pytest

from cnnlab.data.download import Remote, check, fetch, home
from tests.web import Web

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def offered(tmp_path):
    folder = tmp_path / "offered"
    folder.mkdir()
    (folder / "data.bin").write_bytes(CONTENT)
    return folder


def test_a_file_is_downloaded_once(tmp_path, offered, capfd):
    with Web(offered) as web:
        remote = Remote("data.bin", MD5, (web.url,))
        for _ in range(2):
            assert fetch(remote, tmp_path / "mine", download=True).read_bytes() == CONTENT
        assert web.asked == {"data.bin": 1}
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name[0] != "."] == ["data.bin"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("failure", [503, "breaks"])
def test_what_fails_is_tried_again(tmp_path, offered, failure):
    with Web(offered, **{"data.bin": [failure]}) as web:
        path = fetch(Remote("data.bin", MD5, (web.url,)), tmp_path, download=True)
        assert path.read_bytes() == CONTENT and web.asked["data.bin"] == 2


def test_where_a_mirror_is_gone_the_next_one_is_asked(tmp_path, offered):
    with Web(offered, **{"data.bin": [404] * 9}) as gone, Web(offered) as web:
        remote = Remote("data.bin", MD5, (gone.url, web.url + "data.bin"))
        assert fetch(remote, tmp_path, download=True).read_bytes() == CONTENT
        assert gone.asked["data.bin"] == 2 and web.asked["data.bin"] == 1


def test_what_is_not_the_file_asked_for_is_not_kept(tmp_path, offered):
    (offered / "data.bin").write_bytes(CONTENT[:-1] + b"x")
    with Web(offered) as web, pytest.raises(FileNotFoundError) as refused:
        fetch(Remote("data.bin", MD5, (web.url,)), tmp_path / "mine", download=True)
    assert str(refused.value).startswith(
        f"root={tmp_path / 'mine'}: no file data.bin, and no mirror gives it: "
    )
    assert str(refused.value).endswith(f"download {web.url}data.bin to {tmp_path / 'mine'}/")
    assert not [path for path in (tmp_path / "mine").iterdir() if path.name != ".lock"]


def test_without_download_one_line_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError) as refused:
        fetch(Remote("data.bin", MD5, ("http://example.org/",)), tmp_path / "mine", download=False)
    assert str(refused.value) == (
        f"root={tmp_path / 'mine'}: no file data.bin; download http://example.org/data.bin to "
        f"{tmp_path / 'mine'}/, or set download=true"
    )
    assert not (tmp_path / "mine").exists()


def test_a_flipped_bit_in_a_file_that_is_there_is_found_and_the_file_left(tmp_path):
    torn = CONTENT[:500] + bytes([CONTENT[500] ^ 1]) + CONTENT[501:]
    (tmp_path / "data.bin").write_bytes(torn)
    path = fetch(Remote("data.bin", MD5, ("http://example.org/",)), tmp_path, download=True)
    with pytest.raises(
        ValueError, match=rf"root={tmp_path}: data.bin is damaged: its MD5 is \w+, should be {MD5}"
    ):
        check(path, MD5)
    assert (tmp_path / "data.bin").read_bytes() == torn


def test_of_several_that_ask_at_once_one_downloads(tmp_path, offered, monkeypatch):
    all_ask, flock = threading.Barrier(3, timeout=60), fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *told: (all_ask.wait(), flock(*told)))
    with Web(offered) as web:
        remote = Remote("data.bin", MD5, (web.url,))
        threads = [
            threading.Thread(target=fetch, args=(remote, tmp_path), kwargs={"download": True}) for _ in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert web.asked["data.bin"] == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"no file data\.bin"):
        fetch(Remote("data.bin", MD5, ("http://127.0.0.1:9/",)), tmp_path / "file" / "sub", download=True)


def test_downloads_go_where_data_sets_of_the_user_are(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home("svhn") == tmp_path / "datasets" / "svhn"
