"""The words of socketpool_client: which services work on which files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.client.jobs import Job, split_words
from socketpool.errors import UsageError

SERVICES = ("upload", "vendor", "download", "web")
FIRST = Path("a.zip")


def find(word: str) -> Path | None:
    return Path(word) if word.endswith((".zip", "/upload")) else None


def test_without_further_files_all_services_work_on_the_first() -> None:
    words = ["upload", "vendor", "vendor", "download"]
    assert split_words(FIRST, words, SERVICES, find) == [Job(FIRST, tuple(words))]


def test_each_service_works_on_the_file_named_last_before_it() -> None:
    words = ["upload", "b.zip", "upload", "vendor", "./upload", "download"]
    assert split_words(FIRST, words, SERVICES, find) == [
        Job(FIRST, ("upload",)),
        Job(Path("b.zip"), ("upload", "vendor")),
        Job(Path("./upload"), ("download",)),
    ]


@pytest.mark.parametrize("word", ["uplaod", "gone.tar", ""])
def test_a_word_that_is_neither_gets_the_services_and_that_no_such_file_exists(word: str) -> None:
    with pytest.raises(UsageError, match="no such file exists") as caught:
        split_words(FIRST, ["upload", word], SERVICES, find)
    assert repr(word) in caught.value.message
    assert caught.value.hint == "known services: download, upload, vendor, web"


@pytest.mark.parametrize(
    "words", [["b.zip", "upload"], ["upload", "b.zip"], ["upload", "b.zip", "c.zip", "upload"]]
)
def test_a_file_without_a_service_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="no service is named for"):
        split_words(FIRST, words, SERVICES, find)


@pytest.mark.parametrize("again", ["a.zip", "./a.zip", "../{here}/a.zip"])
def test_a_file_named_twice_is_refused_however_it_is_written(again: str) -> None:
    word = again.format(here=Path.cwd().name)
    with pytest.raises(UsageError, match="named twice"):
        split_words(FIRST, ["upload", word, "upload"], SERVICES, find)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6).map("{}.zip".format),
            st.lists(st.sampled_from(SERVICES), min_size=1, max_size=5),
        ),
        max_size=5,
        unique_by=lambda pair: pair[0],
    ),
    st.lists(st.sampled_from(SERVICES), min_size=1, max_size=5),
)
def test_what_was_put_together_is_taken_apart(
    others: list[tuple[str, list[str]]], own: list[str]
) -> None:
    words = own + [word for name, services in others for word in (name, *services)]
    expected = [Job(FIRST, tuple(own))]
    expected += [Job(Path(name), tuple(services)) for name, services in others]
    assert split_words(FIRST, words, SERVICES, find) == expected
