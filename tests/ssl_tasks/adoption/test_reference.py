from __future__ import annotations

from pathlib import Path

import pytest

from ssl_tasks.adoption.reference import absolute, parse
from ssl_tasks.errors import RequestError


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text(name)
    return path


def test_forms_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "hub", "config.json", "model.safetensors")
    folder(tmp_path / "ours", "manifest.json")
    for text, kind, model in (("timm:a.b@w@1.pth", "timm", "a.b"), ("torchvision:x@w", "torchvision", "x")):
        found = parse(text)
        assert found is not None
        assert (found.kind, found.model) == (kind, model)
    hub = parse("hub")
    assert hub is not None
    assert (hub.kind, [file.name for file in hub.files]) == ("folder", ["config.json", "model.safetensors"])
    for ours in ("ours", "0" * 64, "s3://bucket/objects/" + "0" * 64, "20260101-000000-digits-ab12", ""):
        assert parse(ours) is None
    assert absolute("hub") == str(tmp_path / "hub")
    assert absolute("timm:m@w.pth") == f"timm:m@{tmp_path / 'w.pth'}"
    assert absolute("0" * 64) == "0" * 64


@pytest.mark.parametrize("text", ["timm:resnet18", "timm:@file", "torchvision:resnet18@"])
def test_half_a_name_is_refused_with_the_whole_form(text: str) -> None:
    with pytest.raises(RequestError, match="<model>@<file of weights>"):
        parse(text)


def test_the_hash_is_of_content_and_model_and_not_of_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"weights")
    (tmp_path / "c.pth").write_bytes(b"others")

    def of(text: str) -> str:
        found = parse(text)
        assert found is not None
        return found.content_hash()

    assert of(f"timm:m@{tmp_path}/a.pth") == of(f"timm:m@{tmp_path}/b.pth")
    others = (f"timm:m@{tmp_path}/c.pth", f"timm:n@{tmp_path}/a.pth", f"torchvision:m@{tmp_path}/a.pth")
    assert len({of(text) for text in (f"timm:m@{tmp_path}/a.pth", *others)}) == 4
    first = folder(tmp_path / "first", "config.json", "model.safetensors")
    second = folder(tmp_path / "second", "config.json", "model.safetensors", "README.md")
    assert of(str(first)) == of(str(second))
    (second / "config.json").write_text("{}")
    assert of(str(first)) != of(str(second))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ((), "config.json"),
        (("config.json",), "model.safetensors or pytorch_model.bin"),
        (("model.safetensors",), "config.json"),
    ],
)
def test_what_a_folder_lacks_is_named(tmp_path: Path, names: tuple[str, ...], missing: str) -> None:
    found = parse(str(folder(tmp_path / "hub", *names)))
    assert found is not None
    with pytest.raises(RequestError, match=f"hub has no {missing}"):
        found.content_hash()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = parse(f"timm:resnet18@{tmp_path / 'gone.pth'}")
    assert found is not None
    with pytest.raises(RequestError, match=r"no file of weights .*gone\.pth"):
        found.content_hash()
