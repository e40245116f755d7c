"""Pickles where a stored policy should be: none is set off, each is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from harmful_files import WRAPPERS, Harm, Wrapper, zip_slip
from made_up_policy import FILES, MANIFEST, files_of, planted, refusal, stored


@pytest.fixture
def harm(tmp_path: Path) -> Harm:
    return Harm(tmp_path / "harm_was_done")


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_each_pickle_does_harm_where_it_is_unpickled(wrapper: Wrapper, harm: Harm) -> None:
    wrapper.set_off(wrapper.made(harm))
    assert harm.marker.is_dir()


@pytest.mark.parametrize("fitted", [False, True], ids=["as_it_is", "of_the_right_size"])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda w: w.name)
def test_no_pickle_in_any_wrapper_in_the_place_of_any_file_is_set_off(
    tmp_path: Path, harm: Harm, wrapper: Wrapper, name: str, fitted: bool
) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    content = wrapper.made(harm)
    if name == MANIFEST:
        sha = planted(tmp_path / "bad", files, content)
    else:
        if fitted:  # pickles take no notice of what follows them
            content = content.ljust(len(files[name]), b"\0")
        sha = planted(tmp_path / "bad", {**files, name: content})
    assert refusal(tmp_path / "bad", sha).file == name
    assert not harm.marker.exists()


@pytest.mark.parametrize("name", FILES)
def test_an_archive_is_not_unpacked(tmp_path: Path, harm: Harm, name: str) -> None:
    files = files_of(tmp_path / "good", stored(tmp_path / "good").sha)
    sha = planted(tmp_path / "bad", {**files, name: zip_slip(harm)})
    assert refusal(tmp_path / "bad", sha).file == name
    assert not harm.marker.exists()
