"""Objectives, advantages and figures of one's own: checked without being run, part of a run's identity."""

import ast
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from training_cases import config_for, mini_batch, trainer_for

from entropy_mechanism import files
from entropy_mechanism.config import Advantage, ConfigError, OwnObjective, load_experiment
from entropy_mechanism.costs import passes
from entropy_mechanism.figures import registry
from entropy_mechanism.own_code import CodeChanged
from entropy_mechanism.plan import Plan
from entropy_mechanism.rl import advantages, objectives
from entropy_mechanism.rl.objectives import Tokens
from entropy_mechanism.rl.policy import Policy
from entropy_mechanism.rl.update import update
from entropy_mechanism.stages.train import permanent

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/covariance_weighted/objective.py"
SMOKE = yaml.safe_load((ROOT / "config/experiments/smoke.yaml").read_text())
SOURCE = """
import package_that_is_nowhere

def plain(tokens):
    return -tokens.advantage * tokens.logprob

def scaled(tokens, covariance, scale, *, power=1.0):
    return -tokens.advantage * tokens.logprob * scale

def anything(tokens, **options):
    return tokens.logprob

def advantage(rewards_PG, sequence_N, factor=1.0):
    return factor * (rewards_PG - rewards_PG.mean()).flatten()[sequence_N]

def backwards(sequence_N, rewards_PG):
    return sequence_N
"""
FIGURE = """
TITLE = "Mine"
CAPTION = "What it shows."
from entropy_mechanism.figures.fig09 import data

def draw(frames):
    return None
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with code of one's own in it."""
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "figure.py").write_text(FIGURE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder, **changes):
    """The smoke experiment with a method of its own, and what else is changed."""
    method = {"objective": {"name": "own", "code": "mine.py:plain"}} | changes.pop("method", {})
    raw = SMOKE | changes
    raw["methods"] = SMOKE["methods"] | {"mine": method}
    raw["runs"] = [
        *SMOKE["runs"],
        {"models": ["nano"], "train_sets": ["train"], "methods": ["mine"], "seeds": [1]},
    ]
    (folder / "my.yaml").write_text(yaml.safe_dump(raw))
    return load_experiment("my.yaml")


def run_of(experiment):
    return Plan(experiment).run_config("nano--train--mine--s1")


def own(code, **options):
    return {"objective": {"name": "own", "code": code, "options": options}}


def test_reading_an_experiment_runs_none_of_its_code(folder):
    objective = load(folder, method=own("mine.py:scaled", scale=2)).methods["mine"].objective
    assert objective.sha256 == files.sha256("mine.py")
    with pytest.raises(ModuleNotFoundError, match="package_that_is_nowhere"):
        objectives.own(None, load(folder).methods["mine"].objective)


WRONG = {
    "no such file": (own("other.py:plain"), "methods.mine.objective.code: other.py cannot be read from"),
    "no such function": (
        own("mine.py:plian"),
        "objective.code: mine.py defines no function plian; allowed:",
    ),
    "a suggestion": (own("mine.py:plian"), "(did you mean 'plain'?)"),
    "no function named": (own("mine.py"), "objective.code: found 'mine.py'; allowed: a file and a function"),
    "not of tokens": (
        own("mine.py:advantage"),
        "has to take tokens first, found rewards_PG",
    ),
    "misspelt option": (
        own("mine.py:scaled", scael=1),
        "objective.options.scael: the function has no such option; allowed: scale, power (did you mean",
    ),
    "missing option": (
        own("mine.py:scaled", power=2.0),
        "options: the function needs scale, which has no",
    ),
    "the covariance is no option": (
        own("mine.py:scaled", covariance=1),
        "options.covariance: the function",
    ),
    "infinite option": (own("mine.py:scaled", scale=math.inf), "options.scale: found inf; allowed: text, finite"),
    "no code": ({"objective": {"name": "own"}}, "methods.mine.objective.code: required key is missing"),
    "parameters in the wrong order": (
        {"advantage": {"estimator": "own", "code": "mine.py:backwards"}},
        "methods.mine.advantage.code: mine.py:backwards has to take rewards_PG, sequence_N first",
    ),
    "own estimator without code": ({"advantage": {"estimator": "own"}}, "advantage.code: required key is missing"),
    "code of another estimator": (
        {"advantage": {"code": "mine.py:advantage"}},
        "methods.mine.advantage.code: found with estimator grpo; allowed: with own",
    ),
}


@pytest.mark.parametrize(("method", "text"), WRONG.values(), ids=list(WRONG))
def test_wrong_code_is_named_with_what_is_allowed(folder, method, text):
    with pytest.raises(ConfigError) as caught:
        load(folder, method=method)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_that_is_no_python_is_named_with_its_line(folder):
    Path("mine.py").write_text("def plain(tokens):\n    return (\n")
    with pytest.raises(ConfigError, match=r"objective\.code: mine\.py:2 is no valid Python: "):
        load(folder)


