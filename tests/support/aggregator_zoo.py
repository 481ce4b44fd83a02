"""Every aggregator, each with bags to fold and a reference that sees a whole bag at once.

The references of exported heads are their networks in torch, in float64; those of poolings without
a network and of DTFD are loops over the formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import slow_references

from edge_mil.aggregators import Classifier
from edge_mil.aggregators.registry import Parts, build_aggregator
from edge_mil.pipeline.instance_order import grid_order
from edge_mil.protocols import Aggregator
from edge_mil.types import Float32Array, InstanceBatch, InstanceOrder, Int64Array, SlideScore

torch = pytest.importorskip("torch")
architectures = pytest.importorskip("edge_mil_export.architectures")
registry = pytest.importorskip("edge_mil_export.architectures.registry")

Array = np.ndarray[Any, Any]
COLUMNS = 4
"""Of the grid on which the instances lie, row by row."""
EXACT, SINGLE = 1e-12, 1e-5
"""Of max(1, the largest logit): float64 sums of some tens of numbers, and float32 products."""
TILE_SIZE = 256
"""Distance of neighbouring instances, where a head needs coordinates."""
SCORES = "class_scores"
LARGE = 20.0
"""Features beyond it make attention logits of hundreds, of which float32 keeps fewer digits."""
FEATURES, WIDTH = 6, 3
"""Widths of a feature of heads in torch, and of an embedding of the poolings without a network."""


@dataclass(frozen=True)
class Subject:
    """An aggregator, and what the contract needs to know of it.

    Attributes:
        aggregator: As `build_aggregator` makes it.
        pooling: Key of `BUILDERS`.
        feature_dim: Width of a feature.
        attend: Features (n, d) to embeddings, attention logits and extra arrays.
        reference: Features (n, d) of a bag, and the rows that are in it in canonical order, to what
            the score should hold, float64.
        channels: Attention channels; 0 without attention.
        tolerance: Of max(1, the largest number).
        groups: Pseudo-bags that the order names, by row; None: it names none.
        module: The head in torch, where there is one.
    """

    aggregator: Aggregator[Any]
    pooling: str
    feature_dim: int
    attend: Callable[[Float32Array], tuple[Array, Array, dict[str, Array]]]
    reference: Callable[[Float32Array, Int64Array], Array]
    channels: int
    tolerance: float = SINGLE
    groups: int | None = None
    module: Any = None

    @property
    def smallest(self) -> int:
        """Instances of the smallest bag that has a score."""
        return int(getattr(self.aggregator, "smallest", 1))

    def features(self, count: int, seed: int, scale: float = 1.0) -> Float32Array:
        """Return random features."""
        noise = np.random.default_rng(seed).standard_normal((count, self.feature_dim))
        return (scale * noise).astype(np.float32)

    def batch(self, features: Float32Array, rows: Int64Array) -> InstanceBatch:
        """Return some instances of a bag; their canonical order is that of the rows."""
        # All rows at once, since float32 products depend on how many there are.
        embeddings, logits, extra = self.attend(features)
        order = grid_order([(int(row) % COLUMNS, int(row) // COLUMNS) for row in rows])
        if self.groups is not None:
            given = np.asarray(rows, dtype=np.int64) % self.groups
            order = InstanceOrder(order.keys, order.cells, given)
        if getattr(self.aggregator, "needs_positions", False):
            order = dataclasses.replace(order, positions=positions(np.asarray(rows)))
        some = {name: array[rows] for name, array in extra.items()}
        return InstanceBatch(embeddings[rows], logits[rows], some, order)

    def state(self, features: Float32Array, rows: Int64Array) -> Any:
        """Return the state of some instances of a bag."""
        return self.aggregator.update(self.aggregator.initial_state(), self.batch(features, rows))

    def want(self, features: Float32Array, rows: Int64Array) -> Array:
        """Return what the score of some instances should hold."""
        return np.ravel(self.reference(features, np.sort(rows)))

    def check(self, state: Any, features: Float32Array, rows: Int64Array) -> None:
        """Compare the score of a state with the reference over the same instances."""
        assert self.aggregator.instances(state) == len(rows)
        got, want = np.asarray(held(self.aggregator.score(state))), self.want(features, rows)
        assert got.shape == want.shape
        is_large = np.abs(features).max(initial=0.0) > LARGE
        tolerance = self.tolerance * (10 if is_large else 1)
        assert np.abs(got - want).max() <= tolerance * max(1.0, float(np.abs(want).max()))


def positions(rows: Array) -> Array:
    """Return the coordinates of rows on their grid, float64 (n, 2), within their tiles."""
    cells = np.stack([rows % COLUMNS, rows // COLUMNS], axis=1)
    return np.asarray(cells * float(TILE_SIZE) + 1)


def held(score: SlideScore | None) -> tuple[float, ...]:
    """Return the numbers of a score: logits, or the pooled vector where there are none."""
    assert score is not None
    return score.pooled or score.logits


class TorchClassify:
    """A head's own `classify`, called as a device calls its graph."""

    inputs: Mapping[str, Any] = {}

    def __init__(self, module: Any) -> None:
        self.module = module

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Float32Array]:
        """Return the logits."""
        with torch.no_grad():
            return {"logits": self.module.classify(torch.from_numpy(arrays["pooled"])).numpy()}

    def close(self) -> None:
        """Hold nothing."""


