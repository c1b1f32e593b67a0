"""What a stage is: a name, a config, the stages it reads, a version, and `run(config, out, *inputs) -> artifact`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ssl_tasks.artifact import Artifact
from ssl_tasks.config import Config, digest, semantic


@dataclass(frozen=True)
class Stage:
    """One step of the DAG. `run` is a pure function of its config and inputs and writes only through `out`."""

    name: str
    config: type[Config]
    inputs: tuple[str, ...]
    """Names of the stages whose artifacts `run` takes, in order."""
    run: Callable[..., Artifact]
    version: int = 1
    """Raise it when equal inputs no longer give equal output; versions.lock holds you to it."""
    parts: Callable[[Any], dict[str, int]] = lambda config: {}
    """Versions of what the config chooses: the modality, the method."""
    section: str = ""
    """Section of the recipe that holds the config; the stage's own name where empty."""
    check: Callable[[Any], None] | None = None
    """Refuses, before any stage runs, what only heavy imports can judge; not asked where the stage is cached."""
    source: Callable[[Any], str] | None = None
    """For a stage without parents: the content hash of what it reads."""
    beside: Callable[[Mapping[str, Any], Mapping[str, str], str], str | None] | None = None
    """For a stage that follows references to artifacts that are not its inputs: a hash of what is not at hand of those,
    None where all is. Takes configs and fingerprints of the stages up to it by name, and the store's URI."""

    @property
    def section_name(self) -> str:
        """The recipe's section."""
        return self.section or self.name

    def versions(self, config: Config) -> dict[str, int]:
        """The stage's version and those of the parts that the config chooses."""
        return {self.name: self.version, **self.parts(config)}

    def source_of(self, configs: Mapping[str, Any], fingerprints: Mapping[str, str], store: str) -> str | None:
        """What `fingerprint` takes for the hash of what the stage reads besides its inputs; arguments as `beside`."""
        if self.source:
            return self.source(configs[self.name])
        return self.beside(configs, fingerprints, store) if self.beside else None

    def fingerprint(self, config: Config, parents: Mapping[str, str], source: str | None = None) -> str:
        """sha256 over stage, versions, semantic config, and the parents' fingerprints (or `source_of`)."""
        return digest(
            {
                "stage": self.name,
                "versions": self.versions(config),
                "config": semantic(config),
                "parents": {name: parents[name] for name in self.inputs},
                "source": source,
            }
        )
