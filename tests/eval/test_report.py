"""The pages of measurements: well formed, complete, and true to what was measured."""

import json
import os
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import python

from mfik.data import OnlineSource
from mfik.eval import make_targets, run_protocol, write_report
from mfik.export import NATIVE_FILE, document, write_native
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.report import Page
from mfik.robots import Robot
from mfik.solve import Seed, Solver, Status
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, plot_run

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "source"}


class Reader(HTMLParser):
    """Collects a page's text, pictures, table rows and anchors; every tag has to be closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.text, self.pictures, self.rows, self.ids, self.links = [], [], [], [], set(), set()
        self.feed(path.read_text())
        self.close()
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join(self.text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        self.pictures += [attributes[name] for name in ("src", "srcset") if name in attributes]
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.links |= {attributes["href"]} if "href" in attributes else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)

    def row(self, name):
        (row,) = [row[1:] for row in self.rows if row[0] == name]
        return row


def read(folder):
    """Read FOLDER/index.html after checking that its pictures and links lead somewhere."""
    page = Reader(folder / "index.html")
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert len(page.pictures) == len(set(page.pictures)) == len(list((folder / "pictures").iterdir()))
    for picture in page.pictures:
        root = ElementTree.parse(folder / picture).getroot()
        assert root.tag.endswith("svg") and len(list(root.iter())) > 50, picture
    dark = {picture.replace("-dark", "-light") for picture in page.pictures if "-dark" in picture}
    assert dark == {picture for picture in page.pictures if "-light" in picture}
    return page


@pytest.fixture(scope="module")
def measured(panda, tmp_path_factory):
    """Return solver, document and page of a bundle with a network that has learned nothing."""
    folder = tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    model = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"))
    torch.nn.init.normal_(model.head.weight, std=0.5)
    write_native(folder / NATIVE_FILE, model, document(model, panda))
    solver = Solver.load(folder)
    report = write_report(folder, solver, network=model, n=300, seed=3, command="again <&>", diversity_poses=2)
    return solver, report, read(folder)


def test_the_page_s_numbers_are_those_of_the_protocol_and_the_solver(measured):
    solver, report, page = measured
    protocol = run_protocol(solver, n=300, seed=3, diversity_poses=2)
    for name, rows in protocol["one_attempt"].items():
        for start, row in rows.items():
            assert report["one_attempt"][name][start]["solved"] == row["solved"]
            assert page.row(f"{name}, {start}")[0] == f"{row['solved']['1e-5']['10']:.1%}"
        assert page.row(name)[1] == f"{rows['network']['pos_mm']['median']:.1f}"
    for label, row in report["latency"].items():
        assert page.row(label) == [f"{row[key]:,.1f}" for key in ("p50", "p99", "p99.9", "max")]
        assert 0 < row["p50"] <= row["p99"] <= row["p99.9"] <= row["max"]
    targets = make_targets(solver.robot, 300, seed=3)
    for label, seed in (("solve()", Seed.REFERENCE), ("solve(), network first", Seed.NETWORK)):
        shares = report["attempts_allowed"]["solved"]["global"][label]
        for attempts, share in zip(report["attempts_allowed"]["attempts"], shares, strict=True):
            out = solver.solve_batch(*targets, seed=seed, max_attempts=attempts)
            assert share == (out.status == Status.SOLVED).mean()
    assert "again <&>" in page.text and "300 poses a set, seed 3" in page.text


def test_cells_and_bins_hold_the_poses_that_they_name(measured):
    solver, report, _ = measured
    targets = make_targets(solver.robot, 300, seed=3)
    q = make_targets(solver.robot, 300, kind="local", sigma=0.0, seed=3).q_ref
    np.testing.assert_allclose(solver.robot.fk(torch.from_numpy(q)), targets.pose, atol=1e-12)
    # All cells together hold all poses but those of cells with few; all bins together hold every pose.
    workspace, limits = report["workspace"], report["near_limits"]
    assert workspace["start"] == "network"
    known = [share for row in workspace["solved"] for share in row if share is not None]
    solved = report["one_attempt"]["global"]["network"]["solved"]["1e-5"]["10"]
    assert known and min(known) <= solved <= max(known)
    assert (
        workspace["height_m"][0] == targets.pose[:, 2].min() and workspace["height_m"][-1] == targets.pose[:, 2].max()
    )
    lower, upper = solver.robot.lower, solver.robot.upper
    distance = 100 * (np.minimum(q - lower, upper - q) / (upper - lower)).min(axis=1)
    assert np.median(limits["distance_percent"]) == pytest.approx(np.median(distance), rel=0.2)
    for start, shares in limits["solved"].items():
        share = report["one_attempt"]["global"][start]["solved"]["1e-5"]["10"]
        assert np.mean(shares) == pytest.approx(share, abs=1e-9), "300 poses fall into 6 bins of 50"
    assert np.mean([bin["mean"] for bin in limits["pos_mm"]]) == pytest.approx(
        report["one_attempt"]["global"]["network"]["pos_mm"]["mean"]
    )


def test_the_uncertainty_is_there_with_a_network_that_has_one(measured):
    _, report, page = measured
    assert report["uncertainty"]["coverage_pos"] == pytest.approx(report["uncertainty"]["levels"], abs=0.08)
    assert f"{report['uncertainty']['coverage_pos'][4]:.1%} hold" in page.text
    assert "pictures/coverage-promised-and-observed-light.svg" in page.pictures


def test_a_robot_without_a_network_has_the_page_without_the_network_s_parts(panda, tmp_path):
    report = write_report(tmp_path, Solver.from_robot(panda), n=60, diversity_poses=2)
    page = read(tmp_path)
    assert "This bundle has no network" in page.text and "uncertainty" not in report
    assert "one step" not in " ".join(page.pictures) and not any("network" in picture for picture in page.pictures)
    assert report["workspace"]["start"] != "network" and page.row("solve()")
    assert not [row for row in page.rows if "network" in row[0]]


def test_a_robot_without_limits_says_what_is_left_out(panda, tmp_path):
    robot = panda.to_dict()
    for joint in robot["joints"]:
        joint.update(kind="continuous", lower=-np.pi, upper=np.pi)
    write_report(tmp_path, Solver.from_robot(Robot.from_dict(robot)), n=20, diversity_poses=2)
    page = read(tmp_path)
    assert "Set near limits: left out" in page.text and "Left out: all joints turn without limit" in page.text


def test_a_single_pose_makes_a_page(panda, tmp_path):
    write_report(tmp_path, Solver.from_robot(panda), n=1, diversity_poses=1)
    assert "too few targets" in read(tmp_path).text


def test_the_script_writes_the_page_and_refuses_what_the_report_sets_itself(panda, tmp_path):
    write_native(tmp_path / NATIVE_FILE, None, document(None, panda))
    script = [ROOT / "scripts" / "evaluate.py", "--model", ".", "--report", "page"]

    def run(interpreter, *args, **environment):
        command = [interpreter, *script, *args]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
        )

    for argument, word in (("--protocol", "not allowed"), ("--kind=local", "expected none with --report")):
        out = run(python(), argument)
        assert out.returncode != 0 and word in out.stderr
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "matplotlib.py").write_text("raise ImportError('not here')")
    out = run(sys.executable, PYTHONPATH=os.pathsep.join([str(tmp_path / "shadow"), str(ROOT)]))
    assert out.returncode != 0 and out.stderr.startswith("error: report: expected matplotlib")
    assert 'pip install "mfik[viz]"' in out.stderr and not (tmp_path / "page").exists()


def test_the_script_s_page_is_the_one_it_names(panda, tmp_path, monkeypatch, capsys):
    write_native(tmp_path / NATIVE_FILE, None, document(None, panda))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mfik.eval.write_report", partial(write_report, diversity_poses=2))
    command = ["scripts/evaluate.py", "--model", ".", "--report", "page", "--num", "50", "--json", "r.json"]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    assert capsys.readouterr().out.startswith("page/index.html: 50 poses a set, seed 0")
    report = json.loads((tmp_path / "r.json").read_text())
    page = read(tmp_path / "page")
    assert page.row("global, azimuth")[0] == f"{report['one_attempt']['global']['azimuth']['solved']['1e-5']['10']:.1%}"
    assert " ".join(command) in page.text  # runpy puts the whole path before it


def test_a_training_run_has_its_page(panda, tmp_path):
    config = TrainConfig(batch_size=32, warmup_steps=2, max_steps=8, log_interval=2, device="cpu")
    source = OnlineSource(panda, 32, coupling="mixed", seed=0, epoch_rows=32 * 4)
    model = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"))
    trainer = MeanFlowTrainer(model, config, robot=panda, output_dir=tmp_path)
    (tmp_path / "logs").mkdir()
    assert plot_run(tmp_path) == [], "nothing was recorded yet"
    metrics = trainer.fit(source, source.validation_rows(100))
    record = {
        "command": ["scripts/train.py", "--robot", "panda"],
        "arguments": {"data_path": "online"},
        "train_config": config.to_dict(),
        "model_config": model.config.to_dict(),
        "robot": panda.to_dict(),
        "data": {"rows": "online"},
        "environment": {"device": "cpu", "device_name": "some processor", "processes": 1},
    }
    for run in (None, record):  # a loop of one's own leaves no run.json
        if run is not None:
            (tmp_path / "run.json").write_text(json.dumps(run))
        *plots, path = plot_run(tmp_path)
        assert [plot.name for plot in plots] == ["loss.png", "error.png"] and path == tmp_path / "report" / "index.html"
        page = read(path.parent)
        for name, value in metrics.items():
            assert page.row(name) == [f"{value:.5g}"]
    assert page.row("batch_size") == ["32", str(TrainConfig().batch_size)]
    assert page.row("data: rows") == ["online"] and "python scripts/train.py --robot panda" in page.text
    assert "8 steps of 32 rows, seed 0; some processor" in page.text
    names = {re.sub(r"pictures/|-light.svg", "", picture) for picture in page.pictures if "light" in picture}
    assert {"loss", "success-rate", "learning-rate", "gradient-norm", "throughput"} <= names


def test_text_cannot_break_the_page_and_the_same_numbers_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        page = Page("<b>", "a & b", measured="<i>", command='"')
        page.table("<td>", ["<"], [["</table>"]])
        page.figure("<figure>", {"a < b": lambda axes: axes.plot([0, 1], [0, 1])})
        page.write(tmp_path / folder)
    read(tmp_path / "a")
    for file in ("index.html", "pictures/a-b-light.svg", "pictures/a-b-dark.svg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a/pictures/a-b-light.svg").read_text() != (tmp_path / "a/pictures/a-b-dark.svg").read_text()
