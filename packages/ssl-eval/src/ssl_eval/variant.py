"""A published protocol, and what was changed of it."""

from dataclasses import dataclass, replace

from ssl_eval.protocols import FineTuneProtocol, KNNProtocol, LinearProtocol, Protocol, adapted
from ssl_eval.published import find_protocol


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A protocol by name, and what was changed of it.

    Attributes:
        name: one of PROTOCOLS.
        epochs: instead of its own.
        batch_size: instead of its own, the learning rates scaled with it.
        cached: whether features are extracted once, without augmentation (linear protocols).
        labels: which labels there were, where a protocol does not fix the list: "seed 0".
        percent: of the labels, instead of its own (few labels).
        head_rate: learning rate of the classifier, instead of its own (few labels); taken as it is.
        backbone_rate: likewise of the backbone.
    """

    name: str
    epochs: int | None = None
    batch_size: int | None = None
    cached: bool = False
    labels: str | None = None
    percent: int | None = None
    head_rate: float | None = None
    backbone_rate: float | None = None

    @property
    def label(self) -> str:
        """What results call it: "genview-linear", "vicreg-semi-10 epochs=5 seed 0"."""
        told = [self.name]
        told += [f"epochs={self.epochs}"] if self.epochs else []
        told += [f"batch={self.batch_size}"] if self.batch_size else []
        told += [f"{name.removesuffix('_rate')}={value:g}" for name, value in self._few_labels.items()]
        told += ["cached"] if self.cached else []
        return " ".join([*told, self.labels] if self.labels else told)

    @property
    def options(self) -> list[str]:
        """As a command line takes them: "--protocol=vicreg-semi-10", "--epochs=5"; labels are the caller's to give."""
        changed = {"protocol": self.name, "epochs": self.epochs, "batch-size": self.batch_size}
        changed |= {name.replace("_", "-"): value for name, value in self._few_labels.items()}
        return [f"--{name}={value}" for name, value in changed.items() if value is not None] + [
            "--cached"
        ] * self.cached

    @property
    def _few_labels(self) -> dict[str, int | float]:
        """What is changed that only protocols of few labels have."""
        given = {name: getattr(self, name) for name in ("percent", "head_rate", "backbone_rate")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def protocol(self) -> Protocol:
        """With the changes made.

        Raises:
            ValueError: no such protocol, or it has nothing of that kind to change.
        """
        found = find_protocol(self.name)
        if self._few_labels and not isinstance(found, FineTuneProtocol):
            raise ValueError(
                f"{self.name} is for all labels, its backbone frozen: leave {next(iter(self._few_labels))} out"
            )
        if isinstance(found, KNNProtocol):
            if self.epochs or self.batch_size or self.cached:
                raise ValueError(f"{self.name} has neither epochs nor batches: change its k")
            return found
        if self.cached and not isinstance(found, LinearProtocol):
            raise ValueError(f"{self.name} trains the backbone: its features cannot be kept")
        fitted = adapted(found, batch_size=self.batch_size, epochs=self.epochs)
        return replace(fitted, **self._few_labels) if self._few_labels else fitted