def test_a_function_of_any_option_takes_any_option(folder):
    assert load(folder, method=own("mine.py:anything", what=[1, "x"])).methods["mine"].objective.options == {
        "what": [1, "x"]
    }


FIGURES = {
    "misspelt figure": ({"fig1": {}}, "figures: found 'fig1'; allowed: fig01,"),
    "name in capitals": ({"own_Mine": {}}, "figures: found 'own_Mine'; allowed: fig01,"),
    "no code": ({"own_mine": {}}, "figures.own_mine.code: required key is missing"),
    "no inputs": ({"own_mine": {"code": "figure.py"}}, "figures.own_mine.inputs: required key is missing"),
    "misspelt input": (
        {"own_mine": {"code": "figure.py", "inputs": ["curve"]}},
        "figures.own_mine.inputs[0]: 'curve' is no analysis; allowed: runs, curves,",
    ),
    "code of a figure of the project": (
        {"fig11": {"code": "figure.py", "inputs": ["curves"]}},
        "figures.fig11.code: found; allowed: with",
    ),
    "not a figure": (
        {"own_mine": {"code": "mine.py", "inputs": ["curves"]}},
        "figures.own_mine.code: mine.py does not define TITLE, CAPTION, data, draw",
    ),
}


@pytest.mark.parametrize(("figures", "text"), FIGURES.values(), ids=list(FIGURES))
def test_a_wrong_figure_is_named_with_what_is_allowed(folder, figures, text):
    with pytest.raises(ConfigError) as caught:
        load(folder, figures=figures)
    assert text in str(caught.value)


def test_a_figure_of_ones_own_is_known_once_its_experiment_is(folder, monkeypatch):
    monkeypatch.setattr(registry, "OWN", {})
    registry.adopt(load(folder, figures={"own_mine": {"code": "figure.py", "inputs": ["curves"]}}).figures)
    assert registry.entry("own_mine").inputs == ("curves",)
    assert registry.load("own_mine").TITLE == "Mine"


def test_changed_code_is_another_run_and_moved_code_the_same(folder):
    before = run_of(load(folder))
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.py").write_text(SOURCE)
    moved = run_of(load(folder, method=own("elsewhere/mine.py:plain")))
    other = run_of(load(folder, method=own("mine.py:anything")))
    Path("mine.py").write_text(SOURCE + "# changed\n")
    changed = run_of(load(folder))
    assert before.science == moved.science
    assert len({files.fingerprint(run.science) for run in (before, other, changed)}) == 3


def test_what_a_run_was_made_of_can_be_read_when_its_code_is_gone(folder):
    run = run_of(load(folder))
    Path("mine.py").unlink()
    assert type(run).model_validate(run.model_dump(mode="json")) == run


def test_the_keys_of_code_stay_out_of_runs_that_have_none():
    assert not {"code", "options", "sha256"} & Advantage().model_dump().keys()


def test_code_that_changes_between_planning_and_training_stops_the_run_but_not_for_good(folder):
    Path("mine.py").write_text(SOURCE.replace("import package_that_is_nowhere", ""))
    settings = load(folder).methods["mine"].objective
    Path("mine.py").write_text("def plain(tokens):\n    return tokens.logprob\n")
    with pytest.raises(CodeChanged, match=r"mine\.py has changed since the experiment was read") as caught:
        objectives.own(None, settings)
    assert not permanent(caught.value)


def tokens_of(count=6):
    generator = torch.Generator().manual_seed(1)
    logprob, old, advantage = torch.randn(3, count, generator=generator, dtype=torch.float64)
    covariance = torch.randn(count, generator=generator, dtype=torch.float64) * 4
    logprob = (-logprob.abs()).requires_grad_()
    selected = torch.zeros(count, dtype=torch.bool)
    return Tokens(logprob, -old.abs(), advantage, selected, torch.arange(count), covariance=covariance)


@pytest.mark.parametrize(
    ("body", "found"),
    [("tokens.logprob.mean()", r"shape \[\]"), ("tokens.logprob.tolist()", "list"), ("None", "NoneType")],
)
def test_an_objective_that_does_not_return_a_loss_for_every_token_is_refused(folder, body, found):
    Path("short.py").write_text(f"def short(tokens):\n    return {body}\n")
    settings = OwnObjective(name="own", code="short.py:short")
    with pytest.raises(ValueError, match=rf"short.py:short returned {found}; an objective returns .* 6 tokens"):
        objectives.own(tokens_of(), settings)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("rewards_PG", r"returned shape \[2, 2\]; an estimator"),
        ("1.0", "returned float; an estimator"),
        ("rewards_PG.flatten()[sequence_N] / 0", "not finite"),
    ],
)
def test_an_estimator_that_does_not_return_an_advantage_for_every_token_is_refused(folder, body, text):
    Path("short.py").write_text(f"def short(rewards_PG, sequence_N):\n    return {body}\n")
    settings = Advantage(estimator="own", code="short.py:short")
    with pytest.raises(ValueError, match=text):
        advantages.own(torch.eye(2), torch.tensor([0, 0, 1, 2, 3]), settings)


