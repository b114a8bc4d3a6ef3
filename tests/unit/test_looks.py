"""Methods and models are told apart, and look the same in every figure."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from figure_frames import METHODS

from entropy_mechanism.config import load_experiment
from entropy_mechanism.figures import fig11, style
from entropy_mechanism.plan import Plan

EXPERIMENTS = Path(__file__).parents[2] / "config/experiments"


def test_methods_look_the_same_in_every_figure(frames):
    for axes in fig11.draw(frames).axes:
        assert [line.get_color() for line in axes.lines] == [style.METHODS[name].colour for name in fig11.METHODS]
    looks = [style.method_look(method) for method in METHODS]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(METHODS)
    assert style.method_look("KL_Cov") == style.method_look("kl-cov-32b") == style.METHODS["kl-cov"]
    assert style.method_look("reinforce-plus-plus") == style.METHODS["reinforce++"]
    assert style.method_label("kl-cov-old") == "KL-Cov, old"
    reserved = {style.ENTROPY_COLOUR, style.ACCURACY_COLOUR, style.COVARIANCE_COLOUR}
    assert not reserved & {look.colour for look in style.METHODS.values()}


@pytest.mark.parametrize("experiment", ["paper", "tiny-full"])
@pytest.mark.parametrize("item", ["ceiling", "fig09", "fig10", "fig12"])
def test_no_two_methods_of_a_figure_look_alike(experiment, item):
    from matplotlib.colors import to_rgb

    plan = Plan(load_experiment(EXPERIMENTS / f"{experiment}.yaml"))
    methods = {style.method_key(run.method) for run in plan.shown(item)}
    looks = style.method_looks(methods)
    assert {look.label for look in looks.values()} == {style.method_label(method) for method in methods}
    for one, other in combinations(looks.values(), 2):
        apart = np.abs(np.subtract(to_rgb(one.colour), to_rgb(other.colour))).max()
        assert apart > 0.15 or one.marker != other.marker, (one, other)
    for method in methods:  # nothing depends on what is shown beside it, so it looks so in every figure
        assert style.method_looks([method])[method] == looks[method]


def test_coefficients_share_a_hue_and_are_darker_the_larger_they_are():
    from matplotlib.colors import rgb_to_hsv, to_rgb

    names = [f"entropy-{value}" for value in ("0", "1e-4", "0.001", "0.005", "0.01", "0.05", "0.1")]
    colours = [to_rgb(style.method_look(name).colour) for name in names]
    light = [sum(colour) for colour in colours]
    assert light == sorted(light, reverse=True)
    assert len(set(light[1:])) == len(light[1:])
    hues = [rgb_to_hsv(colour)[0] for colour in colours]
    assert hues == pytest.approx([hues[0]] * len(hues), abs=0.02)


def test_names_that_look_alike_by_chance_are_told_apart_within_a_figure():
    alike = [f"clip-cov-{name}" for name in ("text", "old", "few")]
    assert len({replace(style.method_look(name), label="") for name in alike}) == 1
    looks = style.method_looks([*alike, "kl-cov", "kl-cov-32b"])
    assert len({looks[name].marker for name in alike}) == 3
    assert looks == style.method_looks(list(looks)[::-1])
    assert looks["kl-cov"] == looks["kl-cov-32b"] == style.METHODS["kl-cov"]


@pytest.mark.parametrize("sizes", [(5e3, 2e4, 1e5, 5e5), (4e8, 3e9, 7e9, 3e10)])
def test_larger_models_are_darker(sizes):
    from matplotlib.colors import to_rgb

    shades = [sum(to_rgb(style.model_look("m", size).colour)) for size in sizes]
    assert shades == sorted(shades, reverse=True)
    assert len(set(shades)) == len(sizes)


def test_a_models_marker_is_its_familys():
    markers = {style.model_look(name, 1e5).marker for name in ("qwen-w64", "llama-w64", "mistral-w64")}
    assert len(markers) == 3
    assert style.model_look("qwen-w16", 5e3).marker == style.model_look("qwen2.5-7b", 7e9).marker


def test_names_are_displayed_as_people_write_them():
    assert style.model_label("qwen2.5-7b") == "Qwen2.5-7B"
    assert style.model_label("tiny-s") == "tiny-s"
    assert style.method_label("kl-cov") == "KL-Cov"
    assert style.family("llama3.1-8b") == style.family("deepseek-math-7b") == "LLaMA and DeepSeek"
    assert style.method_order(["zeta", "kl-cov", "base", "grpo"]) == ["base", "grpo", "kl-cov", "zeta"]
