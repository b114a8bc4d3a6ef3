"""The report says what the frames say, and needs nothing but itself."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from figure_frames import FINAL, A, B, empty, make_frames, settings

from entropy_mechanism.figures import fig02, style
from entropy_mechanism.report import FigureEntry, Report, TableEntry, build, comparison, headlines, judge_all

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" width="237.6pt" height="20pt" viewBox="0 0 237.6 20">
<rect width="100" height="10"/></svg>"""


class Page(HTMLParser):
    """Collects tags with their attributes and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "img", "br", "hr", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(frames):
    last = frames["curves"].groupby("run").last().loc[frames["runs"]["run"]]
    runs = frames["runs"].assign(
        device="cpu",
        fingerprint="0123456789abcdef",
        entropy=last[style.ENTROPY].to_numpy(),
        accuracy=last[style.ACCURACY].to_numpy(),
        mlflow_run=[f"id{number}" for number in range(len(frames["runs"]))],
    )
    return Report(
        experiment="tiny",
        created="2025-06-01 12:00",
        revision="abc1234",
        claims=judge_all(frames, {"fig01": set(frames["runs"]["run"])}),
        headlines=headlines(frames),
        figures=(
            FigureEntry(
                *("fig01", "First", "What is shown.", PNG),
                links={"data (CSV)": "../figures/fig01.csv", "PDF": "../figures/fig01.pdf"},
                runs=("tiny--chains--grpo--s0",),
            ),
            FigureEntry("fig07", "Vector", "In SVG.", SVG, links={"SVG": "../figures/fig07.svg"}),
            FigureEntry("fig08", "Second", "Not shown.", None, note="no strictly on-policy run."),
            FigureEntry("fig11", "Third", "Empty file.", b""),
        ),
        tables=(
            TableEntry(
                "table1",
                "Cells",
                "Caption.",
                pd.DataFrame({"Name": ["a", "<b>"], "Score": ["**51.2** [4, 6]", "–"]}),
            ),
            TableEntry("table2", "Nothing", "Caption.", pd.DataFrame({"Name": []})),
            TableEntry("forms", "Old", "Caption.", None, note="out of date."),
        ),
        runs=runs,
        comparison=comparison(frames),
        commands=("make run", "snakemake --config experiment=tiny"),
        environment={"Python": "3.11", "Machine": "2 cores"},
    )


# --- Numbers ---


def test_headlines_are_those_of_the_frames(frames):
    found = headlines(frames)
    ends = 0.03 + 0.47 * np.exp(-np.arange(36, 41) / 6)  # the last tenth, five of 41 steps
    end = ends.mean()
    assert (found.model, found.seeds) == ("tiny", 1)
    assert found.entropy_start == pytest.approx(0.5)
    assert found.entropy_end == pytest.approx(end)
    assert found.entropy_lost == pytest.approx(1 - end / 0.5)
    assert found.accuracy_gain == pytest.approx(A * (np.exp(0.5) - np.exp(ends[[0, 4]]).mean()))
    assert found.positive_covariance == pytest.approx(36 / 41)
    assert (found.a, found.b, found.ceiling, found.rmse) == pytest.approx((A, B, B - A, 0.01))
    assert (found.forecast_rmse, found.forecast_final_error) == pytest.approx((0.02, 0.03))
    assert not [name for name, value in vars(found).items() if isinstance(value, float) and np.isnan(value)]


def test_the_headlines_are_told_in_plain_sentences_that_leave_out_what_was_not_measured(frames):
    found = headlines(frames)
    entropy, law, *others = found.sentences
    assert entropy == (
        f"GRPO on tiny: entropy 0.500 -> {found.entropy_end:#.3g} nats per token, validation accuracy "
        f"{100 * found.accuracy_start:.1f} % -> {100 * found.accuracy_end:.1f} %."
    )
    assert law == f"The law R = {-A:.3g} exp(H) + {B:.3g} fits with an error of 1.0 points."
    assert others == [entry.verdict for entry in found.methods if entry.method != "grpo"]
    assert replace(found, a=np.nan).sentences == (entropy, *others)
    assert replace(found, accuracy_end=np.nan).sentences == tuple(entry.verdict for entry in found.methods)


def test_final_entropies_are_compared_over_the_last_tenth(frames):
    found = {entry.method: entry for entry in headlines(frames).methods}
    last = np.arange(36, 41)  # five of 41 steps
    ends = {method: np.mean(end + (0.5 - end) * np.exp(-last / 6)) for method, end in FINAL.items()}
    for method, end in ends.items():
        assert found[method].entropy == pytest.approx(end)
        assert found[method].ratio == pytest.approx(end / ends["grpo"])
    assert found["clip-cov"].verdict.startswith(
        f"Clip-Cov keeps {ends['clip-cov'] / ends['grpo']:.2g} times GRPO's"
    )
    assert "0.25 times as many gradient steps" in found["on-policy"].verdict
    assert "gradient steps" not in found["kl-cov"].verdict


def test_a_method_that_loses_more_entropy_is_called_so():
    frames = make_frames(methods=("grpo", "clip-cov"), final={"grpo": 0.1, "clip-cov": 0.05})
    grpo, clip_cov = headlines(frames).methods
    assert not clip_cov.keeps_more
    assert clip_cov.verdict.startswith("Clip-Cov does NOT keep more entropy than GRPO, but 0.5")
    assert grpo.verdict.startswith("GRPO ends with 0.10")


def test_seeds_are_averaged_and_counted():
    frames = make_frames(methods=("grpo", "kl-cov"), seeds=(0, 1, 2))
    found = headlines(frames)
    assert found.seeds == 3
    assert found.rmse == pytest.approx(0.02)
    assert found.methods[1].verdict.endswith("more in 3 of 3 seeds.")


def test_the_headlines_are_of_one_training_set_the_one_with_most_runs(frames):
    other = {name: frame.copy() for name, frame in frames.items()}
    for frame in other.values():
        for column in frame.columns.intersection(["run", "train_set"]):
            frame[column] = frame[column].str.replace("chains", "another")
    assert set(other["curves"]["train_set"]).isdisjoint(frames["curves"]["train_set"])
    other["curves"][style.ENTROPY] += 5
    alone = other["curves"]["method"] == "grpo"
    both = {name: pd.concat([frame, other[name]]) for name, frame in frames.items()}
    both["curves"] = pd.concat([other["curves"][alone], frames["curves"]])
    assert headlines(both) == headlines(frames)
    assert headlines(frames).train_set == frames["curves"]["train_set"].iloc[0]


def test_missing_measurements_are_not_numbers(frames, report):
    found = headlines(empty(frames))
    assert np.isnan(found.entropy_end)
    assert found.methods == ()
    table = comparison(empty(frames))
    assert table["ours"].isna().all()
    assert table["paper"].notna().all()
    page = Page(build(replace(report, headlines=found, comparison=table, runs=report.runs.iloc[:0])))
    assert "nan" not in page.text.lower().split()
    assert "No run was found." in page.text

    once = headlines(make_frames(steps=2))  # one validation: no gain can be told, and none is not zero
    assert once.accuracy_start > 0
    assert np.isnan(once.accuracy_gain)

    without_grpo = headlines(make_frames(methods=("kl-cov",), steps=8))
    assert "no GRPO run" in without_grpo.methods[0].verdict


def test_comparison_holds_what_both_have(frames):
    table = comparison(frames).set_index("quantity")
    assert table["paper"].tolist()[:4] == list(fig02.PAPER.values())
    assert table["ours"].tolist()[:4] == pytest.approx([40, 70, 10, 90])
    assert table.loc["Mean covariance at the first step, top 20 % of tokens", "ours"] == pytest.approx(0.8)
    ratio = table.loc["Entropy of KL-Cov over GRPO's, last tenth of training; paper: Qwen2.5-7B"]
    assert ratio["paper"] > 10  # the paper's own claim
    np.testing.assert_allclose(table["difference"], table["ours"] - table["paper"])


def test_entropies_stand_beside_the_papers_of_the_same_model_whatever_the_variant_is_called():
    end = {"grpo": 0.05, "kl-cov-32b": 0.2}
    made = {"kl-cov-32b": settings({"name": "kl-cov"})}
    frames = make_frames(models=("qwen2.5-32b",), methods=tuple(end), final=end, made=made)
    table = comparison(frames).set_index("quantity")
    kl_cov = table.loc["Entropy of KL-Cov over GRPO's, last tenth of training; paper: Qwen2.5-32B"]
    assert kl_cov["ours"] == pytest.approx(headlines(frames).methods[1].ratio)
    seven = comparison(make_frames()).set_index("quantity")
    assert kl_cov["paper"] != seven.loc[kl_cov.name.replace("32B", "7B"), "paper"]


# --- Page ---


def test_page_is_self_contained(report):
    html = build(report)
    page = Page(html)
    assert page.open == []
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "poster", "action", "data"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        if tag == "link":
            assert attributes["href"].startswith("data:")
        if tag == "a":
            assert not re.match(r"(https?:)?//", attributes["href"])
    assert not re.search(r"url\(|@import|https?://", html)
    assert all(meta.get("http-equiv") is None for meta in page.all("meta"))
    assert {"script", "style"} <= {tag for tag, _ in page.tags}


def test_every_figure_has_an_image_with_text_or_says_that_it_is_missing(report):
    page = Page(build(report))
    images = [image for image in page.all("img") if "src" in image]
    assert len(images) == 2
    assert base64.b64decode(images[0]["src"].removeprefix("data:image/png;base64,")) == PNG
    assert base64.b64decode(images[1]["src"].removeprefix("data:image/svg+xml;base64,")) == SVG
    assert images[0]["alt"] == "Fig 1: First. What is shown."
    assert images[1]["width"] == str(round(3.3 * 138))  # one column, in the size of all letters
    assert len(page.all("figure")) == len(page.all("figcaption")) == 4
    assert "Fig 8 is not shown: no strictly on-policy run." in page.text
    assert "Fig 11 is not shown" in page.text
    assert "Forms is not shown: out of date." in page.text
    assert "tiny--chains--grpo--s0" in page.text
    links = {link["href"] for link in page.all("a")}
    assert {"../figures/fig01.csv", "../figures/fig01.pdf", "#figures"} <= links


def test_tables_are_complete_and_escaped(report):
    html = build(report)
    page = Page(html)
    for run in report.runs.itertuples():
        assert run.run in page.text
        assert run.mlflow_run in page.text
    for quantity in report.comparison["quantity"]:
        assert quantity in page.text
    assert "<strong>51.2</strong>" in html
    assert "&lt;b&gt;" in html
    assert "No rows" in page.text
    criteria = [judged.findings for judged in report.claims]
    tables = (report.claims, *criteria, report.comparison, report.runs, [0, 1])
    assert len(page.all("tr")) == sum(1 + len(rows) for rows in tables)
    assert {cell.get("data-sort") for cell in page.all("td")} >= {"51.2", "a", "60.0"}


def test_page_says_what_was_run_and_how_to_repeat_it(report):
    text = Page(build(report)).text
    for wanted in ("tiny", "abc1234", "2025-06-01 12:00", "make run", "3.11", "Scale and task differ"):
        assert wanted in text
    for entry in report.headlines.methods:
        assert entry.verdict in text
    linked = build(replace(report, run_link="../mlflow/{}"))
    assert 'href="../mlflow/id0"' in linked


def test_text_is_never_markup(report):
    assert "<i>x</i>" not in build(replace(report, experiment="<i>x</i>", environment={"<i>x</i>": "<i>x</i>"}))


def test_same_report_gives_same_page(report):
    assert build(report) == build(report)


def test_runs_without_a_column_are_refused(report):
    with pytest.raises(ValueError, match="seconds"):
        build(replace(report, runs=report.runs.drop(columns="seconds")))
