"""The smoke experiment end to end, by content: what stands in every file is recomputed here independently."""

import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml

RUNS = [f"nano--train--{method}--s1" for method in ("grpo", "kl-cov", "on-policy")]
POLICIES = ["nano--base", *RUNS]
BENCHMARKS = {"easy": (30, 2, 1, 0), "medium": (30, 3, 1, 4), "hard": (30, 4, 0, 4)}
"""Problems, operands, greedy responses and sampled responses per problem."""


@pytest.fixture(scope="module")
def root(smoke):
    return smoke.results / "smoke"


def value_modulo_ten(problem):
    assert re.fullmatch(r"\d([+-]\d)+", problem)
    return str(eval(problem) % 10)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_problems_are_right_and_disjoint(root):
    sizes = {
        "train": (300, 2, 3),
        "validation": (50, 2, 3),
        "easy": (30, 2, 2),
        "medium": (30, 3, 3),
        "hard": (30, 4, 4),
    }
    seen = set()
    for name, (count, fewest, most) in sizes.items():
        frame = pd.read_parquet(root / f"data/{name}.parquet")
        assert len(frame) == count == frame["id"].nunique()
        assert [value_modulo_ten(problem) for problem in frame["problem"]] == frame["answer"].tolist()
        assert {len(problem) // 2 + 1 for problem in frame["problem"]} <= set(range(fewest, most + 1))
        assert not seen & set(frame["problem"])
        seen |= set(frame["problem"])
        statistics = json.loads((root / f"data/{name}.json").read_text())
        assert statistics["kept"] == count
        assert statistics["sha256"] == digest(root / f"data/{name}.parquet")


def test_models_are_ordinary_hugging_face_folders_with_true_digests(smoke, root):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for path in [root / "models/nano/manifest.json", *(root / f"runs/{run}/manifest.json" for run in RUNS)]:
        manifest = json.loads(path.read_text())
        folder = path.parent / manifest["weights"]
        assert {name: digest(folder / name) for name in manifest["digests"]} == manifest["digests"]
        assert "model.safetensors" in manifest["digests"]
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.architectures == ["Qwen2ForCausalLM"]
        assert sum(p.numel() for p in model.parameters()) == manifest["parameters"]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "3+4"}], tokenize=False, add_generation_prompt=True
        )
        assert text == "<|im_start|>user\n3+4<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("run", RUNS)
def test_metrics_have_a_row_per_step_and_lie_in_their_ranges(root, run):
    settings = yaml.safe_load((root / f"runs/{run}/run.yaml").read_text())
    frame = pd.read_parquet(root / f"runs/{run}/metrics.parquet")
    steps = settings["training"]["steps"]
    assert frame["step"].tolist() == list(range(steps + 1))
    for name in frame.filter(like="entropy/"):
        assert frame[name].dropna().between(0, math.log(100), inclusive="neither").all()
    assert frame["validation/accuracy"].between(0, 1).all()
    assert frame["reward/mean"].between(0, 1).all()
    assert (frame["reward/mean"] == frame["outcome/correct"]).all()
    shares = frame[[f"outcome/{name}" for name in ("correct", "wrong", "no_answer", "timeout", "error")]]
    assert np.allclose(shares.sum(axis=1), 1)
    assert frame["length/max"].max() <= settings["training"]["max_response"]
    assert frame["gradient_steps"].is_monotonic_increasing
    trained = frame["policy/loss"].notna()
    assert frame["gradient_steps"].iloc[-1] == trained.sum() * settings["training"]["updates"]
    assert not trained.iloc[-1]
    if "kl-cov" in run:
        assert frame.loc[trained, "selection/fraction"].between(0.01, 0.02).all()
    else:
        assert "selection/count" not in frame


def test_training_changed_the_policy_and_every_method_differently(smoke, root):
    manifests = [json.loads((root / f"runs/{run}/manifest.json").read_text()) for run in RUNS]
    weights = {manifest["digests"]["model.safetensors"] for manifest in manifests}
    base = json.loads((root / "models/nano/manifest.json").read_text())["digests"]["model.safetensors"]
    assert len(weights | {base}) == 4
    assert len({manifest["fingerprint"] for manifest in manifests}) == 3


