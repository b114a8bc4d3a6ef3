"""An experiment of one's own, whose report shows another experiment of the same results folder."""

import re
import shutil

import pytest
import yaml

MINE = ("--config", "experiment=mine.yaml")


@pytest.fixture(scope="module")
def both(smoke, tmp_path_factory):
    """The finished smoke experiment, and one with two of its trainings, another analysis and fewer figures."""
    workspace = smoke.copy(tmp_path_factory.mktemp("both") / "repository")
    mine = yaml.safe_load((workspace.root / "config/experiments/smoke.yaml").read_text())
    chosen = {kind: {name: mine[kind][name]} for kind, name in (("figures", "fig11"), ("tables", "table2"))}
    mine |= chosen | {"title": "My own"}
    mine["analysis"]["resamples"] = 100
    mine["runs"][0]["methods"] = ["grpo", "kl-cov"]
    mine["evaluation"]["benchmarks"] = {"easy": mine["evaluation"]["benchmarks"]["easy"]}
    (workspace.root / "mine.yaml").write_text(yaml.safe_dump(mine))
    return workspace


def test_what_cannot_be_compared_is_refused_before_any_job(both):
    for other, told in (
        ("tiny", "results of tiny are not there, first results/tiny/analysis/"),
        ("mine.yaml", "mine is the experiment itself"),
        ("smok", "(did you mean 'smoke'?)"),
    ):
        done = both.snakemake("-n", *MINE, f"compare_with={other}", check=False)
        assert done.returncode == 1
        assert "config/config.yaml or --config: compare_with: " in done.stdout
        assert told in done.stdout
    assert (
        "snakemake analysis evaluation --config experiment=tiny"
        in both.snakemake("-n", *MINE, "compare_with=tiny", check=False).stdout
    )


def test_the_report_shows_both_and_follows_the_other(both):
    both.snakemake(*MINE, "compare_with=smoke")
    page = (both.results / "mine/report/index.html").read_text()
    section = page[page.index('<section id="beside">') : page.index('<section id="figures">')]
    assert "Beside smoke" in section
    assert section.count(">1, 1: the same runs<") == 2
    assert "analysis.resamples" in section
    assert re.search(r"\d+ of the claims that both have measured", section)
    assert both.planned(*MINE, "compare_with=smoke") == {}
    law = both.results / "smoke/analysis/nano--train--grpo--s1/law.parquet"
    law.touch()
    assert both.planned(*MINE, "compare_with=smoke") == {}, "the same file is no news"
    shutil.copy(both.results / "smoke/analysis/nano--train--kl-cov--s1/law.parquet", law)
    assert both.planned(*MINE, "compare_with=smoke") == {"report": 1, "all": 1}
    assert both.planned(*MINE) == {"report": 1, "all": 1}, "the page without the comparison is another one"
