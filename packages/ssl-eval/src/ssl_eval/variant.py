"""A published protocol, and what was changed of it."""

from dataclasses import dataclass

from ssl_eval.protocols import KNNProtocol, LinearProtocol, Protocol, adapted
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
    """

    name: str
    epochs: int | None = None
    batch_size: int | None = None
    cached: bool = False
    labels: str | None = None

    @property
    def label(self) -> str:
        """What results call it: "genview-linear", "vicreg-semi-10 epochs=5 seed 0"."""
        told = [self.name]
        told += [f"epochs={self.epochs}"] if self.epochs else []
        told += [f"batch={self.batch_size}"] if self.batch_size else []
        told += ["cached"] if self.cached else []
        return " ".join([*told, self.labels] if self.labels else told)

    @property
    def options(self) -> list[str]:
        """As a command line takes them: "--protocol=vicreg-semi-10", "--epochs=5"; labels are the caller's to give."""
        changed = {"protocol": self.name, "epochs": self.epochs, "batch-size": self.batch_size}
        return [f"--{name}={value}" for name, value in changed.items() if value] + ["--cached"] * self.cached

    @property
    def protocol(self) -> Protocol:
        """With the changes made.

        Raises:
            ValueError: no such protocol, or it has nothing of that kind to change.
        """
        found = find_protocol(self.name)
        if isinstance(found, KNNProtocol):
            if self.epochs or self.batch_size or self.cached:
                raise ValueError(f"{self.name} has neither epochs nor batches: change its k")
            return found
        if self.cached and not isinstance(found, LinearProtocol):
            raise ValueError(f"{self.name} trains the backbone: its features cannot be kept")
        return adapted(found, batch_size=self.batch_size, epochs=self.epochs)
