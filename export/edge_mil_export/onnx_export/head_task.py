"""What the outputs of a head mean: stated by the user, settled by its authors' code, or asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_mil.bundle import TaskSpec
from edge_mil.errors import UsageError
from edge_mil_export.architectures.head import Head
from edge_mil_export.architectures.options import Option

MOST_PLAIN_CLASSES = 3
"""Two or three outputs are taken for classes. With four or more they may as well be the intervals
of discrete survival, of which four is the usual number, or labels: then the user is asked."""
MEANINGS = {
    "classification": "classes of which one is true",
    "multilabel": "labels of which any may be true",
    "regression": "a value",
    "survival-nll": "the hazards of time intervals",
    "cox": "the logarithm of a risk",
    "pooling": "a pooled vector, no classifier",
}
"""What `--task` takes -> what it says of the outputs."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that the file does not say, and that was taken for granted.

    Attributes:
        name: As `--arch-option` or `--task` names it.
        value: What was taken.
        changes: What depends on it.
    """

    name: str
    value: str
    changes: str


def assumed_options(
    options: Sequence[Option], complete: Mapping[str, str], given: Mapping[str, str]
) -> list[Assumption]:
    """Return the options of a head that have their default because nobody named them.

    Args:
        options: The options of the head.
        complete: Those that matter for the file, with their values.
        given: By the user.
    """
    return [
        Assumption(option.name, option.default, option.changes)
        for option in options
        if option.default
        and option.name not in given
        and complete.get(option.name) == option.default
    ]


def task_of_head(
    head: Head, name: str, given: str | None, classes: Sequence[str] | None
) -> tuple[TaskSpec, list[Assumption]]:
    """Return the task, and what was taken for granted of it.

    Args:
        head: The rebuilt head.
        name: Its architecture, for messages.
        given: As `--task` states it; None: it is not stated.
        classes: Names of the outputs; None numbers them.

    Raises:
        UsageError: The outputs can be read in several ways and the user did not say how, the task
            does not fit the head, or the names are not as many as the outputs.
    """
    outputs = head.output_names or tuple(str(i) for i in range(head.outputs))
    if classes is not None and len(classes) != len(outputs):
        raise UsageError(
            f"--classes names {len(classes)} and {name} has {len(outputs)} "
            f"output{'s' if len(outputs) > 1 else ''}; name one for each."
        )
    possible = possible_tasks(head)
    if given is not None and given not in possible:
        raise UsageError(
            f"--task {given} does not fit {name} with {_counted(head.outputs)}; it can be "
            f"{', '.join(possible)}."
        )
    assumed: list[Assumption] = []
    task = given or _settled(head, possible)
    if task is None and 1 < head.outputs <= MOST_PLAIN_CLASSES:
        task = "classification"
        assumed = [Assumption("task", task, "what the outputs mean")]
    if task is None:
        choices = " or ".join(f"--task {one} ({MEANINGS[one]})" for one in possible)
        raise UsageError(
            f"{name} has {_counted(head.outputs)} here, and the file does not say what that means; "
            f"name {choices}."
        )
    kind, probabilities = _kind(head, task)
    return TaskSpec(kind, tuple(classes or outputs), probabilities), assumed


def survival_reading(task: str | None) -> str:
    """Return how survival logits are read, nll or cox, or "" for any other task."""
    return {"survival-nll": "nll", "cox": "cox"}.get(task or "", "")


def possible_tasks(head: Head) -> list[str]:
    """Return the tasks that a head of so many outputs can have."""
    if head.kind == "pooling":
        return ["pooling"]
    if head.kind == "regression":
        return ["regression"]
    if head.kind == "survival":
        return [head.survival_reading]
    of_several = ("classification", "multilabel", "survival-nll")
    of_one = ("classification", "regression", "cox")
    return [task for task in (of_one if head.outputs == 1 else of_several) if task in head.readings]


def _settled(head: Head, possible: Sequence[str]) -> str | None:
    """Return the task that the authors' own code leaves no doubt about."""
    if len(possible) == 1:
        return possible[0]
    return "classification" if head.sigmoid else None


def _kind(head: Head, task: str) -> tuple[str, str]:
    """Return the kind of task and the probabilities, as the manifest names them."""
    if task == "multilabel":
        return "classification", "sigmoid"
    if task == "classification":
        if not head.has_probabilities:
            return task, "none"
        return task, "sigmoid" if head.sigmoid or head.outputs == 1 else "softmax"
    return "survival" if survival_reading(task) else task, "none"


def _counted(outputs: int) -> str:
    return f"{outputs} output{'s' if outputs > 1 else ''}"