def build_subject(
    architecture: str, options: Mapping[str, str], state: Mapping[str, Any]
) -> Subject:
    """Return the head of a state dict."""
    name, module, complete = architectures.build_head(state, architecture, options, file="fresh")
    network = TorchClassify(module) if module.has_classifier else None
    classes = tuple(str(number) for number in range(module.outputs))
    probabilities = "softmax" if module.kind == "classification" else "none"
    classifier = Classifier(
        classes, probabilities, network, module.kind, complete.get("survival", "nll")
    )
    sizes = (module.feature_dim, module.value_dim, module.channels)
    parts = Parts(name, complete, *sizes, classifier, {}, module.arrays())
    gives_logits = module.channels > 0 and module.logits_in_attend

    def attend(features: Float32Array) -> tuple[Array, Array, dict[str, Array]]:
        with torch.no_grad():
            embeddings, logits, *extra = (
                part.numpy() for part in module.attend(torch.from_numpy(features))
            )
        logits = logits if gives_logits else np.empty((len(features), 0), np.float32)
        return embeddings, logits, dict(zip(module.extra_outputs, extra, strict=True))

    def reference(features: Float32Array, rows: Int64Array) -> Array:
        exact = module.double()
        bag = [torch.from_numpy(features[rows]).double()]
        if module.needs_positions:
            bag.append(torch.from_numpy(positions(rows)))
        with torch.no_grad():
            found: Array = exact(*bag).numpy()
        module.float()
        return found

    aggregator = build_aggregator(module.pooling, parts)
    return Subject(
        aggregator,
        module.pooling,
        module.feature_dim,
        attend,
        reference,
        module.channels,
        module=module,
    )


def fresh(architecture: str, outputs: int = 2, features: int = FEATURES) -> dict[str, Any]:
    """Return fresh weights of a head, stronger than they are initialised.

    Fresh layers answer almost the same to every bag, which would hide a mistake.
    """
    torch.manual_seed(0)
    found: dict[str, Any] = registry.named_architecture(architecture).build.fresh(features, outputs)
    if "q" in found:  # published queries start at almost zero
        found["q"] = torch.randn_like(found["q"])
    if "pooling_weights" in found:
        found["pooling_weights"] = torch.randn(1, 3, features)
    return {k: v * 2 if v.ndim > 1 and "A_" not in k else v for k, v in found.items()}


