"""The base class of a head: per-instance part, pooling, classifier; and parts of many heads."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from edge_mil.errors import NotThereYetError, UsageError
from edge_mil_export.architectures.layers import Arrays
from edge_mil_export.architectures.options import Option, Options
from edge_mil_export.architectures.state_dict_reader import StateDictReader


class Head(nn.Module):
    """One architecture, rebuilt from a state dict alone: attend, pool, classify.

    `attend` and `classify` become `attend.onnx` and `classify.onnx`; the pooling between them runs
    in NumPy on the device, where the state lives. A constructor takes every tensor that it needs
    from the reader, and sets `feature_dim`, `value_dim`, `channels` and `outputs`.

    Attributes:
        feature_dim: Width d of a feature.
        value_dim: Width l of what is pooled.
        channels: Attention channels k; 0 without attention.
        outputs: Logits c.
        pooling: Key of `edge_mil.aggregators.registry.BUILDERS`: attention, mean, max, ...
    """

    options: ClassVar[tuple[Option, ...]] = ()
    """What the file cannot tell."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Prefixes of keys that the bag's score does not need."""
    incremental: str = "mergeable"
    """mergeable, banked or whole-bag."""
    order: ClassVar[str] = "any"
    """Order of the bag: any, or grid (row by row, by grid position)."""
    kind: str = "classification"
    """classification, regression, survival or pooling."""
    survival_reading: str = ""
    """How a head of kind survival is read: survival-nll or cox."""
    extra_outputs: ClassVar[tuple[str, ...]] = ()
    """Names of the outputs of `attend` beyond embeddings and attention logits: what becomes
    `InstanceBatch.extra`."""
    logits_in_attend: ClassVar[bool] = True
    """False where attention is known only from the whole bag, so `attend` gives no logits."""
    needs_positions: ClassVar[bool] = False
    """Whether the score depends on the instances' coordinates: `forward` then takes them too."""
    has_attend: ClassVar[bool] = True
    """False where the embeddings are the features themselves, so that there is no graph."""
    sigmoid: bool = False
    """Probabilities are the sigmoid of the logits also where there are several outputs: the
    authors' own code says so."""
    has_probabilities: ClassVar[bool] = True
    """False where the outputs of a classifier are scores that no sigmoid makes a probability."""
    readings: ClassVar[tuple[str, ...]] = (
        "classification",
        "multilabel",
        "regression",
        "survival-nll",
        "cox",
    )
    """Tasks that its outputs can be read as, in the words of `--task`."""
    output_names: ClassVar[tuple[str, ...]] = ()
    """Names of the outputs where the architecture itself fixes them; else they are numbered."""

    feature_dim: int
    value_dim: int
    channels: int
    outputs: int

    def __init__(self, reader: StateDictReader, options: Options) -> None:
        super().__init__()
        self.pooling = "attention"

    @abstractmethod
    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return embeddings (n, l) and attention logits (n, k) of features (n, d), all float32.

        Without attention the logits are not read: return the embeddings twice. After them come
        `extra_outputs`, each (n, m).
        """

    def arrays(self) -> Arrays:
        """Return the arrays of `aggregator.npz`, which the device's part in NumPy needs."""
        return {}

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return logits (b, c) of pooled vectors (b, k, l); by default they are the logits."""
        return pooled.flatten(1)

    @property
    def pooled_rows(self) -> int:
        """Rows of what the classifier takes: one for each channel, unless heads are joined."""
        return max(self.channels, 1)

    @property
    def has_classifier(self) -> bool:
        """Whether there is anything to do after the pooling."""
        return type(self).classify is not Head.classify

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (c,) of a whole bag (n, d): the reference for the cut-up graphs."""
        embeddings, attention_logits, *_ = self.attend(features)
        if self.pooling == "mean":
            pooled = embeddings.mean(dim=0, keepdim=True)
        elif self.pooling == "sum":
            pooled = embeddings.sum(dim=0, keepdim=True)
        elif self.pooling == "max":
            pooled = embeddings.amax(dim=0, keepdim=True)
        else:
            pooled = torch.softmax(attention_logits, dim=0).T @ embeddings
        return self.classify(pooled[None])[0]

    def describe(self) -> str:
        """Return in a few words what was read from the file, beyond the sizes."""
        return ""

    @classmethod
    def fresh(cls, feature_dim: int, outputs: int) -> dict[str, torch.Tensor]:
        """Return a freshly initialised state dict in the official reader, for training.

        Args:
            feature_dim: Width d of a feature.
            outputs: Logits c.

        Raises:
            NotThereYetError: This head cannot be made without a checkpoint.
        """
        raise NotThereYetError(
            f"{cls.__name__} is made from a checkpoint only in this release; name another head."
        )

    @classmethod
    def full_name(cls, name: str, options: Options) -> str:
        """Return the architecture's name, which may depend on its options."""
        return name