def test_differences_are_those_of_the_scores(smoke, root):
    found = pd.read_parquet(root / "evaluation/nano--train--kl-cov--s1/comparison.parquet")
    assert list(found["reference"].unique()) == ["nano--base", "nano--train--grpo--s1"]
    keys = ["benchmark", "protocol"]
    scores = {
        policy: pd.read_parquet(root / f"evaluation/{policy}/scores.parquet").set_index(keys)["score"]
        for policy in ("nano--train--kl-cov--s1", *found["reference"].unique())
    }
    for reference, rows in found[~found["benchmark"].isin(["pooled", "macro"])].groupby("reference"):
        expected = scores["nano--train--kl-cov--s1"] - scores[reference]
        difference = rows.set_index(keys)["difference"]
        pd.testing.assert_series_equal(difference, expected[difference.index], check_names=False)
    shown = (root / "tables/comparison.md").read_text()
    assert "KL-Cov − GRPO" in shown


@pytest.mark.parametrize("policy", POLICIES)
def test_grades_and_scores_follow_from_the_responses(root, policy):
    folder = root / "evaluation" / policy
    scores = pd.read_parquet(folder / "scores.parquet").set_index(["benchmark", "protocol"])["score"]
    entering, weights = [], []
    for name, (count, _, greedy, sampled) in BENCHMARKS.items():
        answers = pd.read_parquet(root / f"data/{name}.parquet").set_index("id")["answer"]
        samples = pd.read_parquet(folder / name / "samples.parquet")
        grades = pd.read_parquet(folder / name / "grades.parquet")
        assert len(samples) == len(grades) == count * (greedy + sampled)
        boxed = [re.findall(r"\\boxed\{(\d)\}", response) for response in samples["response"]]
        right = [bool(b) and b[-1] == answers[i] for b, i in zip(boxed, samples["problem_id"], strict=True)]
        assert grades["correct"].tolist() == right
        assert (grades["correct"] == (grades["outcome"] == "correct")).all()
        by_decoding = grades.groupby("decoding")["correct"]
        protocol = "greedy" if greedy else f"avg@{sampled}"
        entering.append(scores[name, protocol])
        weights.append(count * (1 if greedy else sampled))
        if greedy:
            assert scores[name, "greedy"] == pytest.approx(by_decoding.get_group("greedy").mean())
        if sampled:
            solved = grades[grades["decoding"] == "sampled"].groupby("problem_id")["correct"].max()
            assert scores[name, f"pass@{sampled}"] == pytest.approx(solved.mean())
    averages = scores[["pooled", "macro"]].droplevel("protocol")
    assert averages["macro"] == pytest.approx(np.mean(entering))
    assert averages["pooled"] == pytest.approx(np.average(entering, weights=weights))


def test_generated_test_sets_share_nothing_with_the_training_set(root):
    counts = pd.read_csv(root / "data/overlap/train.csv").set_index("tested_set")
    assert counts["problems"].to_dict() == {"validation": 50, "easy": 30, "medium": 30, "hard": 30}
    assert counts["contained"].tolist() == [0] * 4
    assert pd.read_parquet(root / "data/overlap/train.parquet").empty
    for policy in POLICIES:
        scores = pd.read_parquet(root / f"evaluation/{policy}/scores.parquet")
        assert scores["clean_score"].tolist() == scores["score"].tolist()
        assert scores["clean_problems"].tolist() == scores["problems"].tolist()


@pytest.mark.parametrize("run", RUNS)
def test_the_law_is_the_least_squares_fit_of_the_curves(root, run):
    metrics = pd.read_parquet(root / f"runs/{run}/metrics.parquet")
    points = metrics[["entropy/sequence_mean/after_filter", "validation/accuracy"]].dropna()
    design = np.stack([-np.exp(points.iloc[:, 0]), np.ones(len(points))], axis=1)
    (a, b), *_ = np.linalg.lstsq(design, points.iloc[:, 1], rcond=None)
    law = pd.read_parquet(root / f"analysis/{run}/law.parquet").iloc[0]
    assert law["points"] == len(points)
    assert law[["a", "b", "ceiling"]].tolist() == pytest.approx([a, b, b - a], rel=1e-6, abs=1e-9)
    rounding = 1e-12  # all there is of a slope and its interval where the accuracy never changed
    assert law["a_low"] - rounding <= law["a"] <= law["a_high"] + rounding


