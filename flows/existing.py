"""An existing encoder and labelled data as a recipe of the transfer DAG.

recipe = transfer_recipe("20261128-1015-digits-ab12", "digits")
recipe = transfer_recipe("timm:resnet18@resnet18.safetensors", "photos/", ["transfer.seeds=10"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.recipe import Recipe, lay_over, recipe_model
from flows.recipe_files import builtin_recipes, read_recipe
from flows.stored import ADOPT, encoder_stage, open_to_read
from ssl_tasks.adoption.reference import FORMS, absolute, parse
from ssl_tasks.artifact import Artifact
from ssl_tasks.errors import RequestError
from ssl_tasks.policy import BASE, Policy, Views
from ssl_tasks.schema import VIEWS_FILE
from ssl_tasks.stages.normalize import LikeConfig, NormalizeConfig
from ssl_tasks.store import Store
from ssl_tasks.store.references import find, parent
from ssl_tasks.store.runs import find_run, run_ids

FOR_PATHS = "images"
"""The built-in recipe whose sections serve for data that is given by its path."""
KEY = "adopt.encoder"
LONGEST_NAME = 60


def transfer_recipe(encoder: str, data: str, overrides: Sequence[str] = (), *, store: str | None = None) -> Recipe:
    """What evaluates `encoder` on `data`.

    Args:
        encoder: a run or pretrain artifact of the store, or one from elsewhere; see `adoption.reference`.
        data: a recipe, whose sections on data, splits, augmentation and transfer are taken, or a path.

    Raises:
        RequestError: there is no such encoder or data, an unknown key, or a wrong value.
    """
    from flows.dag import TRANSFER

    _refuse_normalization(overrides)
    is_recipe = _is_recipe(data)
    values = read_recipe(data if is_recipe else FOR_PATHS)
    fields = recipe_model(TRANSFER).model_fields
    kept = {name: section for name, section in values.items() if name in fields}
    kept["normalize"] = {
        key: value for key, value in (values.get("normalize") or {}).items() if key in LikeConfig.model_fields
    }
    kept["name"] = f"{values.get('name', 'data')}-transfer"[:LONGEST_NAME]
    if not is_recipe:
        kept["ingest"] = {**kept["ingest"], "path": data}
    where = f"transfer to {data}"
    of_store = {name: kept[name] for name in ("name", "store") if name in kept} | {ADOPT: {"encoder": "-"}}
    place = lay_over(
        of_store, [text for text in overrides if text.startswith("store=")], where=where, store=store
    ).store
    reference = locate(encoder, place)
    ours = None if parse(reference) else find(reference, place, key=KEY, stage="pretrain")
    if ours is not None and not is_recipe:
        kept = _as_trained(kept, ours)
    return lay_over({**kept, ADOPT: {"encoder": reference}}, overrides, where=where, store=store)


def locate(encoder: str, uri: str) -> str:
    """What `adopt.encoder` says of an encoder that is named on the command line.

    Raises:
        RequestError: there is none, or there are several.
    """
    if parse(encoder) is not None:
        return absolute(encoder)
    folder = Path(encoder).expanduser().absolute()
    if (folder / "manifest.json").is_file():
        encoder = f"{folder.parent.parent}/objects/{folder.name}"
    if "/objects/" in encoder:
        return find(encoder, uri, key=f"encoder {encoder}", stage="pretrain").location
    store = open_to_read(uri)
    if any(run_id.startswith(encoder) for run_id in run_ids(store)):
        return _of_run(store, encoder)
    matches = [name for name in store.list("objects") if name.startswith(encoder)]
    if len(matches) == 1:
        return find(matches[0], uri, key=f"encoder {encoder}", stage="pretrain").fingerprint
    if matches:
        raise RequestError(f"encoder {encoder}: {len(matches)} fingerprints start with this; give more digits")
    raise RequestError(
        f"encoder {encoder}: there is no run, artifact or folder of this name in {store.uri}; name {FORMS}"
    )


def _of_run(store: Store, text: str) -> str:
    record = find_run(store, text)
    made = encoder_stage(record)
    if made is None:
        raise RequestError(f"encoder {text}: the run {record.run_id} has no encoder yet; it is {record.state}")
    if made.name == ADOPT and parse(record.recipe[ADOPT]["encoder"]) is None:
        return str(record.recipe[ADOPT]["encoder"])  # what that run adopted
    return made.fingerprint


def _refuse_normalization(overrides: Sequence[str]) -> None:
    """What a recipe's own section says is left out: it is of another encoder. What is asked for here is not."""
    for text in overrides:
        section, _, key = text.partition("=")[0].strip().partition(".")
        if section == "normalize" and key in NormalizeConfig.model_fields and key not in LikeConfig.model_fields:
            raise RequestError(
                f"normalize.{key}: the encoder brings its own normalization; leave it out (adopt.size, adopt.mean and "
                "adopt.std are for an encoder from elsewhere)"
            )


def _is_recipe(data: str) -> bool:
    path = Path(data).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return True
    if path.exists() or "://" in data or data.startswith("builtin:"):
        return False
    if data in builtin_recipes():
        return True
    raise RequestError(
        f"data {data}: there is no such folder or file, and no recipe of this name (built in: "
        f"{', '.join(builtin_recipes())}; a file ends in .yaml)"
    )


def _as_trained(sections: dict[str, Any], encoder: Artifact) -> dict[str, Any]:
    """What an encoder of ours says of data that comes without a recipe: its modality, and its own views."""
    modality = encoder.json("encoder.json")["modality"]
    told = {**sections, "ingest": {**sections["ingest"], "modality": modality}}
    if modality != "image":
        told.pop("augment", None)  # of images
    elif (policy := _own_policy(encoder)) is not None:
        told["augment"] = policy.model_dump(mode="json")
    return told


def _own_policy(encoder: Artifact) -> Policy | None:
    """The base policy that it was pretrained under; None where that is not in the store any more."""
    if "augment" not in encoder.manifest.parents:
        return None
    try:
        views = parent(encoder, "augment", key=KEY).json(VIEWS_FILE)
    except RequestError:
        return None
    return Views.model_validate(views).policies[BASE]