def plain(pooling: str, channels: int = 0) -> Subject:
    """Return a pooling without a network; a feature is an embedding, then its attention logits."""
    classifier = Classifier(("a", "b", "c"), "softmax", None)
    parts = Parts(pooling, {}, WIDTH, WIDTH, channels, classifier)

    def attend(features: Float32Array) -> tuple[Array, Array, dict[str, Array]]:
        return features[:, :WIDTH], features[:, WIDTH:], {}

    def reference(features: Float32Array, rows: Int64Array) -> Array:
        embeddings, logits = (part[rows].astype(float) for part in attend(features)[:2])
        if pooling == "mean":
            return np.asarray(embeddings.mean(axis=0))
        if pooling == "max":
            return np.asarray(embeddings.max(axis=0))
        powers = np.exp(logits - logits.max(axis=0))
        return np.asarray((powers / powers.sum(axis=0)).T @ embeddings)

    built = build_aggregator(pooling, parts)
    return Subject(built, pooling, WIDTH + channels, attend, reference, channels, EXACT)


def dtfd(classes: int, *, drawn: bool = False, **options: str) -> Subject:
    """Return a DTFD head; `drawn` takes pseudo-bags from the cells instead of the order."""
    count, rounds = 3, int(options.get("mean_inference", "1"))
    given = {"groups": str(count), "instances": "7"} | options
    built = build_subject("dtfd", given, fresh("dtfd", classes))
    second = {name: array.astype(np.float64) for name, array in built.module.arrays().items()}

    def reference(features: Float32Array, rows: Int64Array) -> Array:
        embeddings, logits, extra = built.attend(features)
        scores = extra.get(SCORES, np.empty((len(features), 0)))  # afs reads none
        exact = [part[rows].astype(float) for part in (embeddings, logits[:, 0], scores)]
        found = []
        for seed in range(rounds):
            groups = rows % count
            if drawn:
                cells = [(row % COLUMNS, row // COLUMNS) for row in rows.tolist()]
                groups = np.array(
                    [slow_references.cell_group(x, y, seed, count) for x, y in cells], dtype=int
                )
            one = slow_references.dtfd(
                *exact,
                groups,
                second,
                distill=options["distill"],
                count=count,
                each=int(given["instances"]) // count,
            )
            found.append(one)
        return np.mean(found, axis=0)

    return dataclasses.replace(built, reference=reference, groups=None if drawn else count)


def two_tiers(architecture: str, classes: int, **options: str) -> Subject:
    """Return MIL-Lab's or torchmil's DTFD, with groups that the order names."""
    count, each = 3, 2
    built = build_subject(
        architecture, {"groups": str(count), **options}, fresh(architecture, classes)
    )
    second = {name: array.astype(np.float64) for name, array in built.module.arrays().items()}
    is_linear = built.pooling == "dtfd_linear"

    def weighed(logits: Array) -> Array:
        powers = np.exp(logits - logits.max())
        return np.asarray(logits if is_linear else powers / powers.sum())

    def layer(x: Array, name: str) -> Array:
        return np.asarray(x @ second[f"{name}.weight"].T + second.get(f"{name}.bias", 0.0))

    def reference(features: Float32Array, rows: Int64Array) -> Array:
        embeddings, logits, extra = built.attend(features)
        h, logit = embeddings[rows].astype(float), logits[rows, 0].astype(float)
        vectors = []
        for group in range(count):
            inside = np.flatnonzero(rows % count == group)
            if options["distill"] == "afs":
                if len(inside) or is_linear:
                    vectors.append(weighed(logit[inside]) @ h[inside] if len(inside) else 0 * h[0])
                continue
            scores = logit[inside, None] * extra[SCORES][rows][inside].astype(float)
            odds = scores[:, -1] - np.logaddexp.reduce(scores[:, :-1], axis=1)
            for sign in (-1, 1) if options["distill"] == "maxmins" else (-1,):
                vectors += [h[inside[at]] for at in np.argsort(sign * odds)[:each]]
        hidden = np.tanh(layer(np.stack(vectors), "branch"))
        if "gate.weight" in second:
            # The sigmoid by its logarithm, which large features do not overflow.
            hidden = hidden * np.exp(-np.logaddexp(0, -layer(np.stack(vectors), "gate")))
        return layer(weighed(layer(hidden, "attention")[:, 0]) @ np.stack(vectors), "classifier")

    return dataclasses.replace(built, reference=reference, groups=count)


def top_instance(architecture: str, outputs: int) -> Subject:
    """Return CLAM's max pooling, compared by log-odds: probabilities near 1 would all be alike."""
    built = build_subject(architecture, {}, fresh(architecture, outputs))

    def reference(features: Float32Array, rows: Int64Array) -> Array:
        logits = built.attend(features)[0][rows].astype(float)
        found = slow_references.top_instance(logits, any_class=architecture == "mil_fc_mc")
        return np.asarray(logits[found])

    return dataclasses.replace(built, reference=reference)


def dsmil(layout: str, **options: str) -> Subject:
    """Return a DSMIL in one of its layouts: `docs/design/aggregators.md`, "DSMIL"."""
    state, hidden = fresh("dsmil", 3), 5
    if layout == "v":
        state["b_classifier.v.1.weight"] = torch.randn(hidden, FEATURES)
        state["b_classifier.v.1.bias"] = torch.randn(hidden)
        state["b_classifier.fcc.weight"] = torch.randn(3, 3, hidden)
    if layout == "linear q":
        state = {k: v for k, v in state.items() if not k.startswith("b_classifier.q.2")}
        state = {key.replace("q.0", "q"): value for key, value in state.items()}
    if layout == "IClassifier":  # its own extractor is in the file, and its layer has no number
        state = {key.replace("fc.0", "fc"): value for key, value in state.items()}
        state["i_classifier.feature_extractor.conv1.weight"] = torch.randn(4, 3, 7, 7)
        state["i_classifier.feature_extractor.bn1.num_batches_tracked"] = torch.tensor(3)
    return build_subject("dsmil", options, state)


def _head(architecture: str, outputs: int = 2, **options: str) -> Callable[[], Subject]:
    return lambda: build_subject(architecture, options, fresh(architecture, outputs))


MHIM = {"activation": "gelu", "merge_test": "true"}
SR = {"activation": "relu", "scan": "sr"}
RRT = {"activation": "relu", "region_num": "8", "all_shortcut": "true"}
MAKERS: dict[str, Callable[[], Subject]] = {
    "attention": lambda: plain("attention", 1),
    "attention of 3 channels": lambda: plain("attention", 3),
    "mean": lambda: plain("mean"),
    "max": lambda: plain("max"),
    "mil_fc": lambda: top_instance("mil_fc", 2),
    "mil_fc_mc": lambda: top_instance("mil_fc_mc", 3),
    "dsmil": lambda: dsmil(""),
    "dsmil average": lambda: dsmil("", score="average"),
    "dsmil v relu": lambda: dsmil("v", value_activation="relu"),
    "dsmil v none": lambda: dsmil("v", value_activation="none"),
    "dsmil linear q": lambda: dsmil("linear q"),
    "dsmil IClassifier": lambda: dsmil("IClassifier"),
    "mhim_dsmil": _head("mhim_dsmil", 3, activation="gelu"),
    "dtfd afs": lambda: dtfd(3, distill="afs"),
    "dtfd afs drawn": lambda: dtfd(2, drawn=True, distill="afs", mean_inference="3"),
    "dtfd maxs 1 class": lambda: dtfd(1, distill="maxs"),
    "dtfd maxs 2 classes": lambda: dtfd(2, distill="maxs"),
    "dtfd maxs 3 classes": lambda: dtfd(3, distill="maxs"),
    "dtfd maxmins 2 classes": lambda: dtfd(2, distill="maxmins"),
    "dtfd maxmins 5 classes": lambda: dtfd(5, distill="maxmins"),
    "dtfd maxmins 2 drawn": lambda: dtfd(2, drawn=True, distill="maxmins", mean_inference="2"),
    "dtfd maxmins 3 drawn": lambda: dtfd(3, drawn=True, distill="maxmins", mean_inference="2"),
    "acmil_mha": _head("acmil_mha"),
    "acmil_mha 4 heads": _head("acmil_mha", heads="4"),
    "aem_mha": _head("aem_mha", heads="2"),
    "hopfield": _head("hopfield", heads="3"),
    "hopfield sharp": _head("hopfield", heads="2", scaling="2.5"),
    "hopfield 1 step": _head("hopfield", heads="3", update_steps_max="1"),
    "hopfield 9 steps": _head("hopfield", heads="2", update_steps_max="9", scaling="1.5"),
    "mhim merged relu": _head("mhim_abmil", **MHIM, attention_activation="relu"),
    "mhim merged gelu": _head("mhim_abmil", **MHIM, attention_activation="gelu"),
    "mhim merged tanh": _head("mhim_abmil", **MHIM, attention_activation="tanh"),
    "ilra": _head("ilra", heads="4"),
    "wikg": _head("wikg", topk="1"),
    "wikg 3": _head("wikg", topk="3"),
    "transmil 0.0.9": _head("transmil", nystrom="0.0.9"),
    "transmil later": _head("transmil", nystrom="later"),
    "mhim_transmil": _head("mhim_transmil", activation="gelu"),
    "mambamil": _head("mambamil", **SR, rate="3"),
    "mambamil survival": _head("mambamil", **SR, rate="10", survival="nll"),
    "rrtmil": _head("rrtmil", **RRT, attention_activation="relu"),
    "rrtmil 3 regions": _head(
        "rrtmil",
        **(RRT | {"region_num": "3", "all_shortcut": "false"}),
        attention_activation="gelu",
        crmsa_heads="4",
    ),
    "deep_sets": _head("deep_sets"),
    "attrimil": _head("attrimil", 3),
    "madeleine": _head("madeleine", weighting="softmax"),
    "mean_probability": _head("mean_probability", 3),
    "mean_probability 1 output": _head("mean_probability", 1),
    "dftd_millab afs": lambda: two_tiers("dftd_millab", 2, distill="afs", instances="6"),
    "dftd_millab maxs": lambda: two_tiers("dftd_millab", 3, distill="maxs", instances="6"),
    "dftd_millab maxmins": lambda: two_tiers("dftd_millab", 2, distill="maxmins", instances="6"),
    "dtfd_torchmil": lambda: two_tiers(
        "dtfd_torchmil", 1, distill="afs", feature_activation="relu"
    ),
    "mambamil bi": _head("mambamil", activation="relu", scan="bi"),
    "transmil_torchmil": _head("transmil_torchmil", 1, heads="4"),
    "rrt_millab": _head("rrt_millab", activation="relu", attention_activation="gelu"),
    "transformer_millab": _head("transformer_millab", heads="4"),
    "transformer_abmil_torchmil": _head(
        "transformer_abmil_torchmil", 1, heads="2", attention_activation="tanh"
    ),
    "stamp_vit_alibi": _head("stamp_vit_alibi"),
    "wikg_millab": _head("wikg_millab", topk="2", activation="relu"),
    "cobra": _head("cobra"),
    "gigapath": _head(
        "gigapath",
        heads="4",
        grid="64",
        tile_size=str(TILE_SIZE),
        global_pool="false",
        segment_length="5,9",
        dilated_ratio="1,2",
    ),
    "gigapath mean": _head(
        "gigapath",
        heads="8",
        grid="64",
        tile_size=str(TILE_SIZE),
        global_pool="true",
        segment_length="4,8,16",
        dilated_ratio="1,2,4",
    ),
    "otsurv": _head("otsurv", survival="nll"),
    "otsurv early": _head("otsurv", survival="nll", rho="0.4"),
}
"""Name -> what makes it."""


@cache
def subject(name: str) -> Subject:
    """Return a subject, made once."""
    return MAKERS[name]()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Run torch with one thread in a module that imports this: tiny layers only wait for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
