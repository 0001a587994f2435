"""The commands as a user types them: results, refusals in one sentence with exit code 2, batches, shards."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DarkIsAirway
from source_tree import ROOT

from AirwaySegLib.__main__ import main
from AirwaySegLib.arguments import Parser
from AirwaySegLib.commands import measure as measuring
from AirwaySegLib.commands import segment as batches
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import from_canonical, read_ct, to_canonical
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.networks.weights import ModelInfo, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.pipeline import Airways
from AirwaySegLib.repair.repair import Repaired, RepairModel
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.hand_names import FORMAT, HandName, names_to_json, points_on
from AirwaySegLib.tree.suspect import suspects_from_json

TREE = ROOT


@pytest.fixture
def a_ct(a_chest, a_quiet_chest, tmp_path) -> Path:
    """The drawn chest as a NIfTI file with an origin and an oblique direction."""
    image = sitk.GetImageFromArray(a_quiet_chest)
    image.SetSpacing(tuple(reversed(a_chest.spacing_mm)))
    image.SetOrigin((-120.0, 33.0, 500.0))
    turn = np.radians(7)
    image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    path = tmp_path / "chest.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def some_weights(tmp_path) -> Path:
    """Untrained weights that take any spacing."""
    path = tmp_path / "some.safetensors"
    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    save_weights(path, WingsNet(), ModelInfo(name="some", patch_zyx=(64, 64, 64), **wide))
    return path


@pytest.fixture
def a_trained_network(monkeypatch):
    """Every model that is loaded looks for dark voxels."""
    load = batches.load_model

    def load_dark(name: str):
        model = load(name)
        model.backend, model.repair_model = DarkIsAirway(), RepairModel("path", 0.5)
        return model

    monkeypatch.setattr(batches, "load_model", load_dark)


def _segment(*arguments: object) -> int:
    return main(["segment", *map(str, arguments), "--progress", "none"])


def test_a_ct_gives_its_files_on_its_own_grid(a_ct, some_weights, a_trained_network, a_chest, tmp_path, capsys):
    result = tmp_path / "result"
    assert _segment(a_ct, "-o", result, "--weights", some_weights) == 0
    assert {path.name for path in result.iterdir()} == {*batches.FILES, *measuring.FILES, measuring.WALL_PLOT}
    ct, mask = sitk.ReadImage(str(a_ct)), sitk.ReadImage(str(result / "airways.nrrd"))
    probability = sitk.ReadImage(str(result / "probability.nrrd"))
    for image in (mask, probability):
        assert image.GetPixelID() == sitk.sitkUInt8 and image.GetSize() == ct.GetSize()
        assert np.allclose(image.GetOrigin(), ct.GetOrigin()) and np.allclose(image.GetSpacing(), ct.GetSpacing())
        assert np.allclose(image.GetDirection(), ct.GetDirection())
    found, expected = sitk.GetArrayFromImage(mask) > 0, a_chest.trachea | a_chest.bronchi
    origin = sitk.GetArrayFromImage(sitk.ReadImage(str(result / "origin.nrrd")))
    assert np.array_equal(origin > 0, found) and (origin == 1).sum() > 0.5 * found.sum()
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    report = json.loads((result / "report.json").read_text())
    assert report["model"]["name"] == "some" and len(report["model"]["sha256"]) == 64
    assert report["settings"]["overlap"] == 0.25 and report["result"]["voxels"] == found.sum()
    assert {"read", "prepare", "infer", "select", "write", "measure"} <= set(report["seconds"])
    assert "preview.png" in capsys.readouterr().out
    tree = AirwayTree.from_json((result / "tree.json").read_text())
    assert report["decisions"]["branches"] == len(tree.main()) >= 3
    assert tree.branches[0].name == "trachea" and tree.branches[0].mean_diameter_mm == pytest.approx(18, abs=1.5)


def test_names_by_hand_are_in_the_tree_and_belong_to_one_ct(a_ct, some_weights, a_trained_network, tmp_path, capsys):
    result, names = tmp_path / "result", tmp_path / "names.json"
    options = ["-o", result, "--weights", some_weights, "--names", names]
    names.write_text(json.dumps({"format": FORMAT, "names": [{"points_mm": [[0, 0, 900]], "generation": 1}]}))
    assert _segment(a_ct, *options) == 0
    tree = AirwayTree.from_json((result / "tree.json").read_text())
    assert any("generation 1 at (0.0, 0.0, 900.0)" in warning for warning in tree.warnings)
    main_bronchus = next(branch for branch in tree.main() if branch.name == "right main bronchus")
    given = HandName(points_on(main_bronchus), lobe="right upper lobe", generation=4)
    names.write_text(names_to_json([given]))
    assert _segment(a_ct, *options, "--force") == 0
    again = AirwayTree.from_json((result / "tree.json").read_text()).branch(main_bronchus.id)
    assert (again.lobe, again.generation, again.given) == ("right upper lobe", 4, "lobe and generation")
    capsys.readouterr()
    assert _segment(a_ct, a_ct, *options) == 2 and "the tree of one CT" in capsys.readouterr().err
    names.write_text("{}")
    assert _segment(a_ct, *options, "--force") == 2 and str(names) in capsys.readouterr().err


def test_measuring_can_be_left_out(a_ct, some_weights, a_trained_network, tmp_path):
    result = tmp_path / "result"
    assert _segment(a_ct, "-o", result, "--weights", some_weights, "--no-measure") == 0
    assert {path.name for path in result.iterdir()} == set(batches.FILES)


def test_with_voxels_a_mask_that_cannot_be_measured_is_kept_and_the_report_says_why(
    a_ct, some_weights, a_trained_network, tmp_path, monkeypatch, capsys
):
    def fail(*_arguments):
        raise AirwaySegError("The mask falls into too many branches.")

    monkeypatch.setattr(measuring, "suspects_of", fail)
    result = tmp_path / "result"
    assert _segment(a_ct, "-o", result, "--weights", some_weights) == 2
    assert not result.exists() and "too many branches" in capsys.readouterr().err
    assert _segment(a_ct, "-o", result, "--weights", some_weights, "--voxels") == 0
    assert {path.name for path in result.iterdir()} == set(batches.FILES)
    decisions = json.loads((result / "report.json").read_text())["decisions"]
    assert decisions["not_measured"] == "The mask falls into too many branches."


def test_where_no_airway_is_found_nothing_is_measured_and_the_report_says_so(
    a_ct, some_weights, a_trained_network, tmp_path, monkeypatch
):
    def nothing(volume, *_):
        return Airways(np.zeros(volume.array.shape, bool), np.zeros(volume.array.shape, np.uint8))

    monkeypatch.setattr(batches, "segment", nothing)
    result = tmp_path / "result"
    result.mkdir()
    (result / measuring.TREE).write_text("of the mask before")
    assert _segment(a_ct, "-o", result, "--weights", some_weights, "--force") == 0
    assert {path.name for path in result.iterdir()} == set(batches.FILES)
    assert "nothing was measured" in " ".join(json.loads((result / "report.json").read_text())["warnings"])


def test_certain_pieces_stand_in_their_file_in_the_report_and_at_the_top_of_the_suspects(
    a_ct, some_weights, a_trained_network, tmp_path, monkeypatch
):
    whole = batches.segment

    def without_repair(volume, *others):
        found = whole(volume, *others)
        mask = to_canonical(replace(volume, array=found.mask))
        broken = mask.array.copy()
        low = int(np.flatnonzero(broken.any(axis=(1, 2)))[0])
        broken[low + 8 : low + 12] = False
        labels = label_components(broken)
        repaired = Repaired(replace(mask, array=labels), np.zeros(3, np.int32), [])
        return replace(found, mask=from_canonical(labels == 1, volume), repaired=repaired)

    monkeypatch.setattr(batches, "segment", without_repair)
    result = tmp_path / "result"
    assert _segment(a_ct, "-o", result, "--weights", some_weights) == 0
    numbers = sitk.GetArrayFromImage(sitk.ReadImage(str(result / "unconnected.nrrd")))
    unconnected = json.loads((result / "report.json").read_text())["decisions"]["unconnected"]
    pieces = [one for one in suspects_from_json((result / "suspects.json").read_text()) if "piece" in one.facts]
    assert unconnected["pieces"] == len(pieces) == len(np.unique(numbers)) - 1 > 0
    assert {int(one.facts["piece"]) for one in pieces} == set(np.unique(numbers)) - {0}
    assert json.loads((result / "suspects.json").read_text())["suspects"][0]["kind"] == "unconnected piece"
    origin = np.array(sitk.ReadImage(str(a_ct)).GetOrigin())
    image = sitk.ReadImage(str(result / "unconnected.nrrd"))
    assert np.allclose(image.GetOrigin(), origin)
    for one in pieces:
        voxel = image.TransformPhysicalPointToIndex(one.place_mm)
        near = tuple(slice(max(0, index - 2), index + 3) for index in voxel[::-1])
        assert (numbers[near] == one.facts["piece"]).any()


def test_results_are_replaced_only_by_force(a_ct, some_weights, a_trained_network, tmp_path, capsys):
    arguments = (a_ct, "-o", tmp_path / "result", "--weights", some_weights)
    assert _segment(*arguments) == 0
    before = (tmp_path / "result" / "report.json").stat().st_mtime_ns
    assert _segment(*arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "result" / "report.json").stat().st_mtime_ns == before
    assert _segment(*arguments, "--force") == 0
    assert (tmp_path / "result" / "report.json").stat().st_mtime_ns > before


def test_progress_as_json_lines_ends_with_the_result(a_ct, some_weights, a_trained_network, tmp_path, capsys):
    code = main(["segment", str(a_ct), "-o", str(tmp_path / "r"), "--weights", str(some_weights), "--progress", "json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0 and lines[-1] == {"result": str(tmp_path / "r")}
    stages = [line["stage"] for line in lines[:-1]]
    assert list(dict.fromkeys(stages)) == ["read", "prepare", "infer", "select", "repair", "write", "measure"]
    windows = [line for line in lines if line.get("stage") == "infer"]
    assert windows[-1]["done"] == windows[-1]["total"] > 1 and windows[-1]["seconds_left"] == 0


def test_in_a_batch_a_failing_case_does_not_stop_the_others(
    a_ct, some_weights, a_trained_network, tmp_path, capsys, caplog
):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(a_ct.read_bytes()[:2000])
    code = _segment(broken, a_ct, "-o", tmp_path / "out", "--weights", some_weights)
    assert code == 2
    assert (tmp_path / "out" / "chest" / "report.json").exists()
    assert not (tmp_path / "out" / "broken").exists()
    assert "broken.nii.gz" in caplog.text and "1 of 2 inputs failed" in caplog.text


@pytest.fixture
def a_finished_batch(a_ct, some_weights, a_trained_network, tmp_path) -> list[object]:
    """The arguments of a batch of two CTs that is done."""
    shutil.copy(a_ct, tmp_path / "second.nii.gz")
    arguments = [a_ct, tmp_path / "second.nii.gz", "-o", tmp_path / "out", "--weights", some_weights, "--no-measure"]
    assert _segment(*arguments) == 0
    return arguments


def _times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/report.json")}


def test_a_batch_that_is_run_again_does_only_what_is_not_done(a_finished_batch, tmp_path, caplog, capsys):
    before = _times(tmp_path / "out")
    capsys.readouterr()
    assert _segment(*a_finished_batch) == 0
    assert _times(tmp_path / "out") == before
    assert "2 of 2 were already done; --force repeats them." in caplog.text
    assert str(tmp_path / "out" / "chest" / "airways.nrrd") in capsys.readouterr().out.splitlines()
    shutil.rmtree(tmp_path / "out" / "second")
    caplog.clear()
    assert _segment(*a_finished_batch) == 0
    after = _times(tmp_path / "out")
    assert after["chest"] == before["chest"] and after["second"] > before["second"]
    assert "1 of 2 were already done" in caplog.text
    assert _segment(*a_finished_batch, "--force") == 0
    assert min(_times(tmp_path / "out").values()) > after["second"]


@pytest.mark.parametrize(
    "options",
    [("--overlap", "0.5"), ("--threshold", "0.3"), ("--repair", "none")],
)
def test_a_result_of_other_settings_is_not_taken_for_done(a_finished_batch, tmp_path, caplog, options):
    before = _times(tmp_path / "out")
    assert _segment(*a_finished_batch, *options) == 2
    assert "chest holds a result that differs in its settings" in caplog.text and "2 of 2 inputs failed" in caplog.text
    assert _times(tmp_path / "out") == before


def test_a_result_of_another_ct_or_other_weights_or_a_part_is_not_taken_for_done(a_finished_batch, tmp_path, caplog):
    other = sitk.ReadImage(str(tmp_path / "second.nii.gz"))
    sitk.WriteImage(other + 1, str(tmp_path / "second.nii.gz"))
    assert _segment(*a_finished_batch) == 2
    assert "second holds a result that differs in its CT; use --force to replace it." in caplog.text
    assert "1 of 2 were already done" in caplog.text and "1 of 2 inputs failed" in caplog.text
    (tmp_path / "out" / "chest" / "preview.png").unlink()
    assert _segment(*a_finished_batch) == 2
    assert "chest holds a result without preview.png" in caplog.text
    (tmp_path / "out" / "chest" / "report.json").write_text("[" * 100_000)
    assert _segment(*a_finished_batch) == 2
    assert "chest/report.json is not the report of a result" in caplog.text.replace(os.sep, "/")
    wide = {"spacing_mm_min": (0.1, 0.1, 0.1), "spacing_mm_max": (9.0, 9.0, 9.0)}
    info = ModelInfo(name="other", patch_zyx=(64, 64, 64), **wide)
    save_weights(tmp_path / "some.safetensors", WingsNet(), info, force=True)
    assert _segment(*a_finished_batch) == 2
    assert "differs in its weights and CT" in caplog.text


def test_finished_results_are_left_as_they_are_if_that_is_wished(a_finished_batch, a_ct, tmp_path, caplog):
    before = _times(tmp_path / "out")
    assert _segment(*a_finished_batch, "--overlap", "0.5", "--skip-finished") == 0
    assert _times(tmp_path / "out") == before and "2 of 2 were already done" in caplog.text
    assert "chest holds a result that differs in its settings. It was kept." in caplog.text
    alone = [a_ct, *a_finished_batch[2:], "--skip-finished"]
    alone[alone.index("-o") + 1] = tmp_path / "out" / "chest"
    assert _segment(*alone) == 0 and _times(tmp_path / "out") == before


def test_a_result_without_measurement_is_not_taken_for_a_measured_one(a_finished_batch, caplog):
    assert _segment(*a_finished_batch[:-1]) == 2
    assert "holds a result without branches.csv" in caplog.text and "2 of 2 inputs failed" in caplog.text


def test_the_same_ct_from_a_folder_of_dicom_is_known_by_its_voxels(a_finished_batch, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(batches, "file_sha256", lambda path: None)  # as for a folder
    assert _segment(*a_finished_batch) == 0
    assert "2 of 2 were already done" in caplog.text
    other = sitk.ReadImage(str(tmp_path / "second.nii.gz"))
    sitk.WriteImage(other + 1, str(tmp_path / "second.nii.gz"))
    assert _segment(*a_finished_batch) == 2
    assert "second holds a result that differs in its CT" in caplog.text


@pytest.mark.parametrize("command", ["segment", "repair", "measure", "evaluate"])
def test_a_second_run_into_the_same_place_is_refused(a_ct, some_weights, tmp_path, command, capsys):
    place = tmp_path / "out" / "result"
    arguments = {
        "segment": ["segment", a_ct, "-o", place, "--weights", some_weights],
        "repair": ["repair", a_ct, "-o", place],
        "measure": ["measure", a_ct, "-o", place],
        "evaluate": ["evaluate", a_ct, a_ct, "--csv", place],
    }
    hold = (
        "import sys; from pathlib import Path; from AirwaySegLib.files.folder_lock import locked\n"
        "with locked(Path(sys.argv[1]), 'airwayseg segment'):\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE / "AirwaySeg")},
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert main([str(argument) for argument in arguments[command]] + ["--progress", "none"]) == 2
        assert f"{place} is in use by airwayseg segment (process {other.pid} on " in capsys.readouterr().err
        other.communicate("")
    assert not (tmp_path / "out").exists()


def test_any_other_error_in_a_case_is_one_sentence_and_the_others_go_on(
    a_ct, some_weights, a_trained_network, tmp_path, monkeypatch, caplog
):
    run_case = batches.run_case

    def run_or_break(path: Path, *arguments: object) -> None:
        if path.name == "other.nii.gz":
            raise RuntimeError("first line\nsecond line")
        run_case(path, *arguments)

    monkeypatch.setattr(batches, "run_case", run_or_break)
    assert _segment(tmp_path / "other.nii.gz", a_ct, "-o", tmp_path / "out", "--weights", some_weights) == 2
    assert (tmp_path / "out" / "chest" / "report.json").exists()
    assert "unexpected RuntimeError: first line" in caplog.text and "second line" not in caplog.text


def test_shards_share_the_inputs_out():
    inputs = [Path(f"ct{k}.nii") for k in range(5)]
    taken = [
        [path.name for path, _ in batches.result_folders(batches.Batch(inputs, Path("out"), shard=f"{k}/2"))]
        for k in (1, 2)
    ]
    assert taken == [["ct0.nii", "ct2.nii", "ct4.nii"], ["ct1.nii", "ct3.nii"]]
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0", "²/4", "1/٤", "+1/4", "1 / 4", "1/4\n", "1/" + "9" * 5000):
        with pytest.raises(AirwaySegError, match="shard"):
            batches.parse_shard(wrong)


def test_inputs_of_one_name_get_their_folders_name_or_are_refused():
    batch = batches.Batch([Path("a/ct.nrrd"), Path("b/ct.nrrd")], Path("out"))
    assert [folder.name for _, folder in batches.result_folders(batch)] == ["a_ct", "b_ct"]
    deep = [Path("a/anat/ct.nrrd"), Path("b/anat/ct.nrrd"), Path("b/anat/other.nrrd")]
    names = [folder.name for _, folder in batches.result_folders(batches.Batch(deep, Path("out")))]
    assert names == ["a_anat_ct", "b_anat_ct", "b_anat_other"]
    with pytest.raises(AirwaySegError, match="Several inputs are called ct"):
        batches.result_folders(batches.Batch([Path("a/ct.nrrd"), Path("a/ct.nii")], Path("out")))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_into_one_store_get_the_names_of_their_own_folders(tmp_path):
    links = []
    (tmp_path / "store").mkdir()
    for subject in ("sub-01", "sub-02"):
        (tmp_path / "store" / f"MD5E-{subject}.nii.gz").touch()
        (tmp_path / subject).mkdir()
        links.append(tmp_path / subject / "anat.nii.gz")
        links[-1].symlink_to(tmp_path / "store" / f"MD5E-{subject}.nii.gz")
    names = [folder.name for _, folder in batches.result_folders(batches.Batch(links, tmp_path / "out"))]
    assert names == ["sub-01_anat", "sub-02_anat"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--overlap", "0.9"], "overlap is 0.9"),
        (["--threshold", "1.5"], "threshold is 1.5"),
        (["--weights", "nobody"], "Unknown weights 'nobody'"),
        (["--shard", "5/2"], "shard '5/2'"),
        (["--repair-threshold", "2"], "repair_threshold is 2"),
        (["--repair", "network", "--repair-weights", "nobody"], "Unknown weights 'nobody'"),
    ],
)
def test_wrong_options_are_one_sentence(a_ct, tmp_path, options, sentence, capsys):
    assert _segment(a_ct, "-o", tmp_path / "result", *options) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "result").exists()


def test_what_is_no_ct_is_one_sentence(some_weights, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    for wrong in ("missing.nii", "notes.txt", "empty"):
        assert _segment(tmp_path / wrong, "-o", tmp_path / "result", "--weights", some_weights) == 2
        error = capsys.readouterr().err
        assert wrong in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and SIGTERM")
@pytest.mark.parametrize(("kind", "stage"), [("SIGKILL", "infer"), ("SIGKILL", "write"), ("SIGTERM", "infer")])
def test_a_killed_run_leaves_no_result(a_ct, some_weights, tmp_path, kind, stage):
    child = subprocess.Popen(
        [sys.executable, "-m", "AirwaySegLib", "segment", a_ct, "-o", tmp_path / "out" / "result"]
        + ["--weights", some_weights, "--progress", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TREE / "AirwaySeg")},
    )
    assert child.stdout is not None and child.stderr is not None
    for line in child.stdout:
        progress = json.loads(line)
        if progress.get("stage") == stage and (stage == "infer" or progress["done"] == 1):
            break
    child.send_signal(getattr(signal, kind))
    _, error = child.communicate(timeout=300)
    assert child.returncode == {"SIGKILL": -9, "SIGTERM": 130}[kind]
    assert not (tmp_path / "out" / "result").exists()
    if kind == "SIGTERM":
        assert "cancelled; no unfinished result was written" in error


def test_a_ct_is_read_as_simpleitk_reads_it(a_ct):
    volume, _ = read_ct(a_ct)
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(sitk.ReadImage(str(a_ct))))


@pytest.mark.parametrize("path", ["", "\0"])
@pytest.mark.parametrize("command", [["measure", "mask.nrrd", "-o"], ["segment"], ["weights", "import"]])
def test_what_is_no_path_is_refused_and_an_empty_one_is_not_the_present_folder(
    tmp_path, monkeypatch, command, path, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_code:
        main([*command, path])
    assert exit_code.value.code == 2 and f"{path!r} is not a valid path" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["measure"], ["repair", "mask.nrrd", "-o"], ["evaluate", "mask.nrrd"], ["weights", "show"]]
)
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.nrrd").write_text("")
    arguments = [*command, "x" * 5000] + (["-o", "result"] if command == ["measure"] else [])
    arguments += ["--progress", "none"] if command[0] != "weights" else []
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "name too long" in error and "unexpected" not in error and error.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_itself_in_a_batch_does_not_stop_the_others(a_ct, some_weights, a_trained_network, tmp_path, caplog):
    (tmp_path / "loop").symlink_to("loop")
    arguments = (a_ct, tmp_path / "loop", "-o", tmp_path / "out", "--weights", some_weights, "--no-measure")
    assert _segment(*arguments) == 2
    assert (tmp_path / "out" / "chest" / "report.json").exists()
    assert "1 of 2 inputs failed" in caplog.text and "unexpected" not in caplog.text


def test_a_point_may_begin_with_a_minus():
    parser = Parser()
    parser.add_argument("--at", action="append")
    assert parser.parse_args(["--at", "-32.5,-1,2", "--at", "-.5,1,2"]).at == ["-32.5,-1,2", "-.5,1,2"]
