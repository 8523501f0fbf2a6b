"""Laboratories that put files down: taken when they are complete, answered beside, and removed."""

from pathlib import Path

import pytest
from clinic_lab_integration.files import FolderWatcher
from clinic_shared.intake import intake_table

from .conftest import Laboratory


@pytest.fixture
def inbox(lab: Laboratory, tmp_path: Path) -> Path:
    folder = tmp_path / lab.client_id / "in"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def watcher(lab: Laboratory, tmp_path: Path) -> FolderWatcher:
    return FolderWatcher(lab.lab.runtime, tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def test_a_file_is_taken_answered_and_removed(
    lab: Laboratory, inbox: Path, watcher: FolderWatcher, sample
) -> None:
    await lab.add_patient("MRN-1")
    (inbox / "results.hl7").write_bytes(sample("panel"))
    assert [await watcher.look(), await watcher.look()] == [0, 1]
    assert names(inbox) == []
    assert b"\rMSA|AA|PANEL-0001" in (inbox.parent / "out" / "results.hl7.ack").read_bytes()
    await lab.process()
    assert await lab.result_events() == [("received", 1, "final")]


async def test_a_file_that_still_grows_is_left(lab: Laboratory, inbox: Path, watcher, sample) -> None:
    file, content = inbox / "results.hl7", sample("panel")
    for end in (10, 100, len(content)):
        file.write_bytes(content[:end])
        assert await watcher.look() == 0
    assert await watcher.look() == 1
    [row] = await lab.rows(intake_table)
    assert row["body"] == content.rstrip(b"\r")


@pytest.mark.parametrize("name", [".hidden", "results.hl7.part", "results.tmp"])
async def test_drafts_are_left(lab: Laboratory, inbox: Path, watcher, sample, name) -> None:
    (inbox / name).write_bytes(sample("panel"))
    assert [await watcher.look(), await watcher.look()] == [0, 0]


async def test_links_and_folders_of_strangers_are_left(
    lab: Laboratory, inbox: Path, watcher, sample, tmp_path
) -> None:
    elsewhere = tmp_path / "elsewhere.hl7"
    elsewhere.write_bytes(sample("panel"))
    (inbox / "link.hl7").symlink_to(elsewhere)
    stranger = tmp_path / "nobody" / "in"
    stranger.mkdir(parents=True)
    (stranger / "results.hl7").write_bytes(sample("panel"))
    assert [await watcher.look(), await watcher.look()] == [0, 0]
    assert names(stranger) == ["results.hl7"]


async def test_what_is_no_message_is_put_aside_with_the_reason(lab: Laboratory, inbox: Path, watcher) -> None:
    (inbox / "report.pdf").write_bytes(b"%PDF-1.7")
    assert [await watcher.look(), await watcher.look()] == [0, 1]
    assert (names(inbox), names(inbox.parent / "refused")) == ([], ["report.pdf"])
    assert (inbox.parent / "out" / "report.pdf.refused.txt").read_text() == "The body is no HL7 v2 message\n"


async def test_a_batch_file_is_answered_by_a_batch_and_again_by_the_same(
    lab: Laboratory, inbox: Path, watcher, samples
) -> None:
    batch = (samples / "answers" / "file.hl7").read_bytes()
    answers = []
    for _ in range(2):
        (inbox / "batch.hl7").write_bytes(batch)
        assert [await watcher.look(), await watcher.look()] == [0, 1]
        answers.append((inbox.parent / "out" / "batch.hl7.ack").read_bytes())
    assert answers[0].startswith(b"FHS|")
    assert answers[0] == answers[1]
    await lab.process()
    assert await lab.dispositions() == {"answered": 2, "parked": 1, "duplicate": 1}
