"""The keys of a recipe that say where data is and what its folders and columns mean."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from ssl_tasks.config import Config, execution

FolderRole = Literal["split", "label", "group", "domain", "ignore"]


class SourceConfig(Config):
    """Where the data is and what belongs to its samples besides their content."""

    path: str = execution("builtin:digits", min_length=1)
    """Folder, file, or builtin:digits / builtin:cancer. Not hashed: the content is."""
    folders: Literal["auto"] | list[FolderRole] = "auto"
    """Images in folders: what each level of folders means, from the top. `auto`: [split, label] where the top folders
    are called train, val or test, else [label]; refused where two are and another is not. A file that stands less deep
    has no such value."""
    image_column: str | None = None
    """Lists and data sets: the column with the path or content; the first of the usual names where it is left out."""
    mask_column: str | None = None
    masks: bool = False
    """Images may have a mask of classes: `clean` rejects unusable ones, `normalize` stores them beside the images. A
    pixel is the number of its class, 0 to 254, and 255 counts nowhere."""
    mask_folder: str = Field("masks", min_length=1)
    """Images in folders, with masks: the folder that holds them. An image's mask has its name, but for the ending, and
    its path, but that `mask_folder` stands in the place of a folder (images/a.jpg, masks/a.png) or is one more."""
    boxes: bool = False
    """Images may have boxes around objects, which are checked and stored likewise: [x, y, width, height] in pixels from
    the upper left corner, one or a list of them."""
    boxes_column: str | None = None
    """Lists and data sets, with boxes: `boxes` where it is left out."""
    boxes_file: str | None = execution(None)
    """Images in folders, with boxes: a COCO annotation file (JSON), from ingest.path. Not hashed: the content is."""
    text_column: str | None = None
    """Captions of the images."""
    captions: bool = execution(False)
    """Every image comes with a caption, for methods that learn from both: `clean` rejects those without one,
    `normalize` stores their tokens. Not hashed here: what is read stays the same."""
    label_column: str | None = None
    """For lists and data sets of images, each of these columns is by default the one of the role's own name."""
    labels_column: str | None = None
    """Several classes of a row, for `transfer.task: multi_label`: a list, or a text that `labels_separator` parts. An
    empty list, or a text of nothing but the separator, is a row of no class; an empty value one that is not labelled.
    It is never found by its name."""
    labels_separator: str = Field(";", min_length=1)
    class_columns: list[str] = Field(default_factory=list)
    """The same as one column for each class, which has its name: 1 (or true) where a row has the class, else 0 (or
    false). An empty value is a 0, but a row of nothing else is not labelled."""
    number_column: str | None = None
    """A number for each row, for `transfer.task: regression`; where a value is empty, there is none. It is never found
    by its name."""
    group_column: str | None = None
    """Rows with equal values (patient, speaker, scene) never stand in different splits."""
    domain_column: str | None = None
    split_column: str | None = None
    drop_columns: list[str] = Field(default_factory=list)
    """Tables: columns that are no features."""

    @field_validator("path", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if value is None:
            raise ValueError("say what to read, for example --set ingest.path=photos (a folder, or a list of files)")
        return value

    @field_validator("class_columns")
    @classmethod
    def _one_way(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if value and info.data.get("labels_column"):
            raise ValueError("the classes of a row stand in labels_column already; leave out one of the two")
        if twice := sorted(name for name in {*value} if value.count(name) > 1):
            raise ValueError(f"{twice[0]!r} stands twice")
        return value

    @field_validator("folders", mode="before")
    @classmethod
    def _known_and_each_once(cls, value: object) -> object:
        """Before pydantic, whose message for such a union names its inner types."""
        if value == "auto":
            return value
        roles = get_args(FolderRole)
        if not isinstance(value, list):
            raise ValueError(f"expected auto, or a list of {', '.join(roles)}")
        if wrong := [role for role in value if role not in roles]:
            raise ValueError(f"{wrong[0]!r} is none of {', '.join(roles)}")
        if twice := sorted(role for role in {*value} - {"ignore"} if value.count(role) > 1):
            raise ValueError(f"{twice[0]} stands twice")
        return value
