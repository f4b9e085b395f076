def test_lists_what_is_known(run, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", (tmp_path,))
    assert run("presets").out == "no presets are bundled\n"
    notes = {"trained_on": "test data", "figures": {"ap50": 0.61234, "note": "held out"}}
    tiny_model.save_to_preset(tmp_path / "one", notes)
    tiny_model.save_to_preset(tmp_path / "two")
    outcome = run("presets")
    assert outcome.code == 0
    assert outcome.err == ""
    text = " ".join(outcome.out.split())
    expected = ("one", "two", "InstanceSegmenter", "unet_small", "test data", "ap50 0.612")
    for part in (*expected, f"{tiny_model.count_params():,}"):
        assert part in text


def test_boundary_detectors_are_listed_and_have_a_card(run, boundary_preset, monkeypatch):
    folders = (boundary_preset.parent,)
    monkeypatch.setattr("keras_rpe.models.presets.load._FOLDERS", folders)
    outcome = run("presets")
    assert (outcome.code, outcome.err) == (0, "")
    assert "lines" in outcome.out
    assert "boundary" in outcome.out
    card = (boundary_preset / "README.md").read_text()
    assert 'keras_rpe.models.BoundaryDetector.from_preset("lines")' in card
    assert "| Task | boundary detection |" in card