def test_figures_are_drawn_from_the_files_they_name(smoke, root):
    for name in ("fig01", "fig02", "fig03", "fig05", "fig07", "fig08", "fig11", "fig12"):
        figure = root / "figures" / name
        assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        png = figure.with_suffix(".png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert int.from_bytes(png[16:20], "big") > 600
        assert b"<svg" in figure.with_suffix(".svg").read_bytes()
        described = json.loads(figure.with_suffix(".json").read_text())
        assert described["caption"]
        assert described["runs"]
        assert set(described["runs"]) <= set(RUNS)
        assert described["inputs"] == {path: digest(figure.parent / path) for path in described["inputs"]}
        assert len(pd.read_csv(figure.with_suffix(".csv"))) > 0
    drawn = pd.read_csv(root / "figures/fig11.csv")
    ours = drawn[(drawn["source"] == "ours") & drawn["y_name"].str.contains("ntropy")]
    assert set(ours["run"].dropna()) <= set(RUNS[:2]) | {""}
    metrics = pd.read_parquet(root / f"runs/{RUNS[0]}/metrics.parquet")
    expected = metrics["entropy/sequence_mean/after_filter"].dropna()
    mine = ours[ours["series"].str.fullmatch("GRPO|grpo")]
    assert sorted(mine["y"].dropna()) == pytest.approx(sorted(expected))


def test_tables_hold_the_scores_and_covariances(root):
    table = pd.read_csv(root / "tables/table2.csv")
    assert set(table.loc[table["source"] == "ours", "method"]) == {"base", "grpo", "kl-cov"}
    scores = pd.read_parquet(root / f"evaluation/{RUNS[0]}/scores.parquet").set_index("benchmark")["score"]
    row = table[table["method"] == "grpo"].iloc[0]
    assert row["pooled"] == pytest.approx(scores["pooled"])
    assert row["easy greedy"] == pytest.approx(scores["easy"])
    tokens = pd.read_parquet(records(root, RUNS[0]) / "step-000000.parquet")
    logprob, advantage = tokens["old_logprob"].astype(float), tokens["advantage"].astype(float)
    descending = np.sort((logprob - logprob.mean()) * (advantage - advantage.mean()))[::-1]
    covariances = pd.read_csv(root / "tables/table1.csv").set_index("top_fraction")
    ours = [name for name in covariances.columns if "nano" in name]
    for fraction in (0.0002, 0.02, 0.2, 0.5, 1.0):
        top = descending[: max(1, round(fraction * len(descending)))]
        assert covariances.loc[fraction, ours[0]] == pytest.approx(top.mean(), rel=1e-6)


def test_fig_8_shows_the_covariances_of_the_token_records(root):
    expected = {}
    for path in records(root, RUNS[2]).glob("step-*.parquet"):
        tokens = pd.read_parquet(path)
        responses = tokens.groupby(["group", "sample"])[["old_logprob", "advantage"]].mean().astype(float)
        responses["weighted"] = np.exp(responses["old_logprob"]) * responses["advantage"]
        groups = responses.groupby("group")
        covariances = groups.apply(lambda group: np.cov(group["old_logprob"], group["weighted"], ddof=0)[0, 1])
        expected[int(path.stem.removeprefix("step-"))] = covariances.mean()
    dynamics = pd.read_parquet(root / f"analysis/{RUNS[2]}/dynamics.parquet")
    found = dynamics[(dynamics["series"] == "covariance") & (dynamics["source"] == "records")].set_index("step")
    assert found["value"].to_dict() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    drawn = pd.read_csv(root / "figures/fig08.csv").query("source == 'ours' and series == 'covariance'")
    assert drawn["y"].tolist() == pytest.approx(found["smooth"].tolist())


def records(root, run):
    """The folder of a run's token records."""
    manifest = json.loads((root / f"runs/{run}/manifest.json").read_text())
    return root.parent / "store" / manifest["fingerprint"] / "tokens"


class Page(HTMLParser):
    """Images and outside addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.resources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            self.images.append(values)
        for name in ("src", "srcset", "data", "poster"):
            if values.get(name):
                self.resources.append(values[name])
        if tag == "link" and values.get("href"):
            self.resources.append(values["href"])


def test_the_report_is_self_contained_and_shows_everything(smoke, root):
    text = (root / "report/index.html").read_text()
    page = Page(text)
    assert len(page.images) >= 6
    assert all(image["alt"] for image in page.images if image.get("src"))
    assert all(resource.startswith("data:") for resource in page.resources)
    assert "@import" not in text
    for name in [*RUNS, "Table 1", "Table 2"]:
        assert name in text
    for run in RUNS:
        law = pd.read_parquet(root / f"analysis/{run}/law.parquet").iloc[0]
        assert f"{law['entropy_last']:.3g}"[:4] in text
    for link in re.findall(r'href="(\.\./[^"]+)"', text):
        assert (root / "report" / link).is_file(), link


@pytest.mark.browser
def test_the_report_opens_in_a_browser_with_every_figure(browser, root):
    names = [path.stem for path in sorted((root / "figures").glob("*.json"))]
    for width in (1280, 360):
        browser.size(width, 800, mobile=width < 500)
        browser.open(root / "report/index.html")
        assert browser.complaints == []
        assert [address for address in browser.requests[1:] if not address.startswith("data:")] == []
        widths = browser.run(
            "Object.fromEntries([...document.querySelectorAll('figure')]"
            ".map(f => [f.id, f.querySelector('img')?.naturalWidth ?? f.querySelector('.missing').innerText]))"
        )
        assert sorted(widths) == names
        shown = {name: width for name, width in widths.items() if isinstance(width, int)}
        assert {"fig01", "fig03", "fig11"} <= set(shown)
        assert min(shown.values()) > 0
        assert all("nothing to draw" in note for name, note in widths.items() if name not in shown)
        assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_snakemakes_own_report_has_the_page_figures_and_tables_with_captions(browser, smoke, root, tmp_path):
    page = tmp_path / "report.html"
    smoke.snakemake("--report", str(page), "--config", "experiment=smoke")
    text = page.read_text()
    for name in ("fig01", "table2"):
        (described,) = (json.loads(path.read_text()) for path in root.glob(f"*/{name}.json"))
        for words in (described["title"], described["caption"][:60]):
            assert words.replace("&", "&amp;") in text
    assert "system-message" not in text
    browser.size(1280, 800)
    browser.open(page)
    assert [text for text in browser.complaints if "tailwindcss" not in text] == []  # Snakemake's own style sheet
    assert [address for address in browser.requests if not address.startswith(("file:", "data:", "blob:"))] == []
    shown = browser.run("document.body.innerText")
    for category in ("Figures", "Tables", "Report"):
        assert category in shown


def test_mlflow_holds_the_invocation_and_every_executed_stage(smoke, root):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{smoke.results}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'entropy-mechanism'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    stages = pd.Series([child.data.tags["stage"] for child in children]).value_counts().to_dict()
    items = yaml.safe_load((smoke.root / "config/experiments/smoke.yaml").read_text())
    assert stages == {
        "prepare": 5,
        "decontaminate": 1,
        "make_model": 1,
        "resolve": 3,
        "train": 3,
        "sample": 4,
        "grade": 12,
        "score": 4,
        "collect_curves": 3,
        "compare": 3,
        "token_covariances": 3,
        "fit_law": 3,
        "entropy_dynamics": 3,
        "study": 4,
        "published": 1,
        "tabular": 1,
        "figure": len(items["figures"]),
        "table": len(items["tables"]),
        "report": 1,
    }
    assert {child.info.status for child in children} == {"FINISHED"}
    page = (root / "report/index.html").read_text()
    for child in children:
        if child.data.tags["stage"] != "train":
            continue
        run = child.data.tags["key"]
        assert child.info.run_id in page
        frame = pd.read_parquet(root / f"runs/{run}/metrics.parquet")
        for name in ("entropy/sequence_mean/after_filter", "validation/accuracy", "policy/loss"):
            history = client.get_metric_history(child.info.run_id, name)
            expected = frame[["step", name]].dropna()
            assert [(p.step, p.value) for p in sorted(history, key=lambda p: p.step)] == [
                (int(step), pytest.approx(value)) for step, value in expected.itertuples(index=False)
            ]
        assert child.data.params["objective.name"] in ("ppo-clip", "kl-cov", "policy-gradient")
        manifest = root / f"runs/{run}/manifest.json"
        assert digest(manifest) in child.data.tags.values()


def test_the_audit_agrees_with_the_files(smoke):
    assert "audit: 0 findings" in smoke.cli("audit", "--results", "results").stdout