class WholeBagHead(Head):
    """Embed each instance; all else needs the whole bag, and runs in NumPy on the device."""

    incremental, logits_in_attend = "whole-bag", False
    embed: nn.Module

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return h, h


class AttentionHead(Head):
    """Embed each instance, pool the embeddings by attention, classify the channels side by side."""

    def assemble(
        self,
        embed: nn.Module,
        attention: GatedAttention,
        classifier: nn.Linear,
        *,
        feature_dim: int,
        before_classifier: nn.Module | None = None,
    ) -> None:
        """Set the parts, and the sizes that follow from them.

        Args:
            embed: Features (n, d) to embeddings (n, l).
            attention: Embeddings to attention logits (n, k).
            classifier: Pooled channels, flat (b, k * l), to logits (b, c).
            feature_dim: Width d of a feature.
            before_classifier: Applied to the flat pooled channels first; None: nothing is.
        """
        self.embed, self.attention, self.classifier = embed, attention, classifier
        self.before_classifier = before_classifier or nn.Identity()
        self.feature_dim, self.value_dim = feature_dim, attention.branch.in_features
        self.channels, self.outputs = attention.channels, classifier.out_features

    def attend(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h = self.embed(features)
        return h, self.attention(h)

    def classify(self, pooled: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.before_classifier(pooled.flatten(1)))
        return logits

    def describe(self) -> str:
        return "plain attention" if self.attention.gate is None else "gated attention"


class GatedAttention(nn.Module):
    """Attention logits w . (tanh(V h) * sigmoid(U h)), or without the gate w . tanh(V h).

    MHIM-MIL has another activation where the tanh is.

    Source:
        Ilse, Tomczak and Welling 2018, arXiv:1802.04712, eq. 8 and 9.
    """

    def __init__(
        self, branch: nn.Linear, gate: nn.Linear | None, last: nn.Linear, activation: nn.Module
    ) -> None:
        super().__init__()
        self.branch, self.gate, self.last, self.activation = branch, gate, last, activation

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return logits (n, k) of embeddings (n, l)."""
        hidden = self.activation(self.branch(h))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(h))
        logits: torch.Tensor = self.last(hidden)
        return logits

    @property
    def channels(self) -> int:
        """Attention channels k."""
        return self.last.out_features


def gated(
    reader: StateDictReader,
    branch: str,
    gate: str,
    last: str,
    width: int,
    *,
    bias: bool | None = True,
    branch_activation: str = "tanh",
) -> GatedAttention:
    """Build the attention network of eq. 8 or 9; `gate` "" is the one without a gate.

    Args:
        reader: The state dict.
        branch: Prefix of the layer before the tanh.
        gate: Prefix of the layer before the sigmoid, or "".
        last: Prefix of the last layer.
        width: Width of an embedding.
        bias: As `StateDictReader.linear` takes it.
        branch_activation: Of the branch.
    """
    first = reader.linear(branch, width, bias=bias)
    hidden = first.out_features
    second = reader.linear(gate, width, hidden, bias=bias) if gate else None
    third = reader.linear(last, hidden, bias=bias)
    return GatedAttention(first, second, third, activation(branch_activation))


def mhim_attention(
    reader: StateDictReader, at: str, width: int, branch_activation: str
) -> GatedAttention:
    """Build the attention network as MHIM-MIL and RRT-MIL name it, with or without a gate.

    Args:
        reader: The state dict.
        at: Prefix of the network.
        width: Width of an embedding.
        branch_activation: Of the branch.
    """
    names = (f"{at}.attention.0", "", f"{at}.attention.2")
    if f"{at}.attention_c.weight" in reader:
        tail = "" if f"{at}.attention_a.weight" in reader else ".0"
        names = (f"{at}.attention_a{tail}", f"{at}.attention_b{tail}", f"{at}.attention_c")
    return gated(reader, *names, width, bias=None, branch_activation=branch_activation)


def activation(name: str) -> nn.Module:
    """Return an activation by the name that options give it; gelu is the exact one, by erf.

    Raises:
        UsageError: There is none of that name.
    """
    known: dict[str, nn.Module] = {"relu": nn.ReLU(), "gelu": nn.GELU(), "tanh": nn.Tanh()}
    if name not in known:
        raise UsageError(f"There is no activation {name!r}; name relu, gelu or tanh.")
    return known[name]
