"""A checkpoint is whole or not used: what is wrong with it is named, and the one before it is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adpsgd_node.checkpoint.manifest import MANIFEST_FILE, MODEL_FILE, TRAINER_FILE, encode_manifest
from adpsgd_node.checkpoint.plane_file import load_model
from adpsgd_node.checkpoint.store import Store
from adpsgd_node.errors import CheckpointError, ConfigError
from adpsgd_node.ids import SchemaHash
from support.checkpoints import LAYOUT, RUN, Crash, CrashingDisk, flip, manifest_of, plane_of, usable, write

FILES = (MODEL_FILE, TRAINER_FILE, MANIFEST_FILE)
NO_JSON = "it is torn or damaged: no whole JSON text"
WRONG_DIGEST = "it is damaged: its digest does not match its content"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "checkpoints", keep=3)
    store.open()
    return store


@pytest.fixture
def two(store: Store) -> Store:
    """Two checkpoints: 000001 and, newer, 000002."""
    write(store, plane_of(1.0), manifest_of(100))
    write(store, plane_of(2.0), manifest_of(200))
    return store


def assert_falls_back(store: Store, file: Path, reason: str) -> None:
    found, refused = usable(store)
    assert [checkpoint.path.name for checkpoint in found] == ["000001"]
    (message,) = refused
    assert str(file) in message
    assert reason in message


def test_what_is_written_comes_back(two: Store) -> None:
    found, refused = usable(two)
    assert [checkpoint.path.name for checkpoint in found] == ["000002", "000001"]
    assert refused == []
    newest = found[0]
    assert newest.manifest.standing == manifest_of(200).standing
    assert newest.manifest.progress == manifest_of(200).progress
    assert newest.manifest.members == manifest_of(200).members
    assert newest.trainer is not None
    assert newest.trainer.read_bytes() == b"optimizer"
    expected, live = plane_of(2.0).live, np.zeros(LAYOUT.elements, np.float32)
    load_model(newest.model, LAYOUT, live)
    assert np.array_equal(live, expected)
    assert newest.size_bytes == sum((newest.path / name).stat().st_size for name in (MODEL_FILE, TRAINER_FILE))


def test_the_model_can_be_read_by_others(two: Store) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(two.paths()[0] / MODEL_FILE)
    assert {name: value.shape for name, value in tensors.items()} == {
        spec.spec.name: spec.spec.shape for spec in LAYOUT.placements
    }
    assert tensors["weight"].tolist() == (2 + np.arange(35, dtype=np.float32)).reshape(5, 7).tolist()


def test_a_delta_that_the_trainer_has_not_folded_is_in_the_model(store: Store) -> None:
    plane = plane_of(1.0)
    for chunk, (start, stop) in enumerate(LAYOUT.chunks):
        plane.add_to_inbox(chunk, np.full(stop - start, 0.5, np.float32))
    checkpoint = write(store, plane, manifest_of())
    live = np.zeros(LAYOUT.elements, np.float32)
    load_model(checkpoint.model, LAYOUT, live)
    for placement in LAYOUT.placements:
        assert np.array_equal(
            live[placement.start : placement.stop], plane.live[placement.start : placement.stop] + 0.5
        )


@pytest.mark.parametrize("name", [MODEL_FILE, TRAINER_FILE])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.9])
def test_a_flipped_bit_is_found_whatever_file_it_is_in(two: Store, name: str, where: float) -> None:
    file = two.paths()[0] / name
    flip(file, int(where * file.stat().st_size))
    assert_falls_back(two, file, "it is damaged: its SHA-256 is not the one in the manifest")


@pytest.mark.parametrize(("where", "reason"), [(0.0, NO_JSON), (0.3, WRONG_DIGEST), (0.9, WRONG_DIGEST)])
def test_a_flipped_bit_of_a_manifest_is_found(two: Store, where: float, reason: str) -> None:
    file = two.paths()[0] / MANIFEST_FILE
    flip(file, int(where * file.stat().st_size))
    assert_falls_back(two, file, reason)


def test_every_single_flipped_byte_of_a_manifest_is_found(two: Store) -> None:
    file = two.paths()[0] / MANIFEST_FILE
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole)
        flip(file, at)
        found, refused = usable(two)
        assert [checkpoint.path.name for checkpoint in found] == ["000001"], f"byte {at}"
        assert len(refused) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(two: Store, name: str) -> None:
    file = two.paths()[0] / name
    file.unlink()
    assert_falls_back(two, file, "No such file")


@pytest.mark.parametrize("name", [MODEL_FILE, TRAINER_FILE])
def test_a_torn_file_is_named(two: Store, name: str) -> None:
    file = two.paths()[0] / name
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    assert_falls_back(two, file, f"it is torn: {size // 2} bytes of {size}")


@pytest.mark.parametrize(("kept", "reason"), [(0, NO_JSON), (1, NO_JSON), (40, NO_JSON), (-1, WRONG_DIGEST)])
def test_a_torn_manifest_is_named(two: Store, kept: int, reason: str) -> None:
    file = two.paths()[0] / MANIFEST_FILE
    file.write_bytes(file.read_bytes()[:kept])
    assert_falls_back(two, file, reason)


def test_a_later_version_is_refused_and_says_what_to_use(two: Store) -> None:
    file = two.paths()[0] / MANIFEST_FILE
    file.write_bytes(file.read_bytes().replace(b'"version": 1', b'"version": 2'))
    assert_falls_back(two, file, "its format version is 2, this program reads up to 1")


def test_a_checkpoint_of_another_run_is_refused(two: Store) -> None:
    checkpoint = write(two, plane_of(3.0), manifest_of(300, run="other"))
    found, refused = usable(two)
    assert [c.path.name for c in found] == ["000002", "000001"]
    assert refused == [f"{checkpoint.path / MANIFEST_FILE}: it is of the run 'other', this is 'run'"]


def test_a_checkpoint_of_another_model_is_refused(two: Store) -> None:
    checkpoint = write(two, plane_of(3.0), manifest_of(300, schema=SchemaHash(bytes(32))))
    found, refused = usable(two)
    assert [c.path.name for c in found] == ["000002", "000001"]
    (message,) = refused
    assert str(checkpoint.path / MANIFEST_FILE) in message
    assert "another model (schema 000000000000" in message
    assert len(usable(two, schema=None)[0]) == 3, "before the model is known nothing speaks against it"


def test_a_manifest_cannot_name_files_elsewhere(two: Store) -> None:
    path = two.paths()[0]
    manifest = usable(two)[0][0].manifest
    secret = path.parent / "secret"
    secret.write_bytes(b"x")
    for name in ("../secret", str(secret)):
        lines = encode_manifest(manifest).replace(TRAINER_FILE.encode(), name.encode())
        (path / MANIFEST_FILE).write_bytes(lines)
        assert_falls_back(two, path / MANIFEST_FILE, "no checkpoint of this version has")


def test_a_manifest_without_a_model_is_refused(two: Store) -> None:
    draft = two.draft()
    checkpoint = draft.commit(manifest_of(300))
    assert usable(two)[1] == [f"{checkpoint.path / MANIFEST_FILE}: it lists no {MODEL_FILE}"]


def test_all_are_refused_when_all_are_damaged(two: Store) -> None:
    for path in two.paths():
        flip(path / MODEL_FILE, 200)
    assert usable(two)[0] == []
    assert len(usable(two)[1]) == 2


def test_only_the_newest_are_kept_and_those_of_other_runs_stay(store: Store) -> None:
    other = write(store, plane_of(0.0), manifest_of(1, run="other"))
    for number in range(5):
        write(store, plane_of(number), manifest_of(100 * number))
        store.prune(RUN)
    assert [path.name for path in store.paths()] == ["000006", "000005", "000004", other.path.name]


def test_the_newest_part_of_a_trainer_outlives_checkpoints_written_without_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "checkpoints", keep=2)
    store.open()
    for number in range(1, 7):
        write(store, plane_of(number), manifest_of(100 * number), trainer=b"optimizer" if number < 3 else None)
        store.prune(RUN)
    assert [path.name for path in store.paths()] == ["000006", "000002"]
    write(store, plane_of(7.0), manifest_of(700))
    store.prune(RUN)
    assert [path.name for path in store.paths()] == ["000007", "000006"]


def test_a_damaged_checkpoint_takes_no_whole_ones_place(two: Store) -> None:
    store = Store(two.folder, keep=1)
    (two.paths()[0] / MANIFEST_FILE).unlink()
    assert [path.name for path in store.prune(RUN)] == []
    assert [c.path.name for c in usable(two)[0]] == ["000001"]


def test_numbers_grow_beyond_six_digits_in_order(store: Store) -> None:
    first = write(store, plane_of(1.0), manifest_of(100))
    first.path.rename(store.folder / "999999")
    write(store, plane_of(2.0), manifest_of(200))
    assert [path.name for path in store.paths()] == ["1000000", "999999"]


def test_an_abandoned_draft_is_removed_at_the_next_start(two: Store) -> None:
    draft = two.draft()
    draft.create(MODEL_FILE).write([b"half"])
    (two.trainer_folder / "state-9.pt").write_bytes(b"left behind")
    two.close()
    again = Store(two.folder, keep=3)
    (removed,) = again.open()
    assert not removed.exists()
    assert list(again.trainer_folder.iterdir()) == []
    assert len(usable(again)[0]) == 2


def test_a_discarded_draft_leaves_nothing(two: Store) -> None:
    before = sorted(two.folder.iterdir())
    draft = two.draft()
    draft.create(MODEL_FILE).write([b"half"])
    draft.discard()
    assert sorted(two.folder.iterdir()) == before


def test_a_folder_in_use_by_another_node_is_refused(two: Store) -> None:
    with pytest.raises(ConfigError, match="another node writes there"):
        Store(two.folder, keep=3).open()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--checkpoints"):
        Store(tmp_path / "file" / "checkpoints", keep=3).open()


def test_a_model_that_is_not_finite_is_not_kept(store: Store) -> None:
    plane = plane_of(1.0)
    plane.live[3] = np.nan
    with pytest.raises(CheckpointError, match="chunk 0 of this node's parameters is not finite"):
        write(store, plane, manifest_of())


def test_a_crash_between_any_two_operations_leaves_one_checkpoint_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = CrashingDisk(monkeypatch)

    def attempt(folder: Path) -> Store:
        store = Store(folder, keep=1)
        store.open()
        write(store, plane_of(1.0), manifest_of(100))
        disk.done.clear()
        disk.crash_at = attempted
        try:
            write(store, plane_of(2.0), manifest_of(200))
            store.prune(RUN)
        finally:
            disk.crash_at = None
            store.close()  # as the kernel does for a process that is gone
        return store

    attempted: int | None = None
    attempt(tmp_path / "whole")
    operations = list(disk.done)
    assert operations.count("sync_folder") == 2
    assert "remove_folder" in operations
    seen = set()
    for attempted in range(len(operations)):
        folder = tmp_path / str(attempted)
        with pytest.raises(Crash):
            attempt(folder)
        store = Store(folder, keep=1)
        store.open()
        found, refused = usable(store)
        assert refused == [], operations[attempted]
        assert not [path for path in folder.iterdir() if path.name.startswith(".tmp-")]
        live = np.zeros(LAYOUT.elements, np.float32)
        load_model(found[0].model, LAYOUT, live)
        assert live[0] in (1.0, 2.0)
        assert found[0].manifest.samples == 100 * live[0]
        seen.add(float(live[0]))
        write(store, plane_of(3.0), manifest_of(300))
        assert usable(store)[0][0].manifest.samples == 300
        store.close()
    assert seen == {1.0, 2.0}
