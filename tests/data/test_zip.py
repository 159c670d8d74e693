"""Pictures in a zip, which nobody unpacks."""
import errno
import io
import zipfile
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from tinygan.data import folder as module
from tinygan.data import own
from tinygan.data.own import read_own
from tinygan.errors import UserError


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def png(shade, format='PNG'):
    file = io.BytesIO()
    Image.new('L', (8, 8), shade).save(file, format)
    return file.getvalue()


def packed(tmp_path, files, name='mine.zip'):
    with zipfile.ZipFile(tmp_path / name, 'w', zipfile.ZIP_DEFLATED) as file:
        for member, content in files.items():
            file.writestr(member, content)
    return tmp_path / name


def shades(path):
    return read_own(path, (2, 2, 1))[0][:, 0, 0, 0].tolist()


def test_the_pictures_in_a_zip_are_those_of_the_folder_that_it_was(tmp_path):
    files = {'b.png': png(1), 'a/c.jpg': png(2, 'JPEG'), 'a/a.webp': png(3, 'WEBP'), 'plain': png(4)}
    for name, content in files.items():
        (tmp_path / 'folder' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'folder' / name).write_bytes(content)
    there, here = read_own(tmp_path / 'folder', (4, 4, 3)), read_own(packed(tmp_path, files), (4, 4, 3))
    assert np.array_equal(there[0], here[0]) and there[1] == here[1] and len(here[0]) == 4


@pytest.mark.parametrize('name', ['mine.cbz', 'mine'])
def test_a_zip_is_known_by_what_it_holds(tmp_path, name):
    assert shades(packed(tmp_path, {'a.png': png(7)}, name)) == [7]


def test_no_path_is_followed_and_nothing_is_unpacked(tmp_path, monkeypatch):
    before = tmp_path / 'work' / 'deep'
    before.mkdir(parents=True)
    monkeypatch.chdir(before)
    link = zipfile.ZipInfo('link.png')
    link.external_attr = 0o120777 << 16
    path = packed(tmp_path, {'../../up.png': png(1), '/etc/root.png': png(2), link: str(tmp_path / 'secret.png')})
    (tmp_path / 'secret.png').write_bytes(png(9))
    assert shades(path) == [1, 2]
    assert {file.name for file in tmp_path.rglob('*') if file.is_file()} - {'mine.zip', 'secret.png'} == {
        file.name for file in (tmp_path / 'cache').rglob('*') if file.is_file()}


def test_what_is_passed_over_is_counted(tmp_path, capsys):
    files = {'a.png': png(1), 'notes.txt': b'text', 'folder/': b'', '__MACOSX/._a.png': b'x', '.DS_Store': b'x',
             'in.zip': b'PK\3\4'}
    assert shades(packed(tmp_path, files)) == [1]
    assert 'passed over: .txt (1), .zip (1), hidden (2)\n' in capsys.readouterr().err


def test_a_size_is_looked_at_before_anything_is_decompressed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, 'LARGEST', 1 << 20)
    path = packed(tmp_path, {'a.png': png(1), 'bomb.png': bytes(2 << 20), 'bomb': bytes(2 << 20)})
    monkeypatch.setattr(zipfile.ZipFile, 'read', lambda self, member: png(5) if member.filename == 'a.png' else 1 / 0)
    assert shades(path) == [5]
    assert 'passed over: larger than 1 MB (2)\n' in capsys.readouterr().err


def test_an_encrypted_picture_is_counted_and_not_called_broken(tmp_path, capsys):
    path = packed(tmp_path, {'a.png': png(1), 'b.png': png(2)})
    content = bytearray(path.read_bytes())
    content[content.rindex(b'PK\1\2') + 8] |= 1
    path.write_bytes(content)
    assert shades(path) == [1]
    assert 'passed over: encrypted (1)\n' in capsys.readouterr().err


def test_a_broken_picture_is_left_out_and_a_broken_zip_is_an_error_of_one_line(tmp_path, capsys):
    path = packed(tmp_path, {'a.png': png(1), 'b.png': png(2)[:40], 'c.png': bytes(range(256)) * 9})
    assert shades(path) == [1]
    said = capsys.readouterr().err
    assert '  b.png: ' in said and '  c.png: cannot identify image file\n' in said
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match='mine.zip is a damaged zip '):
        shades(path)
    with pytest.raises(UserError, match='holds no picture, but .txt .1.; --data takes'):
        shades(packed(tmp_path, {'a.txt': b''}))
    with pytest.raises(UserError, match='holds no picture, but nothing at all'):
        shades(packed(tmp_path, {}))


def test_a_zip_of_pictures_may_have_an_array_beside_them(tmp_path, capsys):
    array = io.BytesIO()
    np.save(array, np.zeros((8, 7, 7)))
    assert shades(packed(tmp_path, {'a.png': png(1), 'features.npy': array.getvalue()})) == [1]
    assert 'passed over: .npy (1)\n' in capsys.readouterr().err


@pytest.mark.parametrize('place, value', [(6, 99), (9, 8)], ids=['a version of the future', 'a name that is not UTF-8'])
def test_a_zip_that_zipfile_cannot_read_is_an_error_of_one_line(tmp_path, place, value):
    path = packed(tmp_path, {'caf\xe9.png': png(1)})
    content = bytearray(path.read_bytes())
    start = content.rindex(b'PK\1\2')
    content[start + place] = value
    content[start + 46:start + 51] = b'caf\xe9.'
    path.write_bytes(content)
    with pytest.raises(UserError, match='mine.zip is a damaged zip '):
        shades(path)


def test_many_pictures_keep_their_order(tmp_path):
    assert shades(packed(tmp_path, {f'{i:03}.png': png(i % 256) for i in range(300)})) == [i % 256 for i in range(300)]


def test_names_cannot_play_with_the_terminal(tmp_path, capsys):
    packed(tmp_path, {'a.png': png(1), '\x1b]0;owned\x07.png': b'', 'b\n.\x1b[2J': b''})
    assert shades(tmp_path / 'mine.zip') == [1]
    said = capsys.readouterr().err
    assert '\x1b' not in said and '\x07' not in said and '  ?]0;owned?.png: ' in said


def test_a_changed_zip_is_read_anew(tmp_path):
    assert shades(packed(tmp_path, {'a.png': png(1)})) == [1]
    assert shades(packed(tmp_path, {'a.png': png(2), 'b.png': png(3)})) == [2, 3]


def test_a_disk_that_fails_is_no_damaged_zip(tmp_path, monkeypatch):
    path = packed(tmp_path, {'a.png': png(1)})
    failing = OSError(errno.EIO, 'Input/output error', str(path))
    monkeypatch.setattr(own.zipfile, 'ZipFile', Mock(side_effect=failing))
    with pytest.raises(OSError) as error:
        read_own(path, (2, 2, 1))
    assert error.value is failing
