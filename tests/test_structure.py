"""The house rules that a machine can hold: imports go downwards, versions follow the code, the surface is frozen."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests_schedule import starts_processes

from ssl_tasks import methods, versions
from ssl_tasks.schema import ROWS, SPLIT_ROWS, TRANSFER

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "ssl_tasks").rglob("*.py"))


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("file", PACKAGE, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_package_knows_nothing_of_prefect_and_only_the_cluster_knows_ray(file: Path) -> None:
    found = top(imports(file))
    assert not found & {"prefect", "flows"}
    if (ROOT / "ssl_tasks" / "cluster") not in file.parents:
        assert "ray" not in found


LAYERS = [
    {"errors", "config", "schema", "randomness", "parallel", "device", "policy"},
    {"artifact", "store", "sources", "shards", "materialize", "versions", "encoder", "norms"},
    {
        "modalities",
        "methods",
        "backbones",
        "training",
        "transfer",
        "cluster",
        "report",
        "cleaning",
        "splitting",
        "adoption",
    },
    {"stages"},
]


@pytest.mark.parametrize("file", PACKAGE, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_below_imports_a_stage_but_its_config(file: Path) -> None:
    """Stages stand on top; below them only `Stage` itself and a stage's config may be named."""
    part = file.relative_to(ROOT / "ssl_tasks").parts[0].removesuffix(".py")
    if part in {"stages", "versions", "__init__"}:
        return
    assert any(part in layer for layer in LAYERS), f"{part} has no place in the layers"
    upward = {name for name in imports(file) if re.match(r"ssl_tasks\.stages\.\w+\.", name)}
    assert all(name.endswith(("Config", ".Stage", "_FILE")) for name in upward), upward


def test_versions_follow_the_code() -> None:
    assert versions.differences() == [], "raise the version, or: python -m ssl_tasks.versions --refresh 'reason'"


def test_an_edited_helper_changes_every_closure_that_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions.current()
    true_hash = versions._source_hash
    monkeypatch.setattr(versions, "_source_hash", lambda name: "x" if name == "ssl_tasks.shards" else true_hash(name))
    after = versions.current()
    changed = {name for name in before if before[name] != after[name]}
    assert {"stage normalize", "stage augment", "stage pretrain", "stage embed"} <= changed
    assert "method simclr" not in changed


def test_an_edited_template_changes_the_stage_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = versions.current()
    true_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: true_bytes(path) + b" " * path.name.endswith(".j2"))
    after = versions.current()
    assert [name for name in before if before[name] != after[name]] == ["stage report"]


CACHED_RUN_IMPORTS = (
    "import flows.dag, flows.recipe, flows.plan, flows.execution; flows.recipe.load_recipe('digits', [])"
)


def test_a_cached_run_imports_nothing_heavy() -> None:
    """torch costs 4 s, timm 8 s, Ray 2 s, scikit-learn 3 s to import: only stages that run pay for them."""
    heavy = "{'torch', 'timm', 'ray', 'sklearn', 'scipy', 'torchvision', 'jinja2'} & set(sys.modules)"
    code = f"{CACHED_RUN_IMPORTS}; import sys; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_readme_and_ci_agree_on_the_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count("<!-- test command -->") == 1
    command = readme.split("<!-- test command -->")[1].split("```")[1]
    assert ".venv/bin/pytest" in command
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_one_of_pytests_workers_has_all_that_starts_ray_or_prefect() -> None:
    words = re.compile(r"\bray_session\b|cluster_utils|\bservers: |: Api\b|\bcommand: Command\b")
    files = [file for folder in ("ssl_tasks", "flows") for file in (ROOT / "tests" / folder).rglob("test_*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if words.search(file.read_text())}
    assert len(found) >= 10
    assert [file for file in sorted(found) if not starts_processes(file)] == []


def test_the_public_surface_is_frozen() -> None:
    """Columns that other people's code reads. A change here is news for CHANGELOG.md."""
    assert ROWS.names == [
        *("row", "sample_id", "content_id", "source", "group_id", "domain", "split"),
        *("label", "labels", "number", "text", "mask", "boxes"),
    ]
    assert SPLIT_ROWS.names == ["row", "sample_id", "group_id", "domain", "split", "label", "label_key"]
    assert TRANSFER.names == [
        *("strategy", "method", "label_fraction", "num_labels", "seed", "metric", "value", "labels_per_class"),
    ]
    assert sorted(methods.METHODS) == METHODS


METHODS = [
    *("aae", "autoencoder", "barlow_twins", "bigan", "byol", "clip", "colorization", "combined", "context_prediction",),
    *("contractive", "contrastive_autoencoder", "cpc", "dae", "deepcluster", "diffusion", "dino", "gan",),
    *("ibot", "ijepa", "inpainting", "instance_discrimination", "jigsaw", "mae", "moco", "moco_v3", "rbm",),
    *("rotation", "scarf", "siglip", "simclr", "simmim", "simsiam", "sparse_autoencoder", "swav", "two_encoders",),
    *("vae", "vicreg",),
]  # fmt: skip
RECIPE_KEYS = {
    "ingest": {
        "path",
        "modality",
        "text_column",
        "captions",
        "labels_column",
        "labels_separator",
        "class_columns",
        "number_column",
    },
    "clean": {"error_budget"},
    "normalize": {"size"},
    "split": {"fractions"},
    "pretrain": {
        *("method", "backbone", "epochs", "max_steps", "batch_size", "num_workers", "precision"),
        "checkpoint_every_steps",
    },
    "transfer": {"task", "strategies", "label_fractions", "labels_per_class", "seeds"},
}


def test_recipe_keys_are_frozen() -> None:
    from flows.recipe import load_recipe

    recipe = load_recipe("digits", [])
    assert {"name", "seed", "store"} <= set(type(recipe).model_fields)
    for section, keys in RECIPE_KEYS.items():
        assert keys <= set(type(getattr(recipe, section)).model_fields), section
