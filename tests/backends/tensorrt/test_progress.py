"""Nested phases to one number, on what the builder of TensorRT-RTX 1.7 tells."""

from edge_mil.backends.tensorrt.building.progress import BuildProgress


def test_steps_of_a_phase_inside_count_as_parts_of_its_parents_step() -> None:
    progress = BuildProgress()
    progress.start("build", None, 4)
    assert progress.step("build", 0) == 0.25
    progress.start("optimise", "build", 10)
    assert progress.step("optimise", 4) == 0.25 + 0.5 / 4


def test_progress_never_goes_back_and_never_says_done_early() -> None:
    progress = BuildProgress()
    progress.start("build", None, 2)
    shares = [progress.step("build", 0)]
    progress.start("graph", "build", 5)
    shares += [progress.step("graph", n) for n in range(5)]
    shares.append(progress.finish("graph"))
    progress.start("graph", "build", 5)  # a phase of the same name comes again
    shares += [progress.step("graph", n) for n in range(5)]
    shares.append(progress.finish("build"))
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_a_step_of_an_unknown_phase_changes_nothing() -> None:
    assert BuildProgress().step("unheard of", 3) == 0
