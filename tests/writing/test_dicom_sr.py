"""The measures as DICOM SR, read back by pydicom and highdicom, and by DCMTK's dsrdump where that is installed."""

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from series_files import write_series

from ravnet_bundle import segment
from ravnet_bundle.scripts.phantom import make_phantom


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sr")
    phantom = make_phantom(seed=2, shape=(52, 48, 18), spacing=(7, 7, 12), axcodes="LPS")
    write_series(phantom.image, phantom.affine, folder / "ct")
    outcomes = [segment(folder / "ct", folder / name, fast=True, sr=True)[0] for name in ("one", "two")]
    return [folder / name / outcome.name for name, outcome in zip(("one", "two"), outcomes)], outcomes[0]


def test_the_report_holds_volume_uncertainty_hu_and_verdict_and_refers_to_the_seg(written):
    (folder, again), outcome = written
    report, seg = hd.sr.srread(folder / "liver.sr.dcm"), pydicom.dcmread(folder / "liver.seg.dcm")
    assert (report.StudyInstanceUID, report.PatientID) == (seg.StudyInstanceUID, seg.PatientID)
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    found = {
        (item.name.meaning, item.derivation.meaning if item.derivation else None): (item.value, item.unit.value)
        for item in group.get_measurements()
    }
    assert found["Volume", None] == (pytest.approx(outcome.volume_ml, rel=1e-4), "mL")
    assert found["Volume", "Standard Deviation"][0] > 0
    assert -200 < found["Attenuation Coefficient", "Mean"][0] < 300
    assert found["Attenuation Coefficient", "Mean"][1] == "[hnsf'U]"
    (evaluation,) = group.get_qualitative_evaluations()
    assert evaluation.value.value == outcome.verdict
    words = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert any(all(reason in word for reason in outcome.reasons) and "research" in word for word in words)
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert (folder / "liver.sr.dcm").read_bytes() == (again / "liver.sr.dcm").read_bytes()
    assert "liver.sr.dcm" in (folder / "manifest.json").read_text()


def test_dcmtk_reads_the_report(written):
    if not (dump := shutil.which("dsrdump")):
        pytest.skip("no dsrdump: install dcmtk")
    ended = subprocess.run([dump, Path(written[0][0], "liver.sr.dcm")], capture_output=True, text=True)
    assert ended.returncode == 0 and "Imaging Measurement Report" in ended.stdout
    assert not [line for line in ended.stderr.splitlines() if line.startswith(("E:", "F:"))]


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy, of Debian's dicom3tools, is not installed")
def test_dciodvfy_finds_no_error_in_the_report(written):
    said = subprocess.run(["dciodvfy", written[0][0] / "liver.sr.dcm"], capture_output=True, text=True).stderr
    assert "SR" in said and "Error" not in said, said
