"""`mfik evaluate`: its report for other programs."""

import json


def test_json_alone_goes_to_standard_output(mfik, capsys, tmp_path):
    asked = ("evaluate", "--model", "panda", "--num", "20", "--refine", "1")
    assert mfik(*asked, "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert len(report["stages"]) == 2 and "20 poses" in err
    assert mfik(*asked, "--json", str(tmp_path / "new" / "r.json")) == 0
    assert "20 poses" in capsys.readouterr().out
    written = json.loads((tmp_path / "new" / "r.json").read_text())
    assert written["stages"][1]["pos_mm"] == report["stages"][1]["pos_mm"]