def test_an_estimator_of_ones_own_trains_and_its_options_reach_it(folder, policy, tmp_path):
    Path("mine.py").write_text(SOURCE.replace("import package_that_is_nowhere", ""))
    settings = {"estimator": "own", "code": "mine.py:advantage", "options": {"factor": 3.0}}
    config = config_for(steps=2)
    config = config.model_copy(update={"advantage": Advantage.model_validate(settings)})
    rows = []
    trainer = trainer_for(policy, config, tmp_path / "run", rows)
    seen = []
    trainer.advantages = lambda rollout: (
        seen.append((rollout, type(trainer).advantages(trainer, rollout))) or seen[-1][1]
    )
    trainer.train()
    rollout, advantage_N = seen[0]
    expected = 3 * (rollout.rewards_PG - rollout.rewards_PG.mean())
    assert torch.equal(advantage_N, expected.flatten()[rollout.sequences.sequence_N])
    assert rows[0]["policy/gradient_norm"] > 0


# --- the example ------------------------------------------------------------------------------------------


def example(**options):
    return OwnObjective(name="own", code=f"{EXAMPLE}:covariance_weighted", options={"scale": 2.5, **options})


def test_the_example_is_short_and_one_function():
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    assert [type(node).__name__ for node in ast.parse(EXAMPLE.read_text()).body].count("FunctionDef") == 1


def test_the_examples_loss_and_gradient_are_those_of_plain_arithmetic():
    tokens = tokens_of(40)
    loss = objectives.own(tokens, example(clip=0.3))
    loss.sum().backward()
    values = zip(*(part.tolist() for part in (tokens.logprob, tokens.old_logprob, tokens.advantage)), strict=True)
    cut = 0
    for place, (logprob, old, advantage) in enumerate(values):
        weight = math.exp(-max(0.0, tokens.covariance[place].item()) / 2.5)
        ratio = math.exp(logprob - old)
        clipped = (advantage > 0 and ratio > 1.3) or (advantage < 0 and ratio < 0.7)
        bound = (1.3 if advantage > 0 else 0.7) if clipped else ratio
        cut += clipped
        assert loss[place].item() == pytest.approx(-weight * bound * advantage)
        slope = 0.0 if clipped else -weight * ratio * advantage
        assert tokens.logprob.grad[place].item() == pytest.approx(slope)
    assert 0 < cut < 40


def gradient(policy, config):
    update(Policy(policy), torch.optim.SGD(policy.parameters(), lr=0.0), mini_batch(policy), config, (3, 0, 0))
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


def test_the_examples_gradient_is_that_of_its_weighted_loss_over_the_whole_update(policy):
    """Autograd of the formula on log-probabilities that transformers computes, without the project's code."""
    batch = mini_batch(policy)
    found = gradient(policy, config_for(example(scale=0.1).model_dump(), gradient_clip=1e9))
    policy.zero_grad()
    logprobs = []
    for prompt, response in zip(batch.sequences.prompts, batch.sequences.responses, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        logits = policy(input_ids=ids).logits[0].log_softmax(-1)
        logprobs += [logits[len(prompt) + i - 1, token] for i, token in enumerate(response)]
    logprob = torch.stack(logprobs)
    fixed, advantage = logprob.detach(), batch.advantage_N
    covariance = (fixed - fixed.mean()) * (advantage - advantage.mean())
    weight = torch.exp(-covariance.clamp(min=0) / 0.1)
    ratio = (logprob - batch.old_logprob_N).exp()
    loss = -weight * torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    loss.mean().backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    assert weight.min() < 0.9
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_examples_covariance_is_that_of_the_whole_update_for_any_micro_batch_size(policy):
    whole, parts = (
        gradient(policy, config_for(example(scale=0.1).model_dump(), micro_batch_tokens=size))
        for size in (9999, 20)
    )
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_an_objective_that_takes_the_covariance_costs_another_pass(folder):
    Path("mine.py").write_text(SOURCE)
    plain, scaled = run_of(load(folder)), run_of(load(folder, method=own("mine.py:scaled", scale=1)))
    assert passes(scaled) == passes(plain) + 1


def test_reading_the_examples_experiment_imports_no_torch():
    program = f"""
import sys
from entropy_mechanism.config import load_experiment
load_experiment({str(EXAMPLE.parent / "covariance_weighted.yaml")!r})
print({{"torch", "mlflow", "datasets", "matplotlib"}} & set(sys.modules) or "nothing heavy")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "nothing heavy\n"
